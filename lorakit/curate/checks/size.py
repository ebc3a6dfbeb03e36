"""Photos with too few pixels for the base, or too long and narrow for any bucket."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lorakit.photo import Photo
from lorakit.settings import setting
from lorakit.verdicts import Reason

VERSION = 1


@dataclass(frozen=True)
class Settings:
    min_side: int = setting(512, "shorter photos, in pixels of the shorter side, are rejected", least=1)
    good_side: int = setting(512, "shorter ones get a warning: they are enlarged or lack detail", least=1)
    max_aspect: float = setting(
        3.0, "longer side over shorter; above it most of the photo would be cropped away", least=1.0
    )


def measure(photo: Photo) -> dict[str, Any]:
    """Width and height of the upright photo, in pixels."""
    return {"width": photo.width, "height": photo.height}


def judge(measures: dict[str, Any], settings: Settings) -> Iterator[Reason]:
    short, long = sorted((measures["width"], measures["height"]))
    if short < settings.min_side:
        yield Reason("reject", "too_small", short, settings.min_side)
    elif short < settings.good_side:
        yield Reason("warn", "small", short, settings.good_side)
    if long / short > settings.max_aspect:
        yield Reason("reject", "too_narrow", round(long / short, 2), settings.max_aspect)
