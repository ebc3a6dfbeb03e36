"""Writing files whole or not at all: to a temporary file in the same folder, flushed, then renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FRESH = 2_000_000_000  # nanoseconds: FAT counts in steps of two seconds
WRITE_FAILS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
MOST_BYTES = 200  # of a file's name: file systems take 255, and endings and marks of checkpoints are added
RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in range(1, 10))}  # on Windows


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to the disk, then put it in `path`'s place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")  # one name, so that what a kill leaves behind is overwritten next time
    try:
        with naming(path):
            write(part)
            _flush(part)
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Where a write fails for want of room, Python's error does not say to which file; here it does, and safetensors' is turned into Python's."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in WRITE_FAILS:
            error.filename = os.fspath(path)
        raise
    except Exception as error:
        number = re.search(r"\(os error (\d+)\)", str(error)) if type(error).__name__ == "SafetensorError" else None
        if not number:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), os.fspath(path)) from None


def _flush(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """So that a new file's name is on the disk too; not every system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """As UTF-8; file names that are no text keep their bytes."""
    write_whole(path, lambda part: part.write_bytes(text.encode("utf-8", "surrogateescape")))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_folder(folder: Path, fill: Callable[[Path], Any]) -> None:
    """As `write_whole` for a folder that must appear with all its files or not at all. Replaces what was there."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        with naming(folder):
            fill(part)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def until_whole(path: Path) -> Iterator[Path]:
    """A place of the same name, in a folder of its own, to write the file to and to check it; it gets its final place when
    the block ends without an error, and is gone when there was one."""
    folder = path.with_name(f".{path.name}.part")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with naming(path):
            yield folder / path.name
            _flush(folder / path.name)
            os.replace(folder / path.name, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def short_name(name: str, most: int = MOST_BYTES) -> str:
    """A file name cut to `most` bytes; what was cut is told apart by a hash at the end."""
    if len(name.encode("utf-8", "surrogateescape")) <= most:
        return name
    cut = name.encode("utf-8", "surrogateescape")[: most - 9].decode("utf-8", "ignore")
    return f"{cut}-{short_hash(name)[:8]}"


def why_no_name(name: str) -> str | None:
    """Why `name` cannot be a file's name on every system; None when it can."""
    stem = name.split(".")[0].rstrip(" ").upper()
    if not name.strip(". "):
        return "has no letters in it"
    if "/" in name or "\\" in name:
        return "is a path; a name has no slashes"
    if not name.isprintable():
        return "has characters in it that cannot be seen"
    if name[0] in ". " or name[-1] in ". ":
        return "begins or ends with a dot or a space"
    if len(name.encode("utf-8", "surrogateescape")) > MOST_BYTES:
        return f"is longer than {MOST_BYTES} bytes"
    if stem in RESERVED or any(c in '<>:"|?*' for c in name):
        return "is none that Windows takes"
    return None


def remove_parts(folder: Path) -> None:
    """Remove what a killed process left half written in the folder and below it. Links are not followed."""
    for place, folders, names in os.walk(folder):
        for name in [name for name in folders if _is_part(name)]:
            folders.remove(name)
            shutil.rmtree(Path(place) / name, ignore_errors=True)
        for name in names:
            if _is_part(name):
                Path(place, name).unlink(missing_ok=True)


def _is_part(name: str) -> bool:
    return name.startswith(".") and name.endswith(".part")


def folder_state(folder: Path, goes_into: Callable[[os.DirEntry], bool] = lambda entry: False, ending: str = "") -> tuple[str, int]:
    """(fingerprint of a folder, the newest time of any file in it): of every file whose name has the `ending` its name, size, times and
    inode, and of folders the names and, where `goes_into` says so, what lies in them. Nothing is opened. Raises `OSError`."""
    digest, newest = hashlib.blake2b(digest_size=16), 0
    for line, changed in _states_in(os.fspath(folder), goes_into, ending):
        digest.update(line.encode("utf-8", "surrogateescape"))
        newest = max(newest, changed)
    return digest.hexdigest(), newest


def _states_in(folder: str, goes_into: Callable[[os.DirEntry], bool], ending: str) -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as found:
        entries = sorted((entry for entry in found if entry.name.endswith(ending)), key=lambda entry: entry.name)
    for entry in entries:
        facts = entry.stat(follow_symlinks=False)
        link = facts.st_ino if stat.S_ISLNK(facts.st_mode) else 0
        if link:
            with suppress(OSError):  # where it leads nowhere, the link itself
                facts = entry.stat()
        if stat.S_ISDIR(facts.st_mode):
            yield f"{entry.name}\0{link}\0", 0
            if not link and goes_into(entry):
                yield from _states_in(entry.path, goes_into, ending)
                yield "\0\0", 0
        else:
            state = f"{entry.name}\0{link} {facts.st_mode} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns} {facts.st_ino}\0"
            yield state, max(facts.st_mtime_ns, facts.st_ctime_ns)


def would_show(newest: int) -> bool:
    """Whether one more change of files that were last changed then would show in their times, which a system counts in steps."""
    return newest < time.time_ns() - FRESH


def is_plain_name(name: Any) -> bool:
    """Whether `name`, read from a file that others may have written, names something in a folder and nowhere else."""
    return isinstance(name, str) and name.strip() not in ("", ".", "..") and len(os.fsencode(name)) < 256 and not set(name) & set("/\\:\0")


def without_folders(value: Any) -> Any:
    """For what is passed on: of a path on this machine, its last name."""
    return re.split(r"[/\\]", value.rstrip("/\\"))[-1] if isinstance(value, str) and re.match(r"[/~\\]|[A-Za-z]:[/\\]", value) else value


def file_hash(path: Path) -> str:
    """BLAKE2b over the file's bytes, 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def short_hash(*facts: Any) -> str:
    """BLAKE2b over the JSON of `facts`, 16 hex digits."""
    return hash_of_texts([as_fact(facts)])


def as_fact(value: Any) -> str:
    """The JSON of which `short_hash` takes the hash."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def hash_of_texts(texts: Iterable[str]) -> str:
    """BLAKE2b over one text that is given in parts, 16 hex digits."""
    digest = hashlib.blake2b(digest_size=8)
    for text in texts:
        digest.update(text.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
