"""Trackers hear what metrics.jsonl and the samples' folders have, and change nothing of the training."""

import json
import shutil

import numpy as np
import pytest
import torch
from accelerate import tracking

from lorakit import open_project
from lorakit.errors import LorakitError
from lorakit.train import trackers
from lorakit.train.train import train
from tests.conftest import adapter


class Toy(tracking.GeneralTracker):
    """Keeps what it is told."""

    name, requires_logging_directory, tracker = "toy", True, None
    made: list = []

    def __init__(self, title, folder):
        super().__init__()
        self.told, self.facts, self.pictures, self.ended = [], {}, [], 0
        self.title, self.folder = title, folder
        Toy.made.append(self)

    def store_init_configuration(self, values):
        self.facts = values

    def log(self, values, step=None):
        self.told.append({"step": step, **values})

    def log_images(self, values, step=None):
        self.pictures.append((step, {name: [np.asarray(picture).shape for picture in many] for name, many in values.items()}))

    def finish(self):
        self.ended += 1


class Broken(Toy):
    """Fails at its second step."""

    name = "broken"

    def log(self, values, step=None):
        super().log(values, step)
        if step == 2:
            raise OSError("the server\nis gone")


@pytest.fixture
def toys(monkeypatch):
    monkeypatch.setattr(Toy, "made", [])
    for kind in (Toy, Broken):
        monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, kind.name, kind)
    return Toy.made


@pytest.mark.slow
def test_trackers_are_told_all_and_one_that_fails_is_left_out(copy_of_trained, trained, toys, capsys):
    shutil.rmtree(copy_of_trained.folder / "runs")
    changes = {"train.log_with": ["toy", "broken", "toy"], "train.validate_every": 3}
    run = train(open_project(copy_of_trained.folder, settings=changes, device="cpu"))
    toy, broken = toys
    keys = {"step", *trackers.TOLD}
    lines = [{key: value for key, value in entry.items() if key in keys} for entry in run.read_metrics()]
    assert [entry["step"] for entry in toy.told] == [1, 2, 3, 4] and {"validation", "leak"} <= set(toy.told[2])
    assert [entry.keys() for entry in toy.told] == [line.keys() for line in lines]
    assert all(told[key] == pytest.approx(line[key], rel=1e-2, abs=1e-3) for told, line in zip(toy.told, lines) for key in line)
    assert toy.pictures == [(2, {"sample_0": [(64, 64, 3)], "sample_1": [(64, 64, 3)]})] and toy.ended == 1
    assert (toy.title, toy.folder) == ("copy", str(run.folder))
    assert toy.facts["train.rank"] == 4 and toy.facts["train.weights"] == "tiny-random" and toy.facts["train.steps"] == 4
    assert all(isinstance(value, (bool, int, float, str)) for value in toy.facts.values())

    assert [entry["step"] for entry in broken.told] == [1, 2] and not broken.pictures and not broken.ended
    said = capsys.readouterr().err
    assert said.count("broken has failed (the server is gone); the training goes on without it") == 1
    wanted, found = adapter(train(trained)), adapter(run)
    assert wanted.keys() == found.keys() and all(torch.equal(wanted[key], found[key]) for key in wanted)
    again = train(open_project(copy_of_trained.folder, device="cpu"))
    assert again.folder == run.folder and len(toys) == 2, "the setting asks for no new training"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tensorbord", "train.log_with: no tracker is called 'tensorbord'; did you mean 'tensorboard'"),
        ("aim", "`pip install aim`, or take it out"),
    ],
)
def test_a_tracker_that_is_not_there_is_named_before_the_start(name, words, monkeypatch):
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: [tracking.LoggerType.TENSORBOARD])
    trackers.check(("tensorboard",))
    with pytest.raises(LorakitError, match=words):
        trackers.check((name,))


def test_a_tracker_that_does_not_start_is_left_out(trained, toys, monkeypatch, capsys):
    monkeypatch.setattr(Toy, "start", lambda self: json.loads("{"), raising=False)
    project = open_project(trained.folder, settings={"train.log_with": "toy"}, device="cpu")
    run = train(trained)
    with trackers.listening(project, run) as told:
        told.samples(run.samples / "step_000002", 2)
    assert "toy has failed" in capsys.readouterr().err and not toys[0].pictures and not toys[0].ended
