"""Readings of a text: orders and left-out tags, never without the trigger, each with its own cached embeddings."""

import json

import torch
from hypothesis import given
from hypothesis import strategies as some

from lorakit import open_project, pipeline
from lorakit.caption.review import review
from lorakit.project import stamps
from lorakit.settings import Train
from lorakit.text.words import count_word
from lorakit.train.cache import cache, load_text, text_path, text_variants
from lorakit.train.caption_variants import variants
from lorakit.train.loss import BatchLoss

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


def test_several_captions_of_a_photo_are_readings_each_drawn_and_cached(make_dataset, photo_folder):
    (photo_folder / "photo_0.caption").write_text("A mug stands on a table.")
    project = make_dataset()
    by_name = {r["file"]: r for r in project.manifest.selected}
    before = stamps.train(project)
    assert by_name["photo_0.jpg"]["text"] == "zwx mug, photo_0"
    (reading,) = by_name["photo_0.jpg"]["readings"]
    assert "stands on a table" in reading and count_word(reading, "zwx") == 1
    assert not any(r.get("readings") for name, r in by_name.items() if name != "photo_0.jpg")
    lines = [json.loads(line) for line in (project.dataset_folder / "metadata.jsonl").read_text().splitlines()]
    assert [line["readings"] for line in lines if "readings" in line] == [[reading]]

    (photo_folder / "photo_1.txt").write_text("a mug seen from above\n\nmug, from above\nphoto of my mug on the desk\n")
    project = open_project(project.folder, device="cpu")
    pipeline.walk(project, last="dataset")
    assert stamps.train(project) != before
    record = next(r for r in project.manifest.selected if r["file"] == "photo_1.jpg")
    found = text_variants(project, record)
    assert len(found) == 3 and found[0] == record["text"] and all(count_word(text, "zwx") == 1 for text in found)
    cache(project)
    assert all(text_path(project, text).is_file() for text in found)
    drawn, loss = {*found}, BatchLoss.__new__(BatchLoss)
    loss.project = project
    for number in range(40):
        text = loss._draw_text(record, torch.Generator().manual_seed(number))
        drawn -= {t for t in found if all(torch.equal(text[key], load_text(project, t)[key]) for key in text)}
    assert not drawn, "each of them is drawn"

    review(project, ["photo_1.jpg"], text="zwx itself")
    pipeline.walk(project, last="dataset")
    assert text_variants(project, project.manifest[record["id"]]) == ("zwx itself",)
    first = open_project(project.folder, settings={"caption.several": "first"}, device="cpu")
    pipeline.walk(first, last="dataset")
    assert not any(r.get("readings") for r in first.manifest.selected)
