"""What a person decided, in `decisions.jsonl`: one line a decision, only ever added to, under a lock of its own, so that a
decision never waits for a training and no work overwrites it.

A line is {"n": number, "at": time, "by": "page" | "command" | "file", "undoes": n or null,
"changes": [{"id", "what", "was", "now"}]} and, where the rules of words changed, "rules": {"was", "now"}.
    what      now (null: as nobody had decided)
    verdict   "keep" or "reject"
    text      the training text
    crop      {"box": [left, top, right, bottom], "bucket": [width, height]}, in pixels of the upright photo
    apart     ids of photos that are no copies of this one
    pick      {"step", "strength"}: the checkpoint that is exported; here `id` is the name of the run's folder
The sum of all lines is what holds. `Manifest` lays it over the records as `human`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

from lorakit import files
from lorakit.console import typed, warn
from lorakit.errors import Conflict, LorakitError, ProjectBusy

FILE, LOCK = "decisions.jsonl", ".decisions.lock"
TORN = "decisions.torn"  # beside it: ends of lines that were not written whole
WAIT = 5.0  # seconds for others who are writing a line
BY = ("page", "command", "file")


class Change(TypedDict):
    """One thing that a decision changes, of one photo (of one run, for a pick)."""

    id: str
    what: str
    was: Any
    now: Any


class Decision(TypedDict, total=False):
    """One line; `rules` is there only where they changed."""

    n: int
    at: str
    by: str
    undoes: int | None
    changes: list[Change]
    rules: dict[str, list[str]]


class Decisions:
    """The decisions of a project, and their sum."""

    def __init__(self, folder: Path, before: Mapping[str, Mapping[str, Any]] | None = None):
        """`before` {id: {what: value}}: what an older manifest held under `human`. Those are the first lines, written with
        the first decision or the first time that the manifest is."""
        self.path = folder / FILE
        self.lines: list[Decision] = []
        self._lock_path, self._lock = folder / LOCK, None
        self._sum: dict[str, dict[str, Any]] = {}
        self._read, self._inode, self._number = 0, None, 0  # bytes and lines of the file that are taken in
        self._told = b""  # the torn end that has been warned of, where it could not be set aside
        self._before = {} if self.path.exists() else dict(before or {})
        for line in self._lines_before():
            self._take(line)
        self.refresh()

    def of(self, id: str) -> dict[str, Any] | None:
        """{what: value} as it holds for a photo; None where nobody has ever decided about it."""
        return self._sum.get(id)

    def pick(self, run: str) -> dict[str, Any] | None:
        """{"step", "strength"} that was picked of a run, by its folder's name."""
        return self._sum.get(run, {}).get("pick")

    def fingerprint(self) -> str:
        """By which it shows that something else is decided."""
        return files.short_hash(self._sum)

    @property
    def has_picks(self) -> bool:
        return any("pick" in held for held in self._sum.values())

    def is_read(self) -> bool:
        """Whether all that stands in the file is taken in, by its size."""
        try:
            facts = self.path.stat()
        except OSError:
            return self._read == 0
        return (facts.st_ino, facts.st_size) == (self._inode, self._read)

    def refresh(self) -> list[Decision]:
        """Take in what others have added. Returns the new decisions."""
        new: list[Decision] = []
        for wait in (0.01, 0.02, 0.0):  # a line that is being written is whole a moment later
            found, torn = self._read_new()
            new += found
            if not torn:
                return new
            time.sleep(wait)
        return new + self._set_torn_aside(torn)

    def _set_torn_aside(self, torn: bytes) -> list[Decision]:
        """Move a last line that nobody is writing any more into a file beside, so that it is spoken of once. Returns what was added
        meanwhile."""
        try:
            with self.locked(wait=0):
                new, torn = self._read_new()
                if torn:
                    with open(self.path.with_name(TORN), "ab") as beside:
                        beside.write(torn + b"\n")
                        beside.flush()
                        os.fsync(beside.fileno())
                    os.truncate(self.path, self._read)
                    warn(
                        f"{self.path}: its last line is torn (whoever wrote it was stopped); it does not count, and is kept in {TORN} beside"
                    )
                return new
        except ProjectBusy:
            return []  # somebody is writing it
        except OSError:  # a project that can only be read
            if torn != self._told:
                warn(f"{self.path}: its last line is torn (whoever wrote it was stopped) and is passed over")
            self._told = torn
            return []

    def append(
        self,
        changes: Iterable[Change],
        by: str,
        undoes: int | None = None,
        rules: dict[str, list[str]] | None = None,
        name_of: Callable[[str], str] = str,
    ) -> Decision:
        """Add a decision, flushed to the disk before this returns. Raises `Conflict` where a value is no longer what the
        change says it was; then nothing is written."""
        changes = list(changes)
        for change in changes:
            if by not in BY or not is_value(change["what"], change["now"]):
                raise ValueError(f"no decision by {by!r}: {change}")
        with self.locked():
            self.migrate()
            self.refresh()
            for change in changes:
                now = (self.of(change["id"]) or {}).get(change["what"])
                if now != change["was"]:
                    raise Conflict(
                        f"{name_of(change['id'])}: its {change['what']} is {in_words(change['what'], now)} by now, no longer "
                        f"{in_words(change['what'], change['was'])}; nothing was changed, look again and decide anew"
                    )
            line: Decision = {"n": self._last + 1, "at": _time(), "by": by, "undoes": undoes, "changes": changes}
            if rules is not None:
                line["rules"] = rules
            self._write(line)
            self.refresh()
        return line

    @contextmanager
    def locked(self, wait: float = WAIT) -> Iterator[None]:
        """Nobody else writes a decision meanwhile. May be entered again by who holds it."""
        from filelock import FileLock, Timeout

        self._lock = self._lock or FileLock(self._lock_path)
        try:
            self._lock.acquire(timeout=wait)
        except Timeout:
            raise ProjectBusy(
                f"{self.path}: another program has been writing decisions for more than {wait:g} seconds; nothing was changed, try again"
            ) from None
        try:
            yield
        finally:
            self._lock.release()

    def migrate(self) -> None:
        """Write what an older manifest held as the first lines, once and whole, before that manifest is written without it."""
        if not self._before:
            return
        with self.locked():
            if not self.path.exists():
                files.write_text(self.path, "".join(json.dumps(line) + "\n" for line in self._lines_before()))
            self.refresh()

    def _lines_before(self) -> list[Decision]:
        """A line a photo. An empty one is kept too: somebody has decided and taken it back, which the report's stamp knows."""
        at = _time(self.path.with_name("manifest.jsonl"))
        lines: list[Decision] = []
        for number, (id, human) in enumerate(self._before.items(), 1):
            changes: list[Change] = [{"id": id, "what": what, "was": None, "now": value} for what, value in human.items()]
            changes = changes or [{"id": id, "what": "verdict", "was": None, "now": None}]
            lines.append({"n": number, "at": at, "by": "command", "undoes": None, "changes": changes})
        return lines

    @property
    def _last(self) -> int:
        return max((line["n"] for line in self.lines), default=0)

    def _read_new(self) -> tuple[list[Decision], bytes]:
        """New decisions, and a last line that is not whole (yet)."""
        if not self.path.exists():
            return [], b""
        with open(self.path, "rb") as file:
            facts = os.fstat(file.fileno())
            if self._read == 0 or facts.st_ino != self._inode or facts.st_size < self._read:  # begun, or put back by a person
                self.lines, self._sum, self._before = [], {}, {}
                self._read, self._inode, self._number = 0, facts.st_ino, 0
            file.seek(self._read)
            text = file.read()
        whole, end, tail = text.rpartition(b"\n")
        if tail and _parse(tail):  # only its end of line is missing
            whole, end, tail = text, b"", b""
        new = []
        for line in whole.split(b"\n") if whole else []:
            self._number += 1
            decision = _parse(line)
            if decision:
                self._take(decision)
                new.append(decision)
            elif line.strip():
                warn(f"{self.path}, line {self._number}: no decision can be read there, it is passed over; mend or remove the line")
        self._read += len(whole) + len(end)
        return new, tail

    def _take(self, decision: Decision) -> None:
        self.lines.append(decision)
        for change in decision["changes"]:
            held = self._sum.setdefault(change["id"], {})
            held.pop(change["what"], None)
            if change["now"] is not None:
                held[change["what"]] = change["now"]

    def _write(self, line: Decision) -> None:
        text = (json.dumps(line, ensure_ascii=True) + "\n").encode()
        fresh = not self.path.exists()
        with files.naming(self.path), open(self.path, "ab", buffering=0) as file:
            end = file.tell()
            if end and _last_byte(self.path) != b"\n":
                text = b"\n" + text  # a torn line is never glued to this one
            try:
                while text:
                    text = text[file.write(text) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)
                raise
        if fresh:
            files.flush_folder(self.path.parent)

    # What undo and redo take back. A decision that undoes one which itself undoes is a redo, and so on.

    def find(self, n: int) -> Decision:
        found = next((line for line in reversed(self.lines) if line["n"] == n), None)
        if found is None:
            raise LorakitError(f"no decision has the number {n}; `lorakit history {typed(self.path.parent)}` lists them")
        return found

    def undone_by(self, n: int) -> int | None:
        """The decision that took this one back."""
        return next((line["n"] for line in reversed(self.lines) if line["undoes"] == n), None)

    def is_undo(self, decision: Decision) -> bool:
        """Whether it takes a decision back (a redo brings one back instead)."""
        if decision["undoes"] is None:
            return False
        undoes = next((line for line in reversed(self.lines) if line["n"] == decision["undoes"]), None)
        return undoes is not None and not self.is_undo(undoes)

    def standing(self) -> Iterator[Decision]:
        """Decisions that changed something and have not been taken back, newest first."""
        undone = {line["undoes"] for line in self.lines}
        for line in reversed(self.lines):
            if (
                line["n"] not in undone
                and not self.is_undo(line)
                and ("rules" in line or any(c["was"] != c["now"] for c in line["changes"]))
            ):
                yield line

    def last_to_undo(self) -> Decision | None:
        """The newest decision that stands."""
        return next(self.standing(), None)

    def last_to_redo(self) -> Decision | None:
        """The newest undo that stands, unless something else has been decided since."""
        undone = {line["undoes"] for line in self.lines}
        for line in reversed(self.lines):
            if line["undoes"] is None:
                return None
            if line["n"] not in undone and self.is_undo(line):
                return line
        return None


