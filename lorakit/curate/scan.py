"""Stage scan: finds the photos, tells them by their content, and brings the manifest in line with the folders."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TextIO, cast

from lorakit import files
from lorakit.console import say, track, warn, warnings
from lorakit.curate import account, folders, stores
from lorakit.curate.embedded import description_in
from lorakit.curate.places import Place, is_regular, look_into, may_hold_photos
from lorakit.errors import LorakitError, UnreadablePhoto
from lorakit.photos.remote import GONE, UNREADABLE, Patience, Remote
from lorakit.project import Project
from lorakit.record import Embedded, Record
from lorakit.text import conventions, sidecars
from lorakit.text.lines import split_lines
from lorakit.text.sidecars import Captions, Found

INTERRUPTED, STATE = "scan.jsonl", ("path", "bytes", "modified")


def scan(project: Project) -> None:
    """Read the photo folders into the manifest.

    A photo is known by the hash of its bytes: renamed or moved, it keeps its record; gone, its record stays but is no
    longer listed. Files whose size and time have not changed are not read again; where nothing at all has changed in the folders,
    none is opened.

    Raises `LorakitError` when a folder is missing or no photo is found at all.
    """
    interrupted = project.cache_folder / INTERRUPTED
    before_it, warned = folders.state_of(project), warnings()
    if not interrupted.exists() and folders.are_as_scanned(project, before_it):
        account.say_again(project)
        return
    sidecars.pass_over.cache_clear()
    places = [found for place in project.photos for found in look_into(place, project)]
    found = {path: place for place in reversed(places) for path in reversed(place.photos)}  # each once, in the first place that has it
    addresses: set[str] = set()
    for path, place in reversed(list(found.items())):  # of places that lie within each other, the first
        if (one := place.listed.get(path)) and (one.address in addresses or addresses.add(one.address)):
            del found[path]
    if not found:
        raise _no_photos(project, places)
    captions = {id(place): Captions(place.photos, place.texts, place.root) for place in places}
    repeats, unused = _repeats(project, places)
    before = [
        *sorted(project.manifest.everything(), key=lambda r: not r.get("gone")),
        *_read_interrupted(interrupted),
    ]  # the last one counts
    known = {_state(r): r for r in before if not r["hash"].startswith(UNREADABLE) and r["modified"]}
    several = len(project.photos) > 1
    fresh: list[Record] = []
    interrupted.parent.mkdir(parents=True, exist_ok=True)
    with files.naming(interrupted), open(interrupted, "a", encoding="utf-8", buffering=1) as notes:
        _read_elsewhere(project, found, known, notes)
        for path, place in track(list(found.items())[::-1], "scan", len(found)):
            with suppress(FileNotFoundError):  # it has gone since it was listed
                record = _describe(place, path, several, known)
                record["repeats"] = repeats.get(path, 1)
                _add_caption(record, _words_in(place, path) or captions[id(place)].of(path), project)
                fresh.append(record)
                if not _is_as_read(known.get(_state(record)), record):
                    _note(notes, record)
    records = match(project.manifest.everything(), fresh)
    _say_what_changed(project, records)
    project.manifest.replace(records)
    interrupted.unlink()
    account.tell(project, account.make([(place, captions[id(place)]) for place in places], fresh, unused, project.settings.caption.several))
    if warned == warnings() and len(places) == len(project.photos) and not any(r["hash"].startswith(UNREADABLE) for r in records):
        folders.note(project, before_it)


def check_places(project: Project) -> None:
    """Before anything else: could there be a photo in the places of a new project? Raises `LorakitError`."""
    if not len(project.manifest) and not any(may_hold_photos(place) for place in project.photos):
        raise _no_photos(project, [found for place in project.photos for found in look_into(place, project)])


def _no_photos(project: Project, places: list[Place]) -> LorakitError:
    named = ", ".join(map(str, project.photos)) or "no folder was given"
    return LorakitError(f"no photos in {named} (looked at the content of every file); name the folder that holds them{_instead(places)}")


def _instead(places: list[Place]) -> str:
    """What lies there instead of photos."""
    over: dict[str, int] = defaultdict(int)
    for place in places:
        for reason, paths in place.passed_over.items():
            over[reason] += len(paths)
    mend = f"; {account.DEVELOP}" if conventions.RAW in over else ""
    return f"; there are {', '.join(f'{count} {reason}' for reason, count in over.items())}{mend}" if over else ""


def _repeats(project: Project, places: list[Place]) -> tuple[dict[Path, int], list[str]]:
    """({photo: how often it is used an epoch}, folders whose number is not used). Kohya's numbers count for a set that was curated by
    hand (`lorakit train FOLDER`), or where `scan.repeats` says so."""
    numbers = {path: n for place in places for path, n in conventions.repeats_in(place.photos, place.root).items()}
    wanted = project.settings.scan.repeats
    if project.settings.select.everything if wanted is None else wanted:
        return numbers, []
    unused = sorted({path.parent.name for path, n in numbers.items() if n > 1}) if wanted is None else []
    return {}, unused


def _state(record: Record) -> tuple:
    """By which a file is taken to be unchanged since it was last read."""
    return tuple(record[key] for key in STATE)


def _is_as_read(before: Record | None, now: Record) -> bool:
    """Whether a file of the same place, size and time is the very one that was read. A copy put in its place may have both; it has not the
    time of the last change of any kind, which none can set. That a former version has not noted it is nothing against a file."""
    return before is not None and before.get("changed", now.get("changed")) == now.get("changed")


def _read_interrupted(path: Path) -> Iterator[Record]:
    """What a scan that was stopped had read already; a last line that is not whole is passed over."""
    for line in split_lines(path.read_text(encoding="utf-8", errors="replace")) if path.exists() else ():
        with suppress(ValueError, RecursionError):
            entry = json.loads(line)
            if isinstance(entry, dict) and isinstance(entry.get("hash"), str) and all(key in entry for key in STATE):
                yield cast(Record, entry)


def _note(notes: TextIO, record: Record) -> None:
    notes.write(json.dumps({key: record[key] for key in (*STATE, "changed", "hash", "embedded") if key in record}) + "\n")


def _read_elsewhere(project: Project, found: dict[Path, Place], known: dict[tuple, Record], notes: TextIO) -> None:
    """Put into `known` the photos of object stores that are new, each read once; and take those out of `found` that have vanished. One that
    is known and does not come stays as it was."""
    former = {r["path"]: r for r in project.manifest.everything() if not r["hash"].startswith(UNREADABLE)}
    todo = {}
    for path, place in list(found.items()):
        one = place.listed.get(path)
        if one is None:
            continue
        record: Record = {"path": one.address, "bytes": one.bytes, "modified": one.modified}
        if one.changed:
            record["changed"] = one.changed
        if one.hash:  # of a shard, which was read as a whole
            embedded: Embedded | None = {"text": one.embedded[0], "kind": one.embedded[1]} if one.embedded else None
            known[_state(record)] = {**record, "hash": one.hash, "embedded": embedded}
        elif not _is_as_read(known.get(_state(record)), record):
            todo[Remote(one.address)] = path, record
    patience = Patience()
    for place, read in track(project.engine.each(stores.look, todo), "read", len(todo)) if todo else ():
        path, record = todo[place]
        if isinstance(read, UnreadablePhoto) and read.detail == GONE:
            warn(f"{place}: is listed, but {GONE}; left out")
            del found[path]
            continue
        patience.take(place, read.detail if isinstance(read, UnreadablePhoto) else None)
        if isinstance(read, UnreadablePhoto):
            if one := former.get(place.address):
                warn(f"{place}: cannot be read ({read.detail}); it stays as it was")
                known[_state(record)] = one
                continue
            record |= {"hash": UNREADABLE + files.short_hash(record["path"]), "embedded": None}
        else:
            record |= {"hash": read[0], "embedded": {"text": read[1][0], "kind": read[1][1]} if read[1] else None}
            _note(notes, record)
        known[_state(record)] = record


def _words_in(place: Place, path: Path) -> Found | None:
    """What a shard says of its photo."""
    one = place.listed.get(path)
    return Found(one.texts[0], one.text_of, tuple(one.texts[1:]), tuple(one.differing)) if one and one.texts else None


def _describe(place: Place, path: Path, several: bool, known: dict[tuple, Record]) -> Record:
    """The record of a file as it lies there now, without what the stages found out."""
    if one := place.listed.get(path):
        return _describe_listed(place, path, several, known[one.address, one.bytes, one.modified])
    try:
        facts = path.lstat() if not is_regular(path) else path.stat()
        size, modified, changed = facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns
    except PermissionError:  # its folder may be listed and no more; `check` says that it cannot be read
        size, modified, changed = 0, 0, 0
    record: Record = {
        "file": _shown(place, path, several),
        "path": str(path),
        "bytes": size,
        "modified": modified,
        "changed": changed,
    }
    _add_mask(record, place, path)
    before = known.get(_state(record))
    record["hash"] = before["hash"] if before and _is_as_read(before, record) else _hash(path)
    if before and before["hash"] != record["hash"]:
        before = None
    if said := place.described.get(path):
        record["embedded"] = {"text": said[0], "kind": said[1]}
    elif before and "embedded" in before and not _is_of_xmp_file(before["embedded"]):
        record["embedded"] = before["embedded"]
    else:
        inside = description_in(path) if not record["hash"].startswith(UNREADABLE) else None
        record["embedded"] = {"text": inside[0], "kind": inside[1]} if inside else None
    return record


def _describe_listed(place: Place, path: Path, several: bool, read: Record) -> Record:
    record = cast(
        "Record", {"file": _shown(place, path, several), **{key: read[key] for key in (*STATE, "changed", "hash") if key in read}}
    )
    _add_mask(record, place, path)
    said = place.described.get(path)
    beside_or_inside = {"text": said[0], "kind": said[1]} if said else read.get("embedded")
    record["embedded"] = None if not said and _is_of_xmp_file(read.get("embedded")) else cast("Embedded | None", beside_or_inside)
    return record


def _shown(place: Place, path: Path, several: bool) -> str:
    shown = path.relative_to(place.root).as_posix()
    return f"{place.root.name}/{shown}" if several else shown


def _add_mask(record: Record, place: Place, path: Path) -> None:
    if mask := place.masks.get(path):
        source = place.source(mask)
        record["mask"] = {"path": str(source), "hash": _hash_of_remote(source) if isinstance(source, Remote) else _hash(mask)}


def _hash_of_remote(place: Remote) -> str:
    (read,) = stores.look([place])
    return UNREADABLE + files.short_hash(place.address) if isinstance(read, UnreadablePhoto) else read[0]


def _is_of_xmp_file(found: Embedded | None) -> bool:
    return bool(found) and found["kind"].lower().endswith(".xmp")


def _add_caption(record: Record, found: Found | None, project: Project) -> None:
    """Note the caption beside the photo; where there is none and `caption.embedded` wants it, the one in the photo."""
    inside = record.get("embedded")
    if found:
        record["sidecar"] = {"text": found.text, "file": found.file}
        if found.others:
            record["sidecar"]["others"] = list(found.others)
        if found.differing:
            record["sidecar"]["differing"] = list(found.differing)
        if found.listed:
            record["sidecar"]["listed"] = True
    elif inside and project.settings.caption.embedded:
        record["sidecar"] = {"text": inside["text"], "file": inside["kind"]}


def _hash(path: Path) -> str:
    try:
        if is_regular(path):
            return files.file_hash(path)
    except OSError:
        pass  # the stage `check` says why it cannot be read
    return UNREADABLE + files.short_hash(os.fsencode(path).hex())


def match(before: list[Record], fresh: list[Record]) -> list[Record]:
    """Give every file its former record (same content; same path first, then any), or a new one."""
    former: dict[str, list[Record]] = defaultdict(list)
    for record in before:
        former[record["hash"]].append(record)
    there = {(record["path"], record["hash"]) for record in fresh}  # where a name has got another photo, its former one is free
    taken: set[str] = set()
    matched = []
    for record in fresh:
        same = [r for r in former[record["hash"]] if r["id"] not in taken]
        same = [r for r in same if r["path"] == record["path"]] or [r for r in same if (r["path"], r["hash"]) not in there]
        old: Record = same[0] if same else {"id": _free_id(record["hash"], taken, former)}
        taken.add(old["id"])
        kept = {key: value for key, value in old.items() if key not in ("gone", "sidecar", "mask", "changed")}
        matched.append(cast("Record", kept | record | {"done": {**old.get("done", {}), "scan": record["hash"]}}))
    gone: list[Record] = [{**r, "gone": True} for r in before if r["id"] not in taken]
    return matched + gone


def _free_id(hash: str, taken: set[str], former: dict[str, list[Record]]) -> str:
    of_same = {r["id"] for r in former[hash]}
    number, id = 1, hash
    while id in taken or id in of_same:
        number += 1
        id = f"{hash}~{number}"
    return id


def _say_what_changed(project: Project, records: list[Record]) -> None:
    before = {r["id"] for r in project.manifest}
    now = {r["id"] for r in records if not r.get("gone")}
    if before and (now - before or before - now):
        say(f"scan      {len(now - before)} new, {len(before - now)} gone")
