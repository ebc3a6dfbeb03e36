"""Descriptions and keywords that people and programs wrote into the photo itself (XMP, IPTC, EXIF, PNG's texts), or into an .xmp
file beside it. What cameras write there on their own is no description."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from PIL import Image, ImageFile, IptcImagePlugin

from lorakit.console import quiet_libraries
from lorakit.photos.decode import sniff_bytes
from lorakit.text.cleaning import captions_in

MOST = 20_000  # letters of a description
MOST_BYTES = 4 << 20  # of an .xmp file; those with brush strokes are long
DESCRIPTION, XP_TITLE, XP_COMMENT, XP_SUBJECT, USER_COMMENT, EXIF_BLOCK = 0x010E, 0x9C9B, 0x9C9C, 0x9C9F, 0x9286, 0x8769
IPTC_CAPTION, IPTC_KEYWORDS = (2, 120), (2, 25)
RDF, DC = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}", "{http://purl.org/dc/elements/1.1/}"
# By camera makers and programs: OLYMPUS DIGITAL CAMERA, SONY DSC, DCIM100GOPRO, cof, Created with GIMP
_BY_MAKERS = re.compile(
    r"(?:(?:olympus|sony|samsung|kodak|nikon|canon|konica|minolta|pentax|fuji\w*|casio|panasonic|ricoh|kenox|gopro|htc|lge?|dji|huawei|xiaomi|hp|"
    r"vivitar|polaroid|sanyo|leica|sigma|motorola|nokia|apple|google|oneplus|oppo|vivo|honor|epson|toshiba|benq|aiptek|jenoptik|traveler|"
    r"default|digital still|my)\b.*(?:camera|dsc|pictures?|photo|image|techwin|electronics|corp\w*)?|digital camera|dcim.*|"
    r"\w{1,4}[-_]?\d{3,}(?:\.\w{3,4})?|exif[ _]jpeg[ _].*|.*\b(?:camera pictures|digital camera|digital still camera|picture of.*camera)|"
    r"(?:created|processed|edited|made|generated|optimized|file written) (?:with|by|using)\b.*|copyright\b.*|\(c\).*|©.*|https?://\S+|"
    r"screen ?shot\w*|untitled\w*|no description|none|null|n/a|unknown|default|test|ascii|binary comment|charset=.*|lead technologies.*|"
    r"\w{1,12}|<\w.*>|[\W\d_]*|\{.*\}|\[.*\])",
    re.IGNORECASE | re.DOTALL,
)


def description_beside(path: Path) -> tuple[str, str] | None:
    """(text, the file's name) of the description in an .xmp file, as digiKam, Lightroom and darktable write them, else of its keywords;
    None where it has neither."""
    try:
        data = path.read_bytes() if path.stat().st_size <= MOST_BYTES else b""
    except OSError:
        return None
    for text in _of_xmp(data):
        if words := captions_in(text[:MOST]):
            return " ".join(words), path.name
    return None


def description_in(photo: Path | bytes) -> tuple[str, str] | None:
    """(text, 'XMP', 'IPTC', 'EXIF' or 'PNG') of the description in a photo, the first of these that is one; None where there is none."""
    if sniff_bytes(photo[:64]) == "heic" if isinstance(photo, bytes) else photo.suffix.lower() in (".heic", ".heif", ".hif"):
        import pillow_heif

        pillow_heif.register_heif_opener()
    try:
        with quiet_libraries(), Image.open(io.BytesIO(photo) if isinstance(photo, bytes) else photo) as image:
            for kind, text in _texts(image):
                words = captions_in(text[:MOST].replace("\0", " "))
                if words and not _BY_MAKERS.fullmatch(words[0].strip()):
                    return " ".join(words), kind
    except Exception:  # whatever a torn file makes Pillow raise; the stage `check` says what is wrong with it
        return None
    return None


def _texts(image: ImageFile.ImageFile) -> Iterator[tuple[str, str]]:
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    described, keywords = _of_xmp(xmp) if xmp else ("", "")
    yield "XMP", described
    iptc: Any = IptcImagePlugin.getiptcinfo(image) or {}
    caption = iptc.get(IPTC_CAPTION)
    for data in caption if isinstance(caption, list) else [caption]:
        if data:
            yield "IPTC", _decoded(data)
    exif = image.getexif()
    inner = exif.get_ifd(EXIF_BLOCK)
    for tag in (DESCRIPTION, XP_COMMENT, XP_SUBJECT, XP_TITLE):
        yield "EXIF", _decoded(exif.get(tag), utf16=tag != DESCRIPTION)
    yield "EXIF", _user_comment(inner.get(USER_COMMENT))
    for key in ("Description", "description", "Comment", "parameters"):
        if isinstance(text := image.info.get(key), (str, bytes)):
            yield "PNG" if image.format == "PNG" else "comment", _without_parameters(_decoded(text))
    yield "XMP", keywords
    found = iptc.get(IPTC_KEYWORDS) or []
    yield "IPTC", ", ".join(_decoded(data).strip() for data in (found if isinstance(found, list) else [found]))


def _of_xmp(data: str | bytes) -> tuple[str, str]:
    """(dc:description in the default language, the keywords of dc:subject) of an XMP packet; '' for what it has not."""
    if isinstance(data, str):
        data = data.encode("utf-8", "replace")
    data = (
        data[data.find(b"<x:xmpmeta") if b"<x:xmpmeta" in data else max(0, data.find(b"<rdf:RDF")) :]
        .split(b"<?xpacket end")[0]
        .strip(b"\0 \r\n")
    )
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        return "", ""
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError:
        return "", ""
    keywords = ", ".join(
        text for found in root.iter(f"{DC}subject") for item in found.iter(f"{RDF}li") if (text := (item.text or "").strip())
    )
    for found in root.iter(f"{DC}description"):
        texts = [item.text for item in found.iter(f"{RDF}li") if item.text] or [found.text or ""]
        if texts[0].strip():
            return texts[0], keywords
    return next((value for node in root.iter() if (value := node.get(f"{DC}description"))), ""), keywords


def _decoded(value: Any, utf16: bool = False) -> str:
    if isinstance(value, tuple) and all(isinstance(n, int) for n in value):
        value = bytes(value)
    if isinstance(value, str):
        with_accents = value.encode("latin-1", "ignore")
        try:  # UTF-8 that was read as Latin-1
            return with_accents.decode("utf-8") if len(with_accents) == len(value) and not value.isascii() else value
        except UnicodeDecodeError:
            return value
    if not isinstance(value, bytes):
        return ""
    if utf16:
        return value.decode("utf-16-le", "replace").rstrip("\0")
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("cp1252", "replace")


def _user_comment(value: Any) -> str:
    """EXIF's UserComment: eight bytes of its encoding, then the text."""
    if isinstance(value, str):
        return _without_parameters(value.removeprefix("ASCII\0\0\0").removeprefix("UNICODE\0"))
    if not isinstance(value, bytes) or len(value) <= 8:
        return ""
    head, rest = value[:8], value[8:]
    if head.startswith(b"UNICODE"):
        big = rest[:2] == b"\xfe\xff" or (len(rest) > 1 and rest[0] == 0)
        return _without_parameters(rest.decode("utf-16-be" if big else "utf-16-le", "replace").strip("\ufeff\0"))
    return _without_parameters(_decoded(rest if head[:5] in (b"ASCII", b"JIS\0\0", b"\0" * 5) else value))


def _without_parameters(text: str) -> str:
    """The prompt alone of what A1111 writes into its pictures."""
    return re.split(r"\n?Negative prompt:|\n?Steps: \d+", text)[0]
