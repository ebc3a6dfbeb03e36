"""When a photo was taken, as its camera wrote it (EXIF DateTimeOriginal). No fault of one photo; a set of one hour lacks others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorakit.quality.verdicts import Reason
from lorakit.settings import setting

if TYPE_CHECKING:
    from lorakit.photos.photo import Photo

VERSION = 1


@dataclass(frozen=True)
class Settings:
    one_occasion: int = setting(60, "minutes within which nine in ten photos of a set must lie to be called one occasion", least=1)


def measure(photo: Photo) -> dict[str, Any]:
    """`taken`: the camera's local time as 2026-05-31T18:30:00, or None where it wrote none."""
    return {"taken": photo.taken}


def judge(measures: dict[str, Any], settings: Settings) -> Iterator[Reason]:
    yield from ()
