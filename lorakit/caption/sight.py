"""What open_clip sees of each crop: its facets, and how well its text fits. Optional, since its weights are not part of
lorakit: `--set caption.clip=FOLDER` names a folder with open_clip_config.json and the weights, else those of `embed.clip` are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lorakit import device
from lorakit.clip import Clip, embed_cached
from lorakit.files import short_hash
from lorakit.photos.images import load_crop_to_read
from lorakit.project import Project, stamps
from lorakit.record import Record
from lorakit.text import facets
from lorakit.text.placing import without_word


class ClipScorer:
    """The vectors [d] of crops, by the record's id, and the model that made them."""

    def __init__(self, project: Project, given: str, records: list[Record]):
        self.clip = Clip(given, "caption.clip", device.choose(project.device))
        self.points = embed_cached(lambda: self.clip, store(project, given), records, _key, load_crop_to_read, "open_clip")

    def facets(self, records: list[Record]) -> dict[str, dict[str, Any] | None]:
        """{record id: {family: [tag, probability]}}, None for a photo that could not be read."""
        seen = [r["id"] for r in records if r["id"] in self.points]
        found: dict[str, Any] = {r["id"]: {} for r in records if r["id"] in self.points}
        for family, options in facets.attributes().items() if seen else ():
            said = np.stack([_mean(self.clip.say(option.seen)) for option in options])
            chances = self.clip.chances(np.stack([self.points[id] for id in seen]), said)
            for id, row in zip(seen, chances, strict=True):
                best = int(row.argmax())
                found[id][family] = [options[best].tag, round(float(row[best]), 3)]
        return {r["id"]: found.get(r["id"]) for r in records}

    def score(self, records: list[Record], trigger: str | None) -> list[Record]:
        """The records with `trigger.agreement`, the cosine -1..1 of text and crop."""
        seen = [r for r in records if r["id"] in self.points]
        if not seen:
            return records
        texts = [without_word(r["text"], trigger) if trigger else r["text"] for r in seen]  # open_clip knows no zwx
        scores = {r["id"]: float(self.points[r["id"]] @ said) for r, said in zip(seen, self.clip.say(texts), strict=True)}
        return [{**r, "trigger": {**r["trigger"], "agreement": round(scores[r["id"]], 3)}} if r["id"] in scores else r for r in records]


def open_sight(project: Project, records: list[Record]) -> ClipScorer | None:
    """The sight of these crops, None where no weights are named."""
    given = project.settings.caption.clip or project.settings.embed.clip
    return ClipScorer(project, given, records) if given else None


def store(project: Project, given: str) -> Path:
    return project.cache_folder / "crops" / f"{short_hash(stamps.clip_identity(given))}.npz"


def _key(record: Record) -> str:
    """The crop as the captioner saw it: words, facets and score are of one picture, whatever base cuts it how."""
    return short_hash(record["hash"], stamps.read_box(record))


def _mean(points: np.ndarray) -> np.ndarray:
    middle = points.mean(axis=0)
    return middle / np.linalg.norm(middle)
