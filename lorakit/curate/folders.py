"""Whether the folders of photos lie as the last scan left them: then there is nothing to scan, and nothing of theirs is opened."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lorakit import files
from lorakit.curate import account
from lorakit.curate.places import is_looked_into
from lorakit.project import Project
from lorakit.project.manifest import OF_PHOTOS

FRESH = 2_000_000_000  # nanoseconds for which a file may change once more and its time stay the same; two seconds on FAT


def are_as_scanned(project: Project) -> bool:
    """Whether every file in the photo folders has the name, size, times and inode that it had before the last scan, which looked at
    them by the same settings and left this very book."""
    noted = project.manifest.notes.found.get(OF_PHOTOS)
    if not noted or not project.manifest.is_saved or noted[1] != _account_of(project):
        return False
    now = state_of(project)
    return now is not None and now[0] == noted[0]


def note(project: Project, before: tuple[str, int] | None) -> None:
    """Note that the book is what a scan makes of the folders as they were when it began. Not of files so fresh that one more change would
    not show in their times."""
    if before is not None and before[1] < time.time_ns() - FRESH:
        project.manifest.notes.found[OF_PHOTOS] = [before[0], _account_of(project)]


def state_of(project: Project) -> tuple[str, int] | None:
    """(fingerprint of all that lies in the photo folders and of the settings that a scan reads, the newest time of any file there); None
    where photos come from elsewhere too, or a folder cannot be read."""
    if any(isinstance(place, str) or not place.is_dir() for place in project.photos):
        return None
    digest, newest = hashlib.blake2b(digest_size=16), 0
    settings = project.settings
    read = (list(map(str, project.photos)), settings.scan, settings.caption.several, settings.caption.embedded, settings.select.everything)
    digest.update(files.short_hash(*read).encode())
    try:
        for place in project.photos:
            for line, changed in _entries(str(place), project, settings.scan.recursive):
                digest.update(line)
                newest = max(newest, changed)
    except OSError:
        return None
    return digest.hexdigest(), newest


def _entries(folder: str, project: Project, recursive: bool) -> Iterator[tuple[bytes, int]]:
    """(what tells a file from another, when it was last changed) of all in a folder and below it, in the order of their names."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    yield f"{folder}\0\0".encode("utf-8", "surrogateescape"), 0
    for entry in entries:
        facts = entry.stat(follow_symlinks=False)
        link = facts.st_ino if stat.S_ISLNK(facts.st_mode) else 0
        if link:
            with suppress(OSError):  # where it leads nowhere, the link itself
                facts = entry.stat()
        if stat.S_ISDIR(facts.st_mode):
            yield f"{entry.name}\0{link}\0".encode("utf-8", "surrogateescape"), 0
            if recursive and not link and is_looked_into(entry.name) and Path(entry.path) != project.folder:
                yield from _entries(entry.path, project, recursive)
            continue
        line = f"{entry.name}\0{link} {facts.st_mode} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns} {facts.st_ino}\0"
        yield line.encode("utf-8", "surrogateescape"), max(facts.st_mtime_ns, facts.st_ctime_ns)


def _account_of(project: Project) -> str | None:
    path = project.folder / account.FILE
    return files.file_hash(path) if path.is_file() else None
