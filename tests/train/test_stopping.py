"""A training that is asked to stop: the step is finished, a checkpoint written, and going on ends with the same tensors."""

import signal
import subprocess
import sys
import time

import pytest
import torch

from lorakit import open_project
from lorakit.errors import Stopped
from lorakit.project import runs, work
from lorakit.train.train import train
from tests.conftest import adapter

SETTINGS = {"train.checkpoint_every": 0, "train.steps": 3, "train.ema": 0.9}


@pytest.mark.slow
def test_stop_file_ends_after_the_step_and_going_on_gives_the_same_tensors(make_dataset, monkeypatch):
    wanted = adapter(train(make_dataset("whole", **SETTINGS)))
    project = make_dataset("stopped", **SETTINGS)
    ask_at(monkeypatch, step=2)
    with pytest.raises(Stopped, match="stopped after step 2 of 3, which is kept; the same command goes on from there"):
        train(project)
    run = runs.all_runs(project.folder)[-1]
    assert run.saved_steps == [2] and not (run.folder / "stop").exists() and "train" not in run.facts["done"]
    assert run.facts["planned"] == {"steps": 3, "prompts": run.facts["planned"]["prompts"], "seed": 1234, "sample_every": 0}
    monkeypatch.undo()
    (run.folder / "stop").touch()  # left behind: nobody is at work
    found = adapter(train(open_project(project.folder, device="cpu")))
    assert wanted.keys() == found.keys() and all(torch.equal(wanted[key], found[key]) for key in wanted)
    assert not (run.folder / "stop").exists()


def ask_at(monkeypatch, step: int) -> None:
    """Somebody puts the file there while this step is at work."""
    from lorakit.train.loss import BatchLoss

    usual = BatchLoss.loss_of

    def loss(self, drawn):
        if drawn.number == step - 1:
            (runs.all_runs(self.project.folder)[-1].folder / "stop").touch()
        return usual(self, drawn)

    monkeypatch.setattr(BatchLoss, "loss_of", loss)


@pytest.mark.slow
def test_first_ctrl_c_writes_a_checkpoint_and_leaves_with_130(make_dataset):
    settings = {"train.checkpoint_every": 0, "train.steps": 10}
    wanted = adapter(train(make_dataset("whole", **settings)))
    project = make_dataset("stopped", **settings)
    words = [sys.executable, "-m", "lorakit", "train", str(project.folder), "--until", "train", "--device", "cpu"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    while not (run := next(iter(runs.all_runs(project.folder)), None)) or len(run.read_metrics()) < 2:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    at_work = work.find(project.folder)
    assert (at_work["pid"], at_work["verb"], at_work["stage"]) == (process.pid, "train", "train")
    process.send_signal(signal.SIGINT)
    errors = process.communicate()[1]
    assert process.returncode == 130 and "Traceback" not in errors and "error:" not in errors
    (stopped,) = run.saved_steps
    assert 2 <= stopped < 10 and errors.splitlines()[-1].startswith(f"train     stopped after step {stopped} of 10")
    assert work.find(project.folder) is None and not (project.folder / ".work.json").exists()
    found = adapter(train(open_project(project.folder, device="cpu")))
    assert all(torch.equal(wanted[key], found[key]) for key in wanted)
