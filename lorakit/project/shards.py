"""The records of a book that is too large for lines: blocks of some 16,000 photos in parquet, in the folder `manifest`, and the first line of
`manifest.jsonl`, which names them in their order. A block is never changed, only replaced: its name is the hash of its bytes.

A column is a key of the record, or of `measures`, `look` and `done` one of theirs; what is neither text nor a number is JSON in it. `keys` says
which keys a record has, in their order, and `json` holds the whole record where it does not fit into the columns. A photo with an id alone stands
in a line of `manifest.jsonl`.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lorakit import files
from lorakit.errors import LorakitError
from lorakit.record import Record, as_json_lines, parse, parse_all

if TYPE_CHECKING:
    import pyarrow

MOST_LINES = 100_000  # records of a book that is lines alone
SIZE = 16_384  # records of a new block; one into which others come is cut when it has twice as many
FORMAT = 1  # raise it when what this version writes cannot be read by the one before
FOLDER = "manifest"
COPY = "_first_line.json"  # of the line that names the shards, should that be lost
BEGUN = ".begun"  # lies there while shards are written that no line names yet
KNOWN = 1 << 14  # values of a column that are held to be shared

PARTED = ("measures", "look", "done")  # keys whose own keys have columns
TEXTS = ("file", "path", "hash", "phash", "text")
NUMBERS = ("bytes", "modified", "changed", "repeats")
SAME_AS_ID = ("hash", "done.scan")  # mostly, and then nothing stands there
_HEADING = b'{"shards":'
_NAME = re.compile(r"[0-9a-f]{32}\.parquet")

Row = tuple[str, "Record | None"]  # id, and the record; None where it stands in a line of manifest.jsonl


@dataclass(frozen=True)
class Shard:
    name: str
    ids: list[str]
    in_lines: frozenset[str]  # those of them whose record stands in a line


def heading(shards: Iterable[Shard]) -> bytes:
    """The first line of manifest.jsonl."""
    return json.dumps({"shards": {shard.name: len(shard.ids) for shard in shards}, "format": FORMAT}).encode("ascii") + b"\n"


def named_by(manifest: Path) -> dict[str, int] | None:
    """{name of a shard: how many photos it has}, as the first line of manifest.jsonl has it; None where all records are lines. Raises
    `LorakitError` where that line is damaged, is gone, or was written by a newer lorakit."""
    first = _first_line(manifest)
    if not first.startswith(_HEADING):
        left = _names_in(manifest.parent / FOLDER)
        if left and not are_begun(manifest):
            if _first_line(manifest) != first:  # it has just moved over
                return named_by(manifest)
            too = f" ({FOLDER}/{COPY} has it too)" if (manifest.parent / FOLDER / COPY).is_file() else ""
            raise LorakitError(
                f"{manifest}: lacks its first line, which names the {len(left)} shards in {FOLDER}/ beside it; put it back{too}, or move {FOLDER}/ away: "
                "its photos are then looked at anew"
            )
        return None
    try:
        found = json.loads(first)
        newer = isinstance(found["format"], int) and found["format"] > FORMAT
        names = found["shards"]
        is_whole = found["format"] == FORMAT and all(_NAME.fullmatch(name) and type(count) is int for name, count in names.items())
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        newer = is_whole = False
    if newer:
        raise LorakitError(
            f"{manifest}: written by a newer lorakit (shards of format {found['format']}, this one reads {FORMAT}); update lorakit"
        )
    if not is_whole:
        has_copy = (manifest.parent / FOLDER / COPY).is_file()
        mend = (
            f"is to read as {FOLDER}/{COPY} does: put that in its place"
            if has_copy
            else f"has no copy: take it out, and move {FOLDER}/ away"
        )
        raise LorakitError(f"{manifest}, line 1: damaged; it names the shards in {FOLDER}/ and {mend}")
    return names


def _first_line(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.readline()
    except FileNotFoundError:
        return b""


def cut(ids: Sequence[str], former: Collection[str]) -> Iterator[list[str]]:
    """Blocks of the ids, in order. `former`: with which blocks began; a block that has grown by some stays one, so that the others are as
    they were."""
    starts = [0, *(place for place, id in enumerate(ids) if place and id in former), len(ids)]
    for start, end in zip(starts, starts[1:]):
        pieces = 1 if former and end - start <= 2 * SIZE else max(1, round((end - start) / SIZE))
        bounds = [start + (end - start) * piece // pieces for piece in range(pieces + 1)]
        yield from (list(ids[one:other]) for one, other in zip(bounds, bounds[1:]) if other > one)


def begin(manifest: Path) -> None:
    """Before shards are written: those that no line names are no sign then that a line was lost."""
    folder = manifest.parent / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / BEGUN).touch()


def shard_of(name: str, rows: list[Row]) -> Shard:
    return Shard(name, [id for id, _ in rows], frozenset(id for id, record in rows if record is None))


def lies_there(manifest: Path, shard: Shard) -> bool:
    return (manifest.parent / FOLDER / shard.name).is_file()


def flush(manifest: Path) -> None:
    """So that the names of the shards are on the disk before that of the line which names them."""
    files.flush_folder(manifest.parent / FOLDER)


def are_begun(manifest: Path) -> bool:
    return (manifest.parent / FOLDER / BEGUN).exists()


def tidy(manifest: Path, shards: list[Shard]) -> None:
    """Remove the shards that no line names any more, and what kills have left of others."""
    folder, named = manifest.parent / FOLDER, {shard.name for shard in shards}
    if named:
        files.write_whole(folder / COPY, lambda part: part.write_bytes(heading(shards)))
    for name in _names_in(folder):
        if name not in named:
            (folder / name).unlink(missing_ok=True)
    files.remove_parts(folder)
    (folder / BEGUN).unlink(missing_ok=True)
    if not named:
        (folder / COPY).unlink(missing_ok=True)
        with suppress(OSError):  # something else lies there
            folder.rmdir()


def has_copy(manifest: Path, shards: list[Shard]) -> bool:
    """Whether the copy of the first line is there, and one of it."""
    return not shards or _first_line(manifest.parent / FOLDER / COPY) == heading(shards)


def not_named(manifest: Path, named: Collection[str]) -> int:
    """How many shards lie there that the first line does not name; none where they are just being written."""
    left = set(_names_in(manifest.parent / FOLDER)) - set(named)
    return 0 if are_begun(manifest) else len(left)


def _names_in(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if _NAME.fullmatch(name)] if folder.is_dir() else []


def write(manifest: Path, rows: Iterable[Row]) -> str:
    """Write a shard, flushed to the disk. Returns its name."""
    import pyarrow.parquet

    buffer = io.BytesIO()
    table = _table(list(rows))
    repeating: Any = [name for name in table.column_names if _repeats(name)]
    pyarrow.parquet.write_table(table, buffer, compression="zstd", write_statistics=False, use_dictionary=repeating)
    data = buffer.getvalue()
    name = f"{_hash(data)}.parquet"
    files.write_whole(manifest.parent / FOLDER / name, lambda part: part.write_bytes(data))
    return name


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _table(rows: list[Row]) -> pyarrow.Table:
    """Column by column, of all records together that have the same keys: one by one takes four times as long."""
    import pyarrow

    columns: dict[str, list[Any]] = {"id": [id for id, _ in rows], "keys": [None] * len(rows), "json": [None] * len(rows)}
    alike: dict[tuple, list[int]] = defaultdict(list)  # places of records
    for place, (_, record) in enumerate(rows):
        if record is not None:
            parts = (tuple(part) if isinstance(part := record.get(key), dict) else () for key in PARTED)
            alike[(tuple(record), *parts)].append(place)
    for (keys, *parts), places in alike.items():
        cells, unfit = _cells([cast("dict[str, Any]", rows[place][1]) for place in places], keys, dict(zip(PARTED, parts)))
        for at in unfit:
            columns["json"][places[at]] = json.dumps(rows[places[at]][1])
        named = json.dumps(list(cells))
        fitting = [(at, place) for at, place in enumerate(places) if at not in unfit]
        for key, found in (("keys", [named] * len(places)), *cells.items()):
            column = columns.setdefault(key, [None] * len(rows))
            for at, place in fitting:
                column[place] = found[at]
    return pyarrow.table({key: pyarrow.array(values, _type_of(key)) for key, values in columns.items()})


def _type_of(key: str) -> Any:
    import pyarrow

    return pyarrow.int64() if key in NUMBERS else pyarrow.string()


def _is_json(key: str) -> bool:
    return key not in ("id", "keys", "json", *TEXTS, *NUMBERS) and not key.startswith(("look.", "done."))


def _repeats(key: str) -> bool:
    """Whether many photos have the same there."""
    return key == "keys" or _is_json(key) or key.startswith("done.")


def _cells(records: list[dict[str, Any]], keys: Sequence[str], parts: dict[str, Sequence[str]]) -> tuple[dict[str, list[Any]], set[int]]:
    """({column: what stands there for each}, which of the records the columns cannot hold as they are) of records with the same keys."""
    if not all(key in _columns() for key in keys):
        return {}, set(range(len(records)))
    ids, cells = [record["id"] for record in records], {}
    unfit: set[int] = set()
    for key in keys:
        if parts.get(key):
            held = [record[key] for record in records]
            inner = {f"{key}.{one}": [part[one] for part in held] for one in parts[key]}
        else:
            inner = {key: [record[key] for record in records]}
        for column, values in inner.items():
            cells[column], no = _column(column, values, ids)
            unfit.update(no)
    return cells, unfit


@functools.cache
def _columns() -> frozenset[str]:
    return frozenset(Record.__annotations__)


def _column(key: str, values: list[Any], ids: list[str]) -> tuple[list[Any], list[int]]:
    """(what stands in the column for these values, places of those for which it cannot)."""
    if _is_json(key):
        return [None if v is None else text for v, text in zip(values, _texts_of(values))], []
    if key in NUMBERS:
        return values, [at for at, v in enumerate(values) if type(v) is not int or not -(2**63) <= v < 2**63]
    if key not in SAME_AS_ID:
        return values, _no_texts(values)
    found = [None if v == id else v for v, id in zip(values, ids)]
    return found, [at for at, v in enumerate(values) if v is None] + _no_texts(found)


def _no_texts(values: list[Any]) -> list[int]:
    with suppress(TypeError, UnicodeEncodeError):
        "".join([v for v in values if v is not None]).encode()
        return []
    return [at for at, v in enumerate(values) if v is not None and not is_text(v)]


def is_text(value: Any) -> bool:
    """Not so for the name of a file that is no text: the half of a surrogate pair stands for each such byte."""
    try:
        return isinstance(value, str) and (value.isascii() or bool(value.encode()))
    except UnicodeEncodeError:
        return False


def _texts_of(values: list[Any]) -> list[str]:
    """Each as JSON, which reads as the value again."""
    with suppress(UnicodeEncodeError, TypeError):
        lines = as_json_lines(values)
        if b"null" not in lines or parse_all(lines) == values:  # as which it writes NaN too
            return lines.decode().split("\n")[:-1]
    return [json.dumps(value) for value in values]


Known = defaultdict[str, dict[str, Any]]


def read(manifest: Path, name: str, known: Known) -> list[Row]:
    """The photos of a shard. `known` {column: {text: value}}: what records of all shards may share. Raises `FileNotFoundError`, and
    `LorakitError` where it is not what was written."""
    import pyarrow
    import pyarrow.parquet

    path = manifest.parent / FOLDER / name
    data = path.read_bytes()
    if f"{_hash(data)}.parquet" != name:
        raise LorakitError(f"{path}: damaged, its bytes are not those that were written; {_how_to_do_without(manifest, name)}")
    try:
        source = pyarrow.BufferReader(data)
        schema = pyarrow.parquet.read_schema(source)
        for column in schema:
            if column.type != _type_of(column.name):
                raise ValueError(f"column {column.name} is of the type {column.type}")
        table = pyarrow.parquet.read_table(source, read_dictionary=[name for name in schema.names if _repeats(name)])
        return _rows(table, known)
    except (pyarrow.ArrowException, LookupError, ValueError, TypeError, RecursionError) as error:
        why = " ".join(str(error).split())
        raise LorakitError(f"{path}: no shard that lorakit wrote ({why}); {_how_to_do_without(manifest, name)}") from None


def missing(manifest: Path, name: str, count: int) -> LorakitError:
    return LorakitError(f"{manifest.parent / FOLDER / name}: missing, with {count} photos; {_how_to_do_without(manifest, name)}")


def _how_to_do_without(manifest: Path, name: str) -> str:
    return f"put it back from a copy, or take {name[:8]}... out of the first line of {manifest.name}: its photos are then looked at anew"


def _rows(table: pyarrow.Table, known: Known) -> list[Row]:
    import numpy as np

    ids = _plain(table["id"])
    if not all(isinstance(id, str) for id in ids):
        raise ValueError("a photo without id")
    records: list[Record | None] = [None] * len(ids)
    whole = table["json"]
    if whole.null_count < len(ids):
        for place, text in enumerate(_plain(whole)):
            if text is not None:
                records[place] = parse(text.encode())
    keys = table["keys"].combine_chunks()
    values = {name: _values(table[name], name, known) for name in table.column_names if name not in ("id", "keys", "json")}
    values["id"] = ids
    for key in set(SAME_AS_ID) & values.keys():
        values[key] = [id if value is None else value for id, value in zip(ids, values[key])]
    which = keys.indices.fill_null(-1).to_numpy()
    for number, shape in enumerate(keys.dictionary.to_pylist()):
        places = np.flatnonzero(which == number).tolist()
        columns: dict[str, list[Any]] = {}  # of the record
        parts: dict[str, dict[str, list[Any]]] = {}
        for key in json.loads(shape):
            column = values[key] if len(places) == len(ids) else [values[key][place] for place in places]
            top, is_part, inner = key.partition(".")
            if is_part:
                parts.setdefault(top, {})[inner] = column
                columns[top] = []  # keeps its place
            else:
                columns[top] = column
        columns |= {top: _dicts(part) for top, part in parts.items()}
        for place, record in zip(places, _dicts(columns)):
            records[place] = cast("Record", record)
    if any(record is not None and record.get("id") != id for id, record in zip(ids, records)):
        raise ValueError("a photo under another id")
    return list(zip(ids, records))


def _dicts(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    names = tuple(columns)
    return [dict(zip(names, row)) for row in zip(*columns.values())]


def _plain(column: Any) -> list[Any]:
    return column.to_numpy().tolist()  # a list of Python's own in C, which to_pylist makes one by one


def _values(column: Any, key: str, known: Known) -> list[Any]:
    import pyarrow

    if key in NUMBERS:
        return column.fill_null(0).to_numpy().tolist()  # where there is none, `keys` does not name it
    if not pyarrow.types.is_dictionary(column.type):
        return _plain(column)
    held, chunk = known[key], column.combine_chunks()
    read = (lambda text: parse(text.encode())) if _is_json(key) else str
    found: list[Any] = []
    for text in chunk.dictionary.to_numpy(zero_copy_only=False).tolist():
        if text not in held:
            if len(held) >= KNOWN:
                held.clear()
            held[text] = read(text)
        found.append(held[text])
    found.append(None)
    return [found[index] for index in chunk.indices.fill_null(len(found) - 1).to_numpy().tolist()]
