"""What the checks look at: a photo file decoded once, as small gray and coloured copies with what its header tells."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from lorakit.photos import colour
from lorakit.photos.decode import (
    alone_if_large,
    guarded,
    is_transparent,
    one_line,
    open_image,
    orientation,
    read_bytes,
    sniff_bytes,
    taken,
    to_rgb,
    upright,
)

if TYPE_CHECKING:
    from PIL.JpegImagePlugin import JpegImageFile

    from lorakit.photos.remote import Remote

WORKING_SIDE = 512  # short side, in pixels, of the grey copy on which the checks look
COLOUR_SIDE = 256  # least short side of the coloured one
_ANIMATED = ("gif", "webp", "png", "avif", "tiff")  # elsewhere further frames are previews, depth or gain maps
FLAT_STEP = 5  # levels of luma that neighbours of a backdrop may differ by
BACKDROP_OF_BORDER = 0.7  # share of the frame's edge that a backdrop takes at the least
PARTS, PAPER_OF_PART = 4, 0.3  # of rows and columns of parts, each of which shows so much of a drawing's paper at the least
CLEAR = 16  # alpha (0-255) below which nothing of the picture is there


@dataclass(frozen=True)
class Photo:
    """What the checks look at, upright. `width` and `height` are the original's, in pixels."""

    format: str
    width: int
    height: int
    gray: np.ndarray  # [height, width] uint8 luma (ITU-R 601); short side WORKING_SIDE, or the original's if smaller
    colours: np.ndarray  # [height, width, 3] uint8 sRGB; short side COLOUR_SIDE to twice that, or the original's if smaller
    bytes: int = 0
    frames: int = 1
    transparent: bool = False  # some of it lets the background through
    jpeg_quality: int | None = None  # of 1-100, read from the file's quantization table
    taken: str | None = None  # the camera's local time, ISO 8601
    warning: str = ""  # the decoder's complaint about a file that can be shown nevertheless
    told: str = ""  # in which other terms than an ICC profile's the file tells its colours, which are sRGB here
    hdr: str = ""  # PQ or HLG: brighter than white in places, and tone-mapped here
    opaque: np.ndarray | None = None  # [height, width] uint8 like `gray`, 0 where nothing of the picture is; None where all is opaque

    @cached_property
    def behind(self) -> np.ndarray | None:
        """[height, width] bool like `gray`: the flat backdrop around a thing; None where there is none."""
        return backdrop(self.gray, self.opaque)


def read_photo(path: Path | Remote) -> Photo:
    """Decode a photo once for all checks. Raises `UnreadablePhoto` with a one-word reason."""
    data = read_bytes(path)
    return guarded(lambda: _read_photo(data))


def _read_photo(data: bytes) -> Photo:
    with open_image(data) as image, alone_if_large(image):
        format = sniff_bytes(data[:64]) or "image"
        space, when = colour.told(image, data), taken(image)
        frames = getattr(image, "n_frames", 1) if format in _ANIMATED else 1
        if format != "jpeg":
            image.load()  # which turns a TIFF
        turn = orientation(image)
        width, height = image.size[::-1] if turn >= 5 else image.size
        rgb, warning = _decode_jpeg(data, image) if format == "jpeg" else (_decode_small(image, space), "")
        gray = np.ascontiguousarray(upright(_shrink(_to_gray(rgb), WORKING_SIDE), turn))
        transparent = is_transparent(image)
        return Photo(
            format, width, height, gray=gray,
            colours=np.ascontiguousarray(upright(_small_colours(rgb, space, format), turn)),
            bytes=len(data), frames=frames, transparent=transparent, jpeg_quality=_jpeg_quality(image), taken=when, warning=warning,
            told=space.name if isinstance(space, colour.Told) else "", hdr=space.hdr if isinstance(space, colour.Told) else "",
            opaque=_opacity(image, turn, gray.shape) if transparent else None,
        )  # fmt: skip


def _opacity(image: Image.Image, turn: int, shape: tuple[int, int]) -> np.ndarray:
    """The alpha of a loaded picture at the size of its grey copy, upright."""
    alpha = upright(np.asarray(image.convert("RGBA").getchannel("A")), turn)
    return cv2.resize(np.ascontiguousarray(alpha), shape[::-1], interpolation=cv2.INTER_AREA)


def _decode_jpeg(data: bytes, image: Image.Image) -> tuple[np.ndarray, str]:
    """([height, width, 3] or [height, width] as stored, not turned; libjpeg's complaint or ''). Damage that Pillow shows
    as a grey or shifted rest is found by strict decoding; such a file is then read once more, by Pillow."""
    if image.mode not in ("RGB", "L"):
        image.draft(None, _least_size(image.size))
        return _decode_small(image, image.info.get("icc_profile")), _jpeg_complaint(data, image.mode)
    try:
        return _simplejpeg(data, image), ""
    except ValueError as error:
        # Pillow raises for what no viewer shows whole, such as a file cut short; the rest is shown, with the complaint
        return np.asarray(to_rgb(image)), one_line(error)


def _simplejpeg(data: bytes, image: Image.Image) -> np.ndarray:
    width, height = _least_size(image.size)
    pixels = simplejpeg.decode_jpeg(
        data, "RGB" if image.mode == "RGB" else "GRAY", fastdct=True, fastupsample=True,
        min_height=height, min_width=width, min_factor=1, strict=True,
    )  # fmt: skip
    return pixels if image.mode == "RGB" else pixels[:, :, 0]


