"""Charts: series over steps as an SVG that stretches to any width, its numbers as text beside it that stay readable on a phone."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

WIDTH, HEIGHT = 1000, 400  # of the drawing, in units of its own: it is stretched to the place that it gets
MOST_POINTS = 800  # of a line; of longer ones the lowest and the highest of every piece are drawn
TICKS = 4  # pieces that an axis is divided into, about


@dataclass(frozen=True)
class Series:
    """One line of a chart. Numbers that are none leave a gap."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]
    axis: Literal["left", "right"] = "left"
    look: str = "course"  # a class of the page's style: raw, course, held-out, second


@dataclass(frozen=True)
class Mark:
    """A step at which something is to be said."""

    step: float
    words: str


def chart(series: Sequence[Series], marks: Sequence[Mark] = (), label: str = "", is_low: bool = False, from_zero: bool = False) -> str:
    """HTML of a chart, `is_low` of half the height; '' where no series has two numbers."""
    drawn = [s for s in (_finite(s) for s in series) if len(s.steps) > 1]
    if not drawn:
        return ""
    first, last = min(s.steps[0] for s in drawn), max(s.steps[-1] for s in drawn)
    ranges = {axis: _range([s for s in drawn if s.axis == axis]) for axis in ("left", "right")}
    if from_zero:
        ranges["left"] = (0.0, ranges["left"][1])
    lines = "".join(
        f'<polyline class="{html.escape(s.look)}" points="{_points(s, first, last, ranges[s.axis])}"/>'
        for s in drawn
    )  # fmt: skip
    grid = "".join(f'<line x1="0" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>' for y in _heights(ranges["left"]))
    here = [mark for mark in marks if first <= mark.step <= last]
    stripes = "".join(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{HEIGHT}"/>' for x in (_across(m.step, first, last) for m in here))
    return (
        f'<figure class="chart{" low" if is_low else ""}"><div class="plot">'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{html.escape(label)}">'
        f'<g class="grid">{grid}</g>{lines}<g class="marks">{stripes}</g></svg>'
        f"{_side('left', ranges['left'])}{_side('right', ranges['right'])}{_bottom(first, last)}{_flags(here, first, last)}</div>"
        f"<figcaption>{_legend(drawn)}</figcaption></figure>"
    )


def smooth(values: Sequence[float], span: int) -> np.ndarray:
    """Mean over a centred window of `span` values, shorter at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(values, dtype=float))])
    at = np.arange(len(values))
    low, high = np.maximum(0, at - span // 2), np.minimum(len(values), at + span // 2 + 1)
    return (sums[high] - sums[low]) / (high - low)


def _finite(series: Series) -> Series:
    pairs = [(float(step), float(value)) for step, value in zip(series.steps, series.values) if math.isfinite(value)]
    return Series(series.name, [step for step, _ in pairs], [value for _, value in pairs], series.axis, series.look)


def _range(series: list[Series]) -> tuple[float, float]:
    """Lowest and highest of an axis: single leaps may stick out of it, smooth lines may not."""
    if not series:
        return 0.0, 0.0
    low = min(float(np.quantile(s.values, 0.01 if s.look == "raw" else 0)) for s in series)
    high = max(float(np.quantile(s.values, 0.97 if s.look == "raw" else 1)) for s in series)
    room = 0.06 * (high - low) or abs(high) * 0.5 or 1.0
    return (low - room if low < 0 else max(0.0, low - room)), high + room


def _points(series: Series, first: float, last: float, limits: tuple[float, float]) -> str:
    steps, values = thinned(np.asarray(series.steps), np.asarray(series.values))
    low, high = limits
    x = (steps - first) / max(last - first, 1e-9) * WIDTH
    y = (1 - (np.clip(values, low, high) - low) / (high - low)) * HEIGHT
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y))


def thinned(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most MOST_POINTS of a line, in which no leap is lost."""
    if len(steps) <= MOST_POINTS:
        return steps, values
    kept = sorted({
        int(part[pick(values[part])])
        for part in np.array_split(np.arange(len(steps)), MOST_POINTS // 2)
        for pick in (np.argmin, np.argmax)
    })  # fmt: skip
    return steps[kept], values[kept]


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high`, about TICKS of them."""
    if not high > low:
        return []
    rough = (high - low) / TICKS
    unit = 10.0 ** math.floor(math.log10(rough))
    step = unit * next(times for times in (1, 2, 5, 10) if times * unit >= rough)
    return [round(number * step, 12) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _heights(limits: tuple[float, float]) -> list[float]:
    low, high = limits
    return [(1 - (tick - low) / (high - low)) * HEIGHT for tick in ticks(low, high)]


def _across(step: float, first: float, last: float) -> float:
    return (step - first) / max(last - first, 1e-9) * WIDTH


def _side(axis: str, limits: tuple[float, float]) -> str:
    low, high = limits
    return "".join(
        f'<span class="tick {axis}" style="top:{100 * (1 - (tick - low) / (high - low)):.1f}%">{tick:.3g}</span>'
        for tick in ticks(low, high)
    )


def _bottom(first: float, last: float) -> str:
    return "".join(
        f'<span class="tick below" style="left:{_across(tick, first, last) / WIDTH * 100:.1f}%">{tick:g}</span>'
        for tick in ticks(first, last)
    )


def _flags(marks: Sequence[Mark], first: float, last: float) -> str:
    """What is said of a step stands on the side of its line where there is room."""
    found = []
    for row, mark in enumerate(marks):
        share = _across(mark.step, first, last) / WIDTH
        place = f"left:{100 * share:.1f}%" if share < 0.6 else f"right:{100 * (1 - share):.1f}%"
        found.append(f'<span class="flag" style="{place};top:{1.5 * row:.1f}em">{html.escape(mark.words)}</span>')
    return "".join(found)


def _legend(series: Sequence[Series]) -> str:
    return "".join(
        f'<span class="key"><i class="{html.escape(s.look)}"></i>{html.escape(s.name)}{" (right)" if s.axis == "right" else ""}</span>'
        for s in series
    )
