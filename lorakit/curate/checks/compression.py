"""JPEGs saved at so low a quality that a LoRA would learn their blocks."""

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
    good_quality: int = setting(40, "JPEG quality (1-100, as libjpeg counts it) below which a photo gets a warning", least=0, most=100)
    min_quality: int = setting(10, "JPEG quality below which a photo is rejected", least=0, most=100)


def measure(photo: Photo) -> dict[str, Any]:
    """`jpeg_quality` read from the file's own table (None for other formats) and `bits` stored for a pixel."""
    return {"jpeg_quality": photo.jpeg_quality, "bits": round(8 * photo.bytes / (photo.width * photo.height), 3)}


def judge(measures: dict[str, Any], settings: Settings) -> Iterator[Reason]:
    quality = measures["jpeg_quality"]
    if quality is None:
        return
    if quality < settings.min_quality:
        yield Reason("reject", "over_compressed", quality, settings.min_quality)
    elif quality < settings.good_quality:
        yield Reason("warn", "compressed", quality, settings.good_quality)
