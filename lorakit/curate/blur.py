"""How blurred a picture is, by the differences of its pixels and a small network fitted to them; see checks/sharpness.py."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import cv2
import numpy as np

SIDES = (512, 256, 128)  # short sides, in pixels, at which a photo is measured
TILE = 16
STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))  # the four directions, (rows, columns)
SECTORS = 12  # directions in which the spectrum is looked at
BAND = (0.08, 0.35)  # cycles a pixel, at 512 px short side
TEXTURED = 1.0  # squared first difference, beyond the noise's, from which a tile is taken to hold texture
MODEL = Path(__file__).with_suffix(".json")


def sharpness_of(gray: np.ndarray) -> tuple[float, float]:
    """(score 0 blurred - 1 sharp, share of tiles that hold texture) of a gray picture [height, width]."""
    found, texture = features(gray)
    names, model = _model()
    return float(score(blur_of(np.array([found[name] for name in names]), model))), texture


def streaks(gray: np.ndarray) -> float | None:
    """log10 of the power of detail across a direction over that along it, in the direction in which that is most. None where the picture
    is smaller than 512 px."""
    side = SIDES[0]
    if min(gray.shape) < side:
        return None
    top, left = (gray.shape[0] - side) // 2, (gray.shape[1] - side) // 2
    middle = gray[top : top + side, left : left + side].astype(np.float32)
    window = np.hanning(side).astype(np.float32)
    waves = cv2.dft((middle - middle.mean()) * window[:, None] * window, flags=cv2.DFT_COMPLEX_OUTPUT)
    chosen, sectors, sizes = _sectors(side)
    power = np.log10(np.bincount(sectors, (waves[chosen] ** 2).sum(axis=1), minlength=SECTORS) / sizes + 1)
    return round(float((np.roll(power, SECTORS // 2) - power).max()), 2)


@cache
def _sectors(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which places [side, side] of a spectrum lie in BAND, the sector of each of them, and how many each sector has."""
    down, across = np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side), indexing="ij")
    chosen = (np.hypot(down, across) > BAND[0]) & (np.hypot(down, across) < BAND[1])
    sectors = (np.degrees(np.arctan2(down, across))[chosen] % 180 / 180 * SECTORS).astype(int) % SECTORS
    return chosen, sectors, np.bincount(sectors, minlength=SECTORS)


def score(blur: np.ndarray | float) -> np.ndarray:
    """Log odds of blur as 0 (blurred) to 1 (sharp)."""
    return 1 / (1 + np.exp(np.clip(blur, -50, 50)))


def blur_of(points: np.ndarray, model: dict[str, np.ndarray]) -> float:
    """Log odds of blur from the features [n]: tanh of `hidden` [units, n + 1], weighed by `out` [units + 1]; the last column and
    the last number are biases."""
    hidden, out = model["hidden"], model["out"]
    return float(np.tanh(hidden[:, :-1] @ points + hidden[:, -1]) @ out[:-1] + out[-1])


@cache
def _model() -> tuple[list[str], dict[str, np.ndarray]]:
    found = json.loads(MODEL.read_text(encoding="utf-8"))
    return found["features"], {name: np.array(found[name]) for name in ("hidden", "out")}


def features(gray: np.ndarray) -> tuple[dict[str, float], float]:
    """What the model looks at, by name, and the share of tiles with texture at the first of SIDES."""
    found: dict[str, float] = {}
    shares, strengths = [], []
    for side in SIDES:
        values, strength, share = _features_at(_resized(gray, side))
        found |= {f"{name}_{side}": value for name, value in values.items()}
        strengths.append(strength)
        shares.append(share)
    for side, finer, coarser in zip(SIDES, strengths, strengths[1:], strict=False):
        slopes = np.log((finer + 0.1) / (coarser + 0.1))  # how detail falls off from size to size
        found |= {f"slope_least_{side}": float(slopes.min()), f"slope_most_{side}": float(slopes.max())}
    return found, shares[0]


def _resized(gray: np.ndarray, side: int) -> np.ndarray:
    scale = side / min(gray.shape)
    if scale == 1:
        return gray
    return cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _features_at(gray: np.ndarray) -> tuple[dict[str, float], np.ndarray, float]:
    """(features, mean first difference per direction [4], share of tiles with texture) at one size."""
    first, second = tile_energies(gray)
    noise = _quantile(second.mean(axis=0), 0.1) / 1.5  # variance; white noise alone gives second 1.5, first 0.5 times it
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
    """Mean squared first and second differences per direction and tile, two arrays [4, tile rows, tile columns]. Every second
    row is looked at, which tells as much in half the time."""
    pixels = gray.astype(np.float32)
    height, width = ((side - 2) // TILE * TILE for side in pixels.shape)
    twice = 2 * pixels[1 : 1 + height : 2, 1 : 1 + width]
    room = np.empty((height // 2, width), np.float32)  # fresh memory for each difference takes longer than its arithmetic
    first, second = [], []
    for down, right in STEPS:
        ahead = pixels[1 + down : 1 + down + height : 2, 1 + right : 1 + right + width]
        behind = pixels[1 - down : 1 - down + height : 2, 1 - right : 1 - right + width]
        first.append(_tile_means(np.subtract(ahead, behind, out=room)))
        second.append(_tile_means(np.subtract(np.add(ahead, behind, out=room), twice, out=room)))
    return np.stack(first), np.stack(second)


def _tile_means(differences: np.ndarray) -> np.ndarray:
    """Means of a quarter of the squares, by tile, of [rows / 2, columns]; `differences` are overwritten."""
    rows, columns = 2 * differences.shape[0] // TILE, differences.shape[1] // TILE
    squares = np.multiply(differences, differences, out=differences).reshape(rows, TILE // 2, columns * TILE)
    return squares.sum(axis=1).reshape(rows, columns, TILE).sum(axis=2) * (0.5 / TILE**2)
