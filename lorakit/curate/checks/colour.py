"""Photos without colour in a set that has it, pictures that let the background through, and HDR, which is shown darker than it was meant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorakit.quality.verdicts import Reason
from lorakit.settings import setting

if TYPE_CHECKING:
    from lorakit.photos.photo import Photo

VERSION = 2


@dataclass(frozen=True)
class Settings:
    min_chroma: int = setting(8, "difference (0-255) between a pixel's largest and smallest channel that a hundredth of the photo must "
                                     "pass; below it, a photo is grayscale", least=0, most=255)  # fmt: skip
    gray_set: float = setting(0.5, "share of grayscale photos from which the set is meant to be gray; in any other each gets a warning",
                              least=0.0, most=1.0)  # fmt: skip


def measure(photo: Photo) -> dict[str, Any]:
    """`chroma`: the 99th percentile of the pixels' largest less smallest channel; `transparent`: flattened on white; `hdr`: PQ or HLG, by which
    the file tells lights brighter than white, or nothing."""
    import cv2
    import numpy as np

    red, green, blue = cv2.split(photo.colours)
    spread = cv2.subtract(cv2.max(red, cv2.max(green, blue)), cv2.min(red, cv2.min(green, blue)))
    shares = np.cumsum(cv2.calcHist([spread], [0], None, [256], [0, 256]).ravel()) / spread.size
    return {"chroma": int(np.searchsorted(shares, 0.99)), "transparent": photo.transparent, "hdr": photo.hdr}


def judge(measures: dict[str, Any], settings: Settings) -> Iterator[Reason]:
    if measures["transparent"]:
        yield Reason("warn", "transparent", "flattened on white", None)
    if measures.get("hdr"):
        yield Reason("warn", "hdr", f"{measures['hdr']}, tone-mapped to sRGB", None)


def odd_ones(measures: dict[str, dict[str, Any]], settings: Settings) -> dict[str, Reason]:
    """Grayscale photos among coloured ones: the LoRA would learn that what it is taught is gray now and then."""
    gray = {id: found["chroma"] for id, found in measures.items() if found["chroma"] < settings.min_chroma}
    if len(gray) >= settings.gray_set * len(measures):
        return {}
    return {id: Reason("warn", "grayscale", chroma, settings.min_chroma) for id, chroma in gray.items()}
