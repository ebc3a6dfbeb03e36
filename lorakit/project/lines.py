"""Lines of the book of photos: a record from a line and a line from a record, what is wrong with one, and what many have in common held in
memory once."""

from __future__ import annotations

import gc
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, cast

from lorakit import files
from lorakit.console import warn
from lorakit.project import notes
from lorakit.record import Record, as_json, fault_of, is_sound, parse, parse_all

TORN = "not a photo's record (no whole JSON)"
LEADS_OUT = "the dataset's file is not named by a plain file name"
READ_AT_ONCE = 1 << 20  # bytes
ALIKE = ("dedupe", "select", "failed")  # keys under which most photos have the same few words, as under those of `measures`
MOST_ALIKE = 256  # where there are more, each has its own
LARGE = 10 << 20  # bytes of a book that is not looked through for garbage: some 10,000 photos
OF_A_SCAN = ("file", "path", "hash", "bytes", "modified")  # what every photo's record has
OF_THE_SET = ("dedupe", "embed", "select")  # stages whose stamp is one for all photos


def lines_in(path: Path) -> Iterator[tuple[bytes, bool]]:
    """(a line without its end, whether it is the last) of a file; none where there is no such file, or not any more."""
    try:
        with open(path, "rb") as file:
            line = file.readline()
            while line:
                following = file.readline()
                yield line.rstrip(b"\r\n"), not following
                line = following
    except FileNotFoundError:
        return


def sound_records(path: Path, skip: int = 0) -> Iterator[Record]:
    """The records of a file whose very bytes were found sound before, but for the lines that are to be skipped."""
    shared: dict[str, dict] = defaultdict(dict)
    with suppress(FileNotFoundError), open(path, "rb") as file:
        for _ in range(skip):
            file.readline()
        while lines := file.readlines(READ_AT_ONCE):
            if records := parse_all(b"".join(lines)):
                yield from (sharing(record, shared) for record in records)
            else:
                yield from map(parse, lines)


def read_records(path: Path, rejected: list[bytes], torn_end: bool = False, skip: int = 0) -> Iterator[Record | None]:
    """The record of each line of a file, None for one that is none; what stands there is named and put into `rejected`."""
    shared: dict[str, dict] = defaultdict(dict)
    for number, (line, is_last) in islice(enumerate(lines_in(path), 1), skip, None):
        record, wrong = read_record(line, shared)
        if record is None and wrong == TORN and torn_end and is_last:
            return  # the run was killed while it wrote this line
        if record is None and line.strip():
            warn(f"{path}, line {number}: {wrong}; passed over, and kept in manifest.rejected at the next save")
            rejected.append(line)
        yield record


def read_record(line: bytes, known: dict[str, dict] | None = None) -> tuple[Record | None, str]:
    """The record of a line, or None and what is wrong with it. `known`: what other records have that it may share."""
    try:
        record = parse(line)
    except (ValueError, RecursionError):
        return None, TORN
    if not isinstance(record, dict) or not isinstance(record.get("id"), str):
        return None, "not a photo's record (each is one JSON object with an id)"
    if leads_out(cast(Record, record)):
        return None, LEADS_OUT
    if is_sound(line, record):
        return cast("Record", record) if known is None else sharing(cast("Record", record), known), ""
    if fault := fault_of(record):
        return None, f"not a photo's record ({fault})"
    return cast("Record", record), ""


def wrong_with(record: Record) -> str:
    """What is wrong with a record of a shard; nothing where there is nothing."""
    if leads_out(record):
        return LEADS_OUT
    with suppress(UnicodeEncodeError):
        if is_sound(as_json(record), record):
            return ""
    fault = fault_of(record)
    return f"not a photo's record ({fault})" if fault else ""


def leads_out(record: Record) -> bool:
    """Whether a name under `dataset` is no plain one: such files are written and removed."""
    written: Any = record.get("dataset")
    if not written:
        return False
    names = [written.get("file"), *([written["mask"]] if written.get("mask") else [])] if isinstance(written, dict) else [written]
    return not all(map(files.is_plain_name, names))


def lacking_in(record: Record) -> list[str]:
    return [key for key in OF_A_SCAN if key not in record]


def stripped(record: Record) -> Record:
    """The record as it stands in the book: a person's word stands elsewhere, where no work overwrites it."""
    return cast("Record", {key: value for key, value in record.items() if key != "human"}) if "human" in record else record


def line_of(record: Record) -> bytes:
    return json.dumps(stripped(record), ensure_ascii=True).encode("ascii") + b"\n"


def digest_of(path: Path) -> str | None:
    digest = notes.digest()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return None
    return digest.hexdigest()


def sharing(record: Record, known: dict[str, dict]) -> Record:
    """The record with what it has in common with others held in memory once: a third of its bytes. `known` {key: what others have there}."""
    measures = record.get("measures")
    if measures:
        _share(measures, measures, known)
    _share(cast("dict[str, Any]", record), ALIKE, known)
    id, done, stamps = record["id"], record.get("done"), known["stamps"]
    if record.get("hash") == id:
        record["hash"] = id
    if done:
        if done.get("scan") == id:
            done["scan"] = id
        for stage in OF_THE_SET:
            if stage in done:
                done[stage] = stamps.setdefault(done[stage], done[stage])
    return record


def _share(held: dict[str, Any], keys: Iterable[str], known: dict[str, dict]) -> None:
    for key in keys:
        others = known[key]
        if len(others) < MOST_ALIKE and (found := held.get(key)) is not None:
            held[key] = others.setdefault(as_json(found), found)  # by its JSON: 1 and 1.0 are equal, and not the same line


@contextmanager
def uncollected(many: int = 0) -> Iterator[None]:
    """While millions of objects are made of which none is garbage, looking for garbage among them takes as long as making them; and so it
    does ever after, so those of a book of `many` bytes are left out of it. (What is no cycle is freed as always.)"""
    was = gc.isenabled()
    if many > LARGE:
        gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if many > LARGE:
            gc.freeze()
        if was:
            gc.enable()
