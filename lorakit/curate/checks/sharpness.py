"""Blurred photos: out of focus, or shaken.

In a blurred picture the second differences are weak against the first ones, whatever its contrast; motion weakens them
in one direction only, and sensor noise, laid over the blur, strengthens them everywhere. So both are measured in four
directions, per tile, at three sizes, with and without the noise of the smoothest tiles, and a small network fitted to
sharp and blurred versions of photos (bench/fit_sharpness.py writes ../blur.json) weighs them. Its score means the same at
any resolution: blur is judged against the frame, not against the pixels.

Of a thing before a plain backdrop, the thing alone is looked at, without its silhouette: a cut may be sharp around what is blurred.

Streaks of a shake aslant look like texture to four directions. Their spectrum does not: along the movement it is empty, across it full."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorakit.quality.verdicts import Reason
from lorakit.settings import setting

if TYPE_CHECKING:
    from lorakit.photos.photo import Photo

VERSION = 5
LEAST_SIDE = 192  # below it, a photo holds too little to tell


@dataclass(frozen=True)
class Settings:
    min_sharpness: float = setting(0.3, "photos that score less (0-1) are blurred and rejected", least=0.0, most=1.0)
    good_sharpness: float = setting(0.6, "photos that score less get a warning", least=0.0, most=1.0)
    min_texture: float = setting(0.05, "share of tiles with texture below which the score tells little: a warning, never a rejection",
                                 least=0.0, most=1.0)  # fmt: skip
    max_streaks: float = setting(1.3, "powers of ten by which the spectrum may be weaker in one direction than across it; above, the photo is "
                                 "taken for shaken and gets a warning", least=0.0, neutral=1.3)  # fmt: skip


def measure(photo: Photo) -> dict[str, Any]:
    """`sharpness` (0 blurred - 1 sharp; None when nothing can be said), `texture`, the share of tiles that hold any, and `streaks`, how
    much of one direction the detail is (see `blur.streaks`)."""
    if min(photo.gray.shape) < LEAST_SIDE:
        return {"sharpness": None, "texture": None, "streaks": None}
    from lorakit.curate import blur, thing

    inside = thing.inside(photo)
    score, texture = blur.sharpness_of(photo.gray, inside)
    shown = thing.faded(photo.gray, inside)
    return {
        "sharpness": round(score, 4),
        "texture": round(texture, 4),
        "streaks": None if shown is None else blur.streaks(shown),
    }


def judge(measures: dict[str, Any], settings: Settings) -> Iterator[Reason]:
    score, texture = measures["sharpness"], measures["texture"]
    if texture is None:
        return
    if texture < settings.min_texture:
        yield Reason("warn", "little_texture", texture, settings.min_texture)
    elif score < settings.min_sharpness:
        yield Reason("reject", "blurry", score, settings.min_sharpness)
    elif score < settings.good_sharpness:
        yield Reason("warn", "soft", score, settings.good_sharpness)
    elif (found := measures.get("streaks")) is not None and found > settings.max_streaks:
        yield Reason("warn", "soft", found, settings.max_streaks)
