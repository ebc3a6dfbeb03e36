"""Photos from Hugging Face datasets: parquet and arrow files, and datasets of the hub by their names. The pictures' own
bytes are written into the project's cache, and the words beside them into a metadata.jsonl, where scan finds both."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from lorakit import files
from lorakit.console import say, track, warn
from lorakit.curate.sources import MOST_BYTES, folder_for, note_unpacked
from lorakit.errors import LorakitError
from lorakit.photos.decode import MAX_BYTES, NAME_ENDINGS, sniff_bytes
from lorakit.text.sidecars import TEXT_KEYS

if TYPE_CHECKING:
    import pyarrow
    from datasets import IterableDataset

TABLES = (".parquet", ".arrow")
CAPTIONS_ONLY = "metadata.parquet"  # of an imagefolder; `sidecars` reads it
HUB_NAME = re.compile(
    r"hf://(?:datasets/)?(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:/(?P<config>[\w.-]+))?(?:@(?P<revision>[\w./-]+))?"
    r"(?::(?P<split>[\w.-]+)(?:\[:(?P<count>\d+)\])?)?"
)
HUB_FORM = "hf://owner/name, or with its parts hf://owner/name/config@revision:split[:100]"
BATCH = 16  # rows of a parquet file that are held at a time
SENTENCE = 4  # a text of more words is a caption, not a tag


def is_table(path: Path) -> bool:
    """A file that may hold a dataset's rows; what `datasets` itself keeps from earlier calls is none."""
    return path.suffix.lower() in TABLES and path.name != CAPTIONS_ONLY and not path.name.startswith("cache-")


def unpack_table(path: Path, cache: Path) -> Path:
    """The folder below `cache` with the pictures of a parquet or arrow file and their captions, written once per content.
    Raises `LorakitError` when the file cannot be read or holds no pictures."""
    folder = folder_for(path, cache)
    if not folder.is_dir():
        try:
            files.write_folder(folder, lambda part: _fill(part, str(path), _open_table(path), path.parent))
            note_unpacked(path, folder)
        except LorakitError:
            raise
        except Exception as error:  # pyarrow and datasets raise many kinds
            raise LorakitError(f"{path}: cannot be read as a dataset ({_first_line(error)}); mend it or take it out") from None
    return folder


def fetch(name: str, cache: Path) -> Path:
    """As `unpack_table` for a dataset of the hub, such as `hf://owner/name:train[:100]`, read as a stream. It is fetched once:
    a later state of it is had by another `@revision`. Raises `LorakitError` when the hub does not give it."""
    parts = HUB_NAME.fullmatch(name)
    if not parts:
        raise LorakitError(f"{name}: no name of a dataset; write {HUB_FORM}")
    folder = cache / "photos" / f"{parts['name'].rpartition('/')[2]}-{files.short_hash(name)}"
    if not folder.is_dir():
        try:
            rows = open_dataset(parts["name"], parts["config"], parts["revision"], parts["split"])
            rows = rows.take(int(parts["count"])) if parts["count"] else rows
            files.write_folder(folder, lambda part: _fill(part, name, _undecoded(rows), parts["name"]))
        except LorakitError:
            raise
        except Exception as error:  # offline, no such name, gated, several configurations: each in the library's own words
            raise LorakitError(
                f"{name}: cannot be had from the hub ({_first_line(error)}); check the name, the network and `hf auth login`, "
                "or download its parquet files and give their folder"
            ) from None
    return folder


def open_dataset(name: str, config: str | None = None, revision: str | None = None, split: str | None = None) -> IterableDataset:
    """The rows of a dataset of the hub, or of a local copy of its repository, as a stream; without a `split`, those of
    `train`, else of the first there is."""
    import datasets

    found: Any = datasets.load_dataset(name, config, revision=revision, split=split, streaming=True)
    if split is None:
        split = "train" if "train" in found else next(iter(found))
        if len(found) > 1:
            say(f"scan      {name}: split {split} of {', '.join(found)}; choose with hf://{name}:SPLIT")
        found = found[split]
    return found