def _least_size(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height at 1/1, 1/2, 1/4 or 1/8, where libjpeg is quick, that still hold the working side."""
    factor = max((f for f in (1, 2, 4, 8) if min(size) // f >= WORKING_SIDE), default=1)
    return -(-size[0] // factor), -(-size[1] // factor)


def _jpeg_complaint(data: bytes, mode: str) -> str:
    try:
        simplejpeg.decode_jpeg(data, mode, fastdct=True, min_height=1, min_width=1, min_factor=8, strict=True)
    except ValueError as error:
        return one_line(error)
    return ""


def _decode_small(image: Image.Image, space: bytes | colour.Told | None) -> np.ndarray:
    """Any other format: RGB, not turned, shrunk by a whole factor while it is still as stored, to spare memory."""
    factor = min(image.size) // WORKING_SIDE
    image.load()
    if factor > 1 and image.mode in ("RGB", "L", "CMYK", "YCbCr") and "transparency" not in image.info:
        return np.asarray(to_rgb(image.reduce(factor), space))
    rgb = to_rgb(image, space)
    return np.asarray(rgb.reduce(factor) if factor > 1 else rgb)


def _to_gray(pixels: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if pixels.ndim == 3 else pixels


def _shrink(pixels: np.ndarray, side: int) -> np.ndarray:
    """Short side at most `side`. Below a factor of 2, where the pixels are nearly as many, by straight lines between them, which is
    eight times as quick as area means and hardly another picture."""
    height, width = pixels.shape[:2]
    if min(height, width) <= side:
        return pixels
    factor = side / min(height, width)
    size = max(side, round(width * factor)), max(side, round(height * factor))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR if factor > 0.5 else cv2.INTER_AREA)


def _small_colours(pixels: np.ndarray, space: bytes | colour.Told | None, format: str) -> np.ndarray:
    while min(pixels.shape[:2]) >= 2 * COLOUR_SIDE:
        pixels = _halved(pixels)
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    if format == "jpeg":  # other formats went through `to_rgb`
        return np.asarray(to_rgb(Image.fromarray(pixels), space))
    return pixels


def _halved(pixels: np.ndarray) -> np.ndarray:
    """Means of 2 x 2; an odd last row or column is left out, as with it the work takes twenty times as long."""
    rows, columns = (side // 2 for side in pixels.shape[:2])
    return cv2.resize(pixels[: rows * 2, : columns * 2], (columns, rows), interpolation=cv2.INTER_AREA)


def _jpeg_quality(image: Image.Image) -> int | None:
    """The quality of 1-100 at which libjpeg's own luma table has the nearest sum of steps."""
    tables = getattr(image, "quantization", None)
    if not tables or 0 not in tables:
        return None
    return int(np.argmin(np.abs(_sums_of_steps() - sum(tables[0])))) + 1


@cache
def _sums_of_steps() -> np.ndarray:
    """[100]: the sum of libjpeg's luma table at each quality; it is no smooth curve, as steps are whole and at most 255."""
    sums = []
    for quality in range(1, 101):
        buffer = io.BytesIO()
        Image.new("L", (8, 8)).save(buffer, "JPEG", quality=quality)
        sums.append(sum(cast("JpegImageFile", Image.open(buffer)).quantization[0]))
    return np.array(sums)


def backdrop(gray: np.ndarray, opaque: np.ndarray | None = None) -> np.ndarray | None:
    """[height, width] bool: the flat backdrop around a thing (paper, a studio's wall, transparency), joined to the border, or the paper
    of a drawing that fills the page; None where there is neither. A pale sky lies along one edge and is none."""
    small = cv2.resize(gray, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) if min(gray.shape) >= 2 * COLOUR_SIDE else gray
    clear = None if opaque is None else cv2.resize(opaque, small.shape[::-1], interpolation=cv2.INTER_AREA) < CLEAR
    around = np.ones((3, 3), np.uint8)
    flat = cv2.subtract(cv2.dilate(small, around), cv2.erode(small, around)) <= FLAT_STEP
    flat = flat if clear is None else flat | clear
    joined = _joined_to_border(flat)
    if joined is None:
        return _paper(gray)
    tones = small[joined]
    middle = int(np.median(tones))
    found = cv2.resize(joined.astype(np.uint8), gray.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    if np.abs(tones.astype(np.int16) - middle).mean() <= FLAT_STEP:  # of one tone: the same paper shows between the lines of a drawing
        found |= np.abs(gray.astype(np.int16) - middle) <= FLAT_STEP
    return found


def _joined_to_border(flat: np.ndarray) -> np.ndarray | None:
    """What is flat and joined to the border; None where that is less than most of the border."""
    if _along_border(flat).mean() < BACKDROP_OF_BORDER:
        return None
    _, labels = cv2.connectedComponents(flat.astype(np.uint8), connectivity=4)
    edge = _along_border(labels)
    counts = np.bincount(edge)
    counts[0] = 0
    joined = np.isin(labels, np.nonzero(counts >= 0.05 * len(edge))[0])
    return joined if _along_border(joined).mean() >= BACKDROP_OF_BORDER else None


def _along_border(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])


def _paper(gray: np.ndarray) -> np.ndarray | None:
    """The paper of a drawing whose lines cross the border: one tone, the same to the last level, in every part of the picture; no blown-out
    sky lies behind all that a photo shows."""
    tone = int(np.bincount(gray.ravel(), minlength=256).argmax())
    same = np.abs(gray.astype(np.int16) - tone) <= 1
    parts = cv2.resize(same.astype(np.float32), (PARTS, PARTS), interpolation=cv2.INTER_AREA)
    return np.abs(gray.astype(np.int16) - tone) <= FLAT_STEP if same.mean() >= 0.5 and parts.min() >= PAPER_OF_PART else None
