"""What can be measured in a picture's pixels, and words for it: framing, light and main colours. Thresholds are plain
numbers here."""

from __future__ import annotations

import numpy as np
from PIL import Image

from lorakit.record import Pixels
from lorakit.text.facets import HUES as SEEN_HUES
from lorakit.text.facets import LEAST_CHROMA

SIDE = 192  # px at which a crop is measured
# Hue in degrees (0-360) up to which a colour has this name, going round from red.
HUES = ((15, "red"), (40, "orange"), (68, "yellow"), (165, "green"), (195, "teal"), (255, "blue"), (290, "purple"),
        (335, "pink"), (361, "red"))  # fmt: skip
MAIN_SHARE = 0.22  # of the picture that a colour must fill to be named


def measure(picture: Image.Image) -> Pixels:
    """`luma`: its 5th, 50th and 95th percentile (0-255); `colours`: the share of the picture that may be called so."""
    scale = min(1.0, SIDE / max(picture.size))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    small = np.asarray(picture.resize(size, Image.Resampling.BOX), dtype=np.float32)
    return {"luma": [round(float(p)) for p in luma_percentiles(small)], "colours": colour_shares(small)}


def luma_percentiles(pixels: np.ndarray) -> np.ndarray:
    """The 5th, 50th and 95th percentile of luma of RGB pixels [h, w, 3]."""
    return np.percentile(pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32), (5, 50, 95))


def colour_shares(pixels: np.ndarray) -> dict[str, float]:
    """{colour: share of RGB pixels [h, w, 3] that an eye might give this name}; they overlap."""
    low, high = pixels.min(axis=2), pixels.max(axis=2)
    chroma = np.maximum(high - low, 1e-6)
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    past_red = np.where(high == green, (blue - red) / chroma + 2, (red - green) / chroma + 4)
    sector = np.where(high == red, ((green - blue) / chroma) % 6, past_red)
    hue, has_hue = 60 * sector, high - low >= LEAST_CHROMA
    shares = {}
    for name, (first, last) in SEEN_HUES.items():
        inside = (hue >= first) & (hue <= last) if first < last else (hue >= first) | (hue <= last)
        shares[name] = round(float((inside & has_hue).mean()), 4)
    return shares


def framing_words(heat: np.ndarray) -> list[str]:
    """From a class activation map [h, w]: how much of the picture the named thing fills."""
    filled = float((heat > 0.5 * heat.max()).mean()) if heat.max() > 0 else 0.0
    if filled > 0.55:
        return ["close-up"]
    return ["small in the frame"] if filled < 0.08 else []


def light_words(pixels: np.ndarray) -> list[str]:
    """From RGB pixels [h, w, 3] uint8: dark, bright, hard or soft light, where it is marked."""
    low, middle, high = luma_percentiles(pixels)
    if middle < 50:
        return ["dark background" if high > 140 else "low light"]
    if middle > 190:
        return ["bright light"]
    if high - low > 190:
        return ["high contrast"]
    return ["soft light"] if high - low < 90 else []


def colour_words(pixels: np.ndarray) -> list[str]:
    """Up to two colours that fill much of RGB pixels [h, w, 3], as 'brown tones'."""
    names, counts = np.unique(name_colours(pixels), return_counts=True)
    shares = sorted(zip(counts / counts.sum(), names, strict=True), reverse=True)
    main = [str(name) for share, name in shares if share >= MAIN_SHARE][:2]
    return [f"{' and '.join(main)} tones"] if main else []


def name_colours(pixels: np.ndarray) -> np.ndarray:
    """An array [h * w] of colour names."""
    hue, saturation, value = np.asarray(Image.fromarray(pixels).convert("HSV"), dtype=np.float32).reshape(-1, 3).T
    hue = hue * (360 / 255)
    names = np.select([hue < limit for limit, _ in HUES], [name for _, name in HUES], default="red").astype("<U8")
    names[(hue >= 10) & (hue < 45) & (value < 170)] = "brown"
    names[(hue >= 20) & (hue < 60) & (saturation < 90) & (value >= 170)] = "beige"
    names[saturation < 38] = "gray"
    names[(saturation < 38) & (value > 205)] = "white"
    names[value < 45] = "black"
    return names
