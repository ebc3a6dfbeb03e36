"""Edits of a photo at stated strengths: those under which it stays the same picture, and blurs that spoil it."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from lorakit.photos.decode import load_image
from lorakit.photos.photo import Photo, read_photo

Edit = Callable[[Image.Image], Image.Image]


def scaled(factor: float) -> Edit:
    return lambda p: p.resize((max(1, round(p.width * factor)), max(1, round(p.height * factor))), Image.Resampling.LANCZOS)


def cut(share: float) -> Edit:
    """Cut off `share` of the area, evenly."""
    side = (1 - (1 - share) ** 0.5) / 2
    return lambda p: p.crop((round(p.width * side), round(p.height * side), round(p.width * (1 - side)), round(p.height * (1 - side))))


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


Light = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # BGR pixels [height, width, 3] uint8 to the same


def with_noise(sigma: float, darker: float = 1.0) -> Light:
    """Sensor noise of `sigma` at up to 1024 px short side; of twice as much in larger pictures, whose pixels see less light."""

    def change(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        strength = sigma * (1 if min(pixels.shape[:2]) <= 1024 else 2)
        return np.clip(pixels * darker + random.normal(0, strength, pixels.shape), 0, 255).astype(np.uint8)

    return change


LIGHTS: dict[str, Light] = {
    "plain": lambda pixels, random: pixels,
    "dark": lambda pixels, random: (pixels * 0.25).astype(np.uint8),
    "low contrast": lambda pixels, random: (pixels * 0.3 + 90).astype(np.uint8),
    "noise": with_noise(5),
    "dark, noise": with_noise(3, 0.3),
    "JPEG quality 40-60": lambda pixels, random: pixels,
}
SIDES = (512, 600, 720, 850, 1024, 1400, 2000)  # short sides, in pixels, at which a version may be saved
SHARP_LIGHTS = ("plain", "plain", "dark", "low contrast", "noise", "noise", "dark, noise", "JPEG quality 40-60")
BLURRED_LIGHTS = ("plain", "plain", "plain", "dark", "low contrast", "noise", "noise", "dark, noise", "JPEG quality 40-60")
BLURS = (("Gaussian", 2), ("Gaussian", 2), ("Gaussian", 2.5), ("Gaussian", 3), ("Gaussian", 5), ("motion", 10), ("motion", 10), ("motion", 13),
         ("motion", 16), ("motion", 28), ("defocus", 4), ("defocus", 4), ("defocus", 5), ("defocus", 6), ("defocus", 10))  # fmt: skip


@dataclass(frozen=True)
class Version:
    """A photo, sharp or blurred, as lorakit reads it from a JPEG file."""

    blur: str  # '' for a sharp one; else its kind and strength, in pixels at 1024 px short side: sigma, length or radius
    light: str  # one of LIGHTS
    side: int  # the file's short side in pixels
    photo: Photo


def versions(path: Path, folder: Path) -> list[Version]:
    """A photo as it is, in 8 sharp and in 15 blurred versions: at sizes, lights and qualities drawn by lot, which its bytes seed."""
    lot = random.Random(path.read_bytes())
    noise = np.random.default_rng(lot.randrange(1 << 30))
    file = folder / f"{os.getpid()}.jpg"
    full = cv2.cvtColor(np.asarray(load_image(path)), cv2.COLOR_RGB2BGR)
    native = min(full.shape[:2])
    sides = [side for side in (*SIDES, min(native, SIDES[-1])) if side <= native]

    def version(pixels: np.ndarray, blur: str, light: str) -> Version:
        side = lot.choice(sides)
        changed = LIGHTS[light](to_side(pixels, side), noise)
        cv2.imwrite(str(file), changed, [cv2.IMWRITE_JPEG_QUALITY, lot.choice((40, 50, 60) if "JPEG" in light else (85, 92, 95))])
        return Version(blur, light, side, read_photo(file))

    made = [Version("", "plain", native, read_photo(path)), *(version(full, "", light) for light in SHARP_LIGHTS)]
    base = to_side(full, min(native, 1024))
    for kind, strength in BLURS:
        pixels = strength * min(base.shape[:2]) / 1024
        made.append(version(blurred(base, kind, pixels, lot.uniform(0, 180)), f"{kind} {strength}", lot.choice(BLURRED_LIGHTS)))
    return made


def blurred(picture: np.ndarray, kind: str, pixels: float, degrees: float) -> np.ndarray:
    if kind == "Gaussian":
        return cv2.GaussianBlur(picture, (0, 0), pixels)
    return cv2.filter2D(picture, -1, disk(pixels) if kind == "defocus" else streak(pixels, degrees))


def to_side(picture: np.ndarray, side: int) -> np.ndarray:
    """Its short side brought to `side` pixels."""
    scale = side / min(picture.shape[:2])
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
