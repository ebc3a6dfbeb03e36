"""The photos as the page lists them: one light row a photo, what has changed since a revision, and the project behind it, read again
where another process has written. It never holds the project's lock."""

from __future__ import annotations

import gzip
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lorakit import __version__, files
from lorakit.console import safe, warn
from lorakit.errors import LorakitError
from lorakit.page.answers import NotThere, as_json
from lorakit.project import Project, by_hand, decisions, open_project, work
from lorakit.project.manifest import identity
from lorakit.project.project import FILE
from lorakit.quality import faults, in_words, verdicts
from lorakit.quality.verdicts import Reason
from lorakit.record import Record

FORMAT = 1  # of a row: raise it when rows get other keys, so that kept ones are made anew
SETTLE = 2.0  # seconds between two rounds over the whole set
KEEP_AFTER = 10.0  # seconds without a decision after which the rows are kept for the next start
DRAWN = 2.5  # seconds within which a browser has drawn what was kept
LOOK_EVERY = 0.5  # seconds between two looks at the disk
KEPT = "index.json.gz"
WRITTEN = ("manifest.jsonl", "manifest.journal", decisions.FILE, FILE)

Row = dict[str, Any]


class Index:
    """Rows by id. `epoch` tells one server from another: revisions of one mean nothing to the other."""

    def __init__(self, folder: Path, cache: Path):
        self.folder, self._cache = folder, cache
        self.epoch, self.revision = secrets.token_hex(4), 0
        self.rows: dict[str, Row] = {}
        self.fault: str | None = None  # why the project cannot be read
        self._project: Project | None = None
        self._of: dict[str, int] = {}  # the revision at which a row changed
        self._waiting: set[str] = set()  # photos of which something is decided that no run has applied
        self._order = 0  # the revision at which photos came or went
        self._odd: dict[str, list[Reason]] = {}
        self._wrong: dict[str, list[Reason]] = {}
        self._lock = threading.RLock()
        self._ready, self._wanted = threading.Event(), threading.Event()
        self._settled, self._looked = 0.0, 0.0
        self._is_stale, self._is_settling = False, False
        self._config = identity(folder / FILE)
        self._kept_state: list[Any] = []
        self._failed: list[Any] = []  # how its files stood when it could not be read
        self._first = ""  # the name under which these rows are kept for the next time

    def start(self) -> None:
        threading.Thread(target=self._begin, name="index", daemon=True).start()

    def _begin(self) -> None:
        """Where the list is kept from the last time, the browser draws that first: both at once would share the processor."""
        if self._kept() is not None:
            self._wanted.wait(DRAWN)
        self._open()

    def _open(self) -> None:
        """Read the project and judge all; also again, when its words have changed."""
        before = self._state()
        try:
            project = open_project(self.folder)
            records, is_warm = list(project.manifest), self._kept() is not None
            if self._project is None and not is_warm:  # what compares the whole set takes as long as all before, and can come later
                with self._lock:
                    self._project, self.fault = project, None
                    self._lay(self._judged(records))
                self._ready.set()
            odd, wrong = verdicts.odd_ones(records, project.settings), faults.find(project.manifest.selected, project.settings)
            with self._lock:
                is_first, self._project, self._config, self.fault = self._project is None, project, before[-1], None
                self._odd, self._wrong = odd, wrong
                self._lay(self._judged(project.manifest))
                if is_first:  # the rows that were kept are these, under the revision 0
                    self.revision, self._order, self._of = 0, 0, dict.fromkeys(self._of, 0)
                    self._first = _name_of(before)
            self._settled = time.monotonic()
            self._ready.set()
            if self._state() == before:
                self._kept_state = before
                self._keep(before)
        except (LorakitError, OSError) as error:
            self.fault, self._failed = " ".join(str(error).split()), before
            self._ready.set()
        except Exception as error:
            self._failed = before
            self.fault = f"the photos cannot be listed ({type(error).__name__}: {error}); `lorakit status` says more"
            self._ready.set()
            raise

    @property
    def is_ready(self) -> bool:
        return self._ready.is_set()

    # What is asked for

    @contextmanager
    def held(self) -> Iterator[Project]:
        """The project as it stands on the disk now; nobody else of this server uses it meanwhile."""
        self._wanted.set()
        self._ready.wait()
        with self._lock:
            self._try_again()
            if self._project is None:
                raise LorakitError(self.fault or "the project cannot be read")
            self._refresh()
            yield self._project

    def record(self, project: Project, id: str) -> Record:
        """Raises `NotThere`."""
        if id not in self.rows:
            raise NotThere("this photo is no longer in the project")
        return project.manifest[id]

    def peek(self, id: str) -> tuple[str, str, int] | None:
        """(path, content hash, longer side in pixels) of a photo, without waiting for anybody who works on the index."""
        self._wanted.set()
        self._ready.wait()
        project = self._project
        shown = self.rows.get(id)
        if project is None or shown is None:
            return None
        with suppress(KeyError):
            record = project.manifest[id]
            return record["path"], record["hash"], max(shown.get("w", 0), shown.get("h", 0))
        return None

    def whole(self) -> bytes:
        """All rows, packed: those kept from the last time at once where nothing has been written since."""
        if not self._ready.is_set() and (kept := self._kept()):
            return kept
        self._wanted.set()
        self._ready.wait()
        with self._lock:
            if self._project is not None:
                self._refresh()
            return gzip.compress(as_json(self._facts() | {"rows": list(self.rows.values())}), 1)

    def since(self, epoch: str, revision: int) -> dict[str, Any]:
        """What has changed: {"rows"} and, where photos came or went, {"order": ids}; {"again": true} to another server's page."""
        if not self._ready.is_set():
            return {"epoch": epoch, "revision": revision, "rows": [], "opening": True, "work": work.find(self.folder)}
        with self._lock:
            self._try_again()
            if self._project is not None:
                self._refresh()
            if epoch not in (self.epoch, self._first):
                return {"again": True}
            rows = [self.rows[id] for id, of in self._of.items() if of > revision and id in self.rows]
            order = {"order": list(self.rows)} if self._order > revision else {}
            return self._facts() | {"rows": rows, **order}

    def _facts(self) -> dict[str, Any]:
        found = {"epoch": self.epoch, "revision": self.revision, "fault": self.fault, "work": work.find(self.folder)}
        if (project := self._project) is None:
            return found
        book, settings = project.manifest.decisions, project.settings
        undone = book.last_to_redo()
        return found | {
            "undo": _told(project, book.last_to_undo()),
            "redo": _told(project, undone and book.find(undone["undoes"] or 0), undone),
            "project": {
                "name": safe(project.folder.name),
                "base": project.card.title,
                "kind": project.kind.title,
                "trigger": project.trigger,
                "style": settings.caption.style,
                "budget": settings.caption.token_budget,
                "waiting": len(self._waiting),
            },
        }

    def _try_again(self) -> None:
        """Where the project could not be read: once a person has mended something."""
        if self._project is None and self._state() != self._failed:
            self._failed = self._state()
            threading.Thread(target=self._open, name="index", daemon=True).start()

    # What changes

    def laid(self, ids: Iterable[str]) -> list[Row]:
        """Judge these photos at once, and soon the whole set. Returns their rows. Only within `held`."""
        assert self._project is not None
        records = [self._project.manifest[id] for id in ids if id in self.rows]
        self._lay(self._judged(records), whole=False)
        self._is_stale = True
        return [self.rows[r["id"]] for r in records]

    def _refresh(self) -> None:
        """Take in what stands on the disk; what is unlike the rest of the set is found out in a thread."""
        assert self._project is not None
        now = time.monotonic()
        if now - self._looked >= LOOK_EVERY:
            self._looked = now
            if identity(self.folder / FILE) != self._config:
                self._config = identity(self.folder / FILE)
                threading.Thread(target=self._open, name="index", daemon=True).start()
            if changed := self._project.manifest.refresh():
                self._is_stale = True
                there = {r["id"]: r for r in self._project.manifest}
                if there.keys() == self.rows.keys():
                    self._lay(self._judged([there[id] for id in changed & there.keys()]), whole=False)
                else:
                    self._lay(self._judged(there.values()))
        if self._is_stale and not self._is_settling and now - self._settled >= SETTLE:
            self._is_settling, self._is_stale = True, False
            threading.Thread(target=self._settle, name="set", daemon=True).start()
        elif not self._is_settling and now - self._settled >= KEEP_AFTER and (state := self._state()) != self._kept_state:
            self._kept_state = state
            threading.Thread(target=self._keep, args=(state,), name="keep", daemon=True).start()

    def _settle(self) -> None:
        try:
            with self._lock:
                project = self._project
                assert project is not None
                records, chosen, settings = list(project.manifest), project.manifest.selected, project.settings
            odd, wrong = verdicts.odd_ones(records, settings), faults.find(chosen, settings)
            with self._lock:
                self._odd, self._wrong = odd, wrong
                if self._project is project:
                    self._lay(self._judged(project.manifest))
        finally:
            self._settled, self._is_settling = time.monotonic(), False

    def _judged(self, records: Iterable[Record]) -> dict[str, Row]:
        assert self._project is not None
        return {r["id"]: row(r, self._project, self._odd.get(r["id"], ()), self._wrong.get(r["id"], ())) for r in records}

    def _lay(self, rows: dict[str, Row], whole: bool = True) -> None:
        """Put rows in place of those that there are, noting which are others."""
        changed = [id for id, one in rows.items() if self.rows.get(id) != one]
        is_reordered = whole and list(rows) != list(self.rows)
        if changed or is_reordered:
            self.revision += 1
        for id in changed:
            self._of[id] = self.revision
            (self._waiting.add if "waits" in rows[id] else self._waiting.discard)(id)
        if is_reordered:
            self._order = self.revision
        if whole:
            self.rows = {id: self.rows[id] if self.rows.get(id) == one else one for id, one in rows.items()}
            self._of = {id: of for id, of in self._of.items() if id in self.rows}
            self._waiting &= self.rows.keys()
        else:
            self.rows.update(rows)

    # Rows kept for the next time

    def _state(self) -> list[Any]:
        return [identity(self.folder / name) for name in WRITTEN]

    def _kept(self) -> bytes | None:
        try:
            name, _, body = (self._cache / KEPT).read_bytes().partition(b"\n")
        except OSError:
            return None
        return body if name.decode("ascii", "replace") == _name_of(self._state()) else None

    def _keep(self, state: list[Any]) -> None:
        """Under a name in place of the epoch that says to which files they belong; what is at work is asked for anew."""
        name = _name_of(state)
        with self._lock:
            if self._state() != state:
                return
            facts = self._facts() | {"epoch": name, "revision": 0, "work": None, "rows": list(self.rows.values())}
        body = name.encode() + b"\n" + gzip.compress(as_json(facts), 1)
        try:
            files.write_whole(self._cache / KEPT, lambda part: part.write_bytes(body))
        except OSError as error:
            warn(f"{self._cache}: the list of photos cannot be kept there ({error.strerror}); it is made anew the next time")


