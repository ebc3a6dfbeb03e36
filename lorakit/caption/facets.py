"""Words for what can be measured in a picture: framing, light and main colours. Thresholds are plain numbers here."""

from __future__ import annotations

import numpy as np
from PIL import Image

# Hue in degrees (0-360) up to which a colour has this name, going round from red.
HUES = ((15, "red"), (40, "orange"), (68, "yellow"), (165, "green"), (195, "teal"), (255, "blue"), (290, "purple"),
        (335, "pink"), (361, "red"))  # fmt: skip
MAIN_SHARE = 0.22  # of the picture that a colour must fill to be named


def framing_words(heat: np.ndarray) -> list[str]:
    """From a class activation map [h, w]: how much of the picture the named thing fills."""
    filled = float((heat > 0.5 * heat.max()).mean()) if heat.max() > 0 else 0.0
    if filled > 0.55:
        return ["close-up"]
    return ["small in the frame"] if filled < 0.08 else []


def light_words(pixels: np.ndarray) -> list[str]:
    """From RGB pixels [h, w, 3] uint8: dark, bright, hard or soft light, where it is marked."""
    luma = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    low, middle, high = np.percentile(luma, (5, 50, 95))
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
