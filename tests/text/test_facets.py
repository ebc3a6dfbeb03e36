"""Facets: short lists of our own, how they join a reading, and which words they contradict."""

import pytest

from lorakit.text import facets
from lorakit.text.composing import RawCaption, compose

SEEN = {"medium": ["oil painting", 0.95], "framing": ["", 0.8], "light": ["soft light", 0.7], "setting": ["outdoors", 0.97]}


def test_every_family_has_one_option_that_is_not_said_and_each_says_how_it_is_seen():
    assert set(facets.attributes()) == set(facets.SPEAKS_OF)
    for family, options in facets.attributes().items():
        assert [o.tag for o in options].count("") == 1, family
        assert len({o.tag for o in options}) == len(options) > 4
        assert all(o.seen and all(isinstance(phrase, str) for phrase in o.seen) for o in options)
        assert all(not (o.rules_out & set(o.tag.split())) for o in options), "no facet rules itself out"


@pytest.mark.parametrize(
    "sentence, tags, style, text",
    [
        ("a dog on a rug", (), "tags", "dog, rug, outdoors, soft light, oil painting"),
        ("a dog on a rug", (), "mixed", "a dog on a rug, outdoors, soft light, oil painting"),
        ("a dog on a rug", (), "sentences", "a dog on a rug"),
        ("a dog at night", (), "tags", "dog, outdoors, night, oil painting"),
        ("a dog in a kitchen", (), "tags", "dog, kitchen, soft light, oil painting"),
        ("a sketch of a dog", (), "tags", "dog, outdoors, soft light, sketch"),
        ("", ("dog",), "sentences", "a dog in soft light, outdoors, oil painting"),
    ],
)
def test_facets_are_said_where_the_reading_has_not_spoken_of_them(sentence, tags, style, text):
    made = compose(facets.joined(RawCaption(sentence, tags), SEEN, 0.6), style)
    assert sorted(made.split(", ")) == sorted(text.split(", "))


def test_facets_below_the_limit_and_none_at_all_are_not_said():
    assert facets.joined(RawCaption("a dog"), SEEN, 0.9).tags == ("outdoors", "oil painting")
    assert facets.joined(RawCaption("a dog"), SEEN, 1.01) == facets.joined(RawCaption("a dog"), None, 0.6) == RawCaption("a dog")


def test_words_that_a_sure_facet_rules_out():
    assert list(facets.contradicted("a zwx dog in a kitchen", SEEN)) == [("kitchen", "outdoors")]
    assert list(facets.contradicted("a photograph of a zwx dog on grass", SEEN)) == [("photograph", "oil painting")]
    assert list(facets.contradicted("a zwx dog on grass", SEEN)) == []
    unsure = {"setting": ["outdoors", 0.7]}
    assert list(facets.contradicted("a zwx dog in a kitchen", unsure)) == []
    assert list(facets.contradicted("a zwx dog in a kitchen", {"setting": ["no longer in the list", 0.99]})) == []


SHARES = {"red": 0.0, "orange": 0.3, "yellow": 0.2, "green": 0.0001, "blue": 0.1, "purple": 0.0, "pink": 0.0}


@pytest.mark.parametrize(
    "text, missing",
    [
        ("a zwx mug with a red spoon", ["red"]),
        ("zwx mug, red, green", ["red", "green"]),
        ("a zwx mug on a blue table", []),
        ("a zwx woman with red hair and green eyes", []),
        ("a zwx mug of green tea", []),
        ("a zwx bear in a greenhouse, bored", []),
        ("a RED zwx mug", ["red"]),
    ],
)
def test_colours_that_are_named_and_not_there(text, missing):
    assert [colour for colour, _ in facets.missing_colours(text, SHARES)] == missing
    assert facets.missing_colours(text, None) == []
