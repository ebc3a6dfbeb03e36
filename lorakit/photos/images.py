"""Cutting and shrinking pictures."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from lorakit.errors import UnreadablePhoto
from lorakit.photos.decode import load_alpha, load_image, load_reduced
from lorakit.photos.remote import place_of, placed
from lorakit.record import Crop, Record, mask_of

SAME_SHAPE = 0.02  # by how much the aspect of a mask may differ from its photo's


def load_crop(record: Record) -> Image.Image:
    """The crop of a photo's record at its bucket's size, upright RGB. Raises `UnreadablePhoto`."""
    image = load_image(place_of(record))
    found = record["crop"]
    return image.resize(_size(found), Image.Resampling.LANCZOS, box=_box(found))


def load_mask_crop(record: Record) -> Image.Image | None:
    """What of the crop is to be learned, at its bucket's size, mode L, 255 all of it: the mask beside the photo, or the
    photo's own opacity; None where it has neither. Raises `UnreadablePhoto`."""
    beside, size, found = mask_of(record), record["measures"]["size"], record["crop"]
    mask = load_image(placed(beside["path"], beside["hash"])).convert("L") if beside else load_alpha(place_of(record))
    if mask is None:
        return None
    across, down = mask.width / size["width"], mask.height / size["height"]  # a mask may be smaller than its photo
    if abs(across / down - 1) > SAME_SHAPE:
        shapes = f"{mask.width}x{mask.height} for a photo of {size['width']}x{size['height']}"
        raise UnreadablePhoto("mask_of_another_shape", f"{Path(beside['path']).name} is {shapes}; draw it over the upright photo")
    left, top, right, bottom = found["box"]
    box = (left * across, top * down, right * across, bottom * down)
    return mask.resize(_size(found), Image.Resampling.BOX, box=box)


def _size(crop: Crop) -> tuple[int, int]:
    width, height = crop["bucket"]
    return width, height


def _box(crop: Crop) -> tuple[int, int, int, int]:
    left, top, right, bottom = crop["box"]
    return left, top, right, bottom


def load_crop_to_read(record: Record, side: int = 768) -> Image.Image:
    """The same crop with all its detail, up to `side` pixels: a small base does not make a captioner short-sighted."""
    left, top, right, bottom = record["crop"]["box"]
    scale = min(1.0, side / max(right - left, bottom - top))
    image, factor = load_reduced(place_of(record), scale)
    size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    box = (left / factor, top / factor, right / factor, bottom / factor)
    # Averaged down by a whole number first, which takes a fifth of the time and costs a captioner nothing.
    return image.resize(size, Image.Resampling.BICUBIC, box=box, reducing_gap=1.0)


def thumbnail(image: Image.Image, side: int) -> Image.Image:
    """A copy whose longer side is at most `side` pixels."""
    small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def data_uri(image: Image.Image, quality: int = 80) -> str:
    """The picture as a `data:` address, for a page that needs no other file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