def _open_table(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file as they are stored. Opened by its own name: `datasets` takes names for patterns, as in `set [1]`."""
    number = 0
    for batch in _batches(path):
        for row in range(batch.num_rows):
            try:
                yield batch.slice(row, 1).to_pylist()[0]
            except ValueError as error:  # no UTF-8 in a text, a date that Python does not have
                warn(f"{path}, row {number}: cannot be read ({_first_line(error)}); passed over")
            number += 1


def _batches(path: Path) -> Iterator[pyarrow.RecordBatch]:
    import pyarrow
    from pyarrow import parquet

    if path.suffix.lower() == ".arrow":
        with pyarrow.memory_map(str(path)) as mapped, pyarrow.ipc.open_stream(mapped) as stream:
            yield from stream
        return
    with parquet.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            try:
                yield from file.iter_batches(BATCH, row_groups=[group])
            except (pyarrow.ArrowException, OSError) as error:
                warn(f"{path}: what is left of row group {group} cannot be read ({_first_line(error)}); passed over")


def _fill(folder: Path, source: str, rows: Iterable[dict[str, Any]], home: Path | str) -> None:
    """Write each row's picture, as its bytes are, and one line of metadata.jsonl for each that has words. Of rows that only name
    their picture, those are read that lie in `home`: the table's folder, or the dataset of the hub of this name."""
    column: str | None = None
    taken, left, lines, without = set(), MOST_BYTES, [], 0
    for number, row in enumerate(rows):
        column = column or picture_column(row, source)
        data = _picture_bytes(row[column], home) if column else None
        if not column or not data:
            without += 1
            continue
        left -= len(data)
        if left < 0:
            raise LorakitError(f"{source}: more than {MOST_BYTES >> 30} GB of pictures; take a part of it, as in {HUB_FORM}")
        name = _name(row[column], number, data, taken)
        (folder / name).write_bytes(data)
        if text := _text(row):
            lines.append(json.dumps({"file_name": name, "text": text}) + "\n")
    if not taken:
        raise LorakitError(f"{source}: no column with pictures in its rows; give a dataset that holds the pictures themselves")
    files.write_text(folder / "metadata.jsonl", "".join(lines))
    missing = f", {without} rows without one that may be read" if without else ""
    say(f"scan      {source}: {len(taken)} pictures, {len(lines)} with a caption{missing}")


def _undecoded(rows: IterableDataset) -> Iterable[dict[str, Any]]:
    """Rows whose pictures are bytes or a path, as they are stored."""
    import datasets

    for name, feature in (rows.features or {}).items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(name, datasets.Image(decode=False))
    splits, split = rows.info.splits or {}, str(rows.split or "")
    total = splits[split].num_examples if split in splits else 0
    return track(rows, "fetch", total) if total else rows


def picture_column(row: dict[str, Any], source: str) -> str | None:
    """The column that holds the pictures: `image` or, where none is called so, the first."""
    found = [name for name, value in row.items() if _is_picture(value)]
    column = "image" if "image" in found else next(iter(found), None)
    if len(found) > 1:
        say(f"scan      {source}: pictures are taken from the column {column} of {', '.join(found)}")
    return column


def _is_picture(value: Any) -> bool:
    if isinstance(value, dict):  # as `datasets` stores a picture
        return {"bytes"} <= set(value) <= {"bytes", "path"} and bool(value["bytes"] or value.get("path"))
    return isinstance(value, bytes) and sniff_bytes(value[:64]) is not None


def _picture_bytes(value: Any, home: Path | str) -> bytes | None:
    """The picture itself; None for what is none, whatever the row calls it."""
    data = value.get("bytes") if isinstance(value, dict) else value
    if not data and isinstance(value, dict) and isinstance(path := value.get("path"), str):
        data = _read_beside(path, home) if isinstance(home, Path) else _read_from_hub(path, home)
    return data if isinstance(data, bytes) and len(data) <= MAX_BYTES and sniff_bytes(data[:64]) else None


def _read_beside(path: str, folder: Path) -> bytes | None:
    """A row is written by others: it gets no file from elsewhere, no link to one, no device and no address."""
    try:
        file = (folder / path).resolve()
        facts = file.stat()
        if file.is_relative_to(folder.resolve()) and stat.S_ISREG(facts.st_mode) and facts.st_size <= MAX_BYTES:
            return file.read_bytes()
    except (OSError, ValueError, RuntimeError):
        pass
    return None


def _read_from_hub(path: str, name: str) -> bytes | None:
    """As `_read_beside` for a file of the dataset that is being read, which may lie in a zip there."""
    inside = re.fullmatch(rf"(?:zip://[^:]+::)?hf://datasets/{re.escape(name)}(?:@[^/:]+)?/[^:]+", path)
    if not inside or ".." in re.split(r"[/\\]|::", path):
        return None
    import fsspec

    opened: Any = fsspec.open(path, "rb")
    with opened as file:
        return file.read(MAX_BYTES + 1)


def _name(value: Any, number: int, data: bytes, taken: set[str]) -> str:
    """A name that no other row has, whatever its case: the row's own, else its number."""
    path = (value.get("path") if isinstance(value, dict) else None) or ""
    name = PurePosixPath(path.split("::")[0].replace("\\", "/")).name
    if not name.lower().endswith(tuple(NAME_ENDINGS)) or name.startswith(".") or len(name.encode()) > 200 or name.lower() in taken:
        format = sniff_bytes(data[:64]) or "jpeg"
        name = f"{number:06}.{'jpg' if format == 'jpeg' else format}"
    while name.lower() in taken:
        name = f"_{name}"
    taken.add(name.lower())
    return name


def _text(row: dict[str, Any]) -> str | list[str]:
    """The row's caption: of the columns that sidecars know, else of the first whose name holds such a word."""
    columns = [key for key in TEXT_KEYS if key in row]
    columns += [key for key in row if any(word in key.lower() for word in TEXT_KEYS) and key not in columns]
    return next((text for key in columns if (text := _words(row[key]))), "")


def _words(value: Any) -> str | list[str]:
    """A text; of several captions the first; tags as they are."""
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return value[0] if len(value[0].split()) > SENTENCE else value
    return value if isinstance(value, str) else ""


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
