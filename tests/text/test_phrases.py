"""Captions cut into phrases: what is one thing stays together, and nothing of the text is lost on the way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorakit.text import phrases


@pytest.mark.parametrize(
    ("caption", "tags"),
    [
        ("a dog sitting on a couch with a red blanket", ["dog", "sitting on couch", "red blanket"]),
        ("a black and white photo of a dog", ["dog", "black and white photo"]),
        ("A mug stands on a table. The background is blurred.", ["mug", "stands on table", "blurred background"]),
        ("a woman wearing a hat and holding a cup", ["woman", "hat", "holding cup"]),
        ("a building in front of a lake", ["building", "lake"]),
        ("the Eiffel Tower at night", ["Eiffel Tower", "night"]),
        ("a car parked in front of it", ["car", "parked"]),
    ],
)
def test_phrases_as_tags(caption, tags):
    assert [p.tag for p in phrases.split(caption) if p.tag] == tags


@given(st.lists(st.sampled_from("a the dog mug red sitting on with and . , of in front is blurred photo it".split()), max_size=14))
def test_the_raw_phrases_are_the_caption_again(words):
    caption = " ".join(words).strip()
    assert "".join("".join(p.raw for p in phrases.split(caption)).split()) == "".join(caption.split())


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("a dog on a rug. It looks at the", "a dog on a rug."),
        ("a dog on a rug with a", "a dog on a rug"),
        ("a dog", "a dog"),
    ],
)
def test_a_text_that_was_stopped_ends_where_its_last_phrase_does(text, whole):
    assert phrases.without_loose_end(text) == whole


def test_what_a_dropped_neighbour_leaves_is_taken_away():
    found = phrases.split("a dog on a rug, with a ball and a bone.")
    assert phrases.joined([p for p in found if "rug" not in p.raw]) == "a dog, with a ball and a bone."
    assert phrases.joined([]) == ""
