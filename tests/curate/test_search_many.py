"""The search of large sets: exactly the pairs that it says it finds, held against every pair compared with every other."""

import numpy as np
import pytest

from lorakit.curate import search, search_many
from lorakit.curate.descriptors import turned


def some_hashes(count: int, copies: int, most_bits: int = 60) -> np.ndarray:
    """Random hashes [count, 32], the last of them copies of the first: some bits changed, lying in any of eight ways."""
    random = np.random.default_rng(1)
    hashes = random.integers(0, 256, (count, 32), dtype=np.uint8)
    for number in range(copies):
        bits = np.unpackbits(hashes[number])
        bits[random.choice(256, random.integers(0, most_bits), replace=False)] ^= 1
        hashes[count - 1 - number] = turned(np.packbits(bits)[None], number % 8)[0]
    return hashes


def every_pair(hashes: np.ndarray, limit: int, turns: bool, differing: int) -> set[tuple[int, int]]:
    """The same by brute force, from the words of the module's docstring."""
    ways = [turned(hashes, turn) for turn in range(8 if turns else 1)]
    signs = [np.unpackbits(way, axis=1).reshape(-1, 16, 16) for way in ways]
    found = set()
    for whole in signs:
        coarse = whole[:, :12:2, :12:2].reshape(len(hashes), -1)
        upright = signs[0][:, :12:2, :12:2].reshape(len(hashes), -1)
        near = (coarse[:, None] != upright[None]).sum(axis=2) <= differing
        near &= (whole.reshape(len(hashes), 1, -1) != signs[0].reshape(1, len(hashes), -1)).sum(axis=2) <= limit
        found |= {(max(a, b), min(a, b)) for a, b in zip(*np.nonzero(near)) if a != b}
    return found


@pytest.mark.parametrize("turns", [False, True])
@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("limit", [80, 30])
def test_it_finds_exactly_the_pairs_that_it_promises(monkeypatch, turns, many, limit):
    if many:
        monkeypatch.setattr(search_many, "MANY", 10)
    hashes = some_hashes(400, 120)
    promised = every_pair(hashes, limit, turns, search_many.DIFFERING_OF_MANY if many else search_many.DIFFERING)
    assert len(promised) > (30 if turns else 3)
    assert set(search_many.near_in_shape(hashes, limit, turns)) == promised


def test_blocks_do_not_change_what_is_found(monkeypatch):
    hashes = np.repeat(some_hashes(60, 20), 3, axis=0)  # full buckets
    whole = search_many.near_in_shape(hashes, 80, True)
    monkeypatch.setattr(search_many, "BLOCK", 7)
    assert search_many.near_in_shape(hashes, 80, True) == whole and len(whole) >= 180


def test_a_picture_that_is_its_own_mirror_image_is_no_copy_of_itself():
    even = np.zeros((16, 16), np.uint8)
    even[::2, ::2] = 1
    assert search_many.near_in_shape(np.packbits(even)[None], 104, True) == []


def test_large_sets_are_searched_this_way_and_small_ones_fully(monkeypatch):
    hashes = some_hashes(300, 80, most_bits=40)
    fully = list(search.close_pairs(hashes, 80))
    monkeypatch.setattr(search, "MANY", 100)
    quickly = list(search.close_pairs(hashes, 80))
    assert len(quickly) >= 0.95 * 80 and set(quickly) <= set(fully)
