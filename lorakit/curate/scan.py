"""Stage scan: finds the photos, tells them by their content, and brings the manifest in line with the folders."""

from __future__ import annotations

import json
import os
import stat
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import cast

from lorakit import files, photo
from lorakit.console import say, track, warn
from lorakit.curate import hf_datasets, sources
from lorakit.errors import LorakitError
from lorakit.project import Project
from lorakit.record import Record
from lorakit.text import sidecars

PASSED_OVER = frozenset(("@eadir", "__macosx", "$recycle.bin", "#recycle"))  # thumbnails and bins that systems leave
UNREADABLE = "unreadable-"  # begins what stands for the hash of a file that cannot be read; it is tried again each time
INTERRUPTED, STATE = "scan.jsonl", ("path", "bytes", "modified")
UNFINISHED = (".crdownload", ".part", ".partial", ".download")


def scan(project: Project) -> None:
    """Read the photo folders into the manifest.

    A photo is known by the hash of its bytes: renamed or moved, it keeps its record; gone, its record stays but is no
    longer listed. Files whose size and time have not changed are not read again.

    Raises `LorakitError` when a folder is missing or no photo is found at all.
    """
    sidecars.read_metadata.cache_clear()
    sidecars.pass_over.cache_clear()
    listed = [entry for place in project.photos for entry in find_photos(place, project)]
    found = [(root, path) for path, root in {path: root for root, path in reversed(listed)}.items()][::-1]  # each once
    if not found:
        places = ", ".join(map(str, project.photos)) or "no folder was given"
        raise LorakitError(f"no photos in {places} (looked at the content of every file); name the folder that holds them")
    interrupted = project.cache_folder / INTERRUPTED
    before = (*_read_interrupted(interrupted), *project.manifest.everything())
    known = {_state(r): r["hash"] for r in before if not r["hash"].startswith(UNREADABLE)}
    several = len(project.photos) > 1
    fresh = []
    interrupted.parent.mkdir(parents=True, exist_ok=True)
    with open(interrupted, "a", encoding="utf-8", buffering=1) as notes:
        for root, path in track(found, "scan", len(found)):
            with suppress(FileNotFoundError):  # it has gone since it was listed
                fresh.append(_describe(root, path, several, known))
                if _state(fresh[-1]) not in known:
                    notes.write(json.dumps({key: fresh[-1][key] for key in (*STATE, "hash")}) + "\n")
    records = match(project.manifest.everything(), fresh)
    _say_what_changed(project, records)
    project.manifest.replace(records)
    interrupted.unlink()


def _state(record: Record) -> tuple:
    """By which a file is taken to be unchanged since it was last read."""
    return tuple(record[key] for key in STATE)


def _read_interrupted(path: Path) -> Iterator[Record]:
    """What a scan that was stopped had read already; a last line that is not whole is passed over."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        with suppress(ValueError, RecursionError):
            entry = json.loads(line)
            if isinstance(entry, dict) and isinstance(entry.get("hash"), str) and all(key in entry for key in STATE):
                yield cast(Record, entry)


def find_photos(place: Path | str, project: Project) -> Iterator[tuple[Path, Path]]:
    """(root, path) of every photo in a place that the user named: a folder, an archive, a dataset, a list or a photo."""
    if isinstance(place, str):  # on the hub: whatever is here is a path
        yield from _in_folder(hf_datasets.fetch(place, project.cache_folder), project)
    elif not place.exists():
        raise LorakitError(f"{place}: no such folder of photos")
    elif place.is_dir():
        yield from _in_folder(place, project)
    elif not _is_regular(place):
        raise LorakitError(f"{place}: a pipe or a device; give a folder, an archive, a dataset or a list of photos")
    elif hf_datasets.is_table(place):
        yield from _in_folder(hf_datasets.unpack_table(place, project.cache_folder), project)
    elif sources.is_archive(place):
        yield from _in_folder(sources.unpack(place, project.cache_folder), project)
    else:
        below, photos = place.parent, [place] if _is_photo(place) else sources.listed(place)
        yield from ((below if path.is_relative_to(below) else Path(path.anchor), path) for path in photos)


def _in_folder(root: Path, project: Project) -> Iterator[tuple[Path, Path]]:
    """(root, path) of every photo below a folder, sorted by name: regular files whose content is an image, files that are
    named like one, and the pictures in parquet and arrow files. The project's own folder and hidden folders are left out."""
    for folder, subfolders, names in os.walk(root, onerror=_say_closed):
        inside = project.settings.scan.recursive
        for name in subfolders if inside else ():
            if os.path.islink(link := Path(folder, name)) and not link.resolve().is_relative_to(root):
                warn(f"{link}: a link to another folder is not followed; name that folder too if its photos are wanted")
        subfolders[:] = sorted(s for s in subfolders if inside and _is_looked_into(s) and Path(folder, s) != project.folder)
        photos = {Path(name).stem for name in names if Path(name).suffix.lower() in photo.NAME_ENDINGS}
        for name in sorted(names):
            path = Path(folder, name)
            if hf_datasets.is_table(path) and _is_regular(path):
                yield from _in_table(path, project)
            elif not name.startswith(".") and sidecars.masked_name(name) not in photos and _is_photo(path):
                yield root, path


