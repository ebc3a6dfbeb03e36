"""What was found out about the book, kept from one command to the next in `cache/book.json`, so that a command on 50,000 photos need not
find it out again. A pure cache: it counts only for the very bytes of the manifest and for the very code that found it out, is never
believed over either, and may be removed at any time."""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

from lorakit import files, lookup

FILE = "cache/book.json"


class Notes:
    """Notes on one state of the book: {"sound": every line has the right types, "folders": the state of the photo folders that it was
    scanned from, "found": {what: [by which settings and decisions, the value]}}."""

    def __init__(self, folder: Path, book: str | None):
        """`book` is the fingerprint of the manifest's bytes; None where there is none, of which nothing is known."""
        self.path = folder / FILE
        self._kept = self._read() if book else {}
        self.found: dict[str, Any] = dict(self._kept.get("found", {})) if self._kept.get("of") == [book, code()] else {}

    def write(self, book: str) -> None:
        """Keep what was found out, as being of this state of the book."""
        now = {"of": [book, code()], "found": self.found, "sum": _sum(book, self.found)}
        if now != self._kept:
            files.write_json(self.path, now)
            self._kept = {**now, "found": dict(self.found)}

    def _read(self) -> dict[str, Any]:
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        whole = isinstance(kept, dict) and isinstance(kept.get("of"), list) and kept["of"][:1] and isinstance(kept.get("found"), dict)
        return kept if whole and kept.get("sum") == _sum(kept["of"][0], kept["found"]) else {}


def _sum(book: str, found: dict[str, Any]) -> str:
    """Against a bad disk."""
    return files.short_hash(book, found)


def digest() -> Any:
    """What `hexdigest` of tells the bytes of a book apart."""
    return hashlib.blake2b(digest_size=16)


@cache
def code() -> str:
    """A fingerprint of lorakit's own files and of plug-ins: another version may find out something else."""
    places = [lookup.PACKAGE, *lookup.places(lookup.CHECKS)[1:], *lookup.places(lookup.CAPTIONERS)[1:]]
    paths = sorted(path for place in places for path in place.rglob("*.py"))
    return files.short_hash([(os.fspath(path), *_state(path)) for path in paths])


def _state(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns
