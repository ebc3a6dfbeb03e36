"""What a set lacks is said with its numbers, and nothing is said that they do not tell."""

import pytest

from lorakit.project import catalog
from lorakit.quality import coverage
from lorakit.settings import resolve

SIZES = [(800, 600), (600, 800), (700, 700)]


def photos(count: int, sizes=SIZES, medians=(60, 120, 180), chroma=90, taken=None) -> list[dict]:
    return [
        {
            "measures": {
                "size": dict(zip(("width", "height"), sizes[n % len(sizes)])),
                "exposure": {"p50": medians[n % len(medians)]},
                "colour": {"chroma": chroma},
                "moment": {"taken": taken(n) if taken else None},
            }
        }
        for n in range(count)
    ]


def lacks(chosen: list[dict], kind: str = "character", **settings) -> list[str]:
    found = catalog.kind(kind)
    return coverage.find(chosen, found, resolve([("kind", found.settings), ("test", settings)]))


def test_a_full_and_varied_set_lacks_nothing():
    assert lacks(photos(30)) == []
    assert lacks([]) == []


@pytest.mark.parametrize(
    ("count", "said"),
    [(12, "only 12 good photos of 30 wanted for the kind character: "), (20, "20 of 30 photos wanted for the kind character: ")],
)
def test_count(count, said):
    (line,) = lacks(photos(count))
    assert line.startswith(said) and line.endswith(catalog.kind("character").photos)


def test_count_that_was_asked_for_is_enough():
    assert lacks(photos(16), **{"select.count": 16}) == []


@pytest.mark.parametrize("kind", [kind.name for kind in catalog.kinds()])
def test_every_kind_wants_no_fewer_than_its_least_and_no_more_than_its_most(kind):
    select = resolve([("kind", catalog.kind(kind).settings)]).select
    assert select.least <= select.wanted <= select.most
    assert f"{select.least} at least" in catalog.kind(kind).photos


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"sizes": [(800, 600)]}, "30 of 30 photos are wider than tall"),
        ({"sizes": [(600, 800)] * 14 + [(800, 600)]}, "28 of 30 photos are taller than wide"),
        ({"medians": (110, 140, 150)}, "all 30 photos are about equally bright (median luma 110 to 150 of 255)"),
        ({"chroma": 2}, "all 30 photos are grayscale"),
        ({"taken": lambda n: f"2026-05-31T18:{n:02}:00"}, "30 of 30 dated photos were taken within 60 minutes"),
        ({"taken": lambda n: f"2026-05-31T{n % 24:02}:00:00"}, "30 of 30 dated photos are of one day (2026-05-31)"),
    ],
)
def test_what_photos_have_in_common(changed, said):
    (line,) = lacks(photos(30, **changed))
    assert line.startswith(said)


@pytest.mark.parametrize(
    "changed",
    [
        {"sizes": [(700, 700)]},
        {"sizes": [(800, 600)] * 4 + [(600, 800)]},
        {"medians": (110, 151)},
        {"taken": lambda n: f"2026-05-{1 + n % 5:02}T18:00:00"},
        {"taken": lambda n: None if n % 3 else "2026-05-31T18:00:00"},  # two of three tell no time
    ],
)
def test_what_cannot_be_known_is_not_said(changed):
    assert lacks(photos(30, **changed)) == []


def test_of_four_photos_only_the_count_is_said():
    assert len(lacks(photos(4, sizes=[(800, 600)], medians=(100,), chroma=0))) == 1
