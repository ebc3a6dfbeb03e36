"""Captions in one list for a folder, as kohya, ai-toolkit, Hugging Face, COCO and spreadsheets write them: what a list says of
which photo, whatever its separator, its columns and the folders that it puts before the names."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lorakit.console import warn
from lorakit.text.cleaning import TEXT_KEYS, plain_key, texts_of
from lorakit.text.conventions import same
from lorakit.text.lines import split_lines

# The first that names a photo wins; behind them, any other table or list of these endings.
NAMES = ("metadata.jsonl", "captions.jsonl", "metadata.json", "captions.json", "meta_cap.json", "metadata.csv", "metadata.parquet")
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".txt", ".parquet")
NAME_KEYS = (
    "file_name", "filename", "file", "image", "path", "image_name", "image_path", "image_file", "img", "img_name", "img_path", "filepath",
    "file_path", "full_path", "photo", "picture", "imagename", "name", "key", "url", "id",
)  # fmt: skip
MOST_BYTES = 64 << 20
_ENDING = r"\.(?:jpe?g|jpe|jfif|png|webp|tiff?|bmp|gif|avif|hei[cf]|hif|jp2)"
PICTURE = re.compile(rf"{_ENDING}$", re.IGNORECASE)
# 'a.jpg: a bear', 'a.jpg<tab>a bear', and as Flickr's lists 'a.jpg#0 a bear'
_LINE = re.compile(rf"^\s*[\"']?(?P<name>[^\t|;:,\"']*?{_ENDING})[\"']?(?:#\d+)?(?:\s*[\t|;:,=]\s*|\s+)(?P<text>\S.*)$", re.IGNORECASE)
LIKE_A_LIST = 0.8  # share of the lines of a text that name a photo


@dataclass
class CaptionList:
    """A list and what it says: `entries` are (name as it stands there, its captions)."""

    path: Path
    entries: list[tuple[str, list[str]]]
    columns: list[str] = field(default_factory=list)  # of a table in which no column of names, or of texts, is known


def read_list(path: Path) -> CaptionList | None:
    """A list of captions, None for a file that is none. What is no entry of a photo is passed over."""
    try:
        if is_too_large(path, MOST_BYTES):
            return None
        entries, columns = _entries(path)
    except OSError as error:
        pass_over(str(path), f"cannot be read ({error.strerror})")
        return None
    named: dict[str, list[str]] = {}
    for name, texts in entries:
        if name and texts:
            known = named.setdefault(name, [])
            known += [text for text in texts if text not in known]
    if not named and not columns:
        return None
    return CaptionList(path, list(named.items()), [] if named else columns)


def _entries(path: Path) -> tuple[list[tuple[str, list[str]]], list[str]]:
    """([(name, captions)], columns of a table that has none of names or texts)."""
    ending = path.suffix.lower()
    if ending == ".parquet":
        rows, columns = _parquet_rows(path)
    elif ending in (".csv", ".tsv"):
        rows, columns = _table_rows(path, read_text(path))
    elif ending in (".jsonl", ".ndjson"):
        lines = enumerate(read_text(path).split("\n"), 1)
        rows = [json_or_none(line, f"{path}, line {number}") for number, line in lines if line.strip()]
        columns = sorted({str(key) for row in rows if isinstance(row, dict) for key in row})[:20]
    elif ending == ".json":
        rows, columns = _json_rows(json_or_none(read_text(path), str(path))), []
    else:
        return _lines(read_text(path)), []
    return [(_name_of(row), _caption_of(row)) for row in rows if isinstance(row, dict)], columns


def _lines(text: str) -> list[tuple[str, list[str]]]:
    """The entries of a text whose lines name photos: 'a.jpg: a bear'."""
    lines = [line for line in split_lines(text) if line.strip()]
    found = [match for line in lines if (match := _LINE.match(line))]
    if len(found) < LIKE_A_LIST * len(lines):
        return []
    return [(_plain_name(match["name"]), texts_of(match["text"].strip().strip("\"'"))) for match in found]


def _json_rows(found: Any) -> list[Any]:
    """The entries of a JSON list: {"photo.jpg": "text"}, kohya's {"folder/photo": {...}}, a list of entries, or COCO's two lists."""
    if isinstance(found, dict) and isinstance(found.get("images"), list) and isinstance(found.get("annotations"), list):
        names = {image.get("id"): image.get("file_name") for image in found["images"] if isinstance(image, dict)}
        told = [note for note in found["annotations"] if isinstance(note, dict)]
        return [{"file_name": names.get(note.get("image_id")), "text": note.get("caption")} for note in told]
    if isinstance(found, dict):
        for key in ("data", "images", "captions", "items", "annotations", "rows", "entries"):
            if isinstance(found.get(key), list) and all(isinstance(row, dict) for row in found[key]):
                return found[key]
        return [{**(value if isinstance(value, dict) else {"text": value}), "file_name": name} for name, value in found.items()]
    return found if isinstance(found, list) else []


def _parquet_rows(path: Path) -> tuple[list[Any], list[str]]:
    """The rows of a parquet file, its columns of names and texts; none where it cannot be read."""
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:  # by its own name; `read_table` would take folders and patterns
            names = file.schema_arrow.names
            columns = [name for name in names if plain_key(name) in NAME_KEYS or any(key in plain_key(name) for key in TEXT_KEYS)]
            groups = (file.metadata.row_group(number) for number in range(file.num_row_groups))
            if sum(group.total_byte_size for group in groups) > 8 * MOST_BYTES:
                pass_over(str(path), "too large for a list of captions")
                return [], []
            return file.read(columns=columns).to_pylist(), list(names)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        pass_over(str(path), f"cannot be read ({error})")
        return [], []


def _table_rows(path: Path, text: str) -> tuple[list[dict[str, str]], list[str]]:
    """The rows of a table with whatever separator, with or without a line of column names, and the names that it has."""
    separator = ""
    if match := re.match(r"\s*\"?sep=(.)\"?\r?\n", text):  # a word to Excel
        separator, text = match.group(1), text[match.end() :]
    head = next((line for line in split_lines(text) if line.strip()), "")
    separator = separator or _separator(head)
    rows = _cells(path, text, separator)
    if not rows:
        return [], []
    columns = [plain_key(cell) for cell in rows[0]]
    if not any(key in NAME_KEYS for key in columns):
        if len(rows[0]) >= 2 and PICTURE.search(rows[0][0].strip()):  # no line of names: photo and text
            return [{"file_name": row[0], "text": separator.join(row[1:])} for row in rows if len(row) > 1], []
        return [], [cell.strip() for cell in rows[0]]
    if len(columns) == 2 and not any(texts_of({key: "words"}) for key in columns if key not in NAME_KEYS):
        columns = [key if key in NAME_KEYS else "text" for key in columns]  # the other one of two
    return [dict(zip(columns, row, strict=False)) for row in rows[1:]], [cell.strip() for cell in rows[0]]


def _separator(head: str) -> str:
    """What stands between the columns: that by which the first line has a name that is known, or is cut into most cells."""

    def worth(separator: str) -> tuple[bool, int]:
        cells = next(csv.reader([head], delimiter=separator), [])
        known = any(plain_key(cell) in NAME_KEYS for cell in cells) or bool(cells and PICTURE.search(cells[0].strip()))
        return known and len(cells) > 1, len(cells)

    try:
        return max((",", ";", "\t", "|"), key=worth)
    except csv.Error:  # a field of more than 128 KB
        return ","


def _cells(path: Path, text: str, separator: str) -> list[list[str]]:
    rows, reader = [], csv.reader(io.StringIO(text), delimiter=separator)
    while True:
        try:
            if row := next(reader):
                rows.append(row)
        except StopIteration:
            return rows
        except csv.Error as error:  # a field of more than 128 KB
            pass_over(f"{path}, line {reader.line_num}", str(error))


def _name_of(row: dict) -> str:
    """The photo's file name, with the folders that some lists put before it."""
    named = {plain_key(str(key)): value for key, value in row.items()}
    for key in NAME_KEYS:
        value = named.get(key)
        value = value.get("path") if isinstance(value, dict) else str(value) if key == "id" and isinstance(value, int) else value
        if isinstance(value, str) and value.strip():
            return _plain_name(value)
    return ""


