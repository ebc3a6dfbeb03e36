"""The checkpoint that a person picked is drawn with, exported, and never removed."""

import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import load_file

from lorakit import open_project, pipeline
from lorakit.cli import group
from lorakit.errors import LorakitError
from lorakit.project import by_hand, stamps
from lorakit.train import checkpoint
from lorakit.train.export import export
from lorakit.train.train import train


def run(*arguments) -> str:
    done = CliRunner().invoke(group, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_picked_checkpoint_is_exported_until_that_is_taken_back(copy_of_trained):
    project = copy_of_trained
    stage_stamps = [getattr(stamps, stage)(project) for stage in ("sample", "export", "report")]
    last = load_file(export(project).lora)
    assert run("pick", project.folder).splitlines() == ["step 2", "step 4"]
    assert "step 2 at strength 0.8; `lorakit train" in run("pick", project.folder, "--step", "2", "--strength", "0.8")
    assert "step 2  picked: step 2 at strength 0.8" in run("pick", project.folder)
    project = open_project(project.folder, device="cpu")
    assert not pipeline.is_run_done(project, "export") and pipeline.is_run_done(project, "train")
    exported = export(project).lora
    picked = load_file(exported)
    assert any(not torch.equal(picked[key], last[key]) for key in last)
    with safe_open(exported, "pt") as file:
        assert file.metadata()["ss_steps"] == "2" and "best at strength 0.8" in file.metadata()["modelspec.usage_hint"]
    by_name = open_project(project.folder, settings={"export.checkpoint": 4}, device="cpu")
    assert stamps.exported_step(by_name) == 2, "a person's word wins"
    by_hand.undo(by_name)
    assert stamps.exported_step(by_name) == 4
    again = open_project(project.folder, settings={"export.checkpoint": None}, device="cpu")
    assert [getattr(stamps, stage)(again) for stage in ("sample", "export", "report")] == stage_stamps
    assert all(torch.equal(tensor, last[key]) for key, tensor in load_file(export(again).lora).items())


def test_setting_names_the_checkpoint_too(copy_of_trained):
    last = load_file(export(copy_of_trained).lora)
    project = open_project(copy_of_trained.folder, settings={"export.checkpoint": 2}, device="cpu")
    assert any(not torch.equal(tensor, last[key]) for key, tensor in load_file(export(project).lora).items())
    project = open_project(copy_of_trained.folder, settings={"export.checkpoint": 3}, device="cpu")
    with pytest.raises(LorakitError, match=r"no checkpoint of step 3 is kept.*there are 2, 4: --set export.checkpoint=N"):
        export(project)


def test_a_step_without_checkpoint_cannot_be_picked(copy_of_trained):
    with pytest.raises(LorakitError, match="no checkpoint of step 3; there are: 2, 4"):
        by_hand.pick(copy_of_trained, 3)


def test_picked_checkpoint_is_spared(make_dataset, monkeypatch):
    """Somebody picks step 2 while step 3 is trained; with two kept, step 2 would go with step 4."""
    project = make_dataset(**{"train.steps": 5, "train.checkpoint_every": 1, "train.keep_checkpoints": 2})
    usual = checkpoint.save_checkpoint

    def save(made, step, *rest):
        if step == 3:
            by_hand.pick(open_project(project.folder, device="cpu"), 2)
        usual(made, step, *rest)

    monkeypatch.setattr(checkpoint, "save_checkpoint", save)
    made = train(project)
    assert made.saved_steps == [2, 4, 5]
    project.take_decisions()
    assert stamps.exported_step(project) == 2


@pytest.mark.parametrize("strength", ["nan", "inf", "1e9"])
def test_a_strength_that_is_none_is_refused(make_project, strength):
    from lorakit.errors import LorakitError
    from lorakit.project import by_hand

    with pytest.raises(LorakitError, match="is no strength of a LoRA"):
        by_hand.pick(make_project(), 1, float(strength))
