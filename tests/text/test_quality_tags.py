"""Tags of quality: in front or behind, once, and none that speaks against what a text says."""

import pytest

from lorakit.errors import LorakitError
from lorakit.settings import Train, resolve
from lorakit.text.composing import RawCaption, compose
from lorakit.text.quality_tags import with_quality
from lorakit.train.caption_variants import variants

PONY, NOOB = ("score_9", "score_8_up"), ("masterpiece", "best quality")


@pytest.mark.parametrize(
    ("text", "lead", "behind", "style", "wanted"),
    [
        ("zwx, 1girl", PONY, (), "tags", "score_9, score_8_up, zwx, 1girl"),
        ("zwx, 1girl", (), NOOB, "tags", "zwx, 1girl, masterpiece, best quality"),
        ("Score 9, zwx", PONY, (), "tags", "score_8_up, Score 9, zwx"),
        ("zwx, Best_Quality, cat", (), NOOB, "tags", "zwx, Best_Quality, cat, masterpiece"),
        ("zwx, low quality", PONY, (*NOOB, "newest"), "tags", "zwx, low quality, newest"),
        ("a zwx cat. It sleeps", (), NOOB, "sentences", "a zwx cat. It sleeps, masterpiece, best quality"),
        ("zwx, cat. A cat sleeps", ("safe",), NOOB, "both", "safe, zwx, cat, masterpiece, best quality. A cat sleeps"),
        ("", PONY, NOOB[:1], "tags", "score_9, score_8_up, masterpiece"),
        ("zwx", ("masterpiece", "masterpiece"), NOOB[:1], "tags", "masterpiece, zwx"),
        ("zwx, a cat.", (), (), "both", "zwx, a cat."),
    ],
)
def test_each_stands_once_at_its_place(text, lead, behind, style, wanted):
    assert with_quality(text, lead, behind, style) == wanted
    assert with_quality(wanted, lead, behind, style) == wanted


def test_order_of_a_booru_is_that_of_the_tagger():
    reading = RawCaption("a girl in a red dress on grass", ("1girl", "snow white", "grimm", "someone", "smile", "outdoors"))
    assert compose(reading, "tags", "booru").startswith("1girl, snow white, grimm, someone, smile, outdoors, red dress")
    unsorted = RawCaption("", ("smile", "1girl", "solo"))
    assert compose(unsorted, "tags", "booru") == "1girl, solo, smile"
    assert compose(RawCaption("a cat on grass"), "tags", "booru") == compose(RawCaption("a cat on grass"), "tags")


def test_shuffling_leaves_them_and_the_trigger_in_front():
    train = Train(shuffle_tags=True, tag_dropout=0.5, caption_variants=20)
    for reading in variants("score_9, score_8_up, zwx, a, b, c, d", "zwx", train, PONY):
        assert reading.startswith("score_9, score_8_up, zwx")


def test_an_entry_is_one_tag():
    with pytest.raises(LorakitError, match=r"caption\.lead_tags.*one tag"):
        resolve([("here", {"caption.lead_tags": ["score_9, score_8_up"]})])