def _name_of(state: list[Any]) -> str:
    return files.short_hash(FORMAT, __version__, state)


def row(record: Record, project: Project, odd: Iterable[Reason], wrong: Iterable[Reason]) -> Row:
    """What the page lists of a photo. `why` are reasons (verdict, name, words), `faults` those of its text (name, words)."""
    verdict = verdicts.add_warnings(verdicts.judge(record, project.settings), tuple(odd))
    measures, human = record.get("measures", {}), record.get("human", {})
    size, trigger = measures.get("size", {}), record.get("trigger") or {}
    is_chosen = bool(record.get("select", {}).get("selected"))
    text, by_hand_text = record.get("text"), human.get("text")
    is_edited = by_hand_text is not None and by_hand_text != trigger.get("human")
    found = {
        "id": record["id"],
        "name": safe(record["file"]),
        "w": size.get("width", 0),
        "h": size.get("height", 0),
        "bytes": record.get("bytes", 0),
        "verdict": _with_text(verdict, wrong),
        "judged": max((r.verdict for r in verdict.reasons), key=verdicts.ORDER.__getitem__, default="keep"),
        "why": [[r.verdict, r.reason, in_words.in_words(r)] for r in verdict.reasons],
        "faults": [[r.reason, in_words.in_words(r)] for r in wrong],
        "of": (record.get("dedupe") or {}).get("of"),
        "like": (record.get("dedupe") or {}).get("reason"),
        "chosen": is_chosen,
        "text": by_hand_text if is_edited else text,
        "edited": is_edited,
        "fits": trigger.get("agreement"),
        "tokens": trigger.get("tokens"),
        "sharp": measures.get("sharpness", {}).get("sharpness"),
        "jpeg": measures.get("compression", {}).get("jpeg_quality"),
        "human": {key: value for key, value in human.items() if key != "taken_from"},
        "crop": record.get("crop"),
        "failed": record.get("failed") or None,
        "waits": by_hand.waits(record),
    }
    return {key: value for key, value in found.items() if value not in (None, [], {}, False)}


def _with_text(verdict: verdicts.Verdict, wrong: Iterable[Reason]) -> str:
    return verdicts.add_warnings(verdict, tuple(wrong)).verdict


def _told(project: Project, decision: decisions.Decision | None, by: decisions.Decision | None = None) -> dict[str, Any] | None:
    """A decision in a few words, 'keep: a.jpg and 3 more', and the number of what is to be taken back for it: its own, or that of its
    undo `by`."""
    if decision is None:
        return None
    changes, named = decision["changes"], project.manifest.name_of
    words = "rules of words" if "rules" in decision else "a decision"
    if changes:
        first, more = changes[0], len({change["id"] for change in changes}) - 1
        now = first["now"] if first["what"] == "verdict" and first["now"] else first["what"]
        words = f"{now}: {safe(named(first['id']))}" + (f" and {more} more" if more else "")
    return {"n": (by or decision)["n"], "words": words}
