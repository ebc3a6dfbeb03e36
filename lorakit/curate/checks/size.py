"""Photos with too few pixels for the base, too long and narrow for any bucket, or of another aspect than all the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import log
from statistics import median
from typing import TYPE_CHECKING, Any

from lorakit.quality.verdicts import Reason
from lorakit.settings import setting

if TYPE_CHECKING:
    from lorakit.photos.photo import Photo

VERSION = 1
FEW = 0.1  # of a set; what more photos than these have is no exception


@dataclass(frozen=True)
class Settings:
    min_side: int = setting(512, "shorter photos, in pixels of the shorter side, are rejected", least=1)
    good_side: int = setting(512, "shorter ones get a warning: they are enlarged or lack detail", least=1)
    max_aspect: float = setting(3.0, "longer side over shorter; above it most of the photo would be cropped away", least=1.0)
    odd_aspect: float = setting(
        2.0, "an aspect (width over height) so many times the set's median, or so many times less, gets a warning, where at most "
        "a tenth of the photos has one", least=1.0,
    )  # fmt: skip


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


def odd_ones(measures: dict[str, dict[str, Any]], settings: Settings) -> dict[str, Reason]:
    """Single photos of a wholly different aspect, such as a screenshot of a telephone: a bucket of their own."""
    aspects = {id: found["width"] / found["height"] for id, found in measures.items()}
    usual = median(aspects.values()) if aspects else 1.0
    odd = {id: aspect for id, aspect in aspects.items() if abs(log(aspect / usual)) > log(settings.odd_aspect)}
    if len(odd) > FEW * len(measures):
        return {}
    return {id: Reason("warn", "odd_aspect", round(aspect, 2), round(usual, 2)) for id, aspect in odd.items()}
