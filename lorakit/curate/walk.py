"""The folders below one of this machine's, and what is said of those that are not looked into."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lorakit.console import warn


def folders_below(root: Path, below: bool = True) -> Iterator[tuple[str, list[str], list[str]]]:
    """As `os.walk`, and subfolders may be struck out as they come. A closed folder is named, and a link to another folder, which is not
    followed, if what is `below` is looked into."""
    for folder, subfolders, names in os.walk(root, onerror=_say_closed):
        for name in subfolders if below else ():
            if os.path.islink(link := Path(folder, name)) and not link.resolve().is_relative_to(root.resolve()):
                warn(f"{link}: a link to another folder is not followed; name that folder too if its photos are wanted")
        yield folder, subfolders, names


def _say_closed(error: OSError) -> None:
    warn(f"{error.filename}: its photos are left out, for the folder cannot be read ({error.strerror})")
