"""Fit the weights of lorakit/curate/checks/sharpness.py to sharp and blurred versions of photos, and print them.

    python bench/fit_sharpness.py PHOTOS

PHOTOS holds folders of sharp photos. Every second folder is held out of a first fit, to see what the model is worth on
photos that it has not seen; the printed weights then come from all of them."""

from __future__ import annotations

import argparse
import hashlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from edits import BLURRED, SHARP, frame

from lorakit.curate.checks.sharpness import features
from lorakit.photo import NAME_ENDINGS

NAMES = (
    "raw_512", "median_512", "top_512", "strongest_512", "whole_512", "noise_512", "raw_256", "strongest_256", "evenness_256",
    "noise_256", "slope_least", "slope_most",
)  # fmt: skip
RIDGE = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    files = sorted(p for p in parser.parse_args().photos.rglob("*") if p.suffix.lower() in NAME_ENDINGS)
    with ProcessPoolExecutor() as pool:
        points = np.array([row for rows in pool.map(describe, files, chunksize=4) for row in rows])
    held_out = np.repeat([is_held_out(path) for path in files], len(SHARP) + len(BLURRED))
    blurred = np.tile([False] * len(SHARP) + [True] * len(BLURRED), len(files))
    weights, bias = fit(points[~held_out], blurred[~held_out])
    sharpness = 1 / (1 + np.exp(points[held_out] @ weights + bias))
    print(f"{len(files)} photos; on the {held_out.mean():.0%} held out: limit, false rejects, recall")
    for limit in (0.2, 0.3, 0.35, 0.4, 0.5, 0.6):
        rejected = sharpness < limit
        print(f"{limit:.2f}  {rejected[~blurred[held_out]].mean():.4f}  {rejected[blurred[held_out]].mean():.4f}")
    weights, bias = fit(points, blurred)
    print(f"BIAS = {bias:.3f}\nWEIGHTS = {dict(zip(NAMES, weights.round(3).tolist(), strict=True))}")


def describe(path: Path) -> list[list[float]]:
    gray = frame(path)
    return [[features(change(gray))[0][name] for name in NAMES] for change in (*SHARP.values(), *BLURRED.values())]


def is_held_out(path: Path) -> bool:
    return hashlib.blake2b(path.parent.name.encode()).digest()[0] % 2 == 1


def fit(points: np.ndarray, blurred: np.ndarray) -> tuple[np.ndarray, float]:
    """Logistic regression by Newton's method, both classes of one weight; for points as they are, not scaled."""
    mean, spread = points.mean(axis=0), points.std(axis=0)
    scaled = np.column_stack([(points - mean) / spread, np.ones(len(points))])
    share = np.where(blurred, 0.5 / blurred.mean(), 0.5 / (1 - blurred.mean()))
    found = np.zeros(scaled.shape[1])
    for _ in range(30):
        chance = 1 / (1 + np.exp(-scaled @ found))
        slope = scaled.T @ (share * (chance - blurred)) + RIDGE * found
        curve = (scaled * (share * chance * (1 - chance))[:, None]).T @ scaled + RIDGE * np.eye(len(found))
        found -= np.linalg.solve(curve, slope)
    weights = found[:-1] / spread
    return weights, float(found[-1] - weights @ mean)


if __name__ == "__main__":
    main()
