"""What open_clip sees of each crop: its facets, and how well its text fits. Optional, since its weights are not part of
lorakit: `--set caption.clip=FOLDER` names a folder with open_clip_config.json and the weights, else those of `embed.clip` are used."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np

from lorakit import device
from lorakit.clip import Clip, embed_cached
from lorakit.files import short_hash
from lorakit.photos.images import load_crop_to_read
from lorakit.project import Project, stamps
from lorakit.record import Record
from lorakit.text import facets
from lorakit.text.phrases import SENTENCE_END
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

    def score(self, records: list[Record], unseen: Iterable[str | None]) -> list[Record]:
        """The records with `trigger.agreement`, the cosine -1..1 of the crop and that sentence of its text which fits it worst, which stands
        in `trigger.worst` where there are several: open_clip reads 77 tokens, the beginning of a long text, and one wrong sentence among
        right ones would hardly show. What is `unseen` in a photo, the trigger and tags of quality, is left out."""
        seen = [r for r in records if r["id"] in self.points]
        if not seen:
            return records
        texts = [r["text"] for r in seen]
        for word in filter(None, unseen):  # open_clip knows no zwx
            texts = [without_word(text, word) for text in texts]
        parts = [sentences_of(text) for text in texts]
        said = iter(self.clip.say([part for several in parts for part in several]))
        scored: dict[str, Any] = {}
        for record, several in zip(seen, parts, strict=True):
            fits = [float(self.points[record["id"]] @ next(said)) for _ in several]
            lowest = min(range(len(fits)), key=fits.__getitem__)
            worst = {"worst": several[lowest]} if len(several) > 1 else {}
            scored[record["id"]] = {"agreement": round(fits[lowest], 3), **worst}
        return [cast("Record", {**r, "trigger": {**r["trigger"], **scored[r["id"]]}}) if r["id"] in scored else r for r in records]


LEAST_WORDS = 4  # of a sentence that is judged by itself; a shorter one goes with the one before


def sentences_of(text: str) -> list[str]:
    """The sentences of a text; the text as it is where it has but one."""
    found: list[str] = []
    for sentence in SENTENCE_END.split(text.strip()):
        if found and (len(sentence.split()) < LEAST_WORDS or len(found[-1].split()) < LEAST_WORDS):
            found[-1] += f" {sentence}"
        else:
            found.append(sentence)
    return found


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
