"""The book of photos: one record per photo in `manifest.jsonl`, readable and mendable by a person.

What stands in a record is written down in lorakit/record.py. `human` alone is not in the book: a person's word stands in
`decisions.jsonl`, is laid over the records when they are read and stripped when they are written.

Changes go to `manifest.journal` line by line as they happen, so that a killed run loses nothing; `save` folds them
into the manifest, which is always replaced whole. A line that is no record is passed over, said, and kept in `manifest.rejected`.

Once there are more than `shards.MOST_LINES` of them, the lines are those of the selected photos, and all others stand in parquet
(lorakit/project/shards.py): the first line names its files, so that putting it in place is the one moment at which a book becomes another. A line
counts before what a shard says of the same photo.
"""

from __future__ import annotations

import os
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any, cast

from lorakit import files
from lorakit.console import warn
from lorakit.project import notes, shards
from lorakit.project.decisions import Change, Decision, Decisions
from lorakit.project.lines import (
    digest_of,
    lacking_in,
    leads_out,
    line_of,
    lines_in,
    read_record,
    read_records,
    sound_records,
    stripped,
    uncollected,
    wrong_with,
)
from lorakit.record import Record, is_sound

WRITTEN_AT_ONCE = 1000  # lines
A_PHOTO = 1000  # bytes that one in a shard is counted as
OF_PHOTOS = "folders"  # what is noted of the photos, to which no stage but `scan` does anything
UNPACKED = f"{os.sep}cache{os.sep}photos{os.sep}"  # in a project: pictures of archives, tables and datasets


