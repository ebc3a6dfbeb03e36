"""Sudden changes in the course of a loss: single steps far above their neighbours, and levels that come in a few steps, to go again or to stay."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

LASTING = 8  # steps, the least that are no accident of single ones
LEVEL = math.log(1.5)  # from which another level is one
SURE = 5  # standard errors of a difference of levels from which it is one: they are looked for everywhere
MOST_EDGES = 6  # more of them are no levels any more


@dataclass(frozen=True)
class Leaps:
    """`odd` [k]: places that stand above what lay before and what came after (or, of whole levels, below), rising. `jumps`: places from
    which on the rest has another level for good; `burst`: the one from which on it is never again near what it had been, if there is."""

    odd: np.ndarray
    jumps: tuple[int, ...] = ()
    burst: int | None = None


@dataclass(frozen=True)
class Edge:
    """The level is another from place `at` on, by `height` in logarithms."""

    at: int
    height: float


def find_leaps(logs: np.ndarray) -> Leaps:
    """Of a loss [n] in logarithms: single leaps, and levels that last."""
    spikes, edges = find_spikes(logs), find_edges(logs)
    burst = _burst(logs, edges)
    edges = [edge for edge in edges if burst is None or edge.at <= burst]  # what comes later is how it burst
    if not edges or len(edges) > MOST_EDGES:
        return Leaps(spikes)
    bounds, levels = _levels(edges, len(logs))
    odd = _above_both(levels)
    odd |= _dips(levels, bounds) & ~odd
    if burst is not None and len(logs) - burst <= min(max(LASTING + 2, len(logs) // 60), len(logs) // 12):
        odd[-1], burst = True, None  # nobody knows whether it stays
    kept = np.repeat(~odd, np.diff(bounds))
    for i in np.nonzero(odd[:-1])[0]:
        first, last = _as_wide(logs, kept, int(bounds[i]), int(bounds[i + 1]))
        kept[first:last] = False
        odd[i] = last > first
        kept[bounds[i] : bounds[i + 1]] |= not odd[i]
    there = np.nonzero(~odd)[0]
    jumps = [int(bounds[later]) for former, later in pairwise(there) if abs(levels[later] - levels[former]) > LEVEL]
    if burst is None and jumps and (gone := _slowly_gone(logs, edges[-1])):
        kept[edges[-1].at : gone] = False
        jumps = [jump for jump in jumps if jump < edges[-1].at]
    odd_places = np.union1d(spikes, np.nonzero(~kept)[0]).astype(int)
    return Leaps(odd_places if burst is None else odd_places[odd_places < burst], tuple(jumps), burst)


def _levels(edges: list[Edge], count: int) -> tuple[np.ndarray, np.ndarray]:
    """([n + 1] bounds, [n] levels between them)"""
    return np.array([0, *(edge.at for edge in edges), count]), np.cumsum([0.0, *(edge.height for edge in edges)])


def _burst(logs: np.ndarray, edges: list[Edge]) -> int | None:
    """The edge at which it leaves for good what had been: nearly all that comes is above that, and so is the end."""
    bounds, levels = _levels(edges, len(logs))
    back = set(bounds[1:][_dips(levels, bounds)])
    slow, quick = _median(logs, max(9, len(logs) // 40) | 1), _median(logs, 9)
    for edge in edges:
        before, later = _before(logs, edge.at), quick[edge.at :]
        above, middle = slow[edge.at :] > before + LEVEL, float(np.median(later))
        is_apart = middle - before > 2 * 1.4826 * float(np.median(np.abs(later - middle)))  # and no wave of many
        if edge.height > 0 and edge.at not in back and above[-1] and above.mean() > 0.9 and is_apart:
            return edge.at
    return None


def _slowly_gone(logs: np.ndarray, edge: Edge) -> int | None:
    """The place from which on a rise has come back to where it began, without a second edge; None where it is none, or does not."""
    smooth = _median(logs, max(9, len(logs) // 40) | 1)[edge.at :]
    high = np.nonzero(smooth > _before(logs, edge.at) + edge.height / 4)[0]
    is_gone = edge.height > 0 and len(high) and high[-1] < 0.9 * len(smooth)
    return edge.at + int(high[-1]) + 1 if is_gone else None


def _before(logs: np.ndarray, at: int) -> float:
    return float(np.median(logs[max(0, at - max(4 * LASTING, len(logs) // 40)) : at]))


def find_spikes(logs: np.ndarray) -> np.ndarray:
    """The places of sudden rises that are gone again soon, far above the scatter around them."""
    above, narrow = _above(logs)
    wide = max(narrow, float(np.quantile(above, 0.95)) / 1.645)  # of scatter that reaches further up than down
    leaps = _far_above(above, narrow)
    if len(groups(leaps)) > many(len(logs)):
        return leaps
    found = [leap for leap in groups(_far_above(above, wide), apart=1) if leap[0] >= 3]  # the first steps stand above what follows
    return np.concatenate(found) if found else np.array([], dtype=int)


def find_edges(logs: np.ndarray) -> list[Edge]:
    """Where the medians before and after differ, and the change between them is sudden. Looked for in short windows first, which place
    it best; in longer ones what does not show in the scatter of those."""
    scale, found = _above(logs)[1], {True: np.array([], dtype=int), False: np.array([], dtype=int)}  # by whether they are up
    width = 5
    while 2 * width <= len(logs):
        level, half = _median(logs, width), width // 2
        at = np.arange(width, len(logs) - width + 1)  # windows of `width` values before it and from it on
        rise = level[np.minimum(at + half, len(logs) - 1)] - level[at - 1 - half]
        least = max(LEVEL, SURE * scale * math.sqrt(math.pi / width))
        for group in [*groups(np.nonzero(rise > least)[0], apart=1), *groups(np.nonzero(rise < -least)[0], apart=1)]:
            middle = int(at[group[np.argmax(np.abs(rise[group]))]])
            up = bool(rise[group[0]] > 0)
            if (abs(found[up] - middle) < width).any() or (abs(found[not up] - middle) < width // 2).any():
                continue
            first, last = middle - width, middle + width
            place = first + _split(logs[first:last])
            height = float(np.median(logs[place : min(place + width, last)]) - np.median(logs[max(first, place - width) : place]))
            if (height if up else -height) > LEVEL and _is_sudden(logs[first:last], place - first):
                found[up] = np.append(found[up], place)
        width = 2 * width - 1
    return _measured(logs, np.sort(np.concatenate([found[True], found[False]])).tolist())


def _measured(logs: np.ndarray, places: list[int]) -> list[Edge]:
    """Those of `places` that are edges by all values up to the next ones, as far as a course is about level: by their medians, and by their
    means, which do not leap where the values are of two kinds."""
    near = max(4 * LASTING, len(logs) // 40)
    while True:
        edges = []
        for first, at, last in zip([0, *places], places, [*places[1:], len(logs)], strict=False):
            before, after = logs[max(first, at - near) : at], logs[at : min(last, at + near)]
            height, by_means = float(np.median(after) - np.median(before)), float(after.mean() - before.mean())
            error = _scatter_around(logs, at, near) * math.sqrt(1 / len(before) + 1 / len(after))
            if abs(height) > LEVEL and by_means * math.copysign(1, height) > max(LEVEL / 2, SURE * error):
                edges.append(Edge(at, height))
        if len(edges) == len(places):
            return edges
        places = [edge.at for edge in edges]


def _scatter_around(logs: np.ndarray, at: int, near: int) -> float:
    """Of one value, from how neighbours differ; a few that leap do not count."""
    differences = np.diff(logs[max(0, at - near) : at + near])
    return float(np.diff(np.quantile(differences, (0.16, 0.84)))[0]) / 2 / math.sqrt(2)


def groups(places: np.ndarray, apart: int = 3) -> list[np.ndarray]:
    """Places that lie up to `apart` from the next, together; [] of none."""
    return np.split(places, np.nonzero(np.diff(places) > apart)[0] + 1) if len(places) else []


def many(count: int) -> int:
    """More leaps in so many steps than this are no accidents any more."""
    return max(4, count // 60)


def _above_both(levels: np.ndarray) -> np.ndarray:
    """[n] bool, of `levels` [n]: those above the lowest before and the lowest after."""
    odd = np.zeros(len(levels), dtype=bool)
    for i in range(1, len(levels) - 1):
        odd[i] = levels[i] - max(levels[:i].min(), levels[i + 1 :].min()) > LEVEL
    return odd


def _dips(levels: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """[n] bool, of `levels` [n] between `bounds` [n + 1]: those below what is long and alike on both sides."""
    odd, shares = np.zeros(len(levels), dtype=bool), np.diff(bounds) / bounds[-1]
    for i in range(1, len(levels) - 1):
        depth = min(levels[i - 1], levels[i + 1]) - levels[i]
        is_between = shares[i] < 1 / 3 and min(shares[i - 1], shares[i + 1]) > 1 / 5
        odd[i] = is_between and depth > LEVEL and abs(levels[i - 1] - levels[i + 1]) < 0.3 * depth
    return odd


def _as_wide(logs: np.ndarray, kept: np.ndarray, first: int, last: int) -> tuple[int, int]:
    """The places of a level from `first` to before `last`, with the way up to it and down from it; none where it is not apart from what is
    `kept` on both sides."""
    length, within = last - first, float(np.median(logs[first:last]))
    before, after = (logs[side][kept[side]] for side in (slice(max(0, first - length), first), slice(last, last + length)))
    if not len(before) or not len(after):
        return first, last
    aside = float(np.median(before)), float(np.median(after))
    height = within - max(aside) if within > max(aside) else within - min(aside)
    if abs(height) < 0.8 * LEVEL:
        return first, first
    smooth = np.sign(height) * _median(logs, 5)
    for _ in range(length // 2):
        if first > 2 and smooth[first - 3] > np.sign(height) * aside[0] + abs(height) / 4:
            first -= 1
    for _ in range(length // 2):
        if last < len(logs) - 2 and smooth[last + 2] > np.sign(height) * aside[1] + abs(height) / 4:
            last += 1
    return first, last


def _split(values: np.ndarray) -> int:
    """The place that parts them best into two levels, by squares."""
    count = np.arange(1, len(values))
    sums = np.cumsum(values)
    gain = sums[:-1] ** 2 / count + (sums[-1] - sums[:-1]) ** 2 / (len(values) - count)
    return int(np.argmax(gain)) + 1


def _is_sudden(values: np.ndarray, place: int) -> bool:
    """Whether two levels, parted at `place`, explain them better than a straight line."""
    x = np.arange(len(values)) - (len(values) - 1) / 2
    by_line = (x @ values) ** 2 / (x @ x)
    parts = values[:place].mean(), values[place:].mean()
    return bool(place * (len(values) - place) / len(values) * (parts[1] - parts[0]) ** 2 > by_line)


def _above(logs: np.ndarray) -> tuple[np.ndarray, float]:
    """What stands above the running median, and the usual scatter about it."""
    above = logs - _median(logs, max(9, len(logs) // 20) | 1)
    return above, 1.4826 * float(np.median(np.abs(above))) or 1e-6


def _far_above(above: np.ndarray, scale: float) -> np.ndarray:
    alone = above > max(7 * scale, math.log(2))
    two = _median(above, 3) > max(5 * scale, math.log(2))  # of three
    three = _median(above, 5) > max(3.5 * scale, LEVEL)  # of five
    return np.nonzero(alone | ((two | three) & (above > 2 * scale)))[0]


def _median(values: np.ndarray, width: int) -> np.ndarray:
    """[n], of `width` (odd) values around each, mirrored at the ends."""
    from scipy.ndimage import median_filter  # a third of a second to load, and a window of thousands is as quick as one of five

    return median_filter(values, width, mode="mirror")
