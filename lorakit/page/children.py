"""Work that is started from the page: a `lorakit` command of its own, in a process group of its own, that outlives the page."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from lorakit.errors import ProjectBusy
from lorakit.project import work

LOG = "work.log"
LEAVES = 8.0  # seconds that a command may take to leave when it is done: torch is slow to
SHOWN = 4000  # bytes of its end


class Children:
    """Starts one command at a time; what they say goes to a file."""

    def __init__(self, folder: Path, cache: Path):
        self.folder, self.log = folder, cache / LOG
        self._last: subprocess.Popen[bytes] | None = None
        self._words: list[str] = []
        self._lock = threading.Lock()

    def start(self, verb: str, *words: str) -> dict[str, Any]:
        """Run `lorakit VERB ... PROJECT`. Raises `ProjectBusy` where somebody is at work."""
        with self._lock:
            if work.find(self.folder) or not self._has_left():
                raise ProjectBusy(f"{self.folder.name}: another command is at work; wait for it or stop it")
            self.log.parent.mkdir(parents=True, exist_ok=True)
            place = ["-o", str(self.folder)] if verb == "run" else [str(self.folder)]
            command = [sys.executable, "-m", "lorakit", verb, *place, *words]
            with open(self.log, "wb") as out:
                self._last = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=os.name != "nt"
                )
            self._words = [verb, *words]
        return self.told()

    def _has_left(self) -> bool:
        """Whether the last command has ended; one that has given the project back is waited for."""
        if self._last is None:
            return True
        try:
            self._last.wait(LEAVES)
        except subprocess.TimeoutExpired:
            return False
        return True

    def told(self) -> dict[str, Any]:
        """{"running", "verb", "exit": of the last command, "said": the end of what it said}; empty where none was started."""
        if self._last is None:
            return {}
        code = self._last.poll()
        try:
            with open(self.log, "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - SHOWN))
                said = file.read().decode("utf-8", "replace")
        except OSError:
            said = ""
        return {"running": code is None, "words": self._words, "exit": code, "said": said}
