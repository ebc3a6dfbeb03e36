"""What was measured in each step as SVG drawings, one a row of `SERIES`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

WIDTH, HEIGHT, LEFT, BOTTOM = 860, 260, 52, 26  # of the drawing and its margins, in SVG units


@dataclass(frozen=True)
class Series:
    """A number of the lines of metrics.jsonl, and how it is drawn and to be read."""

    key: str
    title: str
    meaning: str
    digits: str = ".3f"  # of the numbers at its axis
    scatters: bool = True  # from step to step, so that a smoothed course is drawn over it


SERIES = (
    Series("loss", "Loss", ""),  # what its shape says is told by lorakit/quality/judge.py
    Series(
        "validation",
        "Validation",
        "The loss of the photos that are held out; where it rises, the others are being memorised.",
        scatters=False,
    ),
    Series(
        "leak",
        "Leak",
        "How far the class word alone brings the change: 0 not at all, 1 as if the trigger stood there.",
        ".2f",
        scatters=False,
    ),
    Series("grad_norm", "Gradient norm", "How hard each step pulls, before it is clipped. Single peaks are photos unlike the others."),
    Series(
        "rate", "Learning rate", "How far a step may go, as train.lr_schedule and train.warmup_steps have set it.", ".1e", scatters=False
    ),
)


def smooth(losses: np.ndarray, span: int) -> np.ndarray:
    """Mean over a centred window of `span` steps, shorter at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    at = np.arange(len(losses))
    low, high = np.maximum(0, at - span // 2), np.minimum(len(losses), at + span // 2 + 1)
    return (sums[high] - sums[low]) / (high - low)


def draw_charts(metrics: list[dict[str, Any]]) -> list[tuple[Series, str]]:
    """Every series that changes over the run, and its drawing. Lines may lack a key: of former runs, or of steps at which it is not measured."""
    drawn = [(series, draw(metrics, series)) for series in SERIES]
    return [(series, svg) for series, svg in drawn if svg]


def draw(metrics: list[dict[str, Any]], series: Series) -> str:
    """An SVG of a series: its value at every step (faint) and its smoothed course (strong). '' for fewer than two steps that have it,
    and where it never changes."""
    told = [(entry["step"], entry[series.key]) for entry in metrics if series.key in entry and math.isfinite(entry[series.key])]
    if len({value for _, value in told}) < 2:
        return ""
    first, last = metrics[0]["step"], metrics[-1]["step"]  # of all, so that one series can be held against another
    steps, values = (np.array(column, dtype=float) for column in zip(*told))
    course = smooth(values, max(5, len(values) // 15))
    low, high = 0.0, float(np.quantile(values, 0.995)) * 1.05 or 1.0

    def points(values: np.ndarray) -> str:
        x = LEFT + (steps - first) / (last - first) * (WIDTH - LEFT - 10)
        y = (HEIGHT - BOTTOM) - (np.clip(values, low, high) - low) / (high - low) * (HEIGHT - BOTTOM - 10)
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y))

    strong = f'<polyline class="course" points="{points(course)}"/>' if series.scatters else ""
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{series.title.lower()} by step">'
        f"{_grid(low, high, last, series.digits)}"
        f'<polyline class="{"raw" if series.scatters else "course"}" points="{points(values)}"/>{strong}</svg>'
    )


def _grid(low: float, high: float, last_step: int, digits: str) -> str:
    lines = []
    for part in range(5):
        value, y = low + (high - low) * part / 4, (HEIGHT - BOTTOM) - part / 4 * (HEIGHT - BOTTOM - 10)
        lines.append(f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}"/><text x="4" y="{y + 4:.1f}">{value:{digits}}</text>')
        x = LEFT + part / 4 * (WIDTH - LEFT - 10)
        lines.append(f'<text x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{round(last_step * part / 4)}</text>')
    return f'<g class="grid">{"".join(lines)}</g>'
