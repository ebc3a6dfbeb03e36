"""Stage dedupe: groups exact and near copies, keeps the best of each group and points the others to it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, cast

import cv2

from lorakit.ahead import ahead
from lorakit.console import progress, say
from lorakit.curate.compare import Likeness, compare, forget_prepared, is_another, is_same_picture
from lorakit.curate.descriptors import hash_bytes
from lorakit.curate.search import BITS, close_pairs
from lorakit.photos.images import SAME_SHAPE
from lorakit.photos.remote import place_of
from lorakit.project import Project, manifest, stamps
from lorakit.quality import verdicts
from lorakit.record import Inherited, Record

FEW, MANY = 150, 3000  # photos above which chance brings so many near hashes that comparing all would take long ...
DISTANCE_OF_SOME, DISTANCE_OF_MANY = 104, 80  # ... so that only nearer ones are
NEAREST = 8  # of the near photos, those that are compared with
SAME_FRAME = 48  # bits of 256, from where a near copy may be a part of the picture, over which a mask does not lie
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
        if any("inherited" in r for r in records):  # captions come and go without the photos; older projects stay as they are
            project.manifest.keep(*_inherit(records))
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
    heirs = {r["id"]: r for r in _inherit(finished)}
    project.manifest.keep_all(heirs.get(r["id"], r) for r in finished)


def _inherit(records: list[Record]) -> list[Record]:
    """Let kept photos have the captions and masks of their copies, and say so. Returns the records of which that changes anything."""
    found, unused = inherited(records)
    heirs = [cast(Record, {**r, "inherited": now}) for r in records if r.get("inherited", ...) != (now := found.get(r["id"]))]
    captions, masks = sum("sidecar" in entry for entry in found.values()), sum("mask" in entry for entry in found.values())
    if captions or masks:
        what = " and ".join(f"{count} {name}" for count, name in ((captions, "captions"), (masks, "masks")) if count)
        say(f"dedupe    {what} lay beside copies that are left out; the kept photos have them now")
    if unused:
        say(
            f"dedupe    {len(unused)} copies had captions or masks that are not used: {', '.join(unused[:3])}{', ...' if len(unused) > 3 else ''}"
        )
    return heirs


def inherited(records: list[Record]) -> tuple[dict[str, Inherited], list[str]]:
    """({kept photo: what lies beside its copies and not beside itself}, copies whose caption says something else than the one that is
    used, or whose mask does not fit). A mask fits the same frame only."""
    by_id = {r["id"]: r for r in records}
    found: dict[str, Inherited] = {}
    unused = []
    for copy in sorted(records, key=lambda r: r.get("dedupe", {}).get("distance", 0)):
        how = copy.get("dedupe", {})
        kept = by_id.get(how.get("of") or "")
        if not kept or how.get("reason") == "burst":
            continue
        entry = found.setdefault(kept["id"], {})
        caption, mask = copy.get("sidecar"), copy.get("mask")
        used = kept.get("sidecar") or entry.get("sidecar")
        if caption and not used:
            entry["sidecar"], entry["sidecar_of"] = caption, copy["id"]
        elif caption and used and caption["text"] != used["text"]:
            unused.append(copy["file"])
        if mask and not (kept.get("mask") or entry.get("mask")):
            if _is_same_frame(copy, kept):
                entry["mask"], entry["mask_of"] = mask, copy["id"]
            else:
                unused.append(copy["file"])
    return {id: entry for id, entry in found.items() if entry}, list(dict.fromkeys(unused))


def _is_same_frame(copy: Record, kept: Record) -> bool:
    """Whether a mask drawn over one lies right over the other: neither turned nor cut, as far as sizes and hashes tell."""
    how = copy["dedupe"]
    one, other = (r["measures"]["size"] for r in (copy, kept))
    shape = one["width"] * other["height"] / (one["height"] * other["width"])
    return how["reason"] == "duplicate" or (
        how["reason"] == "near_duplicate" and how["distance"] <= SAME_FRAME and abs(shape - 1) <= SAME_SHAPE
    )


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
    return Likeness(*known) if len(known) == len(Likeness._fields) else compare(place_of(later), place_of(earlier), turn)


def _kept(project: Project, later: Record, earlier: Record, found: Likeness) -> Likeness:
    """What a comparison found, written into the book."""
    left, right = sorted((later["id"], earlier["id"]))
    known = project.manifest[left].get("compared", {})
    if known.get(right) != list(found):
        project.manifest.keep({**project.manifest[left], "compared": {**known, right: list(found)}})
    return found
