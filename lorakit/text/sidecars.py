"""Captions that people already have: beside a photo (.txt, .caption, .json) or in one list for the folder, as kohya,
ai-toolkit and Hugging Face write them; kohya's sub-folders `10_name`, whose number says how often a photo is used; and masks
of what is to be learned."""

from __future__ import annotations

import csv
import io
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

ENDINGS = (".txt", ".caption", ".json")
LISTS = ("metadata.jsonl", "captions.jsonl", "metadata.json", "captions.json", "meta_cap.json", "metadata.csv", "metadata.parquet")
TEXT_KEYS = ("text", "caption", "prompt", "caption_short", "tags")  # the first that has words is taken
NAME_KEYS = ("file_name", "filename", "file", "image", "path")
MASKS = ("-masklabel.png", "_mask.png", ".mask.png")  # behind a photo's name without its ending; the first is OneTrainer's
_REPEATS = re.compile(r"^(\d+)_\S")

Found = tuple[str, str]  # the text, and the name of the file that holds it


def find_caption(photo: Path, root: Path | None = None) -> Found | None:
    """(text, name of the file that holds it) of the caption that belongs to a photo, or None. Lists are looked for beside the
    photo and, up to the folder `root`, above it, where they must name the photo with its sub-folders."""
    for ending in ENDINGS:
        for path in (photo.with_suffix(ending), photo.with_name(photo.name + ending)):
            if path != photo and path.is_file() and (text := _read_caption(path)):
                return text, path.name
    for folder in _up_to(photo.parent, root):
        inside = photo.relative_to(folder)
        for name in LISTS:
            found = read_metadata(folder / name)
            if hit := found.get(inside.as_posix()) or found.get(inside.with_suffix("").as_posix()):
                return hit
    return None


def _up_to(folder: Path, root: Path | None) -> list[Path]:
    """A folder and those above it, up to `root`."""
    return [folder, *(above for above in folder.parents if root and above.is_relative_to(root))]


def _read_caption(path: Path) -> str:
    if path.suffix != ".json":
        return " ".join(read_text(path).split())
    try:
        return _text_of(json.loads(read_text(path)))
    except json.JSONDecodeError:
        return ""


@lru_cache(maxsize=64)
def read_metadata(path: Path) -> dict[str, Found]:
    """{photo name: (text, name of the list)} of a folder's list, each photo both with the folders that the list puts
    before it and without; what is no entry of a photo is passed over. Kohya's lists name photos without their ending."""
    if not path.is_file():
        return {}
    named = [(_name_of(entry), _text_of(entry)) for entry in _entries(path)]
    found = {name: (text, path.name) for name, text in named if name and text}
    return {name.rpartition("/")[2]: text for name, text in found.items()} | found


def _entries(path: Path) -> list[Any]:
    """The entries of a list, each a mapping that holds a photo's name and its text."""
    if path.suffix == ".parquet":
        return _rows(path)
    text = read_text(path)
    if path.suffix == ".csv":
        return list(csv.DictReader(io.StringIO(text)))
    if path.suffix == ".jsonl":
        return [entry for line in text.splitlines() if (entry := _json_or_none(line)) is not None]
    found = _json_or_none(text)
    if isinstance(found, dict):  # {"photo.jpg": "text"} or kohya's {"folder/photo": {"caption": ..., "tags": ...}}
        return [{**(value if isinstance(value, dict) else {"text": value}), "file_name": name} for name, value in found.items()]
    return found if isinstance(found, list) else []


def _rows(path: Path) -> list[Any]:
    """The rows of a parquet file; none where it cannot be read."""
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError):
        return []


def _json_or_none(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None


def _name_of(entry: Any) -> str:
    """The photo's file name, with the folders that some lists put before it."""
    names = [entry[key] for key in NAME_KEYS if isinstance(entry.get(key), str)] if isinstance(entry, dict) else []
    return names[0].replace("\\", "/").removeprefix("./") if names else ""


def _text_of(entry: Any) -> str:
    """The words of an entry as one line: a text, or a list of tags."""
    if isinstance(entry, dict):
        return next((text for key in TEXT_KEYS if (text := _text_of(entry.get(key)))), "")
    if isinstance(entry, list):
        return ", ".join(part for part in map(_text_of, entry) if part)
    return " ".join(entry.split()) if isinstance(entry, str) else ""


def read_text(path: Path) -> str:
    """A text file as people have them: UTF-8 or UTF-16, with or without BOM, else Windows' Latin-1."""
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    if b"\0" in data:  # in no text but one of two bytes a letter; the empty byte of Latin letters tells their order
        return data.decode("utf-16-le" if data[1::2].count(0) >= data[::2].count(0) else "utf-16-be", errors="replace")
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


def find_mask(photo: Path) -> Path | None:
    """The picture beside a photo that says what of it is to be learned: white is, black is not."""
    return next((path for ending in MASKS if (path := photo.with_name(photo.stem + ending)).is_file()), None)


def masked_name(name: str) -> str | None:
    """The name, without ending, of the photo that a file of this name would be the mask of."""
    return next((name[: -len(ending)] for ending in MASKS if name.lower().endswith(ending)), None)


def repeats_of(photo: Path, root: Path) -> int:
    """How often a photo is used an epoch: the number before the first `_` of its kohya folder, else 1."""
    folders = [root, *(root / part for part in photo.relative_to(root).parent.parts)]
    for folder in reversed(folders):
        if match := _REPEATS.match(folder.name):
            return max(1, int(match.group(1)))
    return 1
