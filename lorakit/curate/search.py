"""All pairs of perceptual hashes that lie within a distance of each other, whichever way the pictures are turned.

Hashes are the signs of DCT coefficients, so a Hamming distance is a dot product of +1 and -1, and a mirrored picture
differs only in the sign of its odd coefficients. With the four classes of coefficients (even/odd rows x columns)
multiplied apart, the distances of all mirrorings are sums of the same four products."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lorakit.curate.descriptors import HASH_SIZE, TURNS, turned
from lorakit.curate.search_many import near_in_shape

MANY = 20_000  # hashes up to which each is compared with each
BLOCK = 512  # hashes compared at once against all before them
BITS = HASH_SIZE * HASH_SIZE


def close_pairs(hashes: np.ndarray, limit: int, turns: bool = True) -> Iterator[tuple[int, int, int, int]]:
    """(later, earlier, distance, turn) of every two of `hashes` [n, 32] at most `limit` bits apart; of several turns
    the nearest (see `descriptors.turned`). Exact; memory stays at a few blocks of n numbers. Of more than MANY hashes, only those pairs
    whose coarse shapes agree (see `search_many`)."""
    if len(hashes) > MANY:
        for later, earlier in near_in_shape(hashes, limit, turns):
            yield later, earlier, *_distance(hashes[later], hashes[earlier], turns)
        return
    for start in range(0, len(hashes), BLOCK):
        stop = min(len(hashes), start + BLOCK)
        nearest = _nearest(hashes[start:stop], hashes[:stop], turns)
        rows, columns = np.nonzero(nearest >= BITS - 2 * limit)
        earlier = columns < rows + start
        for later, first in zip((rows + start)[earlier].tolist(), columns[earlier].tolist(), strict=True):
            distance, turn = _distance(hashes[later], hashes[first], turns)
            yield later, first, distance, turn


def _nearest(queries: np.ndarray, hashes: np.ndarray, turns: bool) -> np.ndarray:
    """[n, m] float32: the largest dot product over all turns; 256 less twice the Hamming distance."""
    if not turns:
        return _signs(queries).reshape(len(queries), -1) @ _signs(hashes).reshape(len(hashes), -1).T
    known, best = _signs(hashes), None
    for asked in (_signs(queries), _signs(queries).transpose(0, 2, 1)):
        even, right, down, both = (_product(asked, known, row, column) for row in (0, 1) for column in (0, 1))
        # mirroring flips `right` and `both`, turning upside down flips `down` and `both`
        found = np.maximum(even + right + np.abs(down + both), even - right + np.abs(down - both))
        best = found if best is None else np.maximum(best, found, out=best)
    return best


def _signs(hashes: np.ndarray) -> np.ndarray:
    ones = np.unpackbits(hashes, axis=1).reshape(-1, HASH_SIZE, HASH_SIZE)
    return ones.astype(np.float32) * 2 - 1


def _product(left: np.ndarray, right: np.ndarray, row: int, column: int) -> np.ndarray:
    """Dot products over the coefficients of one class: even (0) or odd (1) rows and columns."""
    chosen = left[:, row::2, column::2].reshape(len(left), -1), right[:, row::2, column::2].reshape(len(right), -1)
    return chosen[0] @ chosen[1].T


def _distance(later: np.ndarray, earlier: np.ndarray, turns: bool) -> tuple[int, int]:
    ways = range(TURNS if turns else 1)
    found = [int(np.unpackbits(turned(later[None], turn)[0] ^ earlier).sum()) for turn in ways]
    best = int(np.argmin(found))
    return found[best], best
