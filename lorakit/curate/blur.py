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
LEAST_OF_TILE, FEWEST = 0.25, 4  # share of a tile that must lie inside the part that is looked at; such tiles at each of SIDES
TEXTURED = 1.0  # squared first difference, beyond the noise's, from which a tile is taken to hold texture
MODEL = Path(__file__).with_suffix(".json")


def sharpness_of(gray: np.ndarray, inside: np.ndarray | None = None) -> tuple[float, float]:
    """(score 0 blurred - 1 sharp, share of tiles that hold texture) of a gray picture [height, width], or of the part of it where
    `inside` [height, width] is not 0."""
    found, texture = features(gray, inside)
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


def features(gray: np.ndarray, inside: np.ndarray | None = None) -> tuple[dict[str, float], float]:
    """What the model looks at, by name, and the share of tiles with texture at the first of SIDES. Where a part of the picture is asked for
    that has hardly a tile, it is the whole picture's."""
    found: dict[str, float] = {}
    shares, strengths = [], []
    pictures = [_resized(gray, side) for side in SIDES]
    energies = [tile_energies(picture) for picture in pictures]
    noises = [
        _quantile(second.mean(axis=0), 0.1) / 1.5 for _, second in energies
    ]  # variance; white noise gives second 1.5, first 0.5 times it
    if inside is not None:
        of_part = [tile_energies(picture, _all_inside(inside, side)) for picture, side in zip(pictures, SIDES, strict=True)]
        energies = of_part if min(first.shape[1] for first, _ in of_part) >= FEWEST else energies
    for side, noise, (first, second) in zip(SIDES, noises, energies, strict=True):
        values, strength, share = _features_of(first, second, noise)
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


def _all_inside(inside: np.ndarray, side: int) -> np.ndarray:
    """1 for each pixel of the resized picture all of which lies inside."""
    return (_resized(np.where(inside > 0, 255, 0).astype(np.uint8), side) == 255).astype(np.uint8)


def _features_of(first: np.ndarray, second: np.ndarray, noise: float) -> tuple[dict[str, float], np.ndarray, float]:
    """(features, mean first difference per direction [4], share of tiles with texture) from the energies of tiles at one size."""
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


def tile_energies(gray: np.ndarray, inside: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean squared first and second differences per direction and tile, two arrays [4, tiles]; of tiles that lie `inside` in part, the
    means of that part. Every second row is looked at, which tells as much in half the time."""
    pixels = gray.astype(np.float32)
    height, width = ((side - 2) // TILE * TILE for side in pixels.shape)
    counted = None if inside is None else _counted(inside, height, width)
    twice = 2 * pixels[1 : 1 + height : 2, 1 : 1 + width]
    room = np.empty((height // 2, width), np.float32)  # fresh memory for each difference takes longer than its arithmetic
    first, second = [], []
    for down, right in STEPS:
        ahead = pixels[1 + down : 1 + down + height : 2, 1 + right : 1 + right + width]
        behind = pixels[1 - down : 1 - down + height : 2, 1 - right : 1 - right + width]
        first.append(_tile_means(np.subtract(ahead, behind, out=room), counted))
        second.append(_tile_means(np.subtract(np.add(ahead, behind, out=room), twice, out=room), counted))
    first, second = np.stack(first).reshape(len(STEPS), -1), np.stack(second).reshape(len(STEPS), -1)
    if counted is None:
        return first, second
    share = 4 * _tile_means(counted.copy(), None).ravel()
    chosen = share >= LEAST_OF_TILE
    return first[:, chosen] / share[chosen], second[:, chosen] / share[chosen]


def _counted(inside: np.ndarray, height: int, width: int) -> np.ndarray:
    """[height / 2, width] float32: 1 for each place whose neighbours all lie inside."""
    return cv2.erode(inside, np.ones((3, 3), np.uint8))[1 : 1 + height : 2, 1 : 1 + width].astype(np.float32)


def _tile_means(differences: np.ndarray, counted: np.ndarray | None) -> np.ndarray:
    """Means of a quarter of the squares, by tile, of [rows / 2, columns], all others than those `counted` as 0; `differences` are
    overwritten."""
    if counted is not None:
        np.multiply(differences, counted, out=differences)
    rows, columns = 2 * differences.shape[0] // TILE, differences.shape[1] // TILE
    squares = np.multiply(differences, differences, out=differences).reshape(rows, TILE // 2, columns * TILE)
    return squares.sum(axis=1).reshape(rows, columns, TILE).sum(axis=2) * (0.5 / TILE**2)
