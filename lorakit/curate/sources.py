"""Where photos may come from besides a folder: a zip or tar archive, unpacked into the project's cache, and a text file
that lists photos, one path a line. Datasets are read by `hf_datasets`."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from lorakit import files
from lorakit.errors import LorakitError

MOST_BYTES = 32 << 30  # unpacked; an archive that claims more is taken for a bomb


def is_archive(path: Path) -> bool:
    return path.is_file() and (zipfile.is_zipfile(path) or tarfile.is_tarfile(path))


def unpack(archive: Path, cache: Path) -> Path:
    """The folder below `cache` that holds the archive's files, unpacked once per content. Raises `LorakitError`."""
    facts = archive.stat()
    folder = cache / "photos" / f"{archive.stem}-{files.short_hash(str(archive), facts.st_size, facts.st_mtime_ns)}"
    if not folder.is_dir():
        try:
            files.write_folder(folder, lambda part: _fill(part, archive))
        except (zipfile.BadZipFile, tarfile.TarError, RuntimeError, EOFError, OSError) as error:
            raise LorakitError(f"{archive}: cannot be unpacked ({error}); unpack it yourself and give the folder") from None
    return folder


def _fill(folder: Path, archive: Path) -> None:
    left = MOST_BYTES
    for name, size, content in _members(archive):
        left -= size
        if left < 0:
            raise LorakitError(f"{archive}: it would unpack to more than {MOST_BYTES >> 30} GB; unpack it yourself and give the folder")
        inside = PurePosixPath(name.replace("\\", "/"))
        if inside.is_absolute() or ".." in inside.parts or ":" in name:
            continue  # a name that points out of the folder
        path = folder / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        with content, open(path, "wb") as out:
            shutil.copyfileobj(content, out)


def _members(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """(name, bytes, content) of every regular file in a zip or tar; links and devices are passed over."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for entry in opened.infolist():
                if not entry.is_dir():
                    yield entry.filename, entry.file_size, opened.open(entry)
        return
    with tarfile.open(archive) as opened:
        for entry in opened:
            if entry.isreg():
                content = opened.extractfile(entry)
                assert content is not None  # as for every regular file
                yield entry.name, entry.size, content


def listed(path: Path) -> list[Path]:
    """The files that a text file names, relative ones from where it lies. Raises `LorakitError` when one does not exist."""
    lines = _text(path).split("\n")
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
