"""Photos without colour, and pictures that let the background through."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lorakit.photo import Photo
from lorakit.settings import setting
from lorakit.verdicts import Reason

VERSION = 1


@dataclass(frozen=True)
class Settings:
    min_chroma: float = setting(8.0, "difference (0-255) between a pixel's largest and smallest channel that a hundredth of the photo must "
                                     "pass; below it, a photo is grayscale and gets a warning", least=0.0)  # fmt: skip


def measure(photo: Photo) -> dict[str, Any]:
    """`chroma`: the 99th percentile of the pixels' largest less smallest channel; `transparent`: flattened on white."""
    every_other = photo.colours[::2, ::2]
    spread = every_other.max(axis=2) - every_other.min(axis=2)
    return {"chroma": round(float(np.quantile(spread, 0.99)), 1), "transparent": photo.transparent}


def judge(measures: dict[str, Any], settings: Settings) -> Iterator[Reason]:
    if measures["chroma"] < settings.min_chroma:
        yield Reason("warn", "grayscale", measures["chroma"], settings.min_chroma)
    if measures["transparent"]:
        yield Reason("warn", "transparent", None, None)
