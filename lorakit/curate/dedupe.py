"""Stage dedupe: groups exact and near copies, keeps the best of each group and points the others to it."""

from __future__ import annotations

from typing import Any

from lorakit import manifest, stamps, verdicts
from lorakit.curate.look import hash_bytes
from lorakit.curate.search import close_pairs
from lorakit.manifest import Record
from lorakit.project import Project


def dedupe(project: Project) -> None:
    """Mark copies: `dedupe` = {"of": id of the kept photo or None, "reason", "distance": bits of 256}.

    A copy is only ever pointed at a photo that itself is kept, and that it resembles directly: chains of slightly
    different photos (a walk around a subject) do not melt into one group.
    """
    stamp = stamps.dedupe(project)
    records = list(project.manifest)
    if all(r.get("done", {}).get("dedupe") == stamp for r in records):
        return
    ranked = sorted(records, key=lambda r: _rank(r, project))
    copies = exact_copies(ranked)
    originals = [r for r in ranked if r["id"] not in copies and r.get("look")]
    copies |= near_copies(originals, project.settings.dedupe.distance, project.settings.dedupe.mirrored)
    nothing = {"of": None}
    project.manifest.keep(*(manifest.finish(r, "dedupe", stamp, dedupe=copies.get(r["id"], nothing)) for r in records))
    project.manifest.save()


def _rank(record: Record, project: Project) -> tuple:
    """Best first: a person's choice, good before rejected, quality, more bytes (less compressed), then by name."""
    alone = verdicts.judge(record, project.settings, with_duplicates=False)
    chosen = record.get("human", {}).get("verdict") == "keep"
    quality = verdicts.quality(record, project.settings)
    return (not chosen, alone.verdict == "reject", -quality, -record["bytes"], len(record["file"]), record["file"])


def exact_copies(ranked: list[Record]) -> dict[str, dict[str, Any]]:
    """Photos whose bytes are those of one ranked before them."""
    first: dict[str, str] = {}
    copies = {}
    for record in ranked:
        kept = first.setdefault(record["hash"], record["id"])
        if kept != record["id"] and verdicts.is_readable(record):
            copies[record["id"]] = {"of": kept, "reason": "duplicate", "distance": 0}
    return copies


def near_copies(ranked: list[Record], limit: int, mirrored: bool) -> dict[str, dict[str, Any]]:
    """Photos whose perceptual hash (or whose mirror's) lies within `limit` bits of one ranked before them."""
    copies: dict[str, dict[str, Any]] = {}
    if not ranked:
        return copies
    hashes = hash_bytes([r["look"]["phash"] for r in ranked])
    for later, earlier, distance, turn in sorted(close_pairs(hashes, limit, mirrored)):
        kept, copy = ranked[earlier]["id"], ranked[later]["id"]
        if kept not in copies and copy not in copies:
            copies[copy] = {"of": kept, "reason": "mirrored" if turn else "near_duplicate", "distance": distance}
    return copies
