"""A varied few of many photos: always the one that is least like those already picked, without holding all against each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

FRONT = 1024  # photos that are held against each pick as it is made
BLOCK, AT_ONCE = 512, 64  # photos, whose vectors stay in the processor's cache, and picks that they are held against at once

Apart = Callable[[Sequence[int]], np.ndarray]  # the distances [picks, rows] float32 of some photos from others, by their positions
Among = Callable[[np.ndarray], Apart]  # of the photos at positions [rows]


def of_vectors(points: np.ndarray) -> Among:
    """Between `points` [n, d] float32.

    Rows are multiplied four at a time, whichever they are, so that a distance is the same number to the last bit among whatever others it
    is worked out (of OpenBLAS; a product of two matrices rounds by how it is cut)."""
    squares = np.einsum("nd,nd->n", points, points)

    def among(rows: np.ndarray) -> Apart:
        of_four = np.concatenate([rows, np.repeat(rows[:1], -len(rows) % 4)])
        block, own = points[of_four], squares[of_four]

        def apart(picked: Sequence[int]) -> np.ndarray:  # |a - b|^2 = a^2 + b^2 - 2ab
            found = np.empty((len(picked), len(of_four)), dtype=points.dtype)
            for products, pick in zip(found, picked, strict=True):
                np.dot(block, points[pick], out=products)
            found *= -2
            found += own + squares[picked][:, None]
            return np.sqrt(np.maximum(found, 0, out=found), out=found)[:, : len(rows)]

        return apart

    return among


def of_looks(hashes: np.ndarray, colours: np.ndarray) -> Among:
    """Between hashes [n, 32] uint8 and mean colours [n, c] uint8. Bits are counted and colours are whole numbers below 2**24, which float32
    holds exactly, so that no processor finds another distance; and of a photo 4 + c/2 numbers are read instead of 256 + c."""
    words = np.ascontiguousarray(hashes).view(np.uint64)  # [n, 4]
    shades = colours.astype(np.float32)
    squares = np.einsum("nd,nd->n", shades, shades)

    def among(rows: np.ndarray) -> Apart:
        columns, own, block = words[rows].T.copy(), squares[rows], shades[rows]

        def apart(picked: Sequence[int]) -> np.ndarray:
            theirs = words[picked].T[:, :, None]
            bits = sum(np.bitwise_count(column ^ their).astype(np.int16) for column, their in zip(columns, theirs, strict=True))
            shade = own + squares[picked][:, None] - 2 * (shades[picked] @ block.T)
            return np.sqrt(bits / np.float32(128) + shade / np.float32(3 * 255**2))

        return apart

    return among


def spread(among: Among, qualities: np.ndarray, count: int) -> list[int]:
    """Greedy k-centre weighted by quality: start with the best, then always add the photo with the largest
    quality x distance to its nearest picked one. Returns positions in the order they were picked.

    A distance to the nearest only ever falls. So one that was worked out some picks ago says how large it may be at most, and only photos that
    might be the next are held against the picks since (lazily, as Minoux 1978): a front of those that were the farthest, until none of it is
    farther than the others may be."""
    if len(qualities) <= count:
        return sorted(range(len(qualities)), key=lambda i: -qualities[i])
    if count == 0:
        return []
    course = _Course(among, 0.5 + qualities, int(np.argmax(qualities)))
    size = FRONT
    while len(course.picked) < count:
        rows, others = course.front(size)
        before = len(course.picked)
        course.pick_from(rows, others, count)
        if len(course.picked) == before:  # many are equally far: of such the first of all is meant
            size *= 2
    return course.picked


class _Course:
    """What is known on the way: `nearest` [n] is a photo's distance to the nearest of the first `held` [n] picks."""

    def __init__(self, among: Among, weights: np.ndarray, first: int):
        self.among, self.weights, self.picked = among, weights, [first]
        self.nearest = np.full(len(weights), np.inf, dtype=np.float32)
        self.held = np.zeros(len(weights), dtype=np.int64)
        self.left = np.ones(len(weights), dtype=bool)
        self.left[first] = False

    def gains(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """What photos are chosen by, or what it is at most; -1 of those that are picked."""
        return np.where(self.left[rows], self.nearest[rows] * self.weights[rows], -1)

    def front(self, size: int) -> tuple[np.ndarray, float]:
        """(positions, rising, of up to `size` photos that gain the most, held against all picks; what the others gain at most)."""
        looked = 2 * size
        while True:
            top, stale = _largest(self.gains(), looked)
            self.hold(top)
            if len(top) == len(self.weights) or self.gains(top).max() > stale:
                break
            looked *= 2
        rows, _ = _largest(self.gains(), size)
        rows = rows[self.held[rows] == len(self.picked)]
        others = np.ones(len(self.weights), dtype=bool)
        others[rows] = False
        return np.sort(rows), float(self.gains()[others].max(initial=-np.inf))

    def hold(self, rows: np.ndarray) -> None:
        """Against the picks that came since they were last held."""
        behind = rows[self.held[rows] < len(self.picked)]
        behind = behind[np.argsort(self.held[behind], kind="stable")]  # so that those of a block lack about the same
        for block in (behind[first : first + BLOCK] for first in range(0, len(behind), BLOCK)):
            apart = self.among(block)
            for first in range(int(self.held[block].min()), len(self.picked), AT_ONCE):
                found = apart(self.picked[first : first + AT_ONCE]).min(axis=0)
                self.nearest[block] = np.minimum(self.nearest[block], found)
        self.held[behind] = len(self.picked)

    def pick_from(self, rows: np.ndarray, others: float, count: int) -> None:
        """Pick of the front while the next is certain to be in it."""
        apart = self.among(rows)
        while len(self.picked) < count:
            gains = self.gains(rows)
            best = int(np.argmax(gains))
            if gains[best] <= others:
                return
            self.picked.append(int(rows[best]))
            self.left[rows[best]] = False
            self.nearest[rows] = np.minimum(self.nearest[rows], apart(self.picked[-1:])[0])
            self.held[rows] = len(self.picked)


def _largest(values: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """(positions of the `count` largest, the largest of the others)."""
    if count >= len(values):
        return np.arange(len(values)), -np.inf
    order = np.argpartition(values, len(values) - count)
    return order[len(values) - count :], float(values[order[: len(values) - count]].max())
