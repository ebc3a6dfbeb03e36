"""The book of photos: one record per photo in `manifest.jsonl`, readable and mendable by a person.

What stands in a record is written down in lorakit/record.py. `human` alone is not in the book: a person's word stands in
`decisions.jsonl`, is laid over the records when they are read and stripped when they are written.

Changes go to `manifest.journal` line by line as they happen, so that a killed run loses nothing; `save` folds them
into the manifest, which is always replaced whole. A line that is no record is passed over, said, and kept in `manifest.rejected`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from copy import copy as shallow_copy
from pathlib import Path
from typing import Any, cast

from lorakit import files
from lorakit.console import warn
from lorakit.project.decisions import Change, Decision, Decisions
from lorakit.record import Record, fault_of

TORN = "not a photo's record (no whole JSON)"


class Manifest:
    """The records of a project, by id, in the order of the photos' names."""

    def __init__(self, folder: Path):
        self.path = folder / "manifest.jsonl"
        self.journal = folder / "manifest.journal"
        self._records: dict[str, Record] = {}
        self.memo: dict[Any, Any] = {}  # what others have worked out of all records as they are; gone with any change
        self._rejected: list[str] = []
        self._torn = self.journal.exists()  # left by a killed run: its last line may be half a record
        self._seen: dict[int, Record | None] = {}  # of `refresh`: what the lines hold that were read, by their hash
        self._files = self._state_of_files()
        for path in (self.path, self.journal):
            for record in _read_records(path, self._rejected, self._seen, torn_end=path is self.journal):
                self._records[record["id"]] = record
        before = {id: record.pop("human") for id, record in self._records.items() if "human" in record}  # of an older version
        self.decisions = Decisions(folder, {id: human for id, human in before.items() if isinstance(human, dict)})
        self._taken = len(self.decisions.lines)
        self._lay(self._records)

    def __iter__(self) -> Iterator[Record]:
        """Records of the photos that are there (a photo that has gone keeps its record, but is not listed)."""
        return iter([r for r in self._records.values() if not r.get("gone")])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, id: str) -> Record:
        return self._records[id]

    @property
    def selected(self) -> list[Record]:
        return [r for r in self if r.get("select", {}).get("selected")]

    def chosen(self) -> Manifest:
        """A book of the selected photos alone, as it is now: for another process, which reads and never writes."""
        book = shallow_copy(self)
        book._records, book._seen, book.memo = {r["id"]: r for r in self.selected}, {}, {}
        return book

    def everything(self) -> list[Record]:
        """All records, also of photos that are no longer there."""
        return list(self._records.values())

    def decide(self, changes: Iterable[Change], by: str, undoes: int | None = None, rules: dict[str, list[str]] | None = None) -> Decision:
        """Write a person's decision, and lay it over the records. Raises `Conflict` where somebody else was first."""
        try:
            return self.decisions.append(changes, by, undoes, rules, self.name_of)
        finally:
            self._lay_new()

    def take_decisions(self) -> list[Decision]:
        """Lay over the records what has been decided elsewhere since. Returns the new decisions."""
        self.decisions.refresh()
        return self._lay_new()

    def _lay_new(self) -> list[Decision]:
        """Lay the decisions that are not laid yet over their photos, and over those that take them over from a copy."""
        if self._taken > len(self.decisions.lines):  # a person has put another file there
            self._taken = 0
            self._lay(self._records)
        new, self._taken = self.decisions.lines[self._taken :], len(self.decisions.lines)
        touched = {change["id"] for line in new for change in line["changes"]} & self._records.keys()
        if any((self._records[id].get("dedupe") or {}).get("of") for id in touched):
            touched |= {id for id, r in self._records.items() if any(c["id"] in touched for c in (r.get("dedupe") or {}).get("takes", ()))}
        self._lay(touched)
        return new

    def refresh(self) -> set[str]:
        """For those who only look on: take in what others have written since this was read. Only lines that are new are parsed.
        Returns the ids of photos of which anything is another; what was kept here and not saved is forgotten."""
        if self._state_of_files() == self._files and self.decisions.is_read():
            return set()
        former = self._records
        self._records = dict(former)
        self.memo.clear()
        self.take_decisions()
        if self._state_of_files() != self._files:
            self._read_again()
        return {id for id in former.keys() | self._records.keys() if former.get(id) is not self._records.get(id)}

    def _read_again(self) -> None:
        kept = {id: (r, _stripped(r)) for id, r in self._records.items()}
        for _ in range(5):  # a manifest that is replaced while its journal is read would lose a line
            before, records, seen = self._state_of_files(), {}, {}
            for path in (self.path, self.journal):
                for line in _lines_of(path):
                    key = hash(line)
                    seen[key] = self._seen[key] if key in self._seen else _read_record(line)[0]
                    if (record := seen[key]) is not None:
                        one, bare = kept.get(record["id"], (None, None))
                        records[record["id"]] = one if one is not None and bare == record else cast("Record", _stripped(record))
            if self._state_of_files() == before:
                break
        self._files, self._records, self._seen = before, records, seen
        self._lay(self._records)

    def _state_of_files(self) -> tuple:
        return tuple(identity(path) for path in (self.path, self.journal))

    def name_of(self, id: str) -> str:
        """The photo's name as it is shown; a run, or a photo that this book does not know, by its id."""
        return self._records[id]["file"] if id in self._records else id

    def _lay(self, ids: Iterable[str]) -> None:
        self.memo.clear()
        for id in list(ids):
            record = self._records[id]
            human = self._word_on(record)
            if record.get("human") != human:
                self._records[id] = _stripped(record) if human is None else cast("Record", {**record, "human": dict(human)})

    def _word_on(self, record: Record) -> dict[str, Any] | None:
        """What was decided of a photo; what it has no word on, it takes over from its copies, under `taken_from`."""
        human = self.decisions.of(record["id"])
        for copy in (record.get("dedupe") or {}).get("takes", ()):
            of_copy = self.decisions.of(copy["id"]) or {}
            for what in copy["what"]:
                if what in of_copy and what not in (human or {}):
                    human = {**(human or {}), what: of_copy[what], "taken_from": {**(human or {}).get("taken_from", {}), what: copy["id"]}}
        return human

    def keep(self, *records: Record) -> None:
        """Note changed records in the journal, at once."""
        if not records:
            return
        self.decisions.migrate()
        if self._torn or self._rejected:
            self.save()
        self.memo.clear()
        with open(self.journal, "a", encoding="utf-8", newline="\n") as file:
            for record in records:
                self._records[record["id"]] = record
                file.write(json.dumps(_stripped(record), ensure_ascii=True) + "\n")
        self._lay(record["id"] for record in records)

    def replace(self, records: list[Record]) -> None:
        """Put `records` in place of all that there were."""
        self._records = {r["id"]: r for r in records}
        self._lay(self._records)
        self.save()

    def save(self) -> None:
        """Fold the journal into the manifest."""
        self.decisions.migrate()
        if self._rejected:  # before the manifest is written without them
            with open(self.path.with_suffix(".rejected"), "a", encoding="utf-8", errors="surrogateescape", newline="\n") as aside:
                aside.writelines(f"{line}\n" for line in self._rejected)
            self._rejected = []
        lines = "".join(json.dumps(_stripped(r), ensure_ascii=True) + "\n" for r in self._records.values())
        if not self.path.exists() or self.journal.exists() or self.path.read_bytes() != lines.encode("utf-8"):
            files.write_text(self.path, lines)
        self.journal.unlink(missing_ok=True)
        self._torn = False


