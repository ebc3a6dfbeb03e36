"""Photos without colour, and pictures that let the background through."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from lorakit.photo import Photo
from lorakit.settings import setting
from lorakit.verdicts import Reason

VERSION = 1


@dataclass(frozen=True)
class Settings:
    min_chroma: int = setting(8, "difference (0-255) between a pixel's largest and smallest channel that a hundredth of the photo must "
                                     "pass; below it, a photo is grayscale and gets a warning", least=0, most=255)  # fmt: skip


def measure(photo: Photo) -> dict[str, Any]:
    """`chroma`: the 99th percentile of the pixels' largest less smallest channel; `transparent`: flattened on white."""
    red, green, blue = cv2.split(photo.colours)
    spread = cv2.subtract(cv2.max(red, cv2.max(green, blue)), cv2.min(red, cv2.min(green, blue)))
    shares = np.cumsum(cv2.calcHist([spread], [0], None, [256], [0, 256]).ravel()) / spread.size
    return {"chroma": int(np.searchsorted(shares, 0.99)), "transparent": photo.transparent}


def judge(measures: dict[str, Any], settings: Settings) -> Iterator[Reason]:
    if measures["chroma"] < settings.min_chroma:
        yield Reason("warn", "grayscale", measures["chroma"], settings.min_chroma)
    if measures["transparent"]:
        yield Reason("warn", "transparent", None, None)
