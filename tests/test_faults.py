"""Each fault of a text is found, and good texts have none."""

from dataclasses import replace

import pytest

from lorakit import faults
from lorakit.settings import Caption, Trigger, resolve
from lorakit.wording import Reading, compose

SETTINGS = replace(resolve([]), trigger=Trigger(word="zwx", class_word="dog"), caption=Caption(token_budget=75))


def record(text: str, id: str = "a", **more) -> dict:
    return {
        "id": id,
        "text": text,
        "caption": {"sentence": text, "tags": [], "own": False},
        "select": {"selected": True},
        **more,
    }


def reasons(text: str, **more) -> list[str]:
    return [reason.reason for reason in faults.find([record(text, **more)], SETTINGS).get("a", [])]


@pytest.mark.parametrize(
    "text, reason",
    [
        ("zwx dog, arafed dog on grass", "filler"),
        ("The image shows a zwx dog", "filler"),
        ("there is a zwx dog on grass", "filler"),
        ("a bald bald bald zwx dog on grass", "repetition"),
        ("a zwx dog on a red chair on a red chair on a red chair", "repetition"),
        ("a zwx dog sitting on a", "cut_off"),
        ("a zwx dog with grass and the.", "cut_off"),
        ("zwx dog", "says_nothing"),
        ("a zwx dog", "says_nothing"),
        ("zwx dog, \u72ac", "odd_letters"),
        ("zwx dog, grass \ufffd", "odd_letters"),
        ("dog, grass", "trigger_missing"),
        ("zwx dog, zwx, grass", "trigger_repeated"),
    ],
)
def test_fault_is_found(text, reason):
    assert reason in reasons(text)


@pytest.mark.parametrize(
    "text",
    [
        "zwx dog, red collar, sitting on grass",
        "a zwx dog sitting on a couch with a red blanket",
        "a zwx dog, that theory is in the café – at dawn",
        "zwx dog, very very old tree",
    ],
)
def test_good_text_has_none(text):
    assert reasons(text) == []


def test_fault_names_what_it_found():
    found = faults.find([record("zwx dog, arafed \u72ac")], SETTINGS)["a"]
    assert [(r.verdict, r.reason, r.value) for r in found] == [
        ("warn", "filler", "arafed"),
        ("warn", "odd_letters", "\u72ac"),
    ]


def test_too_many_tokens_and_cut():
    assert reasons("zwx dog, grass", trigger={"tokens": 80}) == ["too_many_tokens"]
    assert reasons("zwx dog, grass", trigger={"tokens": 70, "cut": ["tree"]}) == ["cut_to_budget"]


def test_measures_contradict():
    assert reasons("zwx dog at night", measures={"exposure": {"p50": 200, "p99": 250}}) == ["not_dark"]
    assert reasons("zwx dog at night", measures={"exposure": {"p50": 30, "p99": 250}}) == []
    assert reasons("zwx dog, dark background", measures={"exposure": {"p50": 200, "p99": 250}}) == []
    assert reasons("zwx dog, sunny day", measures={"exposure": {"p50": 30, "p99": 90}}) == ["not_bright"]


def test_score_of_open_clip():
    assert reasons("zwx dog, grass", trigger={"agreement": 0.05}) == ["does_not_match_photo"]
    assert reasons("zwx dog, grass", trigger={"agreement": 0.3}) == []


def test_same_words_for_several_photos():
    found = faults.find(
        [record("zwx dog, mug", "a"), record("zwx dog, mugs", "b"), record("zwx dog, tree", "c")], SETTINGS
    )
    assert {id: [(r.reason, r.value) for r in reasons] for id, reasons in found.items()} == {
        "a": [("same_words_as_others", 1)],
        "b": [("same_words_as_others", 1)],
    }


def test_fault_warns_of_a_kept_photo_and_leaves_the_choice_alone():
    chosen = record("zwx dog")
    assert faults.judge([chosen], SETTINGS)["a"].verdict == "warn"
    by_hand = {**chosen, "human": {"verdict": "keep"}}
    assert faults.judge([by_hand], SETTINGS)["a"].verdict == "keep"
    assert faults.judge([{**chosen, "select": {"selected": False}}], SETTINGS)["a"].reasons == ()


def test_what_compose_makes_has_no_filler():
    text = compose(Reading("The image shows arafed dog. There is a cat."), "sentences")
    assert not faults.FILLER.search(text)


def test_photo_of_another_thing_stands_out_where_the_captioner_knows_the_thing():
    places = ["grass", "sand", "snow", "wood", "tiles", "stone", "moss", "rugs", "gravel"]
    dogs = [record(f"a zwx dog on {place}", str(n)) for n, place in enumerate(places)]
    mug = record("a zwx dog, a yellow mug", "mug")
    mug["caption"]["sentence"] = "a yellow mug"
    found = faults.find([*dogs, mug], SETTINGS)
    assert {id: [(r.reason, r.value, r.threshold) for r in rs] for id, rs in found.items()} == {
        "mug": [("another_thing", "a yellow mug", "dog")]
    }
    assert faults.find([mug, *dogs[:3]], SETTINGS) == {}  # in so few, one is no exception
