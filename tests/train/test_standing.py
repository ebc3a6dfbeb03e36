"""What is turned on for a card's memory: chosen before anything is loaded, one more where it runs out, kept for the resume."""

import json

import pytest
import torch

from lorakit import open_project, pipeline
from lorakit.device import is_out_of_memory
from lorakit.errors import LorakitError
from lorakit.project import runs
from lorakit.train import optimizer as optim
from lorakit.train import rungs, standing
from lorakit.train.loss import BatchLoss
from lorakit.train.standing import Standing, next_rung
from lorakit.train.train import train
from tests.conftest import adapter

SMALL = {
    "train.steps": 3, "train.checkpoint_every": 1, "train.rank": 8, "train.targets": "attention", "train.include": "mid_block", "train.ema": 0.9,
    "select.count": 3, "select.everything": False,
}  # fmt: skip
SAME_NUMBERS = {**SMALL, "train.base_precision": "bf16", "train.optimizer": "adamw"}  # what is left to the machine changes no bit


def lines_of(run):
    return [{**entry, "seconds": 0, "split": 0} for entry in run.read_metrics()]


@pytest.mark.slow
def test_a_training_that_runs_out_of_memory_goes_on_with_the_same_numbers(make_dataset, monkeypatch, capsys):
    """Once in a batch, where it goes on from the same step, and once in an update, where it goes on from the checkpoint."""
    wanted = train(make_dataset("wanted", **SAME_NUMBERS, **{"train.gradient_checkpointing": "on"}))
    usual_loss, usual_update, updates = BatchLoss.loss_of, optim.update_where, []

    def loss(self, drawn):
        if drawn.number == 1 and not self.settings.checkpoints_gradients:
            torch.empty(1 << 60, dtype=torch.uint8)
        return usual_loss(self, drawn)

    def update(optimizer, parameters, is_finite):
        updates.append(len(parameters))
        if len(updates) == 3:
            parameters[0].data.fill_(7)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        usual_update(optimizer, parameters, is_finite)

    monkeypatch.setattr(BatchLoss, "loss_of", loss)
    monkeypatch.setattr(optim, "update_where", update)
    capsys.readouterr()
    project = make_dataset("found", **SAME_NUMBERS)
    found = train(project)
    said = capsys.readouterr().err
    assert "not enough at step 2; turned on train.gradient_checkpointing=on" in said and "the same step with the same numbers" in said
    assert "not enough at step 3; turned on train.swap_blocks=4" in said and "goes on after step 2" in said
    assert found.rungs == {"train.gradient_checkpointing": "on", "train.swap_blocks": 4} and len(updates) == 4
    one, other = adapter(wanted), adapter(found)
    assert any(tensor.any() for tensor in one.values()) and all(torch.equal(one[key], other[key]) for key in one)
    assert lines_of(found) == lines_of(wanted)

    assert Standing(open_project(project.folder, device="cpu"), found).project.settings.train.swap_blocks == 4
    assert "as this training began: train.gradient_checkpointing=on" in capsys.readouterr().err
    facts = json.loads((found.folder / "run.json").read_text())
    del facts["rungs"]
    (found.folder / "run.json").write_text(json.dumps(facts))
    assert Standing(project, runs.Run(found.folder)).run.rungs == found.rungs  # the checkpoint has them too


def test_a_card_that_is_named_is_chosen_for_before_anything_is_loaded(make_dataset, capsys):
    project = make_dataset(**{**SMALL, "train.steps": 1, "train.targets": "linear"})  # as the card's rows have it: nothing is counted
    base, free = rungs.base_of(project), rungs.free_settings(project)
    asked = project.settings.train
    saved = rungs.need(base, rungs.with_rungs(asked, {"train.gradient_checkpointing": "on"}))
    assert saved.card < rungs.need(base, asked).card and free == {"train.optimizer", "train.swap_blocks"}
    project.vram = saved.card + rungs.CONTEXT + 1e-6
    run = train(project)
    assert run.rungs == {"train.gradient_checkpointing": "on"}
    said = capsys.readouterr().err
    assert "turned on train.gradient_checkpointing=on" in said and "predicted" in said
    assert said.index("turned on") < said.index("done: 1 steps")
    assert project.settings.train.gradient_checkpointing == "auto"


def test_a_card_that_is_too_small_is_told_before_the_walk_with_what_would_fit(make_project):
    fixed = {"train.gradient_checkpointing": "off", "train.base_precision": "bf16", "train.optimizer": "adamw", "train.swap_blocks": 0}
    project = make_project(**{**fixed, "train.rank": 64, "train.include": "mid_block"})
    project.vram = rungs.need(rungs.base_of(project), project.settings.train).card + rungs.CONTEXT - 1e-4
    with pytest.raises(
        LorakitError, match=r"set by hand: train.gradient_checkpointing=off.*what would fit.*train.rank=\d+; or train.targets=attention"
    ):
        pipeline.walk(project)
    assert not (project.folder / "cache").exists()
    project.vram = None
    found = Standing(project, runs.start(project.folder, "x"))
    with pytest.raises(LorakitError, match=r"not enough at step 4, with all that may be turned on \(nothing: all is set by hand\)"):
        found.step_down(3, resumed=False)


def test_rungs_are_climbed_in_the_order_of_the_ladder(make_project):
    project = make_project()
    base, free, on = rungs.base_of(project), rungs.free_settings(project), {}
    climbed = []
    while found := next_rung(base, project.settings.train, on, free, "cuda"):
        on[found[0]] = found[1]
        climbed.append(f"{found[0].removeprefix('train.')}={found[1]}")
    blocks = len(base.blocks("bf16"))
    assert climbed[:4] == ["gradient_checkpointing=on", "base_precision=fp8", "base_precision=nf4", "optimizer=adamw8bit"]
    assert climbed[4:] == [f"swap_blocks={n}" for n in (blocks // 4, blocks // 4 * 2, blocks // 4 * 3, blocks)]
    assert next_rung(base, project.settings.train, {"train.base_precision": "nf4"}, free, "cuda")[0] == "train.gradient_checkpointing"
    assert "base_precision" not in str(next_rung(base, project.settings.train, {"train.gradient_checkpointing": "on"}, free, "mps"))


def test_what_means_that_memory_is_out():
    with pytest.raises(RuntimeError) as real:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(real.value) and is_out_of_memory(torch.OutOfMemoryError("x")) and is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in ..."))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_on_a_cpu_nothing_is_chosen_unless_a_card_is_named(make_project):
    assert standing.look(make_project()) is None
