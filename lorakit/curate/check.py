"""Stage check: opens each photo once and lets every check of the folder `checks/` measure it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2

from lorakit import lookup
from lorakit.console import progress, say, warn
from lorakit.curate.descriptors import common_phash, descriptors
from lorakit.errors import UnreadablePhoto
from lorakit.photos.photo import read_photo
from lorakit.photos.remote import GONE, Patience, Remote, is_address, place_of
from lorakit.project import Project, manifest, stamps
from lorakit.record import Record


def check(project: Project) -> None:
    """Measure every photo that has not been measured: `measures` (numbers per check) and `look` (hashes, colours), and `phash`
    for other tools.

    Photos that cannot be decoded get a measure of their own under `damaged`; none of them stops the stage.
    """
    if stamps.noted(project, "all checked", lambda: next(_to_do(project), None) is None):
        project.manifest.save()  # where a killed run has left them in the journal
        return
    wanted = {r["id"]: stamp for r, stamp in _to_do(project)}
    todo = [project.manifest[id] for id in wanted]
    if todo:
        _say_what_is_passed_over()
    patience = Patience()
    with progress("check", len(todo)) as shown:
        places = {place_of(r): r for r in todo}
        for path, found in project.engine.each(measure_all, places):
            record = places[path]
            if isinstance(found, UnreadablePhoto):  # it has ended its worker
                warn(f"{record['file']}: {found}")
                found = _not_measured(found)
            project.manifest.keep(manifest.finish(record, "check", wanted[record["id"]], **found))
            shown.advance()
            if isinstance(path, Remote):
                patience.take(path, _why_not_given(found["measures"]))
    project.manifest.save()


def _to_do(project: Project) -> Iterator[tuple[Record, str]]:
    """(photo, its stamp) of what is to be looked at."""
    for record in project.manifest:
        stamp = stamps.check(project, record)
        if record.get("done", {}).get("check") != stamp or _could_not_be_opened(record):
            yield record, stamp


def _could_not_be_opened(record: Record) -> bool:
    """Whether it was the system that did not give the file; rights and networks change without leaving a trace on it."""
    return record.get("measures", {}).get("damaged", {}).get("unreadable") == "unreadable"


def not_given(project: Project) -> dict[str, str]:
    """{file: why} of the photos that their store did not give, and nobody has rejected: the set lacks them for the network's reasons."""
    lacking = (r for r in project.manifest if is_address(r["path"]) and r.get("human", {}).get("verdict") != "reject")
    return {r["file"]: why for r in lacking if (why := _why_not_given(r.get("measures", {})))}


def _why_not_given(measures: dict[str, Any]) -> str | None:
    """None for a photo that was given, and where there is none any more."""
    said = measures.get("damaged", {})
    return said["detail"] if said.get("unreadable") == "unreadable" and said["detail"] != GONE else None


def measure_all(paths: list[Path | Remote]) -> list[dict[str, Any]]:
    cv2.setNumThreads(1)  # one photo a thread; threads inside threads only wait for each other
    return [measure(path) for path in paths]


def measure(path: Path | Remote) -> dict[str, Any]:
    """{"measures": {check: numbers}, "look": {...}, "phash": hex} of one photo file."""
    try:
        photo = read_photo(path)
    except UnreadablePhoto as error:
        return _not_measured(error)
    checks = {name: lookup.load(lookup.CHECKS, name) for name in lookup.names(lookup.CHECKS)}
    usable = {name: module for name, module in checks.items() if lookup.is_installed(module)}
    return {
        "measures": {name: module.measure(photo) for name, module in usable.items()},
        "look": descriptors(photo),
        "phash": common_phash(photo),
    }


def _not_measured(error: UnreadablePhoto) -> dict[str, Any]:
    return {"measures": {"damaged": {"unreadable": error.reason, "detail": error.detail}}, "look": None, "phash": None}


def _say_what_is_passed_over() -> None:
    for name in lookup.names(lookup.CHECKS):
        module = lookup.load(lookup.CHECKS, name)
        if not lookup.is_installed(module):
            say(f"check     without {name}, for which there is an extra: pip install lorakit[{module.EXTRA}]")
