"""Who is at work in a project: `.lock`, which only one lorakit holds at a time, and beside it, while it is held, `.work.json`
with who that is. Whether somebody works is always found out anew, never believed: a killed process leaves its note behind."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lorakit import files
from lorakit.errors import ProjectBusy

LOCK, NOTE = ".lock", ".work.json"
WAIT = 2.0  # seconds for another command that is about to end


@contextmanager
def locked(folder: Path, verb: str) -> Iterator[Work]:
    """Hold the project's lock. Raises `ProjectBusy`, saying who works there."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK, timeout=WAIT)
    try:
        lock.acquire()
    except Timeout:
        raise ProjectBusy(f"{folder}: another lorakit is at work in this project{_who(folder)}; wait for it or stop it") from None
    work = Work(folder, verb)
    try:
        work.note_stage(None)
        yield work
    finally:
        work.path.unlink(missing_ok=True)
        lock.release()


class Work:
    """The note of the process that holds the lock: {"pid", "started": when that process was (seconds since 1970), "host",
    "verb", "stage"}."""

    def __init__(self, folder: Path, verb: str):
        self.path, self._verb = folder / NOTE, verb

    def note_stage(self, stage: str | None) -> None:
        pid = os.getpid()
        facts = {"pid": pid, "started": started(pid), "host": socket.gethostname(), "verb": self._verb, "stage": stage}
        files.write_json(self.path, facts)


def find(folder: Path) -> dict[str, Any] | None:
    """The note of who works in a project, None where nobody does: no note, or one whose process has ended. Whether a process
    of another machine still lives cannot be known, so that note is taken as it stands."""
    try:
        facts = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        alive = is_alive(facts["pid"], facts["started"], facts["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return facts if alive else None


def this_verb() -> str:
    """The verb of the running `lorakit` command; `python` where lorakit is used as a package."""
    words = sys.argv
    is_command = Path(words[0]).stem in ("lorakit", "__main__") if words else False
    return words[1] if is_command and len(words) > 1 else "python"


def is_alive(pid: int, began: float, host: str) -> bool:
    """Whether a process that was noted still lives; of another machine that cannot be known, and it is taken to."""
    return host != socket.gethostname() or started(pid) == began is not None


def started(pid: int) -> float | None:
    """When a process began; None where there is none of this number. Numbers are used again, the two together are not."""
    import psutil

    try:
        return round(psutil.Process(pid).create_time(), 2)
    except psutil.Error:
        return None


def _who(folder: Path) -> str:
    facts = find(folder)
    if not facts:
        return ""
    stage = f", stage {facts['stage']}" if facts.get("stage") else ""
    return f" ({facts.get('verb')}{stage}, process {facts['pid']} on {facts['host']})"