def _say_closed(error: OSError) -> None:
    warn(f"{error.filename}: its photos are left out, for the folder cannot be read ({error.strerror})")


def _in_table(path: Path, project: Project) -> Iterator[tuple[Path, Path]]:
    """The pictures of a dataset's file, shown below its name; one that has none or is broken is said and passed over."""
    try:
        unpacked = hf_datasets.unpack_table(path, project.cache_folder)
    except LorakitError as error:
        warn(str(error))
        return
    yield from ((unpacked.parent, photo) for _, photo in _in_folder(unpacked, project))


def _is_looked_into(folder: str) -> bool:
    return not folder.startswith(".") and folder.lower() not in PASSED_OVER


def _is_photo(path: Path) -> bool:
    """Named like a photo, or one by its content. What is named like one and cannot be read is told, not passed over."""
    if path.suffix.lower() in photo.NAME_ENDINGS:
        return True
    try:
        return path.suffix.lower() not in UNFINISHED and _is_regular(path) and photo.sniff(path) is not None
    except OSError:
        return False


def _is_regular(path: Path) -> bool:
    """A pipe or a device would never end; a link that leads nowhere holds nothing."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _describe(root: Path, path: Path, several: bool, known: dict[tuple, str]) -> Record:
    """The record of a file as it lies there now, without what the stages found out."""
    facts = path.lstat() if not _is_regular(path) else path.stat()
    shown = path.relative_to(root).as_posix()
    record: Record = {
        "file": f"{root.name}/{shown}" if several else shown,
        "path": str(path),
        "bytes": facts.st_size,
        "modified": facts.st_mtime_ns,
        "repeats": sidecars.repeats_of(path, root),
    }
    if caption := _caption_beside(path, root):
        record["sidecar"] = {"text": caption[0], "file": caption[1]}
    if mask := _mask_beside(path):
        record["mask"] = {"path": str(mask), "hash": _hash(mask)}
    record["hash"] = known.get(_state(record)) or _hash(path)
    return record


def _caption_beside(path: Path, root: Path) -> tuple[str, str] | None:
    try:
        return sidecars.find_caption(path, root)
    except OSError:  # with a longer ending, the photo's name is too long for the file system
        return None


def _mask_beside(path: Path) -> Path | None:
    try:
        return sidecars.find_mask(path)
    except OSError:  # as above
        return None


def _hash(path: Path) -> str:
    try:
        if _is_regular(path):
            return files.file_hash(path)
    except OSError:
        pass  # the stage `check` says why it cannot be read
    return UNREADABLE + files.short_hash(os.fsencode(path).hex())


def match(before: list[Record], fresh: list[Record]) -> list[Record]:
    """Give every file its former record (same content; same path first, then any), or a new one."""
    former: dict[str, list[Record]] = defaultdict(list)
    for record in before:
        former[record["hash"]].append(record)
    paths = {record["path"] for record in fresh}
    taken: set[str] = set()
    matched = []
    for record in fresh:
        same = [r for r in former[record["hash"]] if r["id"] not in taken]
        same = [r for r in same if r["path"] == record["path"]] or [r for r in same if r["path"] not in paths]
        old: Record = same[0] if same else {"id": _free_id(record["hash"], taken, former)}
        taken.add(old["id"])
        kept = {key: value for key, value in old.items() if key not in ("gone", "sidecar", "mask")}
        matched.append(cast("Record", kept | record | {"done": {**old.get("done", {}), "scan": record["hash"]}}))
    gone: list[Record] = [{**r, "gone": True} for r in before if r["id"] not in taken]
    return matched + gone


def _free_id(hash: str, taken: set[str], former: dict[str, list[Record]]) -> str:
    used = taken | {r["id"] for r in former[hash]}
    number, id = 1, hash
    while id in used:
        number += 1
        id = f"{hash}~{number}"
    return id


def _say_what_changed(project: Project, records: list[Record]) -> None:
    before = {r["id"] for r in project.manifest}
    now = {r["id"] for r in records if not r.get("gone")}
    if before and (now - before or before - now):
        say(f"scan      {len(now - before)} new, {len(before - now)} gone")
