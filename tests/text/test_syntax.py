"""Syntax of prompting tools in captions: found, and taken out where asked."""

import pytest

from lorakit.text import rules
from lorakit.text.syntax import find_syntax, strip_syntax
from lorakit.text.words import split_tags


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("(zwx:1.2), toy, (red collar:1.3), grass", "zwx, toy, red collar, grass"),
        ("{red|blue} collar, toy, <lora:foo:0.8>", "red collar, toy"),
        ("a dog BREAK a cat", "a dog, a cat"),
        ("zwx, dog ||| grass, sun", "zwx, dog, grass, sun"),
        ("[dog:cat:0.5] on grass", "dog on grass"),
        ("[a|b] x", "a x"),
        ("((masterpiece)), best", "masterpiece, best"),
        (r"ganyu \(genshin impact\), smile", "ganyu (genshin impact), smile"),
        ("__color__ dress", "dress"),
        ("(red (blue:1.2):1.3) x", "red blue x"),
        ("{2$$red|blue} hat", "red hat"),
        ("embedding:foo, dog", "foo, dog"),
    ],
)
def test_syntax_is_found_and_stripped(text, plain):
    assert find_syntax(text) and strip_syntax(text) == plain
    assert find_syntax(strip_syntax(text)) is None
    assert rules.apply(text, ("strip: syntax",), "sentences") == plain


@pytest.mark.parametrize(
    "text", ["bear (black, white), sofa", "at (10:30), 16:9", "^_^, :<, >_<, a (b", "a break in (5) [sic]", "long_hair, wild_cat"]
)
def test_plain_brackets_and_faces_are_none(text):
    assert find_syntax(text) is None and strip_syntax(text) == text


def test_brackets_stay_whole_when_tags_are_cut():
    assert split_tags("toy, bear (black, white), (a, b:1.2), sofa") == ["toy", "bear (black, white)", "(a, b:1.2)", "sofa"]
    assert split_tags("a :<, b") == ["a :<", "b"]
    assert rules.apply("toy, bear (black, white), sofa", ("remove: sofa",), "tags") == "toy, bear (black, white)"


@pytest.mark.parametrize("words", [("red",), ("red", "blue")])
@pytest.mark.parametrize("style", ["tags", "sentences"])
def test_rules_leave_no_empty_alternatives(words, style):
    text = rules.apply("{red|blue} collar, toy", tuple(f"remove: {word}" for word in words), style)
    assert "{" not in text and "|" not in text and text.endswith("collar, toy")