def inverse(decision: Decision) -> tuple[list[Change], dict[str, list[str]] | None]:
    """The changes, and those of rules, that take a decision back."""
    changes: list[Change] = [{"id": c["id"], "what": c["what"], "was": c["now"], "now": c["was"]} for c in reversed(decision["changes"])]
    rules = decision.get("rules")
    return changes, {"was": rules["now"], "now": rules["was"]} if rules is not None else None


def is_value(what: str, value: Any) -> bool:
    """Whether a change may have this value."""
    if value is None:
        return what in ("verdict", "text", "crop", "apart", "pick")
    if what == "verdict":
        return value in ("keep", "reject")
    if what == "text":
        return isinstance(value, str)
    if what == "apart":
        return isinstance(value, list) and all(isinstance(id, str) for id in value)
    if not isinstance(value, dict):
        return False
    if what == "crop":
        return _are_numbers(value.get("box"), 4) and _are_numbers(value.get("bucket"), 2)
    strength = value.get("strength")
    return what == "pick" and _are_numbers([value.get("step")], 1) and (strength is None or isinstance(strength, (int, float)))


def in_words(what: str, value: Any) -> str:
    """A value as a person reads it."""
    if value is None:
        return "as judged" if what == "verdict" else "as nobody had decided"
    if what == "apart":
        return ", ".join(value)
    if what == "crop":
        return f"{','.join(map(str, value['box']))} for {value['bucket'][0]}x{value['bucket'][1]}"
    if what == "pick":
        return f"step {value['step']}" + (f" at strength {value['strength']:g}" if value.get("strength") is not None else "")
    return repr(value) if what == "text" else str(value)


def _are_numbers(value: Any, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(isinstance(n, int) and not isinstance(n, bool) for n in value)


def _parse(line: bytes) -> Decision | None:
    """The decision that stands in a line, None where none does."""
    try:
        found = json.loads(line)
        undoes, rules = found.get("undoes"), found.get("rules")
        whole = (
            isinstance(found["n"], int)
            and (undoes is None or isinstance(undoes, int) and undoes < found["n"])
            and all(isinstance(c["id"], str) and is_value(c["what"], c["now"]) and is_value(c["what"], c["was"]) for c in found["changes"])
            and (rules is None or all(isinstance(rule, str) for key in ("was", "now") for rule in rules[key]))
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if not whole:
        return None
    read: Decision = {
        "n": found["n"],
        "at": str(found.get("at", "")),
        "by": str(found.get("by", "")),
        "undoes": undoes,
        "changes": found["changes"],
    }
    if rules is not None:
        read["rules"] = rules
    return read


def _time(path: Path | None = None) -> str:
    """ISO 8601 with the zone: now, or when a file was last written."""
    seconds = path.stat().st_mtime if path is not None and path.exists() else time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(seconds))


def _last_byte(path: Path) -> bytes:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)
