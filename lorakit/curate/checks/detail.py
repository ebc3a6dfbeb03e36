"""Pictures without the fine detail that their size promises: enlarged from a smaller one, or smoothed as much.

Enlarging adds pixels, no detail: the finest structures of the result, two to three pixels wide, are missing altogether, while
those of four to seven pixels are all there. Both are measured at 512 px short side, so an enlarged picture is told by what it
shows at that size, however large it is. Of a thing before a plain backdrop, the thing alone is looked at."""

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
EVERY = 16  # rows and columns that are looked at
COARSE, FINE = (0.15, 0.225), (0.4, 0.475)  # cycles a pixel
LEAST_POWER = 1e3  # of the coarse structures; below it there is nothing to compare with


@dataclass(frozen=True)
class Settings:
    max_falloff: float = setting(
        1.65, "powers of ten by which the finest structures may be weaker than those three times as wide; above it, a warning", least=0.0
    )


def measure(photo: Photo) -> dict[str, Any]:
    """`falloff`: log10 of the power of coarse structures over that of fine ones, along rows or columns, whichever is less; None
    where the picture is smaller than 512 px or has no structure to speak of."""
    import numpy as np

    from lorakit.curate import thing
    from lorakit.photos.photo import WORKING_SIDE

    if min(photo.gray.shape) < WORKING_SIDE or (gray := thing.faded(photo.gray, thing.inside(photo))) is None:
        return {"falloff": None}
    powers = [_powers(lines) for lines in (gray, gray.T)]
    if min(coarse for coarse, _ in powers) < LEAST_POWER:
        return {"falloff": None}
    return {"falloff": round(min(float(np.log10(coarse / (fine + 1))) for coarse, fine in powers), 2)}


def _powers(lines: np.ndarray) -> tuple[float, float]:
    """Mean power of coarse and of fine structures along the middle WORKING_SIDE pixels of every EVERY-th line."""
    import numpy as np

    from lorakit.photos.photo import WORKING_SIDE

    start = (lines.shape[1] - WORKING_SIDE) // 2
    middle = lines[::EVERY, start : start + WORKING_SIDE].astype(np.float32)
    waves = np.fft.rfft((middle - middle.mean(axis=1, keepdims=True)) * np.hanning(WORKING_SIDE).astype(np.float32))
    power = (np.abs(waves) ** 2).mean(axis=0)
    coarse, fine = (power[int(low * WORKING_SIDE) : int(high * WORKING_SIDE)].mean() for low, high in (COARSE, FINE))
    return float(coarse), float(fine)


def judge(measures: dict[str, Any], settings: Settings) -> Iterator[Reason]:
    if measures["falloff"] is not None and measures["falloff"] > settings.max_falloff:
        yield Reason("warn", "upscaled", measures["falloff"], settings.max_falloff)
