"""A photo file as upright sRGB pixels: told by its content, not its name, with EXIF turns, colour profiles,
transparency and odd bit depths brought to one form, and without ever holding more memory than a large photo needs."""

from __future__ import annotations

import io
import os
import stat
import struct
import threading
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from lorakit.console import quiet_libraries
from lorakit.errors import UnreadablePhoto
from lorakit.photos import colour, remote
from lorakit.photos.raw import is_raw
from lorakit.photos.remote import Remote

MAX_PIXELS = 179_000_000  # Pillow's own limit: 13,400 x 13,400
MAX_BYTES = 1 << 29
LARGE = 24_000_000  # pixels from which photos are decoded one at a time, so that memory holds
NAME_ENDINGS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .tif .tiff .bmp .gif .avif .heic .heif .hif .jp2".split()
)  # names that claim to be a photo: a file so named that is none is reported, any other is passed over

_MAGIC = (
    (b"\xff\xd8\xff", "jpeg"), (b"\x89PNG\r\n\x1a\n", "png"), (b"GIF87a", "gif"), (b"GIF89a", "gif"),
    (b"II*\0", "tiff"), (b"MM\0*", "tiff"), (b"II+\0", "tiff"), (b"MM\0+", "tiff"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "jp2"),
)  # fmt: skip
_BRANDS = {b"avif": "avif", b"avis": "avif", b"heic": "heic", b"heix": "heic", b"heim": "heic", b"heis": "heic",
           b"hevc": "heic", b"mif1": "heic", b"msf1": "heic"}  # fmt: skip
_TURNED_BY_DECODER = ("TIFF", "HEIF")
_one_large_at_a_time = threading.Lock()
# Once for the process: `warnings.catch_warnings` is no tool for threads. Complaints that matter come as errors.
warnings.filterwarnings("ignore", module=r"(PIL|pillow_heif)\b")


def sniff(path: Path) -> str | None:
    """The image format that the first bytes of a file tell, or None."""
    with open(path, "rb") as file:
        return sniff_bytes(file.read(64))


def sniff_bytes(head: bytes) -> str | None:
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12])
    if head[:2] == b"BM" and len(head) > 18 and struct.unpack("<I", head[14:18])[0] in (12, 40, 52, 56, 64, 108, 124):
        return "bmp"
    return None


def load_image(path: Path | Remote) -> Image.Image:
    """The whole photo at full size: upright, sRGB, mode RGB. Raises `UnreadablePhoto`."""
    return load_reduced(path, 1.0)[0]


def load_reduced(path: Path | Remote, scale: float) -> tuple[Image.Image, int]:
    """The photo like `load_image`, but shrunk by 1, 2, 4 or 8, and by which of them: the most that leaves `scale` of its size, where
    that spares the decoder work (JPEG). Raises `UnreadablePhoto`."""
    data = read_bytes(path)
    return guarded(lambda: _load_reduced(data, scale))


