"""Whether the folders of photos lie as the last scan left them: then there is nothing to scan, and nothing of theirs is opened."""

from __future__ import annotations

from pathlib import Path

from lorakit import files
from lorakit.curate import account
from lorakit.curate.places import is_looked_into
from lorakit.project import Project
from lorakit.project.manifest import OF_PHOTOS


def are_as_scanned(project: Project, now: tuple[str, int] | None) -> bool:
    """Whether every file in the photo folders, which are in this state `now`, has the name, size, times and inode that it had before the
    last scan, which looked at them by the same settings and left this very book."""
    noted = project.manifest.notes.found.get(OF_PHOTOS)
    if now is None or not noted or not project.manifest.is_saved:
        return False
    return noted == [now[0], _account_of(project)]


def note(project: Project, before: tuple[str, int] | None) -> None:
    """Note that the book is what a scan makes of the folders as they were when it began. Not of files so fresh that one more change would
    not show in their times."""
    if before is not None and files.would_show(before[1]):
        project.manifest.notes.found[OF_PHOTOS] = [before[0], _account_of(project)]


def state_of(project: Project) -> tuple[str, int] | None:
    """(fingerprint of all that lies in the photo folders and of the settings that a scan reads, the newest time of any file there); None
    where photos come from elsewhere too, or a folder cannot be read."""
    if any(isinstance(place, str) or not place.is_dir() for place in project.photos):
        return None
    settings = project.settings
    read = (list(map(str, project.photos)), settings.scan, settings.caption.several, settings.caption.embedded, settings.select.everything)
    try:
        found = [
            files.folder_state(
                Path(place), lambda entry: settings.scan.recursive and is_looked_into(entry.name) and Path(entry.path) != project.folder
            )
            for place in project.photos
        ]
    except OSError:
        return None
    return files.short_hash(*read, [state for state, _ in found]), max((newest for _, newest in found), default=0)


def _account_of(project: Project) -> str | None:
    path = project.folder / account.FILE
    return files.file_hash(path) if path.is_file() else None
