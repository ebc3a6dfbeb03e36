"""A photo file as upright RGB pixels: told by its content, not its name, with EXIF turns, colour profiles,
transparency and odd bit depths brought to plain sRGB."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image, ImageCms, ImageOps

from lorakit.errors import UnreadablePhoto

WORKING_SIDE = 1024  # short side, in pixels, of the copy on which all checks look
NAME_ENDINGS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .tif .tiff .bmp .gif .avif .heic .heif .hif".split()
)  # names that claim to be a photo: a file so named that is none is reported, any other is passed over

_MAGIC = (
    (b"\xff\xd8\xff", "jpeg"), (b"\x89PNG\r\n\x1a\n", "png"), (b"GIF87a", "gif"), (b"GIF89a", "gif"),
    (b"II*\0", "tiff"), (b"MM\0*", "tiff"), (b"II+\0", "tiff"), (b"MM\0+", "tiff"),
)  # fmt: skip
_BRANDS = {b"avif": "avif", b"avis": "avif", b"heic": "heic", b"heix": "heic", b"heim": "heic", b"heis": "heic",
           b"hevc": "heic", b"mif1": "heic", b"msf1": "heic"}  # fmt: skip


@dataclass(frozen=True)
class Photo:
    """What the checks look at. `width` and `height` are the upright original's, in pixels."""

    format: str
    width: int
    height: int
    pixels: np.ndarray  # [height, width, 3] uint8 sRGB, upright; the short side is WORKING_SIDE or the original's if smaller
    frames: int = 1
    warning: str = ""  # the decoder's complaint about a file that can be shown nevertheless

    @property
    def gray(self) -> np.ndarray:
        """[height, width] uint8 luma (ITU-R 601)."""
        return np.asarray(Image.fromarray(self.pixels).convert("L"))


def sniff(path: Path) -> str | None:
    """The image format that the first bytes of a file tell, or None."""
    with open(path, "rb") as file:
        head = file.read(64)
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


def read_photo(path: Path) -> Photo:
    """Decode a photo once for all checks. Raises `UnreadablePhoto` with a one-word reason."""
    data = _read(path)
    format = sniff(path)
    with _open(data) as image:
        turned = image.getexif().get(0x0112, 1) >= 5
        width, height = image.size[::-1] if turned else image.size
        frames = getattr(image, "n_frames", 1)
        complaint = _jpeg_complaint(data) if format == "jpeg" else ""
        scale = WORKING_SIDE / min(image.size)
        if scale < 1:
            image.draft(None, (int(image.width * scale) + 1, int(image.height * scale) + 1))
        upright = _decode(image)
    if min(upright.size) > WORKING_SIDE:
        factor = WORKING_SIDE / min(upright.size)
        size = tuple(max(WORKING_SIDE, round(side * factor)) for side in upright.size)
        upright = upright.resize(size, Image.Resampling.BOX, reducing_gap=1.0)
    return Photo(format or image.format.lower(), width, height, np.asarray(upright), frames, complaint)


def load_image(path: Path) -> Image.Image:
    """The whole photo at full size: upright, sRGB, mode RGB. Raises `UnreadablePhoto`."""
    with _open(_read(path)) as image:
        return _decode(image)


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnreadablePhoto("unreadable", error.strerror or str(error)) from None
    if not data:
        raise UnreadablePhoto("empty", "the file has no bytes")
    if sniff(path) is None:
        raise UnreadablePhoto("not_an_image", "its content is no image format that lorakit reads")
    return data


def _open(data: bytes) -> Image.Image:
    import pillow_heif

    pillow_heif.register_heif_opener()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return Image.open(io.BytesIO(data))
        except Image.DecompressionBombError as error:
            raise UnreadablePhoto("too_many_pixels", str(error).split(",")[0]) from None
        except Exception as error:  # decoders raise anything on broken input
            raise UnreadablePhoto("damaged", _one_line(error)) from None


def _decode(image: Image.Image) -> Image.Image:
    """Load the pixels and bring them to upright sRGB."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image.load()
            profile = image.info.get("icc_profile")
            return to_rgb(ImageOps.exif_transpose(image), profile)
        except MemoryError:
            raise UnreadablePhoto("too_many_pixels", f"{image.width} x {image.height}") from None
        except Exception as error:  # decoders raise anything on broken input
            raise UnreadablePhoto("damaged", _one_line(error)) from None


def to_rgb(image: Image.Image, profile: bytes | None = None) -> Image.Image:
    """Any Pillow mode as RGB: deep bit depths scaled (not clipped), transparency over white, profiles applied."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _deep_to_gray(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    if profile and image.mode in ("RGB", "CMYK", "L"):
        image = _to_srgb(image, profile)
    return image.convert("RGB")


def _deep_to_gray(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.float64)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    if image.mode == "F":
        low, high = min(values.min(), 0.0), max(values.max(), 1.0)
    else:
        low, high = 0.0, 65535.0 if values.max() > 255 else 255.0
    return Image.fromarray(np.clip((values - low) / (high - low) * 255 + 0.5, 0, 255).astype(np.uint8))


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return image
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image  # a broken profile is no reason to refuse the photo


def _jpeg_complaint(data: bytes) -> str:
    """libjpeg's message on a JPEG that Pillow would show with part of it grey, else ''."""
    try:
        simplejpeg.decode_jpeg(data, "GRAY", fastdct=True, min_height=1, min_width=1, min_factor=8, strict=True)
    except ValueError as error:
        return _one_line(error)
    return ""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
