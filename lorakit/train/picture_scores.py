"""What can be said in numbers of the pictures of a grid: how much of the subject is in them, what the class word alone brings, and how much
is burnt out. The first two are seen by open_clip, where `embed.clip` names its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from lorakit import device
from lorakit.clip import Clip
from lorakit.errors import UnreadablePhoto
from lorakit.photos.decode import load_image
from lorakit.project import Project
from lorakit.text.prompts import Prompt
from lorakit.text.words import count_word
from lorakit.train.prompts import prompt_of_other

MOST = 100  # photos that are looked at, evenly spread
APART = 0.03  # cosine between what the base draws and the photos, below which the base draws nothing else than they show
DARK, LIGHT = 1, 254  # of 255: a channel at or beyond these has no detail left


def score_pictures(
    project: Project, columns: Sequence[Sequence[Image.Image]], prompts: Sequence[Prompt], strengths: Sequence[float]
) -> dict[str, Any] | None:
    """{"by", "strengths", "subject", "leak", "burnt"} of the pictures `columns` [strength][prompt], the last three with a number for each
    strength; None where strength 0 is not among them or no prompt is for the subject.

    `subject`: how far the pictures with the trigger have come from what the base draws (0) to what the photos are like (1), as cosines to
    the photos' mean; `leak`: the same of those without it, that of something else altogether aside. Both None without open_clip, or
    where the base is there already.
    `burnt`: share of the pixels without detail beyond that in the base's pictures and in the photos."""
    if 0 not in strengths:
        return None
    trigger = project.trigger
    with_trigger = [n for n, prompt in enumerate(prompts) if not trigger or count_word(prompt.text, trigger)]
    other = prompt_of_other(project)
    without = [n for n, prompt in enumerate(prompts) if n not in with_trigger and prompt.text != other]
    if not with_trigger:
        return None
    photos = load_photos(project)
    of_base = columns[list(strengths).index(0)]
    allowed = max([_burnt(picture) for picture in of_base] + [float(np.mean([_burnt(photo) for photo in photos])) if photos else 0.0])
    burnt = [round(float(np.mean([max(0.0, _burnt(picture) - allowed) for picture in column])), 4) for column in columns]
    found = {"by": "pixels", "strengths": list(strengths), "subject": None, "leak": None, "burnt": burnt}
    given = project.settings.embed.clip
    if not given or len(photos) < 2:
        return found
    seen = Seen(Clip(given, "embed.clip", device.choose(project.device)), photos)
    points = [np.stack(list(seen.clip.see(column))) for column in columns]
    base = points[list(strengths).index(0)]
    if (whole := seen.own - float(seen.likeness(base[with_trigger]))) < APART:
        return found

    def share(rows: list[int]) -> list[float] | None:
        if not rows:
            return None
        return [round((float(seen.likeness(point[rows])) - float(seen.likeness(base[rows]))) / whole, 3) for point in points]

    return {**found, "by": "open_clip", "subject": share(with_trigger), "leak": share(without)}


class Seen:
    """The photos as open_clip sees them. `own` is how like the others one of them is."""

    def __init__(self, clip: Clip, photos: Sequence[Image.Image]):
        self.clip = clip
        points = np.stack(list(clip.see(photos)))  # [n, d]
        total = points.sum(0)
        others = total - points
        self.own = float((points * others / np.linalg.norm(others, axis=1, keepdims=True)).sum(1).mean())
        self.middle = total / np.linalg.norm(total)

    def likeness(self, points: np.ndarray) -> float:
        """The mean cosine of pictures [n, d] to the photos' middle."""
        return float((points @ self.middle).mean())


def load_photos(project: Project, most: int = MOST) -> list[Image.Image]:
    """At most so many pictures of the dataset, evenly spread."""
    paths = [project.dataset_folder / r["dataset"]["file"] for r in project.manifest.selected if r.get("dataset")]
    found = []
    for path in paths[:: max(1, len(paths) // most)][:most]:
        try:
            found.append(load_image(path))
        except UnreadablePhoto:  # it was named when it was cached
            continue
    return found


def _burnt(picture: Image.Image) -> float:
    """The share of pixels that have a channel without detail."""
    pixels = np.asarray(picture.convert("RGB"))
    return float(((pixels <= DARK) | (pixels >= LIGHT)).any(axis=2).mean())
