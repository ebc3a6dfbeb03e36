"""What each captioner has read, kept in the project's cache reading by reading: another wording, a second captioner or the way back to
a former one reads nothing again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lorakit import files
from lorakit.record import Pixels
from lorakit.text.composing import RawCaption

FILE = "readings.jsonl"


class Readings:
    """Readings by their key (`stamps.reading`), one line each; a line that a kill has torn is lost."""

    def __init__(self, cache_folder: Path):
        self.path = cache_folder / FILE
        self._known: dict[str, dict[str, Any]] = {}
        if not self.path.is_file():
            return
        for line in self.path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                entry = json.loads(line)
                self._known[entry["key"]] = {**entry, "sentence": str(entry["sentence"]), "tags": [str(tag) for tag in entry["tags"]]}
            except (ValueError, KeyError, TypeError, RecursionError):
                continue

    def get(self, key: str, budget: int) -> tuple[RawCaption, Pixels | None] | None:
        """What was read, unless it was stopped for a base that reads less than `budget`."""
        entry = self._known.get(key)
        if entry is None or entry.get("cut_at", budget) < budget:
            return None
        return RawCaption(entry["sentence"], tuple(entry["tags"]), "cut_at" in entry), entry.get("pixels")

    def keep(self, entries: list[tuple[str, str, RawCaption, Pixels | None]], budget: int) -> None:
        """Write down (key, captioner, reading, pixels) at once; `budget` is what the base reads, for answers that were stopped."""
        if not entries:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with files.naming(self.path), open(self.path, "ab+") as file:
            file.seek(0, 2)
            if file.tell():
                file.seek(-1, 2)
                file.write(b"" if file.read(1) == b"\n" else b"\n")  # behind a line that a kill has torn
            for key, by, reading, pixels in entries:
                entry: dict[str, Any] = {"key": key, "by": by, "sentence": reading.sentence, "tags": list(reading.tags), "pixels": pixels}
                if reading.cut:
                    entry["cut_at"] = budget
                self._known[key] = entry
                file.write(json.dumps(entry).encode() + b"\n")
