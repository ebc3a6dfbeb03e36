"""Readings of a text: orders and left-out tags, never without the trigger, each with its own cached embeddings."""

from hypothesis import given
from hypothesis import strategies as some

from lorakit.settings import Train
from lorakit.train.cache import cache, text_path, text_variants
from lorakit.train.caption_variants import variants

TAGS = some.lists(some.sampled_from(["red", "on a table", "side view", "zwx", "night"]), min_size=1, max_size=6, unique=True)


def test_a_text_is_itself_where_nothing_is_shuffled():
    assert variants("a, b", "zwx", Train()) == ("a, b",)


@given(TAGS, some.integers(0, 3))
def test_shuffled_readings_have_all_tags_and_the_kept_ones_first(tags, keep):
    for reading in variants(", ".join(tags), "zwx", Train(shuffle_tags=True, keep_tags=keep, caption_variants=3)):
        assert sorted(reading.split(", ")) == sorted(tags) and reading.split(", ")[:keep] == tags[:keep]


@given(TAGS)
def test_dropping_all_leaves_the_kept_tags_and_the_trigger_in_order(tags):
    wanted = [tag for n, tag in enumerate(tags) if n < 1 or tag == "zwx"]
    assert variants(", ".join(tags), "zwx", Train(tag_dropout=1.0, caption_variants=1)) == (", ".join(wanted),)


def test_readings_differ_and_each_is_cached(make_dataset):
    project = make_dataset(**{"train.shuffle_tags": True, "train.caption_variants": 4})
    record = {**project.manifest.selected[0], "text": "zwx mug, red, on a table, night, blue"}
    project.manifest.keep(record)
    cache(project)
    found = text_variants(project, record)
    assert len(found) == 4 and len(set(found)) > 1
    assert all(text_path(project, text).is_file() for text in found)
