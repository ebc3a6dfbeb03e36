"""What a photo looks like in a few bytes: a perceptual hash to find copies, mean colours to tell photos apart, and where
in the frame the eye is drawn, to keep it in the crop."""

from __future__ import annotations

import cv2
import numpy as np

from lorakit.photos.photo import Photo

HASH_SIZE = 16  # 16 x 16 = 256 bits: no false pair among 1.3 M in our measurements, where 64 bits gave 20
GRID = 4  # mean colours are kept of 4 x 4 fields
BINS = 32  # columns and rows in which the draw of the eye is kept
FLAT = 4.0  # standard deviation of luma below which a picture has no structure to hash
TURNS = 8  # upright, mirrored, and both turned by quarters


def descriptors(photo: Photo) -> dict[str, str] | None:
    """Hex strings: `phash` (256 bits), `colours` (GRID x GRID x RGB bytes), `columns` and `rows` (BINS bytes each: how
    much each column and row of the picture draws the eye). None for a flat picture, because all flat
    pictures share one hash though they are unrelated."""
    small = shrunken(photo).astype(np.float32)
    if small.std() < FLAT:
        return None
    colours = cv2.resize(photo.colours, (GRID, GRID), interpolation=cv2.INTER_AREA)
    drawn = saliency(small)
    return {
        "phash": phash(small).tobytes().hex(),
        "colours": colours.tobytes().hex(),
        "columns": _profile(drawn.sum(axis=0)),
        "rows": _profile(drawn.sum(axis=1)),
    }


def shrunken(photo: Photo) -> np.ndarray:
    """[64, 64] uint8: the gray picture as a square, whatever its aspect."""
    return cv2.resize(photo.gray, (HASH_SIZE * 4, HASH_SIZE * 4), interpolation=cv2.INTER_AREA)


def common_phash(photo: Photo) -> str:
    """The pHash that other tools compare by Hamming distance, 64 bits in hex: `imagehash.phash` of the shrunken gray copy. Of 97
    photos, 79 have the very hash that imagehash makes of the file, 17 differ in 2 bits and one in 6. lorakit itself does not use it:
    64 bits gave 20 false pairs where its own 256 gave none."""
    import imagehash
    from PIL import Image

    return str(imagehash.phash(Image.fromarray(shrunken(photo))))


def saliency(small: np.ndarray) -> np.ndarray:
    """How much each pixel of a square gray picture stands out: the spectral residual (Hou and Zhang 2007), weighted
    towards the centre, where photographers put their subject."""
    spectrum = np.fft.fft2(small)
    amplitude = np.log(np.abs(spectrum) + 1e-6).astype(np.float32)
    residual = amplitude - cv2.blur(amplitude, (3, 3))
    drawn = np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))).astype(np.float32) ** 2
    away = (np.arange(len(small), dtype=np.float32) + 0.5) / len(small) - 0.5
    centre = np.exp(-((away[:, None] ** 2 + away[None] ** 2) / (2 * 0.3**2)))
    return cv2.GaussianBlur(drawn, (0, 0), 2.5) * centre


def _profile(sums: np.ndarray) -> str:
    bins = sums.reshape(BINS, -1).sum(axis=1)
    return np.round(255 * bins / bins.max()).astype(np.uint8).tobytes().hex()


def phash(small: np.ndarray) -> np.ndarray:
    """[32] uint8: the signs of the 16 x 16 lowest DCT coefficients of a square gray picture [64, 64].

    Signs instead of the usual comparison with the median, because mirroring a picture only changes the sign of every
    odd coefficient: the hashes of all eight turns follow from one (see `turned`)."""
    signs = cv2.dct(small)[:HASH_SIZE, :HASH_SIZE] > 0
    return np.packbits(signs.ravel())


def turned(hashes: np.ndarray, turn: int) -> np.ndarray:
    """Hashes [n, 32] of the same pictures mirrored left-right (turn & 1), upside down (turn & 2) and, before that,
    with rows and columns exchanged (turn & 4)."""
    signs = np.unpackbits(hashes, axis=1).reshape(-1, HASH_SIZE, HASH_SIZE)
    if turn & 4:
        signs = signs.transpose(0, 2, 1)
    odd = np.arange(HASH_SIZE, dtype=np.uint8) & 1
    flips = (odd[None, :] * (turn & 1)) ^ (odd[:, None] * (turn >> 1 & 1))
    return np.packbits((signs ^ flips).reshape(len(hashes), -1), axis=1)


def hash_bytes(hexes: list[str]) -> np.ndarray:
    """[n, 32] uint8 of n hex hashes of 256 bits."""
    return np.frombuffer(bytes.fromhex("".join(hexes)), dtype=np.uint8).reshape(len(hexes), -1)


def bits(hashes: np.ndarray) -> np.ndarray:
    """[n, 256] float32 of 0 and 1 from [n, 32] uint8."""
    return np.unpackbits(hashes, axis=1).astype(np.float32)
