"""Photos too dark, blown out, pale or empty, judged by where the bulk of their brightness lies. A flat backdrop around the thing, white
paper or nothing at all, is no fault: where leaving it out speaks for the photo, it is left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorakit.quality.verdicts import Reason
from lorakit.settings import setting

if TYPE_CHECKING:
    import numpy as np

    from lorakit.photos.photo import Photo

VERSION = 3
CLIPPED = 250  # luma from which a pixel counts as blown out
LEAST_THING = 0.003  # share of the frame; less before a backdrop is an empty page. Thin lines take 0.02
WASHED_OUT = 120  # the least channel of a pixel of which another one is blown out: light, not a strong colour, put it there


@dataclass(frozen=True)
class Settings:
    min_highlight: int = setting(80, "99th percentile of luma (0-255) below which a photo is too dark", least=0, most=255)
    good_highlight: int = setting(145, "99th percentile of luma below which a photo gets a warning", least=0, most=255)
    max_clipped: float = setting(0.5, "share of blown-out pixels above which a photo is rejected", least=0.0, most=1.0)
    good_clipped: float = setting(0.2, "share of blown-out pixels above which a photo gets a warning", least=0.0, most=1.0)
    max_median: int = setting(200, "median luma above which a photo gets a warning", least=0, most=255)
    min_spread: int = setting(12, "luma between the 1st and 99th percentile below which a photo is empty", least=0)
    good_spread: int = setting(60, "luma between the 1st and 99th percentile below which a photo is pale", least=0)


def measure(photo: Photo) -> dict[str, Any]:
    """Luma percentiles (0-255) and the share of blown-out pixels (0-1); where there is a backdrop, its share of the frame and, as
    `thing`, the same numbers of what stands before it and the share of it that is `washed` out, a channel at its end."""
    import numpy as np

    found, behind = _levels(photo.gray, None), photo.behind
    if behind is None:
        return found
    share = round(float(behind.mean()), 4)
    if 1 - share < LEAST_THING:
        return {**found, "backdrop": share, "thing": None}
    thing = {**_levels(photo.gray, (~behind).astype(np.uint8)), "washed": _washed(photo.colours, ~behind)}
    return {**found, "backdrop": share, "thing": thing}


def _washed(colours: np.ndarray, thing: np.ndarray) -> float:
    """The share of the thing's pixels of which one channel is blown out and the others are on their way: a blue toy in too much light
    turns to a pale one before it turns white, while a white mug that is well exposed has all three below their end."""
    import cv2
    import numpy as np

    inside = cv2.resize(thing.astype(np.uint8), colours.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
    pixels = colours[inside]
    if not len(pixels):
        return 0.0
    return round(float(np.mean((pixels.max(axis=1) >= CLIPPED) & (pixels.min(axis=1) >= WASHED_OUT))), 4)


def _levels(gray: np.ndarray, mask: np.ndarray | None) -> dict[str, Any]:
    import cv2
    import numpy as np

    counts = cv2.calcHist([gray], [0], mask, [256], [0, 256]).ravel().astype(np.int64)
    shares = np.cumsum(counts) / counts.sum()
    low, median, high = (int(np.searchsorted(shares, share)) for share in (0.01, 0.5, 0.99))
    return {"p1": low, "p50": median, "p99": high, "clipped": round(float(1 - shares[CLIPPED - 1]), 4)}


def judge(measures: dict[str, Any], settings: Settings) -> Iterator[Reason]:
    thing = measures.get("thing")
    if thing and thing.get("washed", 0.0) <= settings.max_clipped:
        measures = _best_of(measures, thing)
    spread = measures["p99"] - measures["p1"]
    if spread < settings.min_spread:
        yield Reason("reject", "flat", spread, settings.min_spread)
    elif measures["p99"] < settings.min_highlight:
        yield Reason("reject", "too_dark", measures["p99"], settings.min_highlight)
    elif measures["clipped"] > settings.max_clipped:
        yield Reason("reject", "too_bright", measures["clipped"], settings.max_clipped)
    else:
        yield from _warnings(measures, spread, settings)


def _best_of(frame: dict[str, Any], thing: dict[str, Any]) -> dict[str, Any]:
    """Of the whole frame's numbers and the thing's, those that speak for the photo: a black cat on white is not dark, and a white
    page around a mug not blown out."""
    widest = max(frame, thing, key=lambda levels: levels["p99"] - levels["p1"])
    return {
        "p1": min(widest["p1"], max(frame["p99"], thing["p99"])), "p99": max(frame["p99"], thing["p99"]),
        "p50": min(frame["p50"], thing["p50"]), "clipped": min(frame["clipped"], thing["clipped"]),
    }  # fmt: skip


def _warnings(measures: dict[str, Any], spread: int, settings: Settings) -> Iterator[Reason]:
    if measures["p99"] < settings.good_highlight:
        yield Reason("warn", "dark", measures["p99"], settings.good_highlight)
    if measures["clipped"] > settings.good_clipped:
        yield Reason("warn", "clipped", measures["clipped"], settings.good_clipped)
    elif measures["p50"] > settings.max_median:
        yield Reason("warn", "bright", measures["p50"], settings.max_median)
    if spread < settings.good_spread:
        yield Reason("warn", "low_contrast", spread, settings.good_spread)
