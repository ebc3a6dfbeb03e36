"""The chosen set: as many as wanted, good ones, and spread out."""

import numpy as np
import pytest

from lorakit import open_project, pipeline
from lorakit.caption.review import review
from lorakit.curate.select import of_looks, of_vectors, spread
from lorakit.errors import LorakitError
from lorakit.report.report import render


def test_count_is_kept_and_rejected_photos_are_left_out(curated, make_photo):
    make_photo("small.jpg", 9, (100, 100))
    project = curated("select", **{"select.count": 4})
    chosen = [r["file"] for r in project.manifest.selected]
    assert len(chosen) == 4 and "small.jpg" not in chosen


def test_everything_takes_rejected_ones_but_not_unreadable_ones(curated, make_photo, tmp_path):
    make_photo("small.jpg", 9, (100, 100))
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"\xff\xd8\xff torn")
    project = curated("select", **{"select.everything": True})
    assert len(project.manifest.selected) == 7


def test_nothing_good_is_an_error_that_says_where_to_look(curated):
    with pytest.raises(LorakitError, match="lorakit status"):
        curated("select", **{"check.size.min_side": 5000})


def test_fewer_than_the_least_is_said(curated, capsys):
    curated("select", **{"select.least": 20})
    assert "only 6 good photos" in capsys.readouterr().err


def test_a_persons_word_wins(curated):
    project = curated("select", **{"check.size.min_side": 600, "select.count": 2})
    assert len(project.manifest.selected) == 2
    review(project, ["photo_0.jpg"], verdict="keep")
    pipeline.walk(project, last="select")
    assert "photo_0.jpg" in [r["file"] for r in project.manifest.selected]


def test_spread_takes_one_of_each_cluster_and_the_best_first():
    random = np.random.default_rng(0)
    centres = random.normal(0, 10, (5, 8))
    points = np.repeat(centres, 20, axis=0) + random.normal(0, 0.1, (100, 8))
    qualities = random.uniform(0.4, 0.6, 100)
    qualities[33] = 1.0
    picked = spread(of_vectors(points.astype(np.float32)), qualities, 5)
    assert picked[0] == 33 and sorted(p // 20 for p in picked) == [0, 1, 2, 3, 4]


def plain_spread(points: np.ndarray, qualities: np.ndarray, count: int) -> list[int]:
    """Word by word: the best, then always the one with the largest quality x distance to its nearest picked one."""
    apart = np.sqrt(((points[:, None].astype(float) - points[None].astype(float)) ** 2).sum(axis=2))
    picked = [int(np.argmax(qualities))]
    while len(picked) < count:
        gain = apart[:, picked].min(axis=1) * (0.5 + qualities)
        gain[picked] = -1
        picked.append(int(np.argmax(gain)))
    return picked


@pytest.mark.parametrize("seed", range(4))
def test_spread_over_bits_and_colours_picks_what_all_distances_say(seed):
    """Of a random set, of one in clusters, and with the vectors that bits and colours stand for."""
    random = np.random.default_rng(seed)
    hashes, colours = random.integers(0, 256, (300, 32), dtype=np.uint8), random.integers(0, 256, (300, 48), dtype=np.uint8)
    if seed % 2:
        hashes, colours = np.repeat(hashes[:60], 5, axis=0), np.repeat(colours[:60], 5, axis=0)
        hashes[:, 0], colours[:, 0] = random.integers(0, 256, 300), random.integers(0, 256, 300)
    qualities = np.round(random.uniform(0.2, 0.9, 300), 4)
    points = np.concatenate([np.unpackbits(hashes, axis=1) / np.sqrt(128), colours / 255 / np.sqrt(3)], axis=1).astype(np.float32)
    expected = plain_spread(points, qualities, 120)
    assert spread(of_looks(hashes, colours), qualities, 120) == expected
    assert spread(of_vectors(points), qualities, 120) == expected


def test_spread_takes_all_when_there_are_no_more_than_wanted():
    assert sorted(spread(of_vectors(np.zeros((3, 2), np.float32)), np.array([0.1, 0.9, 0.5]), 5)) == [0, 1, 2]


def test_second_walk_changes_nothing(curated):
    project = curated("crop", **{"select.count": 3})
    before = project.manifest.path.read_text(encoding="utf-8")
    assert pipeline.walk(open_project(project.folder), last="crop") == []
    assert project.manifest.path.read_text(encoding="utf-8") == before


def test_what_the_set_lacks_is_said_everywhere(curated, capsys):
    project = curated("select", **{"select.wanted": 25})
    line = "6 of 25 photos wanted for the kind object: 10 at least"
    assert line in capsys.readouterr().err
    assert pipeline.status(project)["lacks"][0].startswith(line)
    assert line in render(project, None)
