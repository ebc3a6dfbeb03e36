"""Edits of a photo at stated strengths: those under which it stays the same picture, and blurs that spoil it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from lorakit.photo import load_image

Edit = Callable[[Image.Image], Image.Image]


def scaled(factor: float) -> Edit:
    return lambda p: p.resize(
        (max(1, round(p.width * factor)), max(1, round(p.height * factor))), Image.Resampling.LANCZOS
    )


def cut(share: float) -> Edit:
    """Cut off `share` of the area, evenly."""
    side = (1 - (1 - share) ** 0.5) / 2
    return lambda p: p.crop(
        (round(p.width * side), round(p.height * side), round(p.width * (1 - side)), round(p.height * (1 - side)))
    )


def compressed(quality: int) -> Edit:
    def edit(photo: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        photo.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    return edit


def rotated(degrees: float) -> Edit:
    """Rotated and cut to what is full of picture, as an editor does it."""

    def edit(photo: Image.Image) -> Image.Image:
        turned = photo.rotate(degrees, Image.Resampling.BICUBIC)
        margin = int(np.tan(np.radians(abs(degrees))) * max(photo.size) / 2) + 1
        return turned.crop((margin, margin, photo.width - margin, photo.height - margin))

    return edit


def bright(factor: float) -> Edit:
    return lambda p: ImageEnhance.Brightness(p).enhance(factor)


def letterboxed(share: float) -> Edit:
    return lambda p: ImageOps.expand(p, (0, round(p.height * share)), "black")


def watermarked(photo: Image.Image) -> Image.Image:
    marked = photo.copy()
    size = photo.height // 12
    ImageDraw.Draw(marked).text((photo.width // 3, photo.height // 2), "SAMPLE", fill=(255, 255, 255), font_size=size)
    return marked


CORE: dict[str, Edit] = {
    **{f"JPEG quality {q}": compressed(q) for q in (30, 50, 75, 95)},
    **{f"resized to {round(f * 100)} %": scaled(f) for f in (0.25, 0.5, 0.9)},
    "2 % cut off": cut(0.02), "5 % cut off": cut(0.05), "10 % brighter": bright(1.1), "10 % darker": bright(0.9),
    "rotated by 1 degree": rotated(1), "rotated by 2 degrees": rotated(2), "watermark": watermarked,
    "grayscale": lambda p: p.convert("L"),
}  # fmt: skip
HARD: dict[str, Edit] = {
    "10 % cut off": cut(0.10), "15 % cut off": cut(0.15), "rotated by 3 degrees": rotated(3), "rotated by 5 degrees": rotated(5),
    "letterbox of 8 %": letterboxed(0.08), "cut, halved, quality 60": lambda p: compressed(60)(scaled(0.5)(cut(0.1)(p))),
}  # fmt: skip
TURNED: dict[str, Edit] = {
    "mirrored": ImageOps.mirror, "upside down": lambda p: p.rotate(180),
    "quarter turn left": lambda p: p.rotate(90, expand=True), "quarter turn right": lambda p: p.rotate(270, expand=True),
}  # fmt: skip


def frame(path: Path) -> np.ndarray:
    """A photo's luma at 1024 px short side, or less if it has no more: what the blurs below are measured against."""
    gray = np.asarray(load_image(path).convert("L"))
    scale = min(1.0, 1024 / min(gray.shape))
    return cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def disk(radius: float) -> np.ndarray:
    """The blur of a lens out of focus."""
    half = int(np.ceil(radius)) + 1
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    kernel = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1).astype(np.float32)
    return kernel / kernel.sum()


def streak(length: float, degrees: float) -> np.ndarray:
    """The blur of a straight movement during the exposure."""
    size = (int(np.ceil(length)) | 1) + 2
    fine = np.zeros((size * 8, size * 8), np.uint8)
    reach = (length - 1) * 4 * np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
    centre = np.array([size * 4, size * 4])
    cv2.line(
        fine,
        tuple(np.round(centre - reach).astype(int).tolist()),
        tuple(np.round(centre + reach).astype(int).tolist()),
        255,
        8,
    )
    kernel = cv2.resize(fine.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
    return kernel / kernel.sum()


def with_noise(gray: np.ndarray, sigma: float) -> np.ndarray:
    random = np.random.default_rng(0)
    return np.clip(gray + random.normal(0, sigma, gray.shape), 0, 255).astype(np.uint8)


Change = Callable[[np.ndarray], np.ndarray]  # gray [height, width] uint8 at 1024 px short side, or less, to the same


def blurred(kind: str, strength: float) -> Change:
    """`strength` in pixels at 1024 px short side: sigma, length or radius."""

    def change(gray: np.ndarray) -> np.ndarray:
        pixels = strength * min(gray.shape) / 1024
        if kind == "Gaussian":
            return cv2.GaussianBlur(gray, (0, 0), pixels)
        return cv2.filter2D(gray, -1, disk(pixels) if kind == "defocus" else streak(pixels, 40 * strength))

    return change


SHARP: dict[str, Change] = {
    "as it is": lambda g: g,
    "dark": lambda g: (g * 0.22).astype(np.uint8),
    "low contrast": lambda g: (g * 0.3 + 90).astype(np.uint8),
    "noise 6": lambda g: with_noise(g, 6),
    "dark, noise 3": lambda g: with_noise(g * 0.3, 3),
    "JPEG quality 50": lambda g: cv2.imdecode(cv2.imencode(".jpg", g, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], 0),
    "512 px": lambda g: cv2.resize(g, None, fx=512 / min(g.shape), fy=512 / min(g.shape), interpolation=cv2.INTER_AREA),
}
STRENGTHS = (("Gaussian", 2), ("Gaussian", 3), ("Gaussian", 5), ("motion", 10), ("motion", 16), ("motion", 28),
             ("defocus", 4), ("defocus", 6), ("defocus", 10))  # fmt: skip
BLURRED: dict[str, Change] = {f"{kind} {strength}": blurred(kind, strength) for kind, strength in STRENGTHS}
BLURRED |= {
    f"{name}, noise 4": lambda g, f=BLURRED[name]: with_noise(f(g), 4)
    for name in list(BLURRED)
    if not name.endswith(("28", "5"))
}
BLURRED |= {
    f"{kind} {s}, dark": lambda g, k=kind, s=s: (blurred(k, s)(g) * 0.25).astype(np.uint8) for kind, s in STRENGTHS[::3]
}