class Manifest:
    """The records of a project, by id, in the order of the photos' names. A record is never changed in place: whoever finds something out
    keeps a new one."""

    def __init__(self, folder: Path):
        self.path = folder / "manifest.jsonl"
        self.journal = folder / "manifest.journal"
        self._records: dict[str, Record] = {}
        self.memo: dict[Any, Any] = {}  # what others have worked out of all records as they are; gone with any change
        self.changes = 0  # how often anything has changed since it was read
        self._rejected: list[bytes] = []
        self._torn = self.journal.exists()  # left by a killed run: its last line may be half a record
        self._pen: int | None = None  # the journal, held open while it is written
        self._seen: dict[int, Record | None] | None = None  # of `refresh`: what the lines hold that were read, by their hash
        self._files = self._state_of_files()
        self._shards: list[shards.Shard] = []
        self._seen_shards: dict[str, list[shards.Row]] = {}  # of `refresh`, by their names
        self._only_whole = False  # records without what a scan notes of every photo are passed over
        self._unsaved: set[str] | None = set()  # ids of records that do not stand in the manifest as they are; None: all
        with uncollected(self._bytes()):
            self._digest, self._order = self._take_manifest(folder)
            for record in filter(None, read_records(self.journal, self._rejected, torn_end=True)):
                self._records[record["id"]] = record
                self._unsaved.add(record["id"])
                self.notes.found.pop(OF_PHOTOS, None)
        before = {id: record.pop("human") for id, record in self._records.items() if "human" in record}  # of an older version
        self._unsaved |= before.keys()
        self.decisions = Decisions(folder, {id: human for id, human in before.items() if isinstance(human, dict)})
        self._taken = len(self.decisions.lines)
        self._lay(self._records)

    def _bytes(self) -> int:
        """Of the book and its journal, about: shards are counted as the lines that they would be."""
        return sum(of[1] for of in self._files if of) + A_PHOTO * sum((shards.named_by(self.path) or {}).values())

    def _take_manifest(self, folder: Path) -> tuple[str | None, list[str] | None]:
        """Take in the manifest. Returns the fingerprint of its bytes, and the ids line by line, where every line is a record of its own."""
        book, order, of_lines = digest_of(self.path), [], {}
        self.notes = notes.Notes(folder, book)  # on the book as it lies there, which is not what is in memory once it is changed
        named = shards.named_by(self.path)
        is_sound, skip = self.notes.found.get("sound"), int(named is not None)
        for record in sound_records(self.path, skip) if is_sound else read_records(self.path, self._rejected, skip=skip):
            order.append(record and record["id"])
            if record:
                of_lines[record["id"]] = record
        rows = self._take_shards(named or {}, bool(is_sound))
        if rows is None or self._state_of_files()[0] != self._files[0]:  # written while it was read: by nobody who holds the lock
            self._files, self._records, self._rejected, self._unsaved = self._state_of_files(), {}, [], set()
            return self._take_manifest(folder)
        is_one_each = len(order) == len(of_lines)
        is_whole = _merge(rows, of_lines, self._records, self._unsaved)
        lacking = sum(id not in self._records for id, _ in rows) - len(self._rejected)
        if lacking > 0:
            photos = "1 photo that stands" if lacking == 1 else f"{lacking} photos that stand"
            warn(f"{self.path}: lacks the lines of {photos} in no shard; the next scan looks at them anew")
        is_emptied = named is not None and not named  # somebody has taken all shards out of the first line
        if named is not None and (others := shards.not_named(self.path, named)) and self._state_of_files()[0] == self._files[0]:
            many = "1 shard lies" if others == 1 else f"{others} shards lie"
            warn(
                f"{self.path}: {many} in {shards.FOLDER}/ that its first line does not name; the next command that writes removes what is not named there"
            )
        return book, order if is_one_each and is_whole and not is_emptied else None

    def _take_shards(self, named: dict[str, int], are_sound: bool) -> list[shards.Row] | None:
        """The rows of all shards; None where the book has become another meanwhile."""
        self._shards, found = [], []
        known: shards.Known = defaultdict(dict)
        for name, count in named.items():
            try:
                rows = shards.read(self.path, name, known)
            except FileNotFoundError:
                if identity(self.path) != self._files[0]:
                    return None
                raise shards.missing(self.path, name, count) from None
            if not are_sound:
                self._set_aside(name, rows)
            self._shards.append(shards.shard_of(name, rows))
            found += rows
        return found

    def _set_aside(self, name: str, rows: list[shards.Row]) -> None:
        """Pass over records that cannot be, as lines are."""
        for place, (id, record) in enumerate(rows):
            if record is not None and (wrong := wrong_with(record)):
                warn(
                    f"{self.path.parent / shards.FOLDER / name}, row {place + 1}: {wrong}; passed over, and kept in manifest.rejected at the next save"
                )
                self._rejected.append(line_of(record).rstrip(b"\n"))
                rows[place] = id, None

    def set_aside_halves(self) -> None:
        """Pass over records without a name, place or hash, which no scan has written: lines that a person has added."""
        self._only_whole = True
        of_whom = (self._unsaved or set()) if self.notes.found.get("sound") else list(self._records)
        for id in of_whom:
            if lacking := lacking_in(self._records[id]):
                warn(
                    f"{self.path}: the record {id} lacks {' and '.join(lacking)}, which a scan finds out; passed over, and kept in manifest.rejected at "
                    "the next save"
                )
                self._rejected.append(line_of(self._records.pop(id)).rstrip(b"\n"))
                self._order = None
                self._forget()

    def follow_a_move(self) -> None:
        """What was unpacked into the project's cache is looked for in this project, also where it has been moved or copied since it was
        scanned: its former folder may have gone, or be another's by now."""
        for id, record in list(self._records.items()):
            if (now := self._followed(record)) is not record:
                self._records[id] = now
                if self._unsaved is not None:
                    self._unsaved.add(id)
                self._forget()

    def _followed(self, record: Record) -> Record:
        place = self._place_here(record.get("path"))
        mask = self._place_here((record.get("mask") or {}).get("path"))
        of_copy = self._place_here(((record.get("inherited") or {}).get("mask") or {}).get("path"))
        if not (place or mask or of_copy):
            return record
        found: dict[str, Any] = {**record, **({"path": place} if place else {})}
        if mask:
            found["mask"] = {**found["mask"], "path": mask}
        if of_copy:
            found["inherited"] = {**found["inherited"], "mask": {**found["inherited"]["mask"], "path": of_copy}}
        return cast("Record", found)

    def _place_here(self, path: str | None) -> str | None:
        """Where a file that lay in a project's cache lies in this one's; None where it is no such file, or lies here already."""
        if path is None or UNPACKED not in path or path.startswith(here := f"{self.path.parent}{UNPACKED}"):
            return None
        now = here + path.rpartition(UNPACKED)[2]
        return now if os.path.isfile(now) else None

    def __iter__(self) -> Iterator[Record]:
        """Records of the photos that are there (a photo that has gone keeps its record, but is not listed)."""
        return iter(self._there)

    def __len__(self) -> int:
        return len(self._there)

    def __getitem__(self, id: str) -> Record:
        return self._records[id]

    @property
    def _there(self) -> list[Record]:
        """Never changed, only replaced: who walks along it sees the book as it was when he began."""
        found = self.memo.get("there")
        if found is None:
            found = self.memo["there"] = [r for r in self._records.values() if not r.get("gone")]
        return found

    @property
    def selected(self) -> list[Record]:
        found = self.memo.get("selected")
        if found is None:
            found = self.memo["selected"] = [r for r in self._there if "select" in r and r["select"].get("selected")]
        return list(found)

    @property
    def has_dataset(self) -> bool:
        """Whether any photo that is there has been written into dataset/."""
        found = self.memo.get("has dataset")
        if found is None:
            found = self.memo["has dataset"] = any(r.get("dataset") for r in self._there)
        return found

    def chosen(self) -> Manifest:
        """A book of the selected photos alone, as it is now: for another process, which reads and never writes."""
        book = object.__new__(Manifest)
        book.path, book.journal, book.decisions, book.changes, book.memo = self.path, self.journal, self.decisions, self.changes, {}
        book._records = {r["id"]: r for r in self.selected}
        return book

    def everything(self) -> list[Record]:
        """All records, also of photos that are no longer there."""
        return list(self._records.values())

    def _forget(self) -> None:
        """What was worked out of the records is of former ones now."""
        self.changes += 1
        self.memo.clear()

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
        self.take_decisions()
        if self._state_of_files() != self._files:
            self._read_again()
        return {id for id in former.keys() | self._records.keys() if former.get(id) is not self._records.get(id)}

    def _read_again(self) -> None:
        kept = {id: (r, stripped(r)) for id, r in self._records.items()}

        def share(record: Record | None) -> Record | None:
            """What is there already where it says the same, that a large book does not lie in memory twice."""
            bare = kept[record["id"]][1] if record is not None and record["id"] in kept else None
            return bare if bare == record else record

        tries = 0
        while True:  # a manifest that is replaced while its journal is read would lose a line
            tries += 1
            before, seen, known = self._state_of_files(), {}, self._seen or {}
            named = shards.named_by(self.path) or {}
            of_lines: dict[str, Record] = {}
            of_journal: dict[str, Record] = {}
            for path, found in ((self.path, of_lines), (self.journal, of_journal)):
                for line, _ in islice(lines_in(path), int(bool(named) and path == self.path), None):
                    key = hash(line)
                    seen[key] = known[key] if key in known else share(read_record(line)[0])
                    if (record := seen[key]) is not None:
                        found[record["id"]] = record
            rows = self._rows_again(named, before[0], share)
            if rows is not None and (tries >= 5 or self._state_of_files() == before):
                break
        records: dict[str, Record] = {}
        _merge(rows, of_lines, records, None)
        records |= of_journal
        if self._only_whole:
            records = {id: self._followed(record) for id, record in records.items() if not lacking_in(record)}
        for id, record in records.items():
            one, bare = kept.get(id, (None, None))
            records[id] = one if one is not None and bare == record else cast("Record", stripped(record))
        self._files, self._records, self._seen = before, records, seen
        self._forget()
        self._digest, self._order, self._unsaved = None, None, None  # should it be written nevertheless, then whole
        self._lay(self._records)

    def _rows_again(
        self, named: dict[str, int], book: tuple | None, share: Callable[[Record | None], Record | None]
    ) -> list[shards.Row] | None:
        """The rows of all shards of this `book`, of which only new ones are read, and shared; None where it has been replaced meanwhile."""
        known: shards.Known = defaultdict(dict)
        seen, self._seen_shards = self._seen_shards, {}
        for name, count in named.items():
            try:
                self._seen_shards[name] = (
                    seen[name] if name in seen else [(id, share(record)) for id, record in shards.read(self.path, name, known)]
                )
            except FileNotFoundError:
                if identity(self.path) != book:
                    return None
                raise shards.missing(self.path, name, count) from None
        self._shards = [shards.shard_of(name, rows) for name, rows in self._seen_shards.items()]
        return list(chain.from_iterable(self._seen_shards.values()))

    def _state_of_files(self) -> tuple:
        return tuple(identity(path) for path in (self.path, self.journal))

    def name_of(self, id: str) -> str:
        """The photo's name as it is shown; a run, or a photo that this book does not know, by its id."""
        return self._records[id]["file"] if id in self._records else id

    def _lay(self, ids: Iterable[str]) -> None:
        if ids is self._records and not self.decisions.lines:  # nobody has ever decided anything
            ids = [id for id, record in self._records.items() if "human" in record]
        for id in list(ids):
            record = self._records[id]
            human = self._word_on(record)
            if record.get("human") != human:
                self._records[id] = stripped(record) if human is None else cast("Record", {**record, "human": dict(human)})
                self._forget()

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
        self._write_journal(b"".join(map(line_of, records)))
        self._take(records)

    def keep_all(self, records: Iterable[Record]) -> None:
        """The same for a stage that finds out something about all photos at once: the manifest is written whole, without a journal."""
        self._take(list(records))
        self.save()

    def _take(self, records: Iterable[Record]) -> None:
        for record in records:
            self._records[record["id"]] = record
            if self._unsaved is not None:
                self._unsaved.add(record["id"])
        self._forget()
        self._lay(record["id"] for record in records)

    def _write_journal(self, text: bytes) -> None:
        """The journal stays open: opening it anew for each photo would take longer than writing it."""
        if self._pen is not None and not os.fstat(self._pen).st_nlink:  # it was removed meanwhile
            self._lay_down_pen()
        if self._pen is None:
            self._pen = os.open(self.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            self._drop_pen = weakref.finalize(self, os.close, self._pen)
        try:
            with files.naming(self.journal):
                while text:
                    text = text[os.write(self._pen, text) :]
        except OSError:
            self._torn = True  # half a line may stand there
            raise

    def _lay_down_pen(self) -> None:
        if self._pen is not None:
            self._pen = None
            self._drop_pen()

    def replace(self, records: list[Record]) -> None:
        """Put `records` in place of all that there were."""
        before = self._records
        self.notes.found.pop(OF_PHOTOS, None)
        self._records = {r["id"]: _former_or(before.get(r["id"]), r) for r in records}
        changed = {id for id, now in self._records.items() if now is not before.get(id)}
        if self._unsaved is not None:
            self._unsaved |= changed
        if list(self._records) != list(before):
            self._order = None
        if changed or self._order is None:
            self._forget()
        self._lay(self._records)
        self.save()

    def save(self) -> None:
        """Fold the journal into the manifest."""
        self.decisions.migrate()
        if self._rejected:  # before the manifest is written without them
            with files.naming(self.path.with_suffix(".rejected")), open(self.path.with_suffix(".rejected"), "ab") as aside:
                aside.writelines(line + b"\n" for line in self._rejected)
            self._rejected = []
            self._order = None
        self._lay_down_pen()
        is_ours = identity(self.path) == self._files[0] and self._files[0] is not None
        if self._order is None or self._unsaved or self._unsaved is None or self.journal.exists() or not is_ours:
            self._write(copy=is_ours)
        elif shards.are_begun(self.path) or not shards.has_copy(self.path, self._shards):  # a killed run did not come to it
            shards.tidy(self.path, self._shards)
        self.journal.unlink(missing_ok=True)
        self._torn = False

    def _write(self, copy: bool) -> None:
        """Write the manifest whole. `copy`: lines of records that are as they were are taken over from the file that lies there, and shards."""
        digest = notes.digest()
        former = self._shards if copy and self._unsaved is not None else []
        now = self._write_shards(former) if self._shards or len(self._records) > shards.MOST_LINES else []
        if not now and shards.not_named(self.path, ()):  # a person has taken all out of the first line
            shards.begin(self.path)
        in_lines = self._records
        if now:
            of_shards = {id for shard in now for id in shard.ids if id not in shard.in_lines}
            in_lines = {id: record for id, record in self._records.items() if id not in of_shards}

        def fill(part: Path) -> None:
            with open(part, "wb") as file:
                lines = (
                    self._lines_of_file(in_lines) if copy and self._order and self._unsaved is not None else map(line_of, in_lines.values())
                )
                lines = chain([shards.heading(now)] if now else [], lines)
                while text := b"".join(islice(lines, WRITTEN_AT_ONCE)):
                    digest.update(text)
                    file.write(text)

        files.write_whole(self.path, fill)
        if now or shards.are_begun(self.path):
            shards.tidy(self.path, now)
        self._digest, self._order, self._unsaved, self._shards = digest.hexdigest(), list(in_lines), set(), now
        self._files = (identity(self.path), None)
        self.notes.found = {key: found for key, found in self.notes.found.items() if key == OF_PHOTOS}

    def _write_shards(self, former: list[shards.Shard]) -> list[shards.Shard]:
        """Write the shards of which anything has changed. Returns all."""
        shards.begin(self.path)
        known = {shard.ids[0]: shard for shard in former if shards.lies_there(self.path, shard)}
        in_lines = {id for id, record in self._records.items() if "select" in record and record["select"].get("selected")}
        were_in_lines = {id for shard in former for id in shard.in_lines}
        changed = (self._unsaved or set()) - (in_lines & were_in_lines)
        now: list[shards.Shard] = []
        for ids in shards.cut(list(filter(shards.is_text, self._records)), known):
            shard, lines = known.get(ids[0]), frozenset(in_lines.intersection(ids))
            if shard is None or shard.ids != ids or shard.in_lines != lines or not changed.isdisjoint(ids):
                rows = ((id, None if id in lines else stripped(self._records[id])) for id in ids)
                shard = shards.Shard(shards.write(self.path, rows), ids, lines)
            now.append(shard)
        shards.flush(self.path)
        return now

    def _lines_of_file(self, in_lines: dict[str, Record]) -> Iterator[bytes]:
        """The lines of these records, with those that lie there already for records that are as they were."""
        order, unsaved = self._order or [], self._unsaved or set()
        if order != list(islice(in_lines, len(order))):
            yield from map(line_of, in_lines.values())
            return
        with open(self.path, "rb") as former:
            if self._shards:
                former.readline()
            for (id, record), line in zip_longest(in_lines.items(), former):
                yield line_of(record) if line is None or id in unsaved else line.rstrip(b"\r\n") + b"\n"

    @property
    def is_saved(self) -> bool:
        """Whether what is in memory is what stands in the manifest, to which `notes` belong."""
        return self._digest is not None and self._order is not None and self._unsaved is not None and not self._unsaved

    def note(self) -> None:
        """Keep what was found out about the book as it lies there, for the next command. To be called by who holds the project's lock."""
        if self._digest is None or not self.is_saved or identity(self.path) != self._files[0]:
            return
        if not self.notes.found.get("sound"):
            digest, sound = notes.digest(), True
            in_lines = dict.fromkeys(self._order or ())
            with open(self.path, "rb") as file:
                digest.update(file.readline() if self._shards else b"")
                for line, id in zip(file, in_lines, strict=True):
                    digest.update(line)
                    sound = sound and is_sound(line, self._records[id]) and not leads_out(self._records[id])
            sound = sound and not any(wrong_with(record) for id, record in self._records.items() if id not in in_lines)
            self.notes.found["sound"] = sound and digest.hexdigest() == self._digest
        self.notes.write(self._digest)


def identity(path: Path) -> tuple[int, int, int] | None:
    """By what it shows that a file has been written or replaced: its inode, size and time; None where there is none."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


def _former_or(former: Record | None, record: Record) -> Record:
    """The former record where the other says the same: what was worked out of it still holds."""
    return former if former is not None and stripped(former) == stripped(record) else record


def _merge(rows: list[shards.Row], of_lines: dict[str, Record], into: dict[str, Record], unsaved: set[str] | None) -> bool:
    """Put what stands in shards and in lines together, in the order of the shards; lines count first, and stand in `unsaved` where a shard
    says something else. Returns whether every photo that is to have a line has one."""
    is_whole = True
    for id, record in rows:
        found = of_lines.pop(id, None)
        if found is not None and record is not None and unsaved is not None:
            unsaved.add(id)
        is_whole = is_whole and (found or record) is not None
        if found or record:
            into[id] = cast("Record", found or record)
    into |= of_lines
    return is_whole


def finish(record: Record, stage: str, stamp: str, **found: Any) -> Record:
    """A copy of `record` with what `stage` found out, marked done with `stamp`."""
    failed = {key: value for key, value in record.get("failed", {}).items() if key != stage}
    return cast("Record", {**record, **found, "done": {**record.get("done", {}), stage: stamp}, "failed": failed})


def fail(record: Record, stage: str, message: str) -> Record:
    """A copy of `record` on which `stage` has failed."""
    done = {key: value for key, value in record.get("done", {}).items() if key != stage}
    return {**record, "done": done, "failed": {**record.get("failed", {}), stage: message}}
