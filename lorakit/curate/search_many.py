"""The same search for more photos than can all be compared: only pairs whose coarse shapes agree are looked at.

The signs of coefficients with even row and even column change in no mirroring, and those of the lowest ones survive cutting and
compressing best. Of these 36 bits, two photos of one picture may differ in DIFFERING. Cut into two halves of 18 bits, one half
then differs in at most half as many, so that it is enough to look up every key that lies so near (Norouzi, Punjani and Fleet 2012)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np

from lorakit.curate.descriptors import HASH_SIZE, turned

SIDE = 6  # of the square of lowest coefficients with even row and column
HALF = SIDE * SIDE // 2  # bits of a key
DIFFERING = 7  # bits of the 36: all of 210 lightly edited copies lay within, and 7 of 10 heavily edited ones
MANY, DIFFERING_OF_MANY = 200_000, 5  # beyond so many photos 99 and 56 in 100, in a fifth of the time
EVEN = HASH_SIZE * HASH_SIZE // 4  # bits with even row and column
BLOCK = 1 << 21  # pairs looked at at once

Pairs = tuple[np.ndarray, np.ndarray]  # positions of either photo


def near_in_shape(hashes: np.ndarray, limit: int, turns: bool) -> list[tuple[int, int]]:
    """(later, earlier) of every two of `hashes` [n, 32] whose coarse shapes agree as told above and that are at most `limit`
    bits apart; with `turns` in any of the eight ways that a picture can lie, else as they are."""
    differing = DIFFERING if len(hashes) <= MANY else DIFFERING_OF_MANY
    jobs = [(half, sides) for half in (0, 1) for sides in ((False, True) if turns else (False,))]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = pool.map(lambda job: _pairs_of(hashes, limit, differing, turns, *job), jobs)
    return sorted({(max(pair), min(pair)) for pairs in found for pair in pairs})


def _pairs_of(hashes: np.ndarray, limit: int, differing: int, turns: bool, half: int, sides: bool) -> list[tuple[int, int]]:
    """What one half of the bits finds, with rows and columns of one picture exchanged (`sides`) or not."""
    asked = turned(hashes, 4) if sides else hashes
    shapes, known = _shapes(asked), _shapes(hashes)
    asked_bits, known_bits = _by_class(asked), _by_class(hashes)
    asked_even, known_even = asked_bits[:, 0].copy(), known_bits[:, 0].copy()  # which no mirroring changes
    found: list[tuple[int, int]] = []
    for left, right in _candidates(shapes, known, half, differing, once=not sides):
        if limit < EVEN:
            near = np.bitwise_count(asked_even[left] ^ known_even[right]) <= limit
            left, right = left[near], right[near]
        near = _distance(asked_bits[left], known_bits[right], turns) <= limit
        near &= left != right  # a picture may be its own mirror image
        found += zip(left[near].tolist(), right[near].tolist(), strict=True)
    return found


def _shapes(hashes: np.ndarray) -> np.ndarray:
    """[n] uint64: the 36 coarse bits; neighbours lie in different halves."""
    signs = np.unpackbits(hashes, axis=1).reshape(-1, HASH_SIZE, HASH_SIZE)[:, : 2 * SIDE : 2, : 2 * SIDE : 2]
    flat = signs.reshape(len(hashes), -1)
    return np.concatenate([flat[:, 0::2], flat[:, 1::2]], axis=1) @ (np.uint64(1) << np.arange(2 * HALF, dtype=np.uint64))


def _candidates(shapes: np.ndarray, known: np.ndarray, half: int, differing: int, once: bool) -> Iterator[Pairs]:
    """Pairs of positions in `shapes` and in `known` that differ in at most `differing` bits, as far as they differ in at most half
    as many in one half. `once`: both are the same, and each pair is wanted once."""
    keys = _keys(known, half)
    order = np.argsort(keys, kind="stable")
    filled = np.bincount(keys, minlength=1 << HALF)
    starts, filled = np.concatenate([[0], np.cumsum(filled)]), filled > 0  # a byte a key: what is asked for most often stays near
    ordered, asked, asked_shapes = known[order], _keys(shapes, half)[order], shapes[order]  # neighbours ask for neighbours
    for mask in _masks(differing // 2):
        rows = np.flatnonzero(filled[asked ^ mask])
        wanted = asked[rows] ^ mask
        first = starts[wanted]
        if once and mask == 0:
            first = rows + 1  # those behind itself
        counts = starts[wanted + 1] - first
        if once and mask:
            counts[asked[rows] > wanted] = 0
        for some in _in_blocks(counts):
            left, right = _near(asked_shapes, ordered, rows[some], first[some], counts[some], differing)
            yield order[left], order[right]


def _keys(shapes: np.ndarray, half: int) -> np.ndarray:
    return ((shapes >> np.uint64(HALF * half)) & np.uint64((1 << HALF) - 1)).astype(np.int64)


def _masks(most: int) -> Iterator[int]:
    for count in range(most + 1):
        for places in combinations(range(HALF), count):
            yield sum(1 << place for place in places)


def _in_blocks(counts: np.ndarray) -> Iterator[np.ndarray]:
    """Where there are any, in parts that together have about BLOCK counts."""
    rows = np.flatnonzero(counts)
    sums = np.cumsum(counts[rows])
    cuts = np.searchsorted(sums, np.arange(BLOCK, sums[-1] if len(sums) else 0, BLOCK))
    yield from (part for part in np.split(rows, cuts) if len(part))


def _near(asked: np.ndarray, known: np.ndarray, rows: np.ndarray, first: np.ndarray, counts: np.ndarray, differing: int) -> Pairs:
    """(row, place) of every row of `asked` and the `counts` places of `known` from `first` on that differ in few bits."""
    ends = np.cumsum(counts)
    places = np.repeat(first - (ends - counts), counts)
    places += np.arange(ends[-1])
    near = np.nonzero(np.bitwise_count(np.repeat(asked[rows], counts) ^ known[places]) <= differing)[0]
    return rows[np.searchsorted(ends, near, side="right")], places[near]


def _by_class(hashes: np.ndarray) -> np.ndarray:
    """[n, 4] uint64: the bits of coefficients with even row and column, odd column, odd row, and both odd."""
    signs = np.unpackbits(hashes, axis=1).reshape(-1, HASH_SIZE, HASH_SIZE)
    classes = [signs[:, row::2, column::2].reshape(len(hashes), -1) for row in (0, 1) for column in (0, 1)]
    return np.concatenate([np.packbits(bits, axis=1) for bits in classes], axis=1).view(np.uint64)


def _distance(asked: np.ndarray, known: np.ndarray, turns: bool) -> np.ndarray:
    """Bits by which hashes [n, 4], told by class, differ; with `turns` in the nearest of the four mirrorings, each of which flips all bits
    of two classes: of 64 bits those that were alike differ then."""
    apart = np.bitwise_count(asked ^ known).astype(np.int16)
    odd = apart[:, 1] + apart[:, 2] + apart[:, 3]
    if turns:
        least = np.minimum(np.minimum(apart[:, 1], apart[:, 2]), apart[:, 3])
        odd = np.minimum(odd, 128 + 2 * least - odd)
    return apart[:, 0] + odd
