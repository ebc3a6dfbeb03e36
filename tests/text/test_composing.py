"""Texts: each style from one reading, and the trigger word exactly once, wherever it stood before."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lorakit.text import phrases
from lorakit.text.composing import RawCaption, clean_sentence, compose, tags_of, without_said
from lorakit.text.placing import keep_trigger, place_trigger
from lorakit.text.words import count_word

TABLE = yaml.safe_load((Path(__file__).parent / "captions_worded.yaml").read_text(encoding="utf-8"))


def test_the_table_is_large_enough():
    assert len(TABLE) >= 60


@pytest.mark.parametrize("entry", TABLE, ids=lambda e: (e["read"] or e["labels"][0])[:40])
@pytest.mark.parametrize("style", ["tags", "mixed", "sentences"])
def test_caption_reads_as_the_table_says(entry, style):
    reading = RawCaption(entry["read"], tuple(entry.get("labels", ())))
    assert compose(reading, style) == entry.get(style, entry["sentences"])


@pytest.mark.parametrize("entry", TABLE, ids=lambda e: (e["read"] or e["labels"][0])[:40])
def test_phrases_joined_are_the_caption_again(entry):
    sentence = clean_sentence(entry["read"])
    assert phrases.joined(phrases.split(sentence)) == sentence


@pytest.mark.parametrize("entry", TABLE, ids=lambda e: (e["read"] or e["labels"][0])[:40])
def test_tags_reworded_stay_as_they_are(entry):
    tags = tags_of(entry["tags"])
    assert sorted(tags) == sorted(entry["tags"].split(", "))


@pytest.mark.parametrize(
    "written, clean",
    [
        ("arafed dog on a bed", "dog on a bed"),
        ("there is a dog that is sitting", "a dog that is sitting"),
        ("The image shows a dog.", "a dog"),
        ("this is a picture of a dog", "a dog"),
        ("This image depicts a dog.", "a dog"),
        ("there are two arafed men", "two men"),
        ("bald bald bald man", "bald man"),
        ("a red hat and a red hat and a red hat", "a red hat"),
        ("a dog. The image also features a cat.", "a dog. A cat"),
        ("a dog that appears to be asleep", "a dog that is asleep"),
        ("  a   dog \n on a bed . ", "a dog on a bed"),
        ("a person in a wheelchair", "a person in a wheelchair"),
        ("imagery of war", "imagery of war"),
        ("", ""),
    ],
)
def test_filler_goes_and_the_rest_stays(written, clean):
    assert clean_sentence(written) == clean


def test_tag_within_a_longer_tag_goes_by_whole_words_only():
    assert without_said(["hat", "chat bubble", "cat", "black cat"]) == ["hat", "chat bubble", "black cat"]


# --- the trigger


@pytest.mark.parametrize(
    "text, style, expected",
    [
        ("red collar, grass", "tags", "zwx dog, red collar, grass"),
        ("dog, red collar", "tags", "zwx dog, red collar"),
        ("zwx dog, red collar", "tags", "zwx dog, red collar"),
        ("red collar, ZWX, grass", "tags", "zwx dog, red collar, grass"),
        ("a dog sitting on grass", "sentences", "a zwx dog sitting on grass"),
        ("an old dog", "sentences", "an old zwx dog"),
        ("A dog and a dog", "sentences", "A zwx dog and a dog"),
        ("the Dog sleeps", "sentences", "the zwx Dog sleeps"),
        ("a hotdog on a plate", "sentences", "a zwx dog, a hotdog on a plate"),
        ("a puppy on grass", "sentences", "a zwx dog, a puppy on grass"),
        ("dog, grass, red collar. A dog on grass", "both", "zwx dog, grass, red collar. A dog on grass"),
        ("a dog on grass, red collar", "mixed", "a zwx dog on grass, red collar"),
        ("", "tags", "zwx dog"),
        ("", "sentences", "a zwx dog"),
        ("[trigger] dog, grass", "tags", "zwx dog, grass"),
    ],
)
def test_trigger_of_a_subject(text, style, expected):
    assert place_trigger(text, "zwx", "dog", style) == expected


@pytest.mark.parametrize(
    "text, style, expected",
    [
        ("mountains, sunset", "tags", "zwx style, mountains, sunset"),
        ("mountains at sunset", "mixed", "zwx style, mountains at sunset"),
        ("mountains at sunset.", "sentences", "mountains at sunset, in the zwx style"),
        ("mountains, in the zwx style", "sentences", "mountains, in the zwx style"),
        ("", "sentences", "in the zwx style"),
    ],
)
def test_trigger_of_a_style(text, style, expected):
    assert place_trigger(text, "zwx", None, style, "style") == expected


def test_article_fits_the_trigger():
    assert place_trigger("an owl", "zwx", "owl", "sentences") == "a zwx owl"
    assert place_trigger("a dog", "ohwx", "dog", "sentences") == "an ohwx dog"


@pytest.mark.parametrize(
    "text, word, count",
    [
        ("a cat in a category", "cat", 1),
        ("concatenate", "cat", 0),
        ("bobcat and cat-like and polecat", "cat", 0),
        ("wild_cat", "cat", 1),
        ("Cat, CAT. cat's (cat)", "cat", 4),
        ("ein Bär und Bären", "bär", 1),
        ("cafe\u0301 and caf\u00e9", "caf\u00e9", 2),
        ("zwx  dog and zwx\tdog", "zwx dog", 2),
        ("a c++ mug", "c++", 1),
        ("кот и котик", "Кот", 1),
        ("zwx", "zw", 0),
    ],
)
def test_trigger_is_counted_as_a_whole_word(text, word, count):
    assert count_word(text, word) == count


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a photo of zwx dog in the snow", "a photo of zwx dog in the snow"),
        ("a photo of [trigger] dog", "a photo of zwx dog"),
        ("a photo of {trigger} dog, {trigger}", "a photo of zwx dog"),
        ("[Trigger] and [ trigger ]", "zwx and"),
        ("zwx dog, zwx", "zwx dog"),
        ("zwx dog with zwx toy", "zwx dog with toy"),
        ("red, grass", "zwx dog, red, grass"),
        ("a dog category", "zwx dog, a dog category"),
    ],
)
def test_own_text_keeps_its_trigger_where_it_is(text, expected):
    assert keep_trigger(text, "zwx", "dog", "tags") == expected


def test_changed_trigger_takes_the_place_of_the_former():
    assert keep_trigger("a photo of zwx dog", "ohwx", "dog", "tags", former=("zwx",)) == "a photo of ohwx dog"
    assert keep_trigger("a photo of zwx dog", None, "dog", "tags", former=("zwx",)) == "a photo of dog"
    assert keep_trigger("a zwx dog", "ZWX", "dog", "tags", former=("zwx",)) == "a zwx dog"


def test_without_a_trigger_placeholders_go():
    assert place_trigger("a photo of [trigger] dog", None, "dog", "tags") == "a photo of dog"
    assert keep_trigger("{trigger}, grass", None, None, "tags") == "grass"


PARTS = st.lists(
    st.sampled_from("zwx ZWX zwx's zwx. zwxy a an the dog dogs hotdog owl [trigger] {trigger} in style , . red and über on".split()),
    max_size=12,
)


@given(
    parts=PARTS,
    style=st.sampled_from(["tags", "mixed", "sentences", "both"]),
    teaches=st.sampled_from(["subject", "style"]),
    class_word=st.sampled_from([None, "dog"]),
)
@settings(max_examples=300, deadline=None)
def test_trigger_stands_exactly_once_and_twice_changes_nothing(parts, style, teaches, class_word):
    for place in (place_trigger, keep_trigger):
        once = place(" ".join(parts), "zwx", class_word, style, teaches)
        assert count_word(once, "zwx") == 1, once
        assert place(once, "zwx", class_word, style, teaches) == once
        assert "trigger" not in once


@given(text=st.text(max_size=60), trigger=st.sampled_from(["zwx", "c++", "ohwx person", "Bär", "cat"]))
@settings(max_examples=200, deadline=None)
def test_any_text_takes_the_trigger(text, trigger):
    for place in (place_trigger, keep_trigger):
        for style in ("tags", "sentences"):
            once = place(text, trigger, "dog", style)
            assert count_word(once, trigger) == 1
            assert place(once, trigger, "dog", style) == once


@given(text=st.text(max_size=80))
@settings(max_examples=200, deadline=None)
def test_no_caption_breaks_the_splitter(text):
    for style in ("tags", "mixed", "sentences"):
        assert "\n" not in compose(RawCaption(text, ("a tag",)), style)


@pytest.mark.parametrize(
    "text", ["一只zwx熊坐在草地上", "zwx犬の写真", "zwx_dog, grass", "zwx's ball", "ZWX，草地", "사진 속 zwx가", "(zwx:1.2), toy"]
)
@pytest.mark.parametrize("style", ["tags", "mixed", "sentences", "both"])
def test_a_trigger_at_any_border_is_counted_and_not_placed_again(text, style):
    assert count_word(text, "zwx") == 1
    assert keep_trigger(text, "zwx", "dog", style) == text
    assert count_word(keep_trigger(text, "qqq", "dog", style, former=("zwx",)), "qqq") == 1


@pytest.mark.parametrize("text", ["zwxa", "azwx", "zwx-like", "zwx1", "zwxé"])
def test_a_part_of_a_word_is_no_trigger(text):
    assert count_word(text, "zwx") == 0


@pytest.mark.parametrize(
    ("text", "expected"), [("zwx dog, zwx_dog on grass", "zwx dog, dog on grass"), ("一只zwx熊和zwx熊", "一只zwx熊和熊"), ("a zwx dog. zwx's hat", "a zwx dog. hat")]
)  # fmt: skip
def test_a_second_trigger_goes_with_what_bound_it(text, expected):
    assert keep_trigger(text, "zwx", "dog", "tags") == expected
