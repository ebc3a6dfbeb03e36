"""Stage select: picks the photos to train on, the best first and then always the one least like those already picked."""

from __future__ import annotations

import numpy as np

from lorakit.console import typed, warn
from lorakit.curate.descriptors import hash_bytes
from lorakit.curate.embed import vectors
from lorakit.curate.spread import Among, of_looks, of_vectors, spread
from lorakit.errors import LorakitError
from lorakit.project import Project, judged, manifest, stamps
from lorakit.quality import coverage, verdicts
from lorakit.record import Record


def select(project: Project) -> None:
    """Mark the photos to train on: `select` = {"selected": bool, "reason": word}.

    Up to `select.count` (or the kind's most) of those that are not rejected; all that can be read with
    `select.everything`. Raises `LorakitError` when no photo is left.
    """
    stamp = stamps.select(project)
    if not all(r.get("done", {}).get("select") == stamp for r in project.manifest):
        chosen = _choose(project)
        changed = []
        for record in project.manifest:
            reason = chosen.get(record["id"], "rejected" if _is_rejected(record, project) else "enough")
            found = {"selected": record["id"] in chosen, "reason": reason}
            changed.append(manifest.finish(record, "select", stamp, select=found))
        project.manifest.keep_all(changed)
    count = len(project.manifest.selected)
    if count == 0:
        raise LorakitError(
            f"none of {len(project.manifest)} photos is good enough; `lorakit status {typed(project.folder)}` says why each was rejected"
        )
    for line in coverage.find(project.manifest.selected, project.kind, project.settings):
        warn(line)


def _choose(project: Project) -> dict[str, str]:
    """{id: why it was picked}."""
    settings = project.settings.select
    if settings.everything:
        return {r["id"]: "everything" for r in project.manifest if verdicts.is_readable(r)}
    good = [r for r in project.manifest if not _is_rejected(r, project)]
    count = settings.count or settings.most
    by_hand = [r for r in good if r.get("human", {}).get("verdict") == "keep"]
    others = [r for r in good if r.get("human", {}).get("verdict") != "keep"]
    odd = judged.odd_ones(project)
    qualities = np.array([verdicts.quality(r, project.settings, odd.get(r["id"], ())) * _appeal(r) for r in others])
    wanted = max(0, count - len(by_hand))
    picked = spread(distances(others, vectors(project)), qualities, wanted) if others else []
    return {r["id"]: "by_hand" for r in by_hand} | {others[i]["id"]: "varied" for i in picked}


def _is_rejected(record: Record, project: Project) -> bool:
    return not verdicts.is_readable(record) or verdicts.judge(record, project.settings).verdict == "reject"


def _appeal(record: Record) -> float:
    """0.5..1.5 by the aesthetic score, which runs from 1 to 10; 1 where there is none."""
    score = (record.get("embed") or {}).get("aesthetic")
    return 1.0 if score is None else float(np.clip(score / 5, 0.5, 1.5))


def distances(records: list[Record], seen: dict[str, np.ndarray] | None = None) -> Among:
    """How far the photos stand from each other: by the vectors of `embed` where `seen` {hash: vector} has all of them; else by hash bits and mean
    colours, each scaled so that two unlike photos lie about 1 apart."""
    if seen and all(r["hash"] in seen for r in records):
        return of_vectors(np.stack([seen[r["hash"]] for r in records]))
    flat = {"phash": "00" * 32, "colours": "80" * 48}
    looks = [r.get("look") or flat for r in records]
    return of_looks(hash_bytes([look["phash"] for look in looks]), hash_bytes([look["colours"] for look in looks]))