def identity(path: Path) -> tuple[int, int, int] | None:
    """By what it shows that a file has been written or replaced: its inode, size and time; None where there is none."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


def _stripped(record: Record) -> Record:
    """The record as it stands in the book: a person's word stands elsewhere, where no work overwrites it."""
    return cast("Record", {key: value for key, value in record.items() if key != "human"})


def _read_records(path: Path, rejected: list[str], seen: dict[int, Record | None], torn_end: bool) -> list[Record]:
    """The records of a file, noted in `seen` by their line's hash; lines that are none are named and put into `rejected`."""
    lines = _lines_of(path)
    records = []
    for number, line in enumerate(lines, 1):
        record, wrong = _read_record(line)
        seen[hash(line)] = record
        if record is not None:
            records.append(record)
        elif wrong == TORN and torn_end and number == len(lines):
            break  # the run was killed while it wrote this line
        elif line.strip():
            warn(f"{path}, line {number}: {wrong}; passed over, and kept in manifest.rejected at the next save")
            rejected.append(line)
    return records


def _lines_of(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").split("\n") if path.is_file() else []
    except FileNotFoundError:  # folded in this moment
        return []
    return lines[:-1] if lines and not lines[-1] else lines


def _read_record(line: str) -> tuple[Record | None, str]:
    """The record of a line, or None and what is wrong with it."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None, TORN
    if not isinstance(record, dict) or not isinstance(record.get("id"), str):
        return None, "not a photo's record (each is one JSON object with an id)"
    written = record.get("dataset") or {}
    names = [written.get("file"), *([written["mask"]] if written.get("mask") else [])] if isinstance(written, dict) else [written]
    if written and not all(map(files.is_plain_name, names)):  # these are written and removed
        return None, "the dataset's file is not named by a plain file name"
    if fault := fault_of(record):
        return None, f"not a photo's record ({fault})"
    return cast(Record, record), ""


def finish(record: Record, stage: str, stamp: str, **found: Any) -> Record:
    """A copy of `record` with what `stage` found out, marked done with `stamp`."""
    failed = {key: value for key, value in record.get("failed", {}).items() if key != stage}
    return cast("Record", {**record, **found, "done": {**record.get("done", {}), stage: stamp}, "failed": failed})


def fail(record: Record, stage: str, message: str) -> Record:
    """A copy of `record` on which `stage` has failed."""
    done = {key: value for key, value in record.get("done", {}).items() if key != stage}
    return {**record, "done": done, "failed": {**record.get("failed", {}), stage: message}}
