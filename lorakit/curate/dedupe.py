"""Stage dedupe: groups exact and near copies, keeps the best of each group and points the others to it."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2

from lorakit.ahead import ahead
from lorakit.console import progress
from lorakit.curate.compare import Likeness, compare, forget_prepared, is_another, is_same_picture
from lorakit.curate.descriptors import hash_bytes
from lorakit.curate.search import BITS, close_pairs
from lorakit.project import Project, manifest, stamps
from lorakit.quality import verdicts
from lorakit.record import Record

FEW, MANY = 150, 3000  # photos above which chance brings so many near hashes that comparing all would take long ...
DISTANCE_OF_SOME, DISTANCE_OF_MANY = 104, 80  # ... so that only nearer ones are
NEAREST = 8  # of the near photos, those that are compared with
PATIENCE = 40  # other pictures that a photo is found to be near to, after which it is taken for another picture

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
    takes = decided_of_copies(ranked, copies)
    finished = [
        manifest.finish(r, "dedupe", stamp, dedupe=copies.get(r["id"], {"of": None, **takes.get(r["id"], {})})) for r in project.manifest
    ]
    project.manifest.keep(*finished)
    project.manifest.save()


def _rank(record: Record, project: Project) -> tuple:
    """Best first: a person's choice, good before rejected, then resolution, compression and sharpness, then by name."""
    alone = verdicts.judge(record, project.settings, with_duplicates=False)
    chosen = record.get("human", {}).get("verdict") == "keep"
    worth = verdicts.worth_among_copies(record)
    return (not chosen, alone.verdict == "reject", -worth, -record["bytes"], len(record["file"]), record["file"])


def decided_of_copies(ranked: list[Record], copies: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """{kept photo: {"takes": [{"id", "what"}]}}: the kept photo takes over the text that a person gave one of its copies, and
    of one with the same bytes the crop. Verdicts stay with the file: a copy is rejected for being one."""
    takes: dict[str, dict[str, Any]] = defaultdict(lambda: {"takes": []})
    for record in ranked:
        found = copies.get(record["id"])
        human = record.get("human", {})
        usable = ("text", "crop") if found and found["reason"] == "duplicate" else ("text",)
        what = [name for name in usable if name in human and name not in human.get("taken_from", {})]
        if found and found["reason"] != "burst" and what:
            takes[found["of"]]["takes"].append({"id": record["id"], "what": what})
    return dict(takes)


def exact_copies(ranked: list[Record]) -> dict[str, dict[str, Any]]:
    """Photos whose bytes are those of one ranked before them, from which nobody has set them apart."""
    kept: dict[str, list[Record]] = defaultdict(list)
    copies = {}
    for record in ranked:
        same = [r for r in kept[record["hash"]] if not verdicts.are_apart(r, record)]
        if same and verdicts.is_readable(record):
            copies[record["id"]] = {"of": same[0]["id"], "reason": "duplicate", "distance": 0}
        elif not same:
            kept[record["hash"]].append(record)
    return copies


def near_copies(ranked: list[Record], project: Project) -> dict[str, dict[str, Any]]:
    """Photos that show the same picture as one ranked before them, as it is, mirrored or turned; and, when a limit is
    set, what a burst holds beyond its best."""
    if not ranked:
        return {}
    settings = project.settings.dedupe
    limit = min(settings.distance, _most_bits(len(ranked)))
    hashes = hash_bytes([r["look"]["phash"] for r in ranked])
    close = (pair for pair in close_pairs(hashes, limit, settings.mirrored) if not verdicts.are_apart(ranked[pair[0]], ranked[pair[1]]))
    pairs = sorted(close, key=lambda pair: (pair[0], pair[2]))
    copies: dict[str, dict[str, Any]] = {}
    like: dict[str, list[str]] = defaultdict(list)  # kept photos of the same moment that are ranked before a photo
    chosen = _nearest_of_each(pairs)
    cv2.setNumThreads(1)

    others: dict[str, int] = defaultdict(int)  # pictures near to a photo that were found to be others

    def compared(pair: Pair) -> Likeness | None:
        """None where one photo has been found to be a copy meanwhile."""
        later, earlier, _, turn = pair
        kept, copy = ranked[earlier]["id"], ranked[later]["id"]
        told = kept in copies or copy in copies or others.get(copy, 0) >= PATIENCE
        return None if told else _compared(project, ranked[later], ranked[earlier], turn)

    with progress("dedupe", len(chosen)) as shown:
        for (later, earlier, distance, turn), job in ahead(compared, chosen):
            shown.advance()
            kept, copy = ranked[earlier]["id"], ranked[later]["id"]
            if kept in copies or copy in copies or others[copy] >= PATIENCE:
                continue
            found = _kept(project, ranked[later], ranked[earlier], job.result())
            if is_same_picture(found) or distance <= settings.sure and not is_another(found):
                copies[copy] = {"of": kept, "reason": "mirrored" if turn else "near_duplicate", "distance": distance}
                continue
            others[copy] += 1
            if not turn and distance <= settings.burst_distance:
                like[copy].append(kept)
                if settings.keep_of_burst and len(like[copy]) >= settings.keep_of_burst:
                    copies[copy] = {"of": kept, "reason": "burst", "distance": distance}
    return copies


def _most_bits(photos: int) -> int:
    if photos <= FEW:
        return BITS
    return DISTANCE_OF_SOME if photos < MANY else DISTANCE_OF_MANY


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
    known = project.manifest[left].get("compared", {}).get(right, ())
    return Likeness(*known) if len(known) == len(Likeness._fields) else compare(Path(later["path"]), Path(earlier["path"]), turn)


def _kept(project: Project, later: Record, earlier: Record, found: Likeness) -> Likeness:
    """What a comparison found, written into the book."""
    left, right = sorted((later["id"], earlier["id"]))
    known = project.manifest[left].get("compared", {})
    if known.get(right) != list(found):
        project.manifest.keep({**project.manifest[left], "compared": {**known, right: list(found)}})
    return found
