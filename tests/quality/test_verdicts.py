"""Verdicts are derived from measures and settings, a person's word wins, and quality says which photo is the better one."""

import json

import pytest

from lorakit.errors import LorakitError
from lorakit.quality import verdicts
from lorakit.quality.verdicts import Reason, Verdict
from lorakit.settings import resolve

DEFAULTS = resolve([])
GOOD = {
    "size": {"width": 1200, "height": 1024},
    "sharpness": {"sharpness": 1.0, "texture": 0.9},
    "compression": {"jpeg_quality": 92, "bits": 2.0},
}


def record(id="a", **found):
    return {"id": id, "file": f"{id}.jpg", "measures": GOOD, **found}


def with_size(width, height):
    return {**GOOD, "size": {"width": width, "height": height}}


def test_the_worst_reason_decides_and_all_are_told():
    found = verdicts.judge(record(measures={**with_size(300, 1200), "compression": {"jpeg_quality": 30, "bits": 1.0}}), DEFAULTS)
    assert found.verdict == "reject" and not found.by_hand
    assert [(r.verdict, r.reason) for r in found.reasons] == [("reject", "too_small"), ("reject", "too_narrow"), ("warn", "compressed")]


def test_a_changed_threshold_needs_no_photo():
    small = record(measures=with_size(500, 500))
    assert verdicts.judge(small, DEFAULTS).verdict == "reject"
    lower = resolve([("test", {"check.size.min_side": 400, "check.size.good_side": 400})])
    assert verdicts.judge(small, lower) == Verdict("keep", ())


@pytest.mark.parametrize("word", ["keep", "reject"])
def test_a_persons_word_wins_and_the_reasons_stay(word):
    found = verdicts.judge(record(measures=with_size(300, 300), human={"verdict": word}), DEFAULTS)
    assert (found.verdict, found.by_hand) == (word, True)
    assert [r.reason for r in found.reasons] == ["too_small"]
    assert verdicts.add_warnings(found, [Reason("warn", "odd_aspect", 3, 1)]).verdict == word


def test_copies_and_other_subjects_are_rejected_where_they_are_asked_for():
    copy = record(dedupe={"of": "b", "reason": "mirrored", "distance": 7}, embed={"of": "b", "cosine": 0.99, "apart": 9.0})
    assert [r.reason for r in verdicts.judge(copy, DEFAULTS).reasons] == ["mirrored", "other_subject", "same_meaning"]
    assert [r.reason for r in verdicts.judge(copy, DEFAULTS, with_embed=False).reasons] == ["mirrored"]
    assert verdicts.judge(copy, DEFAULTS, with_duplicates=False).verdict == "keep"
    alone = record(embed={"of": None, "cosine": None, "apart": None})
    assert verdicts.judge(alone, DEFAULTS).verdict == "keep"


def test_a_measure_of_a_check_that_is_gone_says_nothing():
    assert verdicts.judge(record(measures={**GOOD, "a_check_of_yesterday": {"x": 1}}), DEFAULTS).verdict == "keep"


def test_quality_rises_with_pixels_and_sharpness_and_loses_a_fifth_for_each_warning():
    best = verdicts.quality(record(), DEFAULTS)
    assert best == 1.0
    assert verdicts.quality(record(), DEFAULTS, [Reason("warn", "odd_aspect", 3, 1)]) == pytest.approx(0.8)
    assert verdicts.quality(record(measures=with_size(600, 600)), DEFAULTS) < best
    soft = {**GOOD, "sharpness": {"sharpness": 0.6, "texture": 0.9}}
    assert 0 < verdicts.quality(record(measures=soft), DEFAULTS) < best
    assert verdicts.quality(record(measures={"damaged": {"unreadable": "damaged", "detail": ""}}), DEFAULTS) == 0.0


def test_of_copies_the_larger_is_worth_more_and_of_equals_the_less_compressed():
    large, small = record(), record(measures=with_size(600, 512))
    worn = record(measures={**GOOD, "compression": {"jpeg_quality": 40, "bits": 0.5}})
    assert verdicts.worth_among_copies(large) > verdicts.worth_among_copies(worn) > verdicts.worth_among_copies(small)


def test_a_photo_that_a_large_base_enlarges_is_small_and_loses_no_quality_by_it():
    """Its pixels count already; `small` says only that a base of 1024 px makes more of it than there is."""
    from lorakit.project import catalog

    large = resolve([("card", catalog.card("sdxl").settings)])
    photo = record(measures=with_size(1200, 900))
    assert [reason.reason for reason in verdicts.judge(photo, large).reasons] == ["small"]
    lenient = resolve([("card", catalog.card("sdxl").settings), ("test", {"check.size.good_side": 512})])
    assert verdicts.quality(photo, large) == verdicts.quality(photo, lenient)


def test_measures_that_cannot_be_read_are_named_in_one_line():
    damaged = record(measures={**GOOD, "size": {"\xf4idth": 1200, "height": 1024}})
    with pytest.raises(LorakitError, match=r"manifest.jsonl: what is measured of a.jpg under size cannot be read \(KeyError"):
        verdicts.judge(damaged, DEFAULTS)


def test_packed_verdicts_come_back_and_what_json_would_change_is_not_packed():
    kept = [
        Verdict("keep", ()),
        Verdict("warn", (Reason("warn", "soft", 0.5, 1), Reason("warn", "animated", 2, None))),
        Verdict("reject", (Reason("reject", "damaged", "cut off", None),), by_hand=True),
        Verdict("keep", ()),
        Verdict("warn", (Reason("warn", "soft", 1, 1.0),)),
    ]
    held = json.loads(json.dumps(verdicts.packed(kept)))
    assert list(map(repr, verdicts.unpacked(held))) == list(map(repr, kept)) and len(held[0]) == 4
    assert verdicts.packed([*kept, Verdict("warn", (Reason("warn", "of a plug-in", (1, 2), None),))]) is None
