"""Colours that a file tells otherwise than by an ICC profile, brought to sRGB: the numbers of ITU-T H.273 (nclx in HEIC and AVIF,
cICP in PNG), gAMA and cHRM in PNG, Adobe RGB in EXIF. HDR (PQ, HLG) is tone-mapped."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

D65 = (0.3127, 0.3290)
REC709 = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), D65)  # red, green, blue, white: x, y
ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), D65)
PRIMARIES = {
    1: REC709,
    5: ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), D65),
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65),
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), D65),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), D65),
    22: ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), D65),
}
LIKE_SRGB = (1, 6, 13, 14, 15)  # what video calls its camera curve is shown by viewers as sRGB
GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0, 17: 2.6}
PQ, HLG = 16, 18
WHITE = 203.0  # cd/m2 of a white page in HDR pictures (ITU-R BT.2408)
HLG_PEAK, HLG_GAMMA = 1000.0, 1.2  # of the display that HLG is meant for (ITU-R BT.2100)
KNEE = 0.8  # of white, in linear light, from which HDR is pressed together
ROWS_AT_ONCE = 1 << 20  # pixels that are held as floats
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


@dataclass(frozen=True)
class Told:
    """What a file tells of its colours: primaries and white as (x, y), and a curve: an H.273 number, or a gamma."""

    primaries: tuple
    curve: int | float  # int: the number of a transfer function; float: the exponent to linear light
    name: str

    @property
    def hdr(self) -> str:
        return {PQ: "PQ", HLG: "HLG"}.get(self.curve, "") if isinstance(self.curve, int) else ""


def told(image: Image.Image, data: bytes) -> bytes | Told | None:
    """How the colours of a file just opened, and not loaded yet, are told: an ICC profile, else `Told`; None where they are sRGB or
    nothing is said. `data` are the bytes of the file."""
    numbers = _h273(image, data)
    if numbers and image.format == "PNG":
        return _of_h273(*numbers)  # cICP stands above an ICC profile (PNG 3)
    if profile := image.info.get("icc_profile") or _jp2_profile(image, data):
        return profile
    if numbers:
        return _of_h273(*numbers)
    if image.format == "PNG":
        return None if "srgb" in image.info else _of_gamma(image.info)
    return Told(ADOBE, 563 / 256, "Adobe RGB") if _is_adobe(image) else None


def _h273(image: Image.Image, data: bytes) -> tuple[int, int] | None:
    """(colour primaries, transfer characteristics) by the numbers of H.273."""
    if found := image.info.get("nclx_profile"):
        return int(found["color_primaries"]), int(found["transfer_characteristics"])
    if image.format == "AVIF" and (at := data.find(b"colrnclx", 0, 1 << 20)) >= 0 and len(data) >= at + 12:
        return int.from_bytes(data[at + 8 : at + 10], "big"), int.from_bytes(data[at + 10 : at + 12], "big")
    if image.format == "PNG" and (chunk := _png_chunk(data, b"cICP")) and len(chunk) >= 2:
        return chunk[0], chunk[1]
    return None


def _png_chunk(data: bytes, name: bytes) -> bytes | None:
    """The body of a PNG chunk that stands before the pixels."""
    at = 8
    while at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind == name:
            return data[at + 8 : at + 8 + length]
        if kind in (b"IDAT", b"IEND"):
            return None
        at += 12 + length
    return None


def _jp2_profile(image: Image.Image, data: bytes) -> bytes | None:
    """The ICC profile of a JPEG 2000 file, which Pillow passes over."""
    if image.format != "JPEG2000" or (at := data.find(b"colr\x02", 0, 1 << 20)) < 4:
        return None
    end = at - 4 + int.from_bytes(data[at - 4 : at], "big")
    return data[at + 7 : end] or None


def _of_h273(primaries: int, transfer: int) -> Told | None:
    """None for sRGB, for what is unspecified, and for curves that no still picture has."""
    known, name = PRIMARIES.get(primaries, REC709), f"H.273 {primaries}/{transfer}"
    if transfer in (PQ, HLG):
        return Told(known, transfer, name)
    if transfer in GAMMAS:
        return Told(known, GAMMAS[transfer], name)
    return None if known == REC709 else Told(known, 13, name)


def _of_gamma(info: dict) -> Told | None:
    """gAMA and cHRM of a PNG; None where they tell of sRGB or make no sense."""
    gamma, found = info.get("gamma") or 0.0, info.get("chromaticity")
    primaries = REC709
    if found and len(found) == 8 and all(0 < part < 1 for part in found):
        white, red, green, blue = (tuple(found[i : i + 2]) for i in (0, 2, 4, 6))
        near = np.abs(np.subtract((red, green, blue, white), REC709)).max() < 0.005
        primaries = REC709 if near else (red, green, blue, white)
    like_srgb = not 0.1 <= gamma <= 2.0 or abs(gamma - 1 / 2.2) < 0.005
    if primaries == REC709 and like_srgb:
        return None
    return Told(primaries, 13 if like_srgb else 1 / gamma, "gAMA and cHRM")


def _is_adobe(image: Image.Image) -> bool:
    """Whether EXIF tells of Adobe RGB, as cameras do that write no profile (DCF 2.0)."""
    try:
        exif = image.getexif()
        return exif.get_ifd(0x8769).get(0xA001) == 2 or str(exif.get_ifd(0xA005).get(1, "")).startswith("R03")
    except Exception:  # a broken EXIF block tells nothing
        return False


def to_srgb(pixels: np.ndarray, space: Told) -> np.ndarray:
    """[height, width, 3] uint8 in `space` as uint8 sRGB. What lies outside of sRGB is clipped, what is brighter than white pressed
    below it."""
    try:
        matrix = _matrix(space.primaries).T.astype(np.float32)
    except np.linalg.LinAlgError:  # primaries on one line
        return pixels
    linear, encoded = _linear(space.curve), _encoded()
    result = np.empty_like(pixels)
    step = max(1, ROWS_AT_ONCE // max(1, pixels.shape[1]))
    for top in range(0, len(pixels), step):
        light = linear[pixels[top : top + step]]
        if space.hdr:
            light = _tone_mapped(light, space, matrix)
        else:
            light = light @ matrix
        places = np.clip(light, 0, 1) * (len(encoded) - 1) + 0.5
        result[top : top + step] = encoded[places.astype(np.int32)]
    return result


def _tone_mapped(light: np.ndarray, space: Told, matrix: np.ndarray) -> np.ndarray:
    """Linear light, 1 = white, with its largest channel pressed below 1, all three alike, so that hues stay."""
    if space.curve == HLG:  # the light of the scene to that of the display
        luma = np.maximum(light @ np.array([0.2627, 0.6780, 0.0593], dtype=np.float32), 1e-6)
        light = light * (luma ** (HLG_GAMMA - 1) * np.float32(HLG_PEAK / WHITE))[..., None]
    light = np.maximum(light @ matrix, 0)
    peak = np.maximum(light.max(axis=-1, keepdims=True), 1e-6)
    pressed = np.where(peak <= KNEE, peak, KNEE + (1 - KNEE) * (1 - np.exp(-(peak - KNEE) / (1 - KNEE))))
    return light * (pressed / peak)


@cache
def _linear(curve: int | float) -> np.ndarray:
    """[256] float32: the linear light of each code."""
    code = np.arange(256) / 255
    if isinstance(curve, float):
        light = code**curve
    elif curve == PQ:  # SMPTE ST 2084
        root = code ** (32 / 2523)
        light = (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (16384 / 2610) * 10000 / WHITE
    elif curve == HLG:
        light = np.where(code <= 0.5, code**2 / 3, (np.exp((code - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    else:
        light = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    return light.astype(np.float32)


@cache
def _encoded() -> np.ndarray:
    """[65536] uint8: the sRGB code of linear light."""
    light = np.arange(65536) / 65535
    code = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(code * 255).astype(np.uint8)


@cache
def _matrix(primaries: tuple) -> np.ndarray:
    """[3, 3]: linear light in `primaries` to linear sRGB, white to white (Bradford)."""
    known, white = _to_xyz(REC709), _xyz(D65)
    scale = (BRADFORD @ white) / (BRADFORD @ _xyz(primaries[3]))
    adapted = np.linalg.inv(BRADFORD) @ np.diag(scale) @ BRADFORD
    return np.linalg.inv(known) @ adapted @ _to_xyz(primaries)


def _to_xyz(primaries: tuple) -> np.ndarray:
    columns = np.stack([_xyz(point) for point in primaries[:3]], axis=1)
    return columns * np.linalg.solve(columns, _xyz(primaries[3]))


def _xyz(point: tuple[float, float]) -> np.ndarray:
    return np.array([point[0] / point[1], 1.0, (1 - point[0] - point[1]) / point[1]])
