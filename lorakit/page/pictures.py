"""Photos as the browser gets them: decoded by us, upright, sRGB, and encoded anew; never the file itself. Kept by content, made by two
threads, what was asked for last first."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from lorakit import files
from lorakit.photos.decode import load_image, load_reduced
from lorakit.photos.images import thumbnail
from lorakit.photos.remote import Remote

SIDES = {"thumb": 320, "view": 1600, "full": 0}  # pixels of the longer side; 0 is all of them
QUALITY = {"thumb": 78, "view": 88, "full": 92}
KEPT = ("thumb", "view")
WORKERS = 2
VERSION = 1  # of what is kept


class Pictures:
    """`folder` is where they are kept; what cannot be kept is made anew every time."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._waiting: list[tuple[Future[bytes], Callable[[], bytes]]] = []
        self._there = threading.Condition()
        for number in range(WORKERS):
            threading.Thread(target=self._work, name=f"pictures {number}", daemon=True).start()

    def get(self, path: Path | Remote, content: str, longest: int, kind: str) -> Future[bytes]:
        """The JPEG of a photo whose content has this hash and whose longer side so many pixels (0: not known). It fails with
        `UnreadablePhoto`."""
        place, found = self._place(content, kind), Future[bytes]()
        if (kept := self.kept(content, kind)) is not None:
            found.set_result(kept)
            return found
        with self._there:
            self._waiting.append((found, lambda: _make(path, longest, kind, place)))
            self._there.notify()
        return found

    def kept(self, content: str, kind: str) -> bytes | None:
        """The JPEG where it has been made already."""
        try:
            return self._place(content, kind).read_bytes() if kind in KEPT else None
        except OSError:
            return None

    def _place(self, content: str, kind: str) -> Path:
        name = files.short_hash(content, VERSION)
        return self.folder / kind / name[:2] / f"{name}.jpg"

    def _work(self) -> None:
        while True:
            with self._there:
                while not self._waiting:
                    self._there.wait()
                future, make = self._waiting.pop()  # the newest: what is looked at now
            if not future.set_running_or_notify_cancel():
                continue  # the browser has gone on
            try:
                future.set_result(make())
            except Exception as error:  # told to who waits for it; the next picture is made all the same
                future.set_exception(error)


def _make(path: Path | Remote, longest: int, kind: str, place: Path) -> bytes:
    side = SIDES[kind]
    whole = load_reduced(path, min(1.0, side / longest))[0] if side and longest else load_image(path)
    buffer = io.BytesIO()
    (thumbnail(whole, side) if side else whole).save(buffer, "JPEG", quality=QUALITY[kind])
    body = buffer.getvalue()
    if kind in KEPT:
        with suppress(OSError):  # a full disk, or one that can only be read: made anew the next time
            part = place.with_name(f".{place.name}.{threading.get_native_id()}.part")  # another may make the same
            place.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(body)
            os.replace(part, place)  # not flushed to the disk: it can be made again
    return body
