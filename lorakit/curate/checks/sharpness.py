"""Blurred photos: out of focus, or shaken.

The score holds no contrast, so dark and pale photos are judged like others: per 16 x 16 tile the energy of second
differences over the energy of first differences, in the weakest of four directions (motion blurs only one), and of the
most textured 30 % of tiles the 90th percentile. It is taken at 1024 px short side, smaller photos enlarged, so that it
means the same at any resolution: the detail that is seen when the photo fills a 1024 px frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from lorakit.photo import WORKING_SIDE, Photo
from lorakit.settings import setting
from lorakit.verdicts import Reason

VERSION = 1
TILE = 16
STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))  # the four directions, (rows, columns)
NOISE_FLOOR = 6.0  # mean squared first difference below which a tile is taken to hold no texture
MIN_TILES = 12  # with fewer textured tiles no score is given


@dataclass(frozen=True)
class Settings:
    min_sharpness: float = setting(0.10, "photos that score less are blurred and rejected", least=0.0)
    good_sharpness: float = setting(0.14, "photos that score less get a warning", least=0.0)
    min_texture: float = setting(
        0.12, "share of tiles with texture below which the score tells little", least=0.0, most=1.0
    )


def measure(photo: Photo) -> dict[str, Any]:
    """`sharpness` (0 = a smooth ramp; sharp photos 0.2-1.0, None when nothing can be said) and `texture`, the share of
    tiles that hold enough of it. Photos below a quarter of the working side are too small to say anything."""
    if min(photo.gray.shape) < WORKING_SIDE // 4:
        return {"sharpness": None, "texture": None}
    first, second = tile_energies(_at_working_side(photo.gray))
    strength = first.max(axis=0)
    textured = strength > NOISE_FLOOR
    texture = round(float(textured.mean()), 4)
    if textured.sum() < MIN_TILES:
        return {"sharpness": None, "texture": texture}
    chosen = textured & (strength >= np.quantile(strength[textured], 0.7))
    ratio = (second / np.maximum(first, 1e-6)).min(axis=0)[chosen]
    return {"sharpness": round(float(np.quantile(ratio, 0.9)), 4), "texture": texture}


def _at_working_side(gray: np.ndarray) -> np.ndarray:
    scale = WORKING_SIDE / min(gray.shape)
    return cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) if scale > 1 else gray


def tile_energies(gray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean squared first and second differences per direction and tile, two arrays [4, tile rows, tile columns]."""
    pixels = gray.astype(np.float32)
    first, second = [], []
    for down, right in STEPS:
        centre = pixels[1:-1, 1:-1]
        ahead = pixels[1 + down : pixels.shape[0] - 1 + down, 1 + right : pixels.shape[1] - 1 + right]
        behind = pixels[1 - down : pixels.shape[0] - 1 - down, 1 - right : pixels.shape[1] - 1 - right]
        first.append(_tile_means(((ahead - behind) / 2) ** 2))
        second.append(_tile_means((ahead - 2 * centre + behind) ** 2 / 4))
    return np.stack(first), np.stack(second)


def _tile_means(values: np.ndarray) -> np.ndarray:
    rows, columns = (side // TILE for side in values.shape)
    cut = values[: rows * TILE, : columns * TILE]
    return cut.reshape(rows, TILE, columns, TILE).mean(axis=(1, 3))


def judge(measures: dict[str, Any], settings: Settings) -> Iterator[Reason]:
    score = measures["sharpness"]
    if measures["texture"] is None:
        return
    if score is None or measures["texture"] < settings.min_texture:
        yield Reason("warn", "little_texture", measures["texture"], settings.min_texture)
    elif score < settings.min_sharpness:
        yield Reason("reject", "blurry", score, settings.min_sharpness)
    elif score < settings.good_sharpness:
        yield Reason("warn", "soft", score, settings.good_sharpness)
