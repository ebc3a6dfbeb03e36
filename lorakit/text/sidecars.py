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

from lorakit.console import warn

ENDINGS = (".txt", ".caption", ".json")
LISTS = ("metadata.jsonl", "captions.jsonl", "metadata.json", "captions.json", "meta_cap.json", "metadata.csv", "metadata.parquet")
TEXT_KEYS = ("text", "caption", "prompt", "caption_short", "tags")  # the first that has words is taken
NAME_KEYS = ("file_name", "filename", "file", "image", "path")
MASKS = ("-masklabel.png", "_mask.png", ".mask.png")  # behind a photo's name without its ending; the first is OneTrainer's
MOST_BYTES = 1 << 20  # of a text beside a photo
MOST_IN_LIST = 64 << 20  # of a folder's list
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
    if _is_too_large(path, MOST_BYTES):
        return ""
    text = read_text(path)
    return _text_of(_json_or_none(text, str(path))) if path.suffix == ".json" else " ".join(text.split())


def _is_too_large(path: Path, most: int) -> bool:
    if (size := path.stat().st_size) > most:
        pass_over(str(path), f"{size / 2**20:,.1f} MB, and {most >> 20} MB is the most that is read for captions")
    return size > most


@lru_cache(maxsize=4096)
def pass_over(place: str, why: str) -> None:
    """Say once what is not read: a list is asked for every photo."""
    warn(f"{place}: {why}; passed over")


@lru_cache(maxsize=64)
def read_metadata(path: Path) -> dict[str, Found]:
    """{photo name: (text, name of the list)} of a folder's list, each photo both with the folders that the list puts
    before it and without; what is no entry of a photo is passed over. Kohya's lists name photos without their ending."""
    if not path.is_file() or _is_too_large(path, MOST_IN_LIST):
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
        return _csv_rows(path, text)
    if path.suffix == ".jsonl":
        lines = ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
        return [entry for number, line in lines if (entry := _json_or_none(line, f"{path}, line {number}")) is not None]
    found = _json_or_none(text, str(path))
    if isinstance(found, dict):  # {"photo.jpg": "text"} or kohya's {"folder/photo": {"caption": ..., "tags": ...}}
        return [{**(value if isinstance(value, dict) else {"text": value}), "file_name": name} for name, value in found.items()]
    return found if isinstance(found, list) else []


def _rows(path: Path) -> list[Any]:
    """The rows of a parquet file, its columns of names and texts; none where it cannot be read."""
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:  # by its own name; `read_table` would take folders and patterns
            columns = [name for name in file.schema_arrow.names if name in (*NAME_KEYS, *TEXT_KEYS)]
            groups = (file.metadata.row_group(number) for number in range(file.num_row_groups))
            if sum(group.total_byte_size for group in groups) > 8 * MOST_IN_LIST:
                pass_over(str(path), "too large for a list of captions")
                return []
            return file.read(columns=columns).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        pass_over(str(path), f"cannot be read ({error})")
        return []


def _csv_rows(path: Path, text: str) -> list[Any]:
    rows, reader = [], csv.DictReader(io.StringIO(text))
    while True:
        try:
            rows.append(next(reader))
        except StopIteration:
            return rows
        except csv.Error as error:  # a field of more than 128 KB
            pass_over(f"{path}, line {reader.line_num + 1}", str(error))


def _json_or_none(text: str, place: str) -> Any:
    """None, with a word, for what is no JSON, nests too deeply or holds numbers of thousands of digits."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.strip():
            pass_over(place, f"no JSON that can be read ({error})")
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
    return " ".join(_whole(entry).split()) if isinstance(entry, str) else ""


def _whole(text: str) -> str:
    """Halves of letters that JSON lets stand, as in a caption cut within an emoji, can be written to no file."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def read_text(path: Path) -> str:
    """A text file as people have them: UTF-8 or UTF-16, with or without BOM, else Windows' Latin-1."""
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    if 0 < data.count(0) < len(data) / 8 and _is_utf8(data):  # an empty byte in a text, not a text of two bytes a letter
        data = data.replace(b"\0", b"")
    if b"\0" in data:  # in no text but one of two bytes a letter; the empty byte of Latin letters tells their order
        return data.decode("utf-16-le" if data[1::2].count(0) >= data[::2].count(0) else "utf-16-be", errors="replace")
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


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
