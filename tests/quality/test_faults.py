"""Each fault of a text is found, and good texts have none."""

from dataclasses import replace
from random import Random

import pytest

from lorakit.quality import faults, in_words
from lorakit.settings import Caption, Trigger, resolve
from lorakit.text.composing import RawCaption, compose

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
        ("zwx dog, (red collar:1.3)", "prompt_syntax"),
        ("zwx dog, {red|blue} collar", "prompt_syntax"),
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


GRAY_CROP = {"luma": [10, 90, 200], "colours": {"red": 0.0, "blue": 0.2}}


def of_crop(text: str, pixels: dict, **more) -> list[tuple]:
    told = record(text, **more)
    told["caption"]["pixels"] = pixels
    return [(r.reason, r.value, r.threshold) for r in faults.find([told], SETTINGS).get("a", [])]


def test_words_are_held_against_the_crop():
    assert of_crop("a zwx dog with a red ball", GRAY_CROP) == [("no_red", 0.0, 0.0004)]
    assert of_crop("a zwx dog with a blue ball", GRAY_CROP) == []
    assert of_crop("a zwx dog with a red ball", None) == []
    assert of_crop("zwx dog at night", {"luma": [150, 200, 250]}) == [("not_dark", 200, "night")]
    bright_photo = {"measures": {"exposure": {"p50": 200, "p99": 250}}}
    assert of_crop("zwx dog at night", {"luma": [5, 20, 90]}, **bright_photo) == [], "the crop counts, not what it leaves out"


def test_black_and_white_that_is_colourful_and_a_facet_that_is_sure():
    coloured = {"colour": {"chroma": 120}}
    assert reasons("a black and white photo of a zwx dog", measures=coloured) == ["not_gray"]
    assert reasons("a black and white zwx dog", measures=coloured) == [], "a dog may be black and white"
    assert reasons("a black and white photo of a zwx dog", measures={"colour": {"chroma": 5}}) == []
    assert reasons("a zwx dog in a kitchen", facets={"setting": ["outdoors", 0.95]}) == ["contradicts_photo"]
    assert reasons("a zwx dog in a kitchen", facets={"setting": ["outdoors", 0.8]}) == []


def test_two_readings_that_cannot_both_be_true_are_named_with_both_words():
    told = record("1girl, red shirt, a zwx woman in a blue shirt")
    told["caption"]["readings"] = [
        {"by": "wd_tagger", "sentence": "", "tags": ["1girl", "red shirt"]},
        {"by": "qwen3_vl", "sentence": "A woman in a blue shirt.", "tags": ["shirt"]},
    ]
    [found] = faults.find([told], SETTINGS)["a"]
    assert (found.reason, found.value, found.threshold) == ("readings_contradict", "red shirt", "blue shirt")
    assert in_words.in_words(found) == "one captioner says: red shirt, the other blue shirt"
    told["human"] = {"text": "a zwx woman in a blue shirt"}
    assert not faults.find([told], SETTINGS), "a person has decided"


def test_guesses_are_pointed_at():
    assert reasons("a zwx dog, possibly a labrador") == ["guesses"]
    assert reasons("a zwx dog that may be wet") == ["guesses"]
    assert reasons("zwx dog, grass in May") == []


def test_score_of_open_clip():
    assert reasons("zwx dog, grass", trigger={"agreement": 0.05}) == ["does_not_match_photo"]
    assert reasons("zwx dog, grass", trigger={"agreement": 0.3}) == []


def test_same_words_for_several_photos():
    found = faults.find([record("zwx dog, mug", "a"), record("zwx dog, mugs", "b"), record("zwx dog, tree", "c")], SETTINGS)
    assert {id: [(r.reason, r.value) for r in reasons] for id, reasons in found.items()} == {
        "a": [("same_words_as_others", 1)],
        "b": [("same_words_as_others", 1)],
    }


def test_nearly_the_same_words_are_found_in_long_texts_only():
    long = "a zwx dog sitting on a wooden chair next to a window with red curtains and a lamp on the table"
    texts = {"a": long, "b": long.replace("lamp", "clock"), "c": long.replace("a wooden chair", "green grass under tall old trees")}
    found = faults.find([record(text, id) for id, text in texts.items()], SETTINGS)
    assert {id: [(r.reason, r.value) for r in reasons] for id, reasons in found.items()} == {
        id: [("same_words_as_others", 1)] for id in "ab"
    }
    assert faults.find([record("a zwx dog on a chair", "a"), record("a zwx dog on a table", "b")], SETTINGS) == {}


@pytest.mark.parametrize(("seed", "least", "most"), [(0, 14, 14), (1, 7, 13), (2, 16, 40), (3, 5, 60)])
def test_looking_for_alike_texts_agrees_with_comparing_all_pairs(seed, least, most):
    """Also with words added and left out, and with some that stand in no other text."""
    random = Random(seed)
    vocabulary = [f"word{n}" for n in range(max(40, 2 * most))]
    base = [random.sample(vocabulary, random.randint(least, most)) for _ in range(40)]
    said = [*base, *([w if random.random() > 0.05 else random.choice(vocabulary) for w in words] for words in base for _ in range(3))]
    for number, words in enumerate(said):
        if random.random() < 0.3:
            words.append(random.choice([*vocabulary, f"own{number}", f"own{number}"]))
        if random.random() < 0.3:
            words.remove(random.choice(words))
    records = [record(" ".join(words), str(n)) for n, words in enumerate(said)]

    def is_alike(left: list[str], right: list[str]) -> bool:
        a, b = set(left), set(right)
        return a == b or min(len(a), len(b)) >= faults.MANY_WORDS and len(a & b) >= faults.ALIKE * len(a | b)

    expected = {str(n): sum(is_alike(a, b) for m, b in enumerate(said) if m != n) for n, a in enumerate(said)}
    assert faults.alike(records) == expected and 20 < sum(map(bool, expected.values())) < len(said)


def test_fault_warns_of_a_kept_photo_and_leaves_the_choice_alone():
    chosen = record("zwx dog")
    assert faults.judge([chosen], SETTINGS)["a"].verdict == "warn"
    by_hand = {**chosen, "human": {"verdict": "keep"}}
    assert faults.judge([by_hand], SETTINGS)["a"].verdict == "keep"
    assert faults.judge([{**chosen, "select": {"selected": False}}], SETTINGS)["a"].reasons == ()


def test_what_compose_makes_has_no_filler():
    text = compose(RawCaption("The image shows arafed dog. There is a cat."), "sentences")
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
