"""Stage select: picks the photos to train on, the best first and then always the one least like those already picked."""

from __future__ import annotations

import numpy as np

from lorakit.console import typed, warn
from lorakit.curate.descriptors import bits, hash_bytes
from lorakit.curate.embed import vectors
from lorakit.errors import LorakitError
from lorakit.project import Project, manifest, stamps
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
        project.manifest.keep(*changed)
        project.manifest.save()
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
    others = [r for r in good if r not in by_hand]
    odd = verdicts.odd_ones(list(project.manifest), project.settings)
    qualities = np.array([verdicts.quality(r, project.settings, odd.get(r["id"], ())) * _appeal(r) for r in others])
    picked = spread(features(others, vectors(project)), qualities, max(0, count - len(by_hand))) if others else []
    return {r["id"]: "by_hand" for r in by_hand} | {others[i]["id"]: "varied" for i in picked}


def _is_rejected(record: Record, project: Project) -> bool:
    return not verdicts.is_readable(record) or verdicts.judge(record, project.settings).verdict == "reject"


def _appeal(record: Record) -> float:
    """0.5..1.5 by the aesthetic score, which runs from 1 to 10; 1 where there is none."""
    score = (record.get("embed") or {}).get("aesthetic")
    return 1.0 if score is None else float(np.clip(score / 5, 0.5, 1.5))


def features(records: list[Record], seen: dict[str, np.ndarray] | None = None) -> np.ndarray:
    """[n, d] float32: the vectors of `embed` where `seen` {hash: vector} has all of them; else hash bits and mean colours,
    each block scaled so that two unlike photos lie about 1 apart."""
    if seen and all(r["hash"] in seen for r in records):
        return np.stack([seen[r["hash"]] for r in records])
    flat = {"phash": "00" * 32, "colours": "80" * 48}
    looks = [r.get("look") or flat for r in records]
    shapes = bits(hash_bytes([look["phash"] for look in looks])) / np.sqrt(128)
    colours = hash_bytes([look["colours"] for look in looks]).astype(np.float32) / 255 / np.sqrt(3)
    return np.concatenate([shapes, colours], axis=1)


def spread(points: np.ndarray, qualities: np.ndarray, count: int) -> list[int]:
    """Greedy k-centre weighted by quality: start with the best, then always add the point with the largest
    quality x distance to its nearest picked one. Returns positions in the order they were picked."""
    if len(points) <= count:
        return sorted(range(len(points)), key=lambda i: -qualities[i])
    if count == 0:
        return []
    picked = [int(np.argmax(qualities))]
    nearest = np.full(len(points), np.inf, dtype=np.float32)
    squares = np.einsum("nd,nd->n", points, points)
    while len(picked) < count:  # |a - b|^2 = a^2 + b^2 - 2ab: one pass over the points for each that is picked
        apart = squares + squares[picked[-1]] - 2 * (points @ points[picked[-1]])
        nearest = np.minimum(nearest, np.sqrt(np.maximum(apart, 0)))
        gain = nearest * (0.5 + qualities)
        gain[picked] = -1
        picked.append(int(np.argmax(gain)))
    return picked
