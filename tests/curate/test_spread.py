"""Picking lazily picks what holding every photo against every pick does, to the last bit."""

import numpy as np
import pytest

from lorakit.curate import spread as spreading
from lorakit.curate.spread import of_looks, of_vectors, spread


def plain(among, qualities: np.ndarray, count: int) -> list[int]:
    apart = among(np.arange(len(qualities)))
    picked = [int(np.argmax(qualities))]
    nearest = np.full(len(qualities), np.inf, dtype=np.float32)
    left = np.ones(len(qualities), dtype=bool)
    while len(picked) < count:
        left[picked[-1]] = False
        nearest = np.minimum(nearest, apart(picked[-1:])[0])
        picked.append(int(np.argmax(np.where(left, nearest * (0.5 + qualities), -1))))
    return picked


def vectors(kind: str, random: np.random.Generator, count: int) -> np.ndarray:
    points = random.normal(size=(count, 24))
    if kind == "clusters":
        points = random.normal(size=(9, 24))[random.integers(0, 9, count)] + 0.2 * points
    if kind == "copies":
        points = np.repeat(points[: count // 7 + 1], 7, axis=0)[:count]
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("kind", ["random", "clusters", "copies", "looks", "one"])
def test_the_same_are_picked_as_by_holding_all_against_all(kind, monkeypatch):
    """Also where many are equally far: then the first of them is."""
    monkeypatch.setattr(spreading, "FRONT", 16)
    monkeypatch.setattr(spreading, "BLOCK", 12)
    for count in (301, 640):
        random = np.random.default_rng(count)
        qualities = np.round(random.uniform(0.2, 0.9, count), 1 if count % 2 else 4)
        if kind == "looks":
            among = of_looks(random.integers(0, 256, (count, 32), dtype=np.uint8), random.integers(0, 256, (count, 48), dtype=np.uint8))
        else:
            among = of_vectors(np.zeros((count, 8), np.float32) if kind == "one" else vectors(kind, random, count))
        for wanted in (1, 2, 40, count // 2, count - 1):
            assert spread(among, qualities, wanted) == plain(among, qualities, wanted), (kind, count, wanted)


def test_most_photos_are_held_against_few_of_the_picks():
    """What is near a pick is not asked for again: 600 of 6,000 are a tenth of all pairs, and of those a tenth or two is worked out."""
    random = np.random.default_rng(0)
    among, pairs = of_vectors(vectors("random", random, 6000)), 0

    def counted(rows):
        apart = among(rows)

        def count(picked):
            nonlocal pairs
            found = apart(picked)
            pairs += found.size
            return found

        return count

    picked = spread(counted, random.uniform(0.2, 0.9, 6000), 600)
    assert len(set(picked)) == 600 and pairs < 0.4 * 600 * 6000, pairs / 600 / 6000
