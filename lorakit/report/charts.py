"""The loss curve as an SVG drawing."""

from __future__ import annotations

from typing import Any

import numpy as np

WIDTH, HEIGHT, LEFT, BOTTOM = 860, 260, 52, 26  # of the drawing and its margins, in SVG units


def smooth(losses: np.ndarray, span: int) -> np.ndarray:
    """Mean over a centred window of `span` steps, shorter at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    at = np.arange(len(losses))
    low, high = np.maximum(0, at - span // 2), np.minimum(len(losses), at + span // 2 + 1)
    return (sums[high] - sums[low]) / (high - low)


def loss_curve(metrics: list[dict[str, Any]]) -> str:
    """An SVG of the loss of every step (faint) and its smoothed course (strong). '' for fewer than two steps."""
    if len(metrics) < 2:
        return ""
    steps = np.array([entry["step"] for entry in metrics], dtype=float)
    losses = np.array([entry["loss"] for entry in metrics], dtype=float)
    course = smooth(losses, max(5, len(losses) // 15))
    low, high = 0.0, float(np.quantile(losses, 0.995)) * 1.05 or 1.0

    def points(values: np.ndarray) -> str:
        x = LEFT + (steps - steps[0]) / (steps[-1] - steps[0]) * (WIDTH - LEFT - 10)
        y = (HEIGHT - BOTTOM) - (np.clip(values, low, high) - low) / (high - low) * (HEIGHT - BOTTOM - 10)
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y))

    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="loss by step">{_grid(low, high, int(steps[-1]))}'
        f'<polyline class="raw" points="{points(losses)}"/><polyline class="course" points="{points(course)}"/></svg>'
    )


def _grid(low: float, high: float, last_step: int) -> str:
    lines = []
    for part in range(5):
        value, y = low + (high - low) * part / 4, (HEIGHT - BOTTOM) - part / 4 * (HEIGHT - BOTTOM - 10)
        lines.append(f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}"/><text x="4" y="{y + 4:.1f}">{value:.3f}</text>')
        x = LEFT + part / 4 * (WIDTH - LEFT - 10)
        lines.append(f'<text x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{round(last_step * part / 4)}</text>')
    return f'<g class="grid">{"".join(lines)}</g>'
