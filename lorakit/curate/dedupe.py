"""Stage dedupe: groups exact and near copies, keeps the best of each group and points the others to it."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from lorakit import manifest, stamps, verdicts
from lorakit.console import progress
from lorakit.curate.compare import Likeness, compare, forget_prepared, is_same_picture
from lorakit.curate.look import hash_bytes
from lorakit.curate.search import close_pairs
from lorakit.manifest import Record
from lorakit.project import Project

MANY = 3000  # photos from which chance brings too many near hashes to compare all ...
DISTANCE_OF_MANY = 80  # ... so that only nearer ones are
NEAREST = 8  # of the near photos, those that are compared with

Pair = tuple[int, int, int, int]  # later, earlier (positions by rank), distance, turn


def dedupe(project: Project) -> None:
    """Mark copies: `dedupe` = {"of": id of the kept photo or None, "reason", "distance": bits of 256}.

    A copy is only ever pointed at a photo that itself is kept, and that it resembles directly: chains of slightly
    different photos (a walk around a subject) do not melt into one group. What a comparison of two photos found is kept
    under `compared`, so that other limits open no photo.
    """
    stamp = stamps.dedupe(project)
    records = list(project.manifest)
    if all(r.get("done", {}).get("dedupe") == stamp for r in records):
        return
    ranked = sorted(records, key=lambda r: _rank(r, project))
    copies = exact_copies(ranked)
    originals = [r for r in ranked if r["id"] not in copies and r.get("look")]
    copies |= near_copies(originals, project)
    forget_prepared()
    nothing = {"of": None}
    finished = [manifest.finish(r, "dedupe", stamp, dedupe=copies.get(r["id"], nothing)) for r in project.manifest]
    project.manifest.keep(*finished)
    project.manifest.save()


def _rank(record: Record, project: Project) -> tuple:
    """Best first: a person's choice, good before rejected, then resolution, compression and sharpness, then by name."""
    alone = verdicts.judge(record, project.settings, with_duplicates=False)
    chosen = record.get("human", {}).get("verdict") == "keep"
    worth = verdicts.worth_among_copies(record)
    return (not chosen, alone.verdict == "reject", -worth, -record["bytes"], len(record["file"]), record["file"])


def exact_copies(ranked: list[Record]) -> dict[str, dict[str, Any]]:
    """Photos whose bytes are those of one ranked before them."""
    first: dict[str, str] = {}
    copies = {}
    for record in ranked:
        kept = first.setdefault(record["hash"], record["id"])
        if kept != record["id"] and verdicts.is_readable(record):
            copies[record["id"]] = {"of": kept, "reason": "duplicate", "distance": 0}
    return copies


def near_copies(ranked: list[Record], project: Project) -> dict[str, dict[str, Any]]:
    """Photos that show the same picture as one ranked before them, as it is, mirrored or turned; and, when a limit is
    set, what a burst holds beyond its best."""
    if not ranked:
        return {}
    settings = project.settings.dedupe
    limit = settings.distance if len(ranked) < MANY else min(settings.distance, DISTANCE_OF_MANY)
    hashes = hash_bytes([r["look"]["phash"] for r in ranked])
    pairs = sorted(close_pairs(hashes, limit, settings.mirrored), key=lambda pair: (pair[0], pair[2]))
    copies: dict[str, dict[str, Any]] = {}
    like: dict[str, list[str]] = defaultdict(list)  # kept photos of the same moment that are ranked before a photo
    with progress("dedupe", len(pairs)) as shown:
        for later, earlier, distance, turn in _nearest_of_each(pairs):
            shown.advance()
            kept, copy = ranked[earlier]["id"], ranked[later]["id"]
            if kept in copies or copy in copies:
                continue
            if distance <= settings.sure or is_same_picture(_compared(project, ranked[later], ranked[earlier], turn)):
                copies[copy] = {"of": kept, "reason": "mirrored" if turn else "near_duplicate", "distance": distance}
            elif not turn and distance <= settings.burst_distance:
                like[copy].append(kept)
                if settings.keep_of_burst and len(like[copy]) >= settings.keep_of_burst:
                    copies[copy] = {"of": kept, "reason": "burst", "distance": distance}
    return copies


def _nearest_of_each(pairs: list[Pair]) -> list[Pair]:
    """At most NEAREST pairs of each later photo, from pairs sorted by it and by distance; and all that are very near."""
    taken: dict[int, int] = defaultdict(int)
    chosen = []
    for pair in pairs:
        taken[pair[0]] += 1
        if taken[pair[0]] <= NEAREST or pair[2] <= DISTANCE_OF_MANY:
            chosen.append(pair)
    return chosen


def _compared(project: Project, later: Record, earlier: Record, turn: int) -> Likeness:
    """What the comparison of two photos finds, or found before."""
    left, right = sorted((later["id"], earlier["id"]))
    known = project.manifest[left].get("compared", {})
    if right not in known:
        found = compare(Path(later["path"]), Path(earlier["path"]), turn)
        project.manifest.keep({**project.manifest[left], "compared": {**known, right: list(found)}})
        return found
    return Likeness(*known[right])
