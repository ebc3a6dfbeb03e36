"""The training loop: resumed equals uninterrupted, every photo is visited, and faults are named."""

import re

import pytest
import torch

import lorakit
from lorakit import open_project
from lorakit.errors import LorakitError
from lorakit.project import runs
from lorakit.train import checkpoint
from lorakit.train.train import train
from tests.conftest import adapter, stop_after

SEVERAL_A_STEP = {"train.batch_size": 2, "train.gradient_accumulation": 2, "train.warmup_steps": 3, "train.optimizer": "adafactor"}


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, pytest.param(SEVERAL_A_STEP, marks=pytest.mark.slow)])
def test_resumed_training_equals_the_uninterrupted_one_bit_for_bit(make_dataset, settings):
    project = make_dataset(**settings)
    whole = train(project)
    wanted, metrics = adapter(whole), [{**entry, "seconds": 0, "split": 0} for entry in whole.read_metrics()]
    stop_after(whole, step=2)

    again = train(open_project(project.folder, device="cpu"))
    assert again.folder == whole.folder
    found = adapter(again)
    assert wanted.keys() == found.keys() and all(torch.equal(wanted[key], found[key]) for key in wanted)
    assert [{**entry, "seconds": 0, "split": 0} for entry in again.read_metrics()] == metrics


@pytest.mark.slow
def test_same_settings_train_the_same_tensors_and_another_seed_others(make_dataset):
    one, two = (adapter(train(make_dataset(name, **{"train.steps": 2}))) for name in ("one", "two"))
    other = adapter(train(make_dataset("three", **{"train.steps": 2, "train.seed": 7})))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
def test_training_lowers_the_loss_of_one_photo_and_changes_every_module(make_dataset):
    project = make_dataset(**{"train.steps": 40, "train.learning_rate": 1e-2, "select.count": 1, "select.everything": False})
    run = train(project)
    losses = [entry["loss"] for entry in run.read_metrics()]
    assert sum(losses[-15:]) < 0.97 * sum(losses[:15])
    still = {key for key, tensor in adapter(run).items() if not tensor.any()}
    # the innermost latents are one pixel here, and attention to one's only self has no gradient for query and key
    assert all(re.search(r"attn1\.to_[qk]\.lora_B", key) for key in still)


@pytest.mark.slow
def test_every_photo_is_visited_equally_and_counted(make_dataset):
    project = make_dataset(**{"train.steps": 12})
    visits = train(project).facts["result"]["visits"]
    assert visits == dict.fromkeys((r["file"] for r in project.manifest.selected), 2)


def test_steps_follow_the_kind_rule_unless_they_are_given(make_project):
    rule = {"train.steps": None, "train.steps_per_photo": 10, "train.min_steps": 50, "train.max_steps": 200}
    project = make_project(**rule)
    assert [project.settings.train.planned_steps(photos) for photos in (1, 6, 1000)] == [50, 60, 200]
    assert make_project("other", **{**rule, "train.steps": 7}).settings.train.planned_steps(1000) == 7


def test_a_loss_that_is_no_number_names_the_step_the_photos_and_the_kept_checkpoint(make_dataset):
    project = make_dataset(**{"train.learning_rate": 1e30, "train.checkpoint_every": 1})
    with pytest.raises(LorakitError, match=r"no longer a number at step \d \(photos: photo_\d.jpg\); the checkpoint of step \d is kept"):
        train(project)
    run = runs.all_runs(project.folder)[-1]
    assert "train" not in run.facts["done"]
    assert all(tensor.isfinite().all() for tensor in adapter(run).values())


def test_old_checkpoints_are_removed(make_dataset):
    run = train(make_dataset(**{"train.checkpoint_every": 1, "train.keep_checkpoints": 2}))
    assert checkpoint.all_steps(run) == [5, 6]


def test_a_text_without_the_trigger_is_refused_before_training(make_dataset):
    project = make_dataset()
    record = project.manifest.selected[0]
    project.manifest.keep({**record, "text": "a mug on a table"})
    with pytest.raises(LorakitError, match="'zwx' does not stand once in its text"):
        train(project)


def test_settings_that_change_nothing_of_the_result_find_the_same_run(make_dataset):
    project = make_dataset(**{"train.steps": 2})
    run = train(project)
    again = open_project(project.folder, settings={"train.gradient_checkpointing": True, "train.checkpoint_every": 1}, device="cpu")
    assert lorakit.train(again).folder == run.folder
    assert len(runs.all_runs(project.folder)) == 1


@pytest.mark.slow
def test_gradient_checkpointing_trains_the_same(make_dataset):
    plain = adapter(train(make_dataset("plain", **{"train.steps": 2})))
    saving = adapter(train(make_dataset("saving", **{"train.steps": 2, "train.gradient_checkpointing": True})))
    assert all(torch.allclose(plain[key], saving[key], rtol=1e-4, atol=1e-6) for key in plain)


def test_a_changed_setting_that_means_a_new_run_is_said(make_dataset, capsys):
    project = make_dataset(**{"train.steps": 1})
    first = train(project)
    assert "new run" not in capsys.readouterr().err
    again = train(open_project(project.folder, settings={"train.steps": 2, "train.seed": 7}))
    assert again.folder != first.folder
    assert f"a new run from step 1, since {first.folder.name} (train.steps 1 -> 2, train.seed 42 -> 7)" in capsys.readouterr().err
