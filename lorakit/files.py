"""Writing files whole or not at all: to a temporary file in the same folder, flushed, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to the disk, then put it in `path`'s place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")  # one name, so that what a kill leaves behind is overwritten next time
    try:
        write(part)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


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
    fill(part)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)


def is_plain_name(name: Any) -> bool:
    """Whether `name`, read from a file that others may have written, names something in a folder and nowhere else."""
    return isinstance(name, str) and name.strip() not in ("", ".", "..") and len(os.fsencode(name)) < 256 and not set(name) & set("/\\:\0")


def file_hash(path: Path) -> str:
    """BLAKE2b over the file's bytes, 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def short_hash(*facts: Any) -> str:
    """BLAKE2b over the JSON of `facts`, 16 hex digits."""
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
