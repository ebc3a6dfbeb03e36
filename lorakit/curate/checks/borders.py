"""Borders and letterboxes: bands of one colour along an edge of the picture, with the box that leaves them out.

A white background behind a product is no border: inside a border's straight edge, nearly the whole row changes at once. Nor is what
runs on along the sides that have no border: so does paper around a packet, whose upper edge alone is straight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorakit.quality.verdicts import Reason
from lorakit.settings import setting

if TYPE_CHECKING:
    import numpy as np

    from lorakit.photos.photo import Photo

VERSION = 2
EVEN = 4.0  # standard deviation of luma along a row up to which it is of one colour
SAME = 6.0  # luma by which the rows of a border may differ from its first
STEP = 12  # luma by which a pixel inside differs from the border ...
STEPPED = 0.6  # ... in at least this share of the row
REACH = 4  # rows over which scaling may have smeared the edge
RUNS_ON, ALIKE = 0.5, 3  # share of the other sides, between the borders, that is of a border's luma, within so many levels, around a thing
MOST = 0.4  # of a side; a wider band is part of the picture


@dataclass(frozen=True)
class Settings:
    max_share: float = setting(
        0.01,
        "share of the picture taken up by borders above which it gets a warning; the crop leaves them out",
        least=0.0,
    )


def measure(photo: Photo) -> dict[str, Any]:
    """`share` of the area that is border and `box` [left, top, right, bottom] inside it, in pixels of the upright photo."""
    import numpy as np

    gray = photo.gray
    top, bottom = border_rows(gray), border_rows(gray[::-1])
    left, right = border_rows(gray.T), border_rows(gray.T[::-1])
    found = [left, top, right, bottom]
    if any(found) and _runs_on(gray, found):
        found = [0, 0, 0, 0]
    scale = photo.width / gray.shape[1]
    inset = [int(np.ceil(side * scale)) for side in found]
    box = [inset[0], inset[1], photo.width - inset[2], photo.height - inset[3]]
    inside = (box[2] - box[0]) * (box[3] - box[1])
    return {"share": round(1 - inside / (photo.width * photo.height), 4), "box": box}


def _runs_on(gray: np.ndarray, found: list[int]) -> bool:
    """Whether the sides without a border are mostly of the luma of those that have one."""
    import numpy as np

    left, top, right, bottom = found
    inner = gray[top : len(gray) - bottom, left : gray.shape[1] - right].astype(np.float32)
    outer = {0: gray[:, 0], 1: gray[0], 2: gray[:, -1], 3: gray[-1]}
    tones = [float(outer[side].mean()) for side, rows in enumerate(found) if rows]
    bare = [line for side, line in enumerate((inner[:, 0], inner[0], inner[:, -1], inner[-1])) if not found[side]]
    if len(bare) < 2:  # a frame, one side of which is not seen before what is as dark
        return False
    return any(float(np.mean(np.abs(np.concatenate(bare) - tone) <= ALIKE)) >= RUNS_ON for tone in tones)


def border_rows(gray: np.ndarray) -> int:
    """Rows of one colour from the first one on, if they end at a straight edge; else 0."""
    import numpy as np

    band = gray[: int(len(gray) * MOST) + REACH]
    first = float(band[0].mean())
    if band[0].std() > EVEN:
        return 0
    differing = (np.abs(band.mean(axis=1) - first) > SAME) | (band.std(axis=1) > EVEN)
    end = int(np.argmax(differing))
    if not differing.any() or end > len(gray) * MOST:
        return 0
    inside = np.abs(band[end : end + REACH].astype(np.float32) - first) > STEP
    stepped = inside.mean(axis=1) >= STEPPED
    return end + int(np.argmax(stepped)) if stepped.any() else 0


def judge(measures: dict[str, Any], settings: Settings) -> Iterator[Reason]:
    if measures["share"] > settings.max_share:
        yield Reason("warn", "borders", measures["share"], settings.max_share)
