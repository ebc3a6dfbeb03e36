"""Settings: layers, strict keys, types and ranges."""

import pickle

import pytest

from lorakit import settings
from lorakit.errors import LorakitError, UnknownName


def test_later_layers_win_and_are_remembered():
    resolved = settings.resolve([("base x", {"train": {"rank": 8}}), ("project.yaml", {"train.rank": 16, "select.count": 5})])
    assert (resolved.train.rank, resolved.select.count) == (16, 5)
    assert resolved.origin["train.rank"] == "project.yaml"
    assert resolved.origin["train.alpha"] == "default"


def test_sections_of_checks_come_from_their_files():
    resolved = settings.resolve([("x", {"check.size.min_side": 300})])
    assert resolved.check.size.min_side == 300
    assert "check.sharpness.min_sharpness" in resolved.flat()


def test_settings_go_to_another_process_whole():
    given = {"check.size.min_side": 300, "caption.wd_tagger.thresholds": {"general": 0.4}, "train.rank": 8}
    resolved = settings.resolve([("x", given)])
    again = pickle.loads(pickle.dumps(resolved))
    assert again == resolved and type(again.check) is type(resolved.check) and again.check.size.min_side == 300


def test_unknown_key_names_the_nearest_and_the_place():
    with pytest.raises(UnknownName, match=r"project\.yaml: no setting is called 'train\.rnak'; did you mean 'train\.rank'"):
        settings.resolve([("project.yaml", {"train.rnak": 8})])


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("train.learning_rate=1e-4", 1e-4),  # which YAML alone reads as text
        ("train.rank=8", 8),
        ("train.steps=", None),
        ("check.damaged.reject_warned=true", True),
        ("sample.prompts=[a cat, a dog]", ("a cat", "a dog")),
        ("trigger.word=zwx", "zwx"),
    ],
)
def test_set_words_are_read_by_type(word, value):
    assert list(settings.parse_assignments([word]).values()) == [value]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("train.rank", "write it as key=value"),
        ("train.rank=eight", "not a whole number"),
        ("train.rank=2.5", "not a whole number"),
        ("train.rank=0", "at least 1"),
        ("train.rank=true", "not a whole number"),
        ("train.learning_rate=[1]", "not a number"),
        ("train.lr_schedule=cosin", "choose one of cosine, constant"),
        ("dedupe.distance=999", "at most 116"),
    ],
)
def test_bad_values_are_refused_in_words(word, message):
    with pytest.raises(LorakitError, match=message):
        settings.parse_assignments([word])


def test_every_setting_has_a_help_sentence():
    assert all(field.metadata["help"] for field, _ in settings.known_keys().values())
