"""The book of photos: one record per photo in `manifest.jsonl`, readable and mendable by a person.

What stands in a record is written down in lorakit/record.py.

Changes go to `manifest.journal` line by line as they happen, so that a killed run loses nothing; `save` folds them
into the manifest, which is always replaced whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from lorakit import files
from lorakit.errors import LorakitError
from lorakit.record import Record


class Manifest:
    """The records of a project, by id, in the order of the photos' names."""

    def __init__(self, folder: Path):
        self.path = folder / "manifest.jsonl"
        self.journal = folder / "manifest.journal"
        self._records: dict[str, Record] = {}
        self._torn = self.journal.exists()  # left by a killed run: its last line may be half a record
        for path in (self.path, self.journal):
            for record in _read_records(path, torn_end=path is self.journal):
                self._records[record["id"]] = record

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

    def everything(self) -> list[Record]:
        """All records, also of photos that are no longer there."""
        return list(self._records.values())

    def keep(self, *records: Record) -> None:
        """Note changed records in the journal, at once."""
        if not records:
            return
        if self._torn:
            self.save()
        with open(self.journal, "a", encoding="utf-8", newline="\n") as file:
            for record in records:
                self._records[record["id"]] = record
                file.write(json.dumps(record, ensure_ascii=True) + "\n")

    def replace(self, records: list[Record]) -> None:
        """Put `records` in place of all that there were."""
        self._records = {r["id"]: r for r in records}
        self.save()

    def save(self) -> None:
        """Fold the journal into the manifest."""
        lines = "".join(json.dumps(r, ensure_ascii=True) + "\n" for r in self._records.values())
        if not self.path.exists() or self.journal.exists() or self.path.read_text(encoding="utf-8") != lines:
            files.write_text(self.path, lines)
        self.journal.unlink(missing_ok=True)
        self._torn = False


def _read_records(path: Path, torn_end: bool) -> list[Record]:
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            record["id"].strip()
            records.append(record)
        except (json.JSONDecodeError, KeyError, TypeError):
            if torn_end and number == len(lines):
                break  # the run was killed while it wrote this line
            raise LorakitError(
                f"{path}, line {number}: not a photo's record; mend or remove the line (each is one JSON object with an id)"
            ) from None
    return records


def finish(record: Record, stage: str, stamp: str, **found: Any) -> Record:
    """A copy of `record` with what `stage` found out, marked done with `stamp`."""
    failed = {key: value for key, value in record.get("failed", {}).items() if key != stage}
    return cast("Record", {**record, **found, "done": {**record.get("done", {}), stage: stamp}, "failed": failed})


def fail(record: Record, stage: str, message: str) -> Record:
    """A copy of `record` on which `stage` has failed."""
    done = {key: value for key, value in record.get("done", {}).items() if key != stage}
    return {**record, "done": done, "failed": {**record.get("failed", {}), stage: message}}
