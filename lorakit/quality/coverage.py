"""What the chosen set lacks, as far as its numbers tell: photos enough for the kind, other shapes, lights, occasions and, of a
person, distances."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from lorakit.record import Record
from lorakit.settings import Settings

if TYPE_CHECKING:
    from lorakit.project.catalog import Kind

ENOUGH = 5  # photos below which nothing is said of what they have in common
NEARLY_ALL = 0.9
SQUARE = 1.1  # longer side over shorter up to which a photo is neither wide nor tall
NEAR, FAR = 0.3, 0.15  # of the photo's height: a face from near; one below which there is room for the whole figure
PLAIN = 0.2  # share of the frame that a backdrop takes in a product picture or a cut-out
ONE_LIGHT = 40  # levels of 0-255 within which all medians of luma lie where the light never changes


def find(chosen: list[Record], kind: Kind, settings: Settings) -> list[str]:
    """One line for each thing that the chosen photos lack, with its numbers; none for an empty set."""
    lines = list(_count(len(chosen), kind, settings)) if chosen else []
    if len(chosen) >= ENOUGH:
        lines += [*_shape(chosen), *_light(chosen, settings), *_occasion(chosen, settings), *_distance(chosen, settings)]
    return lines


def _count(count: int, kind: Kind, settings: Settings) -> Iterator[str]:
    wanted = min(settings.select.wanted, settings.select.count or settings.select.wanted)
    if count < settings.select.least:
        yield f"only {count} good photos of {wanted} wanted for the kind {kind.name}: {kind.photos}"
    elif count < wanted:
        yield f"{count} of {wanted} photos wanted for the kind {kind.name}: {kind.photos}"


def _shape(chosen: list[Record]) -> Iterator[str]:
    sizes = [r["measures"]["size"] for r in chosen]
    wide = sum(size["width"] > SQUARE * size["height"] for size in sizes)
    tall = sum(size["height"] > SQUARE * size["width"] for size in sizes)
    for count, word, others in ((wide, "wider than tall", "upright or square"), (tall, "taller than wide", "wide or square")):
        if count >= NEARLY_ALL * len(chosen):
            yield f"{count} of {len(chosen)} photos are {word}; {others} ones would help in such pictures"


def _light(chosen: list[Record], settings: Settings) -> Iterator[str]:
    plain = sum((r["measures"]["exposure"].get("backdrop") or 0.0) >= PLAIN for r in chosen)
    if plain >= NEARLY_ALL * len(chosen):
        yield f"{plain} of {len(chosen)} photos stand on a plain backdrop, which is learned with the thing; other surroundings would help"
    medians = [r["measures"]["exposure"]["p50"] for r in chosen]
    if max(medians) - min(medians) <= ONE_LIGHT:
        yield f"all {len(chosen)} photos are about equally bright (median luma {min(medians)} to {max(medians)} of 255); other lights would help"
    gray = sum(r["measures"]["colour"]["chroma"] < settings.check.colour.min_chroma for r in chosen)
    if gray == len(chosen):
        yield f"all {gray} photos are grayscale; no colour can be learned from them"


def _occasion(chosen: list[Record], settings: Settings) -> Iterator[str]:
    """Photos of one hour or one day share light, dress and place. Cameras' dates only; a photo may have none."""
    told = [r["measures"].get("moment", {}).get("taken") for r in chosen]
    times = sorted(datetime.fromisoformat(taken) for taken in told if taken)
    if len(times) < max(ENOUGH, len(chosen) / 2):
        return
    minutes = settings.check.moment.one_occasion
    together = max(bisect_right(times, start + timedelta(minutes=minutes)) - bisect_left(times, start) for start in times)
    day, of_day = Counter(time.date() for time in times).most_common(1)[0]
    if together >= NEARLY_ALL * len(times):
        yield f"{together} of {len(times)} dated photos were taken within {minutes} minutes; other occasions would help"
    elif of_day >= NEARLY_ALL * len(times):
        yield f"{of_day} of {len(times)} dated photos are of one day ({day}); other occasions would help"


def _distance(chosen: list[Record], settings: Settings) -> Iterator[str]:
    """Of a person, photos from near and of the whole figure; known only where faces are looked for, and of one that shows
    none it cannot be said how far it was taken from."""
    if not settings.check.faces.least or not all("faces" in r["measures"] for r in chosen):
        return
    heights = [(box[3] - box[1]) / r["measures"]["size"]["height"] for r in chosen for box in r["measures"]["faces"]["boxes"][:1]]
    if not heights:
        yield f"no face was found in any of {len(chosen)} photos"
    elif max(heights) < NEAR:
        yield f"no photo shows the face from near (the largest fills {max(heights):.0%} of its photo's height)"
    elif len(heights) == len(chosen) and min(heights) > FAR:
        yield f"no photo shows the whole figure (the smallest face fills {min(heights):.0%} of its photo's height)"
