"""Blurred photos: out of focus, or shaken.

In a blurred picture the second differences are weak against the first ones, whatever its contrast; motion weakens them
in one direction only, and sensor noise, laid over the blur, strengthens them everywhere. So both are measured in four
directions, per tile, at two sizes, with and without the noise of the smoothest tiles, and a logistic model fitted to
sharp and blurred versions of 333 photos (bench/fit_sharpness.py) weighs them. Its score means the same at any
resolution: blur is judged against the frame, not against the pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from lorakit.photo import Photo
from lorakit.settings import setting
from lorakit.verdicts import Reason

VERSION = 2
SIDES = (512, 256)  # short sides, in pixels, at which a photo is measured
TILE = 16
STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))  # the four directions, (rows, columns)
LEAST_SIDE = 192  # below it, a photo holds too little to tell
TEXTURED = 1.0  # squared first difference, beyond the noise's, from which a tile is taken to hold texture
# positive = blurred; from a fit as bench/fit_sharpness.py makes it
BIAS = -12.41
WEIGHTS = {
    "raw_512": -0.179, "median_512": 1.145, "top_512": -2.548, "strongest_512": 0.743, "whole_512": -4.801, "noise_512": 0.175,
    "raw_256": 0.304, "strongest_256": 1.559, "evenness_256": -0.441, "noise_256": -0.002, "slope_least": -6.19, "slope_most": 0.473,
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    min_sharpness: float = setting(0.3, "photos that score less (0-1) are blurred and rejected", least=0.0, most=1.0)
    good_sharpness: float = setting(0.6, "photos that score less get a warning", least=0.0, most=1.0)
    min_texture: float = setting(0.05, "share of tiles with texture below which the score tells little: a warning, never a rejection",
                                 least=0.0, most=1.0)  # fmt: skip


def measure(photo: Photo) -> dict[str, Any]:
    """`sharpness` (0 blurred - 1 sharp; None when nothing can be said) and `texture`, the share of tiles that hold any."""
    if min(photo.gray.shape) < LEAST_SIDE:
        return {"sharpness": None, "texture": None}
    found, texture = features(photo.gray)
    blurred = BIAS + sum(weight * found[name] for name, weight in WEIGHTS.items())
    return {"sharpness": round(1 / (1 + math.exp(min(50, blurred))), 4), "texture": round(texture, 4)}


def features(gray: np.ndarray) -> tuple[dict[str, float], float]:
    """The model's features by name, and the share of tiles with texture."""
    fine, fine_strength, texture = _features_at(_resized(gray, SIDES[0]))
    coarse, coarse_strength, _ = _features_at(_resized(gray, SIDES[1]))
    slopes = np.log((fine_strength + 0.1) / (coarse_strength + 0.1))  # how detail falls off from size to size
    found = {f"{name}_{SIDES[0]}": value for name, value in fine.items()}
    found |= {f"{name}_{SIDES[1]}": value for name, value in coarse.items()}
    return found | {"slope_least": float(slopes.min()), "slope_most": float(slopes.max())}, texture


def _resized(gray: np.ndarray, side: int) -> np.ndarray:
    scale = side / min(gray.shape)
    if scale == 1:
        return gray
    return cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _features_at(gray: np.ndarray) -> tuple[dict[str, float], np.ndarray, float]:
    """(features, mean first difference per direction [4], share of tiles with texture) at one size."""
    first, second = tile_energies(gray)
    noise = (
        _quantile(second.mean(axis=0), 0.1) / 1.5
    )  # variance; white noise alone gives second 1.5, first 0.5 times it
    strength = first.max(axis=0)
    chosen = strength >= _quantile(strength, 0.7)
    clean_first = np.maximum(first - 0.5 * noise, 0.0)[:, chosen]
    clean_second = np.maximum(second - 1.5 * noise, 0.0)[:, chosen]
    raw = (second[:, chosen] / np.maximum(first[:, chosen], 1e-3)).min(axis=0)
    ratios = clean_second / np.maximum(clean_first, 0.1)
    weakest, strongest = ratios.min(axis=0), ratios.max(axis=0)
    whole = (clean_second.sum(axis=1) + 1) / (clean_first.sum(axis=1) + 1)
    values = {
        "raw": _log(_quantile(raw, 0.9)),
        "median": _log(_quantile(weakest, 0.5)),
        "top": _log(_quantile(weakest, 0.97)),
        "strongest": _log(_quantile(strongest, 0.9)),
        "evenness": _log(_quantile((weakest + 0.01) / (strongest + 0.01), 0.5)),
        "whole": _log(whole.min()),
        "noise": float(np.log(noise + 0.05)),
    }
    return values, clean_first.mean(axis=1), float((strength > TEXTURED + 2 * noise).mean())


def _quantile(values: np.ndarray, share: float) -> float:
    """The value at `share` of the sorted ones, without numpy's slower interpolation."""
    at = int(share * (values.size - 1) + 0.5)
    return float(np.partition(values, at, axis=None)[at])


def _log(value: float) -> float:
    return float(np.log(value + 0.01))


def tile_energies(gray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean squared first and second differences per direction and tile, two arrays [4, tile rows, tile columns]."""
    pixels = gray.astype(np.float32)
    height, width = pixels.shape
    centre = 2 * pixels[1:-1, 1:-1]
    first, second = [], []
    for down, right in STEPS:
        ahead = pixels[1 + down : height - 1 + down, 1 + right : width - 1 + right]
        behind = pixels[1 - down : height - 1 - down, 1 - right : width - 1 - right]
        first.append(_tile_means(cv2.subtract(ahead, behind)))
        second.append(_tile_means(cv2.subtract(cv2.add(ahead, behind), centre)))
    return np.stack(first), np.stack(second)


def _tile_means(differences: np.ndarray) -> np.ndarray:
    """Means of a quarter of the squares, by tile."""
    rows, columns = (side // TILE for side in differences.shape)
    cut = differences[: rows * TILE, : columns * TILE]
    return cv2.resize(cv2.multiply(cut, cut, scale=0.25), (columns, rows), interpolation=cv2.INTER_AREA)


def judge(measures: dict[str, Any], settings: Settings) -> Iterator[Reason]:
    score, texture = measures["sharpness"], measures["texture"]
    if texture is None:
        return
    if texture < settings.min_texture:
        yield Reason("warn", "little_texture", texture, settings.min_texture)
    elif score < settings.min_sharpness:
        yield Reason("reject", "blurry", score, settings.min_sharpness)
    elif score < settings.good_sharpness:
        yield Reason("warn", "soft", score, settings.good_sharpness)
