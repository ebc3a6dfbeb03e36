"""Rules over the words of a set: whole words, safe for trigger and class word, sentences left whole."""

import pytest

from lorakit.errors import LorakitError, UnknownName
from lorakit.text import rules

SENTENCE = "a zwx dog sitting on a couch with a red blanket and a hat next to a chat bubble"


@pytest.mark.parametrize(
    "rule, style, before, after",
    [
        ("replace: cat => kitten", "tags", "zwx, cat, category", "zwx, kitten, category"),
        ("replace: couch => red sofa", "sentences", "a dog on a couch", "a dog on a red sofa"),
        ("replace: dog => zwx dog", "tags", "a, b", "a, b"),
        ("replace: blue => red", "tags", "red hat, blue hat, tree", "red hat, tree"),
        (r"regex: (\d+) cats => \1 kittens", "tags", "3 cats, 4 cats", "3 kittens, 4 kittens"),
        ("remove: red blanket", "tags", "dog, red blanket, old red blanket", "dog, old"),
        ("remove: red blanket", "sentences", SENTENCE, "a zwx dog sitting on a couch and a hat next to a chat bubble"),
        ("remove: hat", "sentences", SENTENCE, "a zwx dog sitting on a couch with a red blanket next to a chat bubble"),
        ("remove: dog", "sentences", "a dog on grass", "a dog on grass"),
        ("remove: zwx", "tags", "zwx dog, grass", "zwx dog, grass"),
        ("drop: blanket", "tags", "dog, red blanket, grass", "dog, grass"),
        ("drop: blanket", "sentences", "a dog with a red blanket on grass", "a dog on grass"),
        ("drop: dog", "tags", "zwx dog, brown dog, grass", "zwx dog, brown dog, grass"),
        ("drop: hat", "tags", "chat bubble, hat", "chat bubble"),
        ("add: studio photo", "tags", "dog", "dog, studio photo"),
        ("add: dog", "tags", "brown dog", "brown dog"),
    ],
)
def test_rule(rule, style, before, after):
    once = rules.apply(before, (rule,), style, ("zwx", "dog"))
    assert once == after
    assert rules.apply(once, (rule,), style, ("zwx", "dog")) == after or rule.startswith("replace: couch")


def test_order_of_what_is_left_stays():
    assert rules.apply("c, b, a, B, c", ("replace: a => b",), "tags") == "c, b"


@pytest.mark.parametrize(
    "rule",
    ["", "cat", "swap: a => b", "replace: cat", "replace:  => b", "regex: ( => b", r"regex: (a) => \2", "remove:"],
)
def test_rule_that_cannot_be_read_is_one_line(rule):
    with pytest.raises(LorakitError, match="caption.rules") as caught:
        rules.check(rule)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "families, style, before, after",
    [
        (("hair",), "sentences", "a blonde woman with a ponytail in a red dress", "a woman in a red dress"),
        (("hair", "eyes"), "sentences", "a girl with long blonde hair and blue eyes, smiling", "a girl, smiling"),
        (("hair",), "tags", "woman, long hair, red dress, chair", "woman, red dress, chair"),
        (("medium", "style"), "tags", "ship, storm, oil painting", "ship, storm"),
        (("eyes",), "tags", "blue-eyed cat, eyeliner", "eyeliner"),
        (("clothes",), "sentences", "a bear wearing a red scarf on a bench", "a bear on a bench"),
    ],
)
def test_families_are_left_unsaid(families, style, before, after):
    assert rules.drop_words(before, rules.family_words(families, "test"), style) == after


@pytest.mark.parametrize(
    "style, before, after",
    [
        ("sentences", "a red mug on a red cloth", "a mug on a red cloth"),
        ("sentences", "an orange and blue striped mug", "a mug"),
        ("sentences", "a shiny old mug next to a black cat", "an old mug next to a black cat"),
        ("sentences", "a table with a red mug on a white plate", "a table with a mug on a white plate"),
        ("tags", "red mug, red cloth, wooden table", "mug, red cloth, wooden table"),
    ],
)
def test_what_describes_the_thing_itself_is_left_unsaid(style, before, after):
    words = rules.family_words(("colour", "pattern"), "test")
    assert rules.drop_words(before, words, style, ("zwx", "mug"), of_thing=True) == after


def test_unknown_family_names_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'clothes'"):
        rules.family_words(("cloths",), "caption.omit")


def test_every_family_is_a_list_of_plain_words():
    for name, words in rules.word_groups().items():
        assert len(words) > 4, name
        assert all(word == word.lower() and " " not in word for word in words)


def test_invariants_are_what_nearly_every_text_says():
    texts = [f"zwx dog, red scarf, {thing}" for thing in ("grass", "couch", "snow", "beach", "car")]
    assert rules.invariants(texts, ("zwx", "dog")) == [("red scarf", 5)]
    assert rules.invariants(texts, ("zwx", "dog"), describe=("clothes",)) == []
    assert rules.invariants([*texts, "zwx dog, tree"], ("zwx", "dog")) == [("red scarf", 5)]
    assert rules.invariants([*texts, "zwx dog, tree", "zwx dog, sea"], ("zwx", "dog")) == []
    assert rules.invariants(texts[:4], ("zwx", "dog")) == [], "too few texts to tell"


def test_invariants_of_sentences():
    texts = [f"a zwx dog with a red scarf on {place}" for place in ("grass", "a couch", "snow", "a beach", "a road")]
    assert rules.invariants(texts, ("zwx", "dog")) == [("red scarf", 5)]
    assert rules.apply(texts[1], ("remove: red scarf",), "sentences", ("zwx", "dog")) == "a zwx dog on a couch"


def test_frequencies_count_texts_not_words():
    assert rules.frequencies(["fox, bee, Fox", "fox", "cow"]) == [("fox", 2), ("bee", 1), ("cow", 1)]


def test_colours_of_the_whole_picture_are_none_of_the_thing():
    for style in ("both", "sentences", "mixed"):
        assert rules.drop_words("green tones", frozenset({"green"}), style, of_thing=True) == "green tones"
        assert rules.drop_words("a green robot in green light", frozenset({"green"}), style, of_thing=True) == "a robot in green light"