def _load_reduced(data: bytes, scale: float) -> tuple[Image.Image, int]:
    with open_image(data) as image, alone_if_large(image):
        space, width = colour.told(image, data), image.width
        factor = max((f for f in (1, 2, 4, 8) if f * scale <= 1 and f <= min(image.size)), default=1)
        image.draft(None, (image.width // factor, image.height // factor))
        factor = round(width / image.width)
        image.load()  # which may change its mode, and turns a TIFF
        rgb = np.asarray(to_rgb(image, space))
        return Image.fromarray(np.ascontiguousarray(upright(rgb, orientation(image)))), factor


def load_alpha(path: Path | Remote) -> Image.Image | None:
    """The opacity of the whole photo at full size, upright, mode L, 255 opaque; None where all of it is. Raises `UnreadablePhoto`."""
    data = read_bytes(path)
    return guarded(lambda: _load_alpha(data))


def _load_alpha(data: bytes) -> Image.Image | None:
    with open_image(data) as image, alone_if_large(image):
        if not is_transparent(image):
            return None
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        return Image.fromarray(np.ascontiguousarray(upright(alpha, orientation(image))))


def read_bytes(path: Path | Remote) -> bytes:
    """The bytes of a regular file, or of an object in a store, that holds an image. Raises `UnreadablePhoto`; never waits on a pipe or a
    device."""
    if isinstance(path, Remote):
        data = remote.read(path)
        _check_begin(data[:64], io.BytesIO(data))
        _check_size(len(data))
        return data
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise UnreadablePhoto("not_an_image", "it is no regular file")
            head = file.read(64)
            _check_begin(head, file)
            file.seek(len(head))
            _check_size(facts.st_size)
            return head + file.read(facts.st_size)  # no more: a buffer is set aside for all that is asked for
    except OSError as error:
        raise UnreadablePhoto("unreadable", error.strerror or str(error)) from None


def _check_begin(head: bytes, file: BinaryIO) -> None:
    if not head:
        raise UnreadablePhoto("empty", "the file has no bytes")
    file.seek(0)
    if is_raw(file):
        raise UnreadablePhoto("raw", "a raw photo, of which only a thumbnail can be read; develop it, as JPEG, PNG or TIFF")
    if sniff_bytes(head) is None:
        raise UnreadablePhoto("not_an_image", "its content is no image format that lorakit reads")


def _check_size(bytes: int) -> None:
    if bytes > MAX_BYTES:
        raise UnreadablePhoto("too_many_bytes", f"{bytes >> 20} MB; the most is {MAX_BYTES >> 20} MB")


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def open_image(data: bytes) -> Image.Image:
    import pillow_heif

    pillow_heif.register_heif_opener()
    try:
        image = Image.open(io.BytesIO(data))
        if image.format == "PNG":  # its sums show damage that `load` passes; `verify` leaves nothing to load
            Image.open(io.BytesIO(data)).verify()
    except UnidentifiedImageError:
        raise UnreadablePhoto("damaged", "no decoder recognises what follows its first bytes") from None
    except Image.DecompressionBombError as error:
        raise UnreadablePhoto("too_many_pixels", str(error).split(",")[0]) from None
    except Exception as error:  # decoders raise anything on broken input
        raise UnreadablePhoto("damaged", one_line(error)) from None
    if image.width * image.height > MAX_PIXELS:
        raise UnreadablePhoto("too_many_pixels", f"{image.width} x {image.height}")
    return image


def alone_if_large(image: Image.Image):
    return _one_large_at_a_time if image.width * image.height > LARGE else nullcontext()


def guarded(work: Callable[[], Any]) -> Any:
    """The result of `work`, with whatever decoders raise on broken input told as `UnreadablePhoto`."""
    with quiet_libraries():
        try:
            return work()
        except UnreadablePhoto:
            raise
        except MemoryError:
            raise UnreadablePhoto("too_many_pixels", "not enough memory to decode it") from None
        except Exception as error:
            raise UnreadablePhoto("damaged", one_line(error)) from None


def orientation(image: Image.Image) -> int:
    """How a picture just loaded still is to be turned: the EXIF orientation, 1 (upright) to 8; 1 where the tag is missing or senseless,
    or Pillow has turned the picture already (TIFF when it is loaded, HEIC when it is opened)."""
    if image.format in _TURNED_BY_DECODER:
        return 1
    try:
        exif = image.getexif()
        if image.format == "AVIF":  # Pillow writes irot and imir there; an orientation in XMP counts for nothing
            exif = Image.Exif()
            exif.load(image.info.get("exif", b""))
        value = exif.get(0x0112, 1)
    except Exception:  # a broken EXIF block is no reason to refuse the photo
        return 1
    return value if value in range(1, 9) else 1


def taken(image: Image.Image) -> str | None:
    """When the photo was taken by its EXIF tag DateTimeOriginal, as 2026-05-31T18:30:00; None where there is no such time."""
    try:
        told = str(image.getexif().get_ifd(0x8769).get(0x9003, ""))
        return datetime.strptime(told.strip("\0 "), "%Y:%m:%d %H:%M:%S").isoformat()
    except Exception:  # a broken EXIF block, or a clock that was never set
        return None


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """An array [height, width, ...] as it is to be seen, by its EXIF orientation. A view, not a copy."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def to_rgb(image: Image.Image, space: bytes | colour.Told | None = None) -> Image.Image:
    """Any Pillow mode as sRGB: deep bit depths scaled (not clipped), transparency over white, `space` (an ICC profile, or colours told
    in other terms) applied."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _deep_to_gray(image)
    if image.mode == "LAB":
        return _by_profile(image, ImageCms.createProfile("LAB"))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(layer, mask=layer.getchannel("A"))
    if isinstance(space, bytes) and image.mode in ("RGB", "CMYK", "L"):
        image = _to_srgb(image, space)
    image = image.convert("RGB")
    return Image.fromarray(colour.to_srgb(np.asarray(image), space)) if isinstance(space, colour.Told) else image


def _deep_to_gray(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if image.mode == "F":
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        low, high = min(float(values.min()), 0.0), max(float(values.max()), 1.0)
    else:
        low, high = 0.0, 65535.0 if values.max() > 255 else 255.0
    scaled = (values.astype(np.float32) - low) * (255 / (high - low)) + 0.5
    return Image.fromarray(np.clip(scaled, 0, 255, out=scaled).astype(np.uint8))


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = ImageCms.getProfileDescription(source).lower()
        if "srgb" in name and "linear" not in name:
            return image.convert("RGB")
        return _by_profile(image, source)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image  # a broken profile is no reason to refuse the photo


def _by_profile(image: Image.Image, profile: Any) -> Image.Image:
    made = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return cast("Image.Image", made)  # None only where it is asked to work in place


def is_transparent(image: Image.Image) -> bool:
    if image.mode in ("RGBA", "LA", "PA"):
        least, _ = image.getchannel("A").getextrema()
        return cast("int", least) < 250  # a pair for each channel only where there are several
    return "transparency" in image.info


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
