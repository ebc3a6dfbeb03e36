"""Where photos may come from besides a folder: a zip or tar archive, unpacked into the project's cache, and a text file
that lists photos, one path a line. Datasets are read by `hf_datasets`."""

from __future__ import annotations

import errno
import json
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from lorakit import files
from lorakit.console import warn
from lorakit.errors import LorakitError
from lorakit.photos.decode import MAX_BYTES
from lorakit.photos.remote import check_list

MOST_BYTES = 32 << 30  # unpacked; an archive that claims more is taken for a bomb
MOST_MEMBERS = 1_000_000
REFUSED = "with a name that is refused (a colon, or out of the archive)"
LEFT_OUT = ".left_out.json"  # beside what was unpacked: what was not


def is_archive(path: Path) -> bool:
    return path.is_file() and (zipfile.is_zipfile(path) or tarfile.is_tarfile(path))


def unpack(archive: Path, cache: Path) -> Path:
    """The folder below `cache` that holds the archive's files, unpacked once per content. Raises `LorakitError`."""
    folder = folder_for(archive, cache)
    if not folder.is_dir():
        try:
            files.write_folder(folder, lambda part: _fill(part, archive))
            note_unpacked(archive, folder)
        except (zipfile.BadZipFile, tarfile.TarError, RuntimeError, EOFError, OSError, zlib.error, lzma.LZMAError, ValueError) as error:
            raise LorakitError(f"{archive}: cannot be unpacked ({error}); unpack it yourself and give the folder") from None
    return folder


def folder_for(source: Path, cache: Path) -> Path:
    """Where the pictures of an archive or a table lie once they are unpacked: of another size or time in another folder. One that was
    replaced, and has kept both, is unpacked anew: the folder is taken away."""
    facts = source.stat()
    folder = cache / "photos" / f"{source.stem[:60]}-{files.short_hash(str(source), facts.st_size, facts.st_mtime_ns)}"
    with suppress(OSError, ValueError):  # a former version has noted nothing
        if int(_note(folder).read_text()) != facts.st_ctime_ns:
            shutil.rmtree(folder, ignore_errors=True)
    return folder


def note_unpacked(source: Path, folder: Path) -> None:
    files.write_text(_note(folder), str(source.stat().st_ctime_ns))


def _note(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.changed")


def left_out(folder: Path) -> dict[str, list[str]]:
    """{why: members} of an unpacked archive that were not written."""
    path = folder / LEFT_OUT
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _fill(folder: Path, archive: Path) -> None:
    """Write what may be written; a member that is damaged, too large or badly named is said and passed over."""
    left, written, wrong = MOST_BYTES, 0, ""
    out: dict[str, list[str]] = {}  # {why: members that are not written}
    for number, (name, size, open_member) in enumerate(_members(archive)):
        if number >= MOST_MEMBERS:
            raise LorakitError(f"{archive}: more than {MOST_MEMBERS:,} files; unpack it yourself and give the folder")
        inside = name_inside(name)
        if inside is None:
            out.setdefault(REFUSED, []).append(name)
            continue
        if size > MAX_BYTES:
            warn(f"{archive}: {name}: {size >> 20} MB is more than a photo has; passed over")
            out.setdefault("too large for a photo", []).append(name)
            continue
        left -= size
        if left < 0:
            raise LorakitError(f"{archive}: it would unpack to more than {MOST_BYTES >> 30} GB; unpack it yourself and give the folder")
        try:
            _write(folder / inside, open_member)
            written += 1
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise
            wrong = _told(archive, name, error)
            out.setdefault("damaged in the archive", []).append(name)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
            wrong = _told(archive, name, error)
            out.setdefault("damaged in the archive", []).append(name)
    if out:
        files.write_json(folder / LEFT_OUT, out)
    if wrong and not written:
        raise LorakitError(f"{archive}: cannot be unpacked, not one of its files ({wrong}); unpack it yourself and give the folder")


def name_inside(name: str) -> PurePosixPath | None:
    """A member's name as a path within its archive; None for one that points out of it."""
    inside = PurePosixPath(name.replace("\\", "/"))
    return None if inside.is_absolute() or ".." in inside.parts or ":" in name or not inside.parts else inside


def _told(archive: Path, name: str, error: Exception) -> str:
    reason = (getattr(error, "strerror", None) or str(error)) or type(error).__name__
    warn(f"{archive}: {name}: cannot be unpacked ({reason}); passed over")
    return reason


def _write(path: Path, open_member: Callable[[], Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open_member() as content, open(path, "wb") as out:
            shutil.copyfileobj(content, out)
    except BaseException:
        with suppress(OSError, ValueError):  # half a picture would be taken for a damaged photo
            path.unlink()
        raise


def _members(archive: Path) -> Iterator[tuple[str, int, Callable[[], Any]]]:
    """(name, bytes, how it is opened) of every regular file in a zip or tar; links and devices are passed over."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for entry in opened.infolist():
                if not entry.is_dir():
                    yield entry.filename, entry.file_size, partial(opened.open, entry)
        return
    with tarfile.open(archive) as opened:
        for entry in opened:
            if entry.isreg():
                yield entry.name, entry.size, partial(opened.extractfile, entry)
        _read_to_its_end(opened, archive)


def _read_to_its_end(opened: tarfile.TarFile, archive: Path) -> None:
    """A compressed tar is checked by the sum at its very end, and `tarfile` ends without a word at a header that is damaged."""
    stream: Any = opened.fileobj
    stream.seek(opened.offset)
    left, more = MOST_BYTES, False
    while left > 0 and (block := stream.read(1 << 20)):
        more = more or any(block)
        left -= len(block)
    if more:
        warn(f"{archive}: damaged behind its first {len(opened.getmembers())} members; what comes after them is left out")


def listed(path: Path) -> list[Path]:
    """The files that a text file names, relative ones from where it lies. Raises `LorakitError` when one does not exist."""
    lines = _text(path).split("\n")
    check_list(lines, path)
    named = [(number, path.parent / line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    for number, photo in named:
        if not photo.is_file():
            raise LorakitError(f"{path}, line {number}: no file {photo}; each line is the path of one photo")
    return [photo for _, photo in named]


def _text(path: Path) -> str:
    """The list's text; names that are no UTF-8 keep their bytes, and PowerShell writes UTF-16."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LorakitError(f"{path}: cannot be read ({error.strerror}); give a folder, an archive or a list of photos") from None
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    if b"\0" in data:
        raise LorakitError(f"{path}: neither a photo, a folder, a zip or tar archive, nor a text file that lists photos")
    return data.decode("utf-8-sig", "surrogateescape")
