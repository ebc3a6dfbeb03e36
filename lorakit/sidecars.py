"""Captions that people already have: beside a photo (`photo.txt`, `photo.caption`) or in the folder's `metadata.jsonl`;
and kohya's sub-folders `10_name`, whose number says how often each photo is used."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path

ENDINGS = (".txt", ".caption")
_REPEATS = re.compile(r"^(\d+)_\S")


def find_caption(photo: Path) -> tuple[str, str] | None:
    """(text, name of the file that holds it) of the caption that belongs to a photo, or None."""
    for ending in ENDINGS:
        for path in (photo.with_suffix(ending), photo.with_name(photo.name + ending)):
            if path.is_file():
                return " ".join(read_text(path).split()), path.name
    return read_metadata(photo.parent / "metadata.jsonl").get(photo.name)


@lru_cache(maxsize=64)
def read_metadata(path: Path) -> dict[str, tuple[str, str]]:
    """{photo name: (text, 'metadata.jsonl')} of a Hugging Face imagefolder's list; lines that are no JSON are passed over."""
    found: dict[str, tuple[str, str]] = {}
    if not path.is_file():
        return found
    for line in read_text(path).splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("file_name"), str):
            text = next((entry[key] for key in ("text", "caption", "prompt") if isinstance(entry.get(key), str)), None)
            if text:
                found[entry["file_name"]] = (" ".join(text.split()), path.name)
    return found


def read_text(path: Path) -> str:
    """A text file as people have them: UTF-8 (with or without BOM), UTF-16 with BOM, else Latin-1."""
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def repeats_of(photo: Path, root: Path) -> int:
    """How often a photo is used an epoch: the number before the first `_` of its kohya folder, else 1."""
    folders = [root, *(root / part for part in photo.relative_to(root).parent.parts)]
    for folder in reversed(folders):
        if match := _REPEATS.match(folder.name):
            return max(1, int(match.group(1)))
    return 1
