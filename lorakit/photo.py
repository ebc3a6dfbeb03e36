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
from dataclasses import dataclass
from datetime import datetime
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageCms, UnidentifiedImageError

from lorakit import colour
from lorakit.console import quiet_libraries
from lorakit.errors import UnreadablePhoto
from lorakit.raw import is_raw

if TYPE_CHECKING:
    from PIL.JpegImagePlugin import JpegImageFile

WORKING_SIDE = 512  # short side, in pixels, of the grey copy on which the checks look
COLOUR_SIDE = 256  # least short side of the coloured one
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
_ANIMATED = ("gif", "webp", "png", "avif", "tiff")  # elsewhere further frames are previews, depth or gain maps
FLAT_STEP = 5  # levels of luma that neighbours of a backdrop may differ by
BACKDROP_OF_BORDER = 0.7  # share of the frame's edge that a backdrop takes at the least
PARTS, PAPER_OF_PART = 4, 0.3  # of rows and columns of parts, each of which shows so much of a drawing's paper at the least
CLEAR = 16  # alpha (0-255) below which nothing of the picture is there
_TURNED_BY_DECODER = ("TIFF", "HEIF")
_one_large_at_a_time = threading.Lock()
# Once for the process: `warnings.catch_warnings` is no tool for threads. Complaints that matter come as errors.
warnings.filterwarnings("ignore", module=r"(PIL|pillow_heif)\b")


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


def read_photo(path: Path) -> Photo:
    """Decode a photo once for all checks. Raises `UnreadablePhoto` with a one-word reason."""
    data = read_bytes(path)
    return _guarded(lambda: _read_photo(data))


def _read_photo(data: bytes) -> Photo:
    with _open(data) as image, _alone_if_large(image):
        format = sniff_bytes(data[:64]) or "image"
        space, when = colour.told(image, data), taken(image)
        frames = getattr(image, "n_frames", 1) if format in _ANIMATED else 1
        if format != "jpeg":
            image.load()  # which turns a TIFF
        turn = orientation(image)
        width, height = image.size[::-1] if turn >= 5 else image.size
        rgb, warning = _decode_jpeg(data, image) if format == "jpeg" else (_decode_small(image, space), "")
        gray = np.ascontiguousarray(upright(_shrink(_to_gray(rgb), WORKING_SIDE), turn))
        transparent = _is_transparent(image)
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


def load_image(path: Path) -> Image.Image:
    """The whole photo at full size: upright, sRGB, mode RGB. Raises `UnreadablePhoto`."""
    return load_reduced(path, 1.0)[0]


def load_reduced(path: Path, scale: float) -> tuple[Image.Image, int]:
    """The photo like `load_image`, but shrunk by 1, 2, 4 or 8, and by which of them: the most that leaves `scale` of its size, where
    that spares the decoder work (JPEG). Raises `UnreadablePhoto`."""
    data = read_bytes(path)
    return _guarded(lambda: _load_reduced(data, scale))


def _load_reduced(data: bytes, scale: float) -> tuple[Image.Image, int]:
    with _open(data) as image, _alone_if_large(image):
        space, width = colour.told(image, data), image.width
        factor = max((f for f in (1, 2, 4, 8) if f * scale <= 1 and f <= min(image.size)), default=1)
        image.draft(None, (image.width // factor, image.height // factor))
        factor = round(width / image.width)
        image.load()  # which may change its mode, and turns a TIFF
        rgb = np.asarray(to_rgb(image, space))
        return Image.fromarray(np.ascontiguousarray(upright(rgb, orientation(image)))), factor


def load_alpha(path: Path) -> Image.Image | None:
    """The opacity of the whole photo at full size, upright, mode L, 255 opaque; None where all of it is. Raises `UnreadablePhoto`."""
    data = read_bytes(path)
    return _guarded(lambda: _load_alpha(data))


def _load_alpha(data: bytes) -> Image.Image | None:
    with _open(data) as image, _alone_if_large(image):
        if not _is_transparent(image):
            return None
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        return Image.fromarray(np.ascontiguousarray(upright(alpha, orientation(image))))


def read_bytes(path: Path) -> bytes:
    """The bytes of a regular file that holds an image. Raises `UnreadablePhoto`; never waits on a pipe or a device."""
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise UnreadablePhoto("not_an_image", "it is no regular file")
            head = file.read(64)
            if not head:
                raise UnreadablePhoto("empty", "the file has no bytes")
            file.seek(0)
            if is_raw(file):
                raise UnreadablePhoto("raw", "a raw photo, of which only a thumbnail can be read; develop it, as JPEG, PNG or TIFF")
            file.seek(len(head))
            if sniff_bytes(head) is None:
                raise UnreadablePhoto("not_an_image", "its content is no image format that lorakit reads")
            if facts.st_size > MAX_BYTES:
                raise UnreadablePhoto("too_many_bytes", f"{facts.st_size >> 20} MB; the most is {MAX_BYTES >> 20} MB")
            return head + file.read(facts.st_size)  # no more: a buffer is set aside for all that is asked for
    except OSError as error:
        raise UnreadablePhoto("unreadable", error.strerror or str(error)) from None


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _open(data: bytes) -> Image.Image:
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
        raise UnreadablePhoto("damaged", _one_line(error)) from None
    if image.width * image.height > MAX_PIXELS:
        raise UnreadablePhoto("too_many_pixels", f"{image.width} x {image.height}")
    return image


def _alone_if_large(image: Image.Image):
    return _one_large_at_a_time if image.width * image.height > LARGE else nullcontext()


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
        return np.asarray(to_rgb(image)), _one_line(error)


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
        return _one_line(error)
    return ""


def _decode_small(image: Image.Image, space: bytes | colour.Told | None) -> np.ndarray:
    """Any other format: RGB, not turned, shrunk by a whole factor while it is still as stored, to spare memory."""
    factor = min(image.size) // WORKING_SIDE
    image.load()
    if factor > 1 and image.mode in ("RGB", "L", "CMYK", "YCbCr") and "transparency" not in image.info:
        return np.asarray(to_rgb(image.reduce(factor), space))
    rgb = to_rgb(image, space)
    return np.asarray(rgb.reduce(factor) if factor > 1 else rgb)


def _guarded(work: Callable[[], Any]) -> Any:
    """The result of `work`, with whatever decoders raise on broken input told as `UnreadablePhoto`."""
    with quiet_libraries():
        try:
            return work()
        except UnreadablePhoto:
            raise
        except MemoryError:
            raise UnreadablePhoto("too_many_pixels", "not enough memory to decode it") from None
        except Exception as error:
            raise UnreadablePhoto("damaged", _one_line(error)) from None


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


def _by_profile(image: Image.Image, profile: Any) -> Image.Image:
    made = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return cast("Image.Image", made)  # None only where it is asked to work in place


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


def _is_transparent(image: Image.Image) -> bool:
    if image.mode in ("RGBA", "LA", "PA"):
        least, _ = image.getchannel("A").getextrema()
        return cast("int", least) < 250  # a pair for each channel only where there are several
    return "transparency" in image.info


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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