def _plain_name(name: str) -> str:
    """'D:\\\\x\\\\a.jpg' and 'https://host/x/a.jpg?size=2' as 'x/a.jpg' and 'host/x/a.jpg'."""
    name = name.strip().replace("\\", "/")
    if match := re.match(r"(?:https?|file|s3|gs)://+", name):
        name = unquote(re.split(r"[?#]", name[match.end() :])[0])
    return re.sub(r"^(?:[A-Za-z]:)?(?:\.?/)*", "", name)


def _caption_of(row: dict) -> list[str]:
    return texts_of({key: value for key, value in row.items() if isinstance(key, str) and plain_key(key) not in ("file_name", "image")})


def by_names(photos: list[Path]) -> dict[str, list[Path]]:
    """Photos by their names with and without ending, as names are compared."""
    named: dict[str, list[Path]] = defaultdict(list)
    for photo in photos:
        named[same(photo.name)].append(photo)
        named[same(photo.stem)].append(photo)
    return named


def match_list(found: CaptionList, by_name: dict[str, list[Path]]) -> tuple[dict[Path, list[str]], list[str]]:
    """({photo: its captions}, names for which there is no photo or more than one). `by_name` has those that the list may speak of. A
    photo is known by its name without case and in one Unicode form, by the folders before it where several are called alike."""
    claims: dict[Path, list[tuple[int, str, list[str]]]] = defaultdict(list)
    lost = []
    for name, texts in found.entries:
        parts = [same(part) for part in name.split("/") if part]
        named = by_name.get(parts[-1]) or by_name.get(PICTURE.sub("", parts[-1])) or []
        depth = {photo: _common_end(parts, photo) for photo in named}
        best = [photo for photo in named if depth[photo] == max(depth.values())]
        if not best or len({photo.parent for photo in best}) > 1:
            lost.append(name)
        for photo in best if name not in lost[-1:] else ():
            claims[photo].append((depth[photo], name, texts))
    matched = {}
    for photo, told in claims.items():
        nearest = max(depth for depth, _, _ in told)
        same_depth = [(name, texts) for depth, name, texts in told if depth == nearest]
        if len({tuple(texts) for _, texts in same_depth}) == 1:
            matched[photo] = same_depth[0][1]
        elif len({same(name) for name, _ in same_depth}) == 1:  # the same name in several lines
            matched[photo] = list(dict.fromkeys(text for _, texts in same_depth for text in texts))
        else:
            lost += [name for name, _ in same_depth]
    return matched, lost


def _common_end(parts: list[str], photo: Path) -> int:
    """How many folders above a photo are those that its name in the list has."""
    folders = [same(part) for part in photo.parent.parts]
    count = 0
    while count < min(len(parts) - 1, len(folders)) and parts[-2 - count] == folders[-1 - count]:
        count += 1
    return count


def is_too_large(path: Path, most: int) -> bool:
    if (size := path.stat().st_size) > most:
        pass_over(str(path), f"{size / 2**20:,.1f} MB, and {most >> 20} MB is the most that is read for captions")
    return size > most


@lru_cache(maxsize=4096)
def pass_over(place: str, why: str) -> None:
    """Say once what is not read."""
    warn(f"{place}: {why}; passed over")


def json_or_none(text: str, place: str) -> Any:
    """None, with a word, for what is no JSON, nests too deeply or holds numbers of thousands of digits."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.strip():
            pass_over(place, f"no JSON that can be read ({error})")
        return None


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
