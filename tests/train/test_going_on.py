"""A finished training goes on with more steps or more photos from its last state, and says what continues and what does not."""

import json

import pytest
import torch
from click.testing import CliRunner

from lorakit import open_project, pipeline
from lorakit.cli import group
from lorakit.project import runs, stamps
from lorakit.settings import Train
from lorakit.train import checkpoint, going_on, plan
from lorakit.train import optimizer as optim
from lorakit.train.train import train
from tests.conftest import adapter, draw_photo, stop_after

STEADY = {"train.lr_schedule": "constant", "train.steps": 2}


@pytest.mark.slow
def test_with_a_steady_rate_two_steps_and_two_more_are_four(make_dataset, capsys):
    project = make_dataset(**STEADY)
    first = train(project)
    kept = {path.name: path.read_bytes() for path in first.folder.rglob("*") if path.is_file()}
    capsys.readouterr()
    longer = train(open_project(project.folder, settings={"train.steps": 4}, device="cpu"))
    said = capsys.readouterr().err
    assert f"goes on from step 2 of {first.folder.name}: its adapter, optimizer and curve; 2 more steps, to 4" in said
    assert "the learning rate stays 0.0" in said and "--new begins at step 1" in said
    assert longer.folder != first.folder and longer.facts["continues"] == {"run": first.folder.name, "step": 2, "steps": 4}
    assert kept == {path.name: path.read_bytes() for path in first.folder.rglob("*") if path.is_file()}, "nothing of the first is touched"
    assert [entry["step"] for entry in longer.read_metrics()] == [1, 2, 3, 4]

    anew = open_project(project.folder, settings={"train.steps": 4}, device="cpu")
    anew.new_run = True
    at_once = train(anew)
    assert at_once.folder != longer.folder and not at_once.continues
    assert "as --new asks" in capsys.readouterr().err
    wanted, found = adapter(at_once), adapter(longer)
    assert wanted.keys() == found.keys() and all(torch.equal(wanted[key], found[key]) for key in wanted)
    assert train(anew).folder == at_once.folder, "the same words again do nothing"


def test_a_training_that_was_begun_when_chance_was_drawn_by_batch_goes_on_so(copy_of_trained, monkeypatch):
    run = runs.all_runs(copy_of_trained.folder)[-1]
    assert run.facts["chance"] == "by photo"
    for name in ("run.json", "begun.json"):  # as 0.1.0 left them
        facts = json.loads((run.folder / name).read_text(encoding="utf-8"))
        del facts["chance"]
        (run.folder / name).write_text(json.dumps(facts), encoding="utf-8")
    stop_after(run, step=2)
    seen = []
    monkeypatch.setattr("lorakit.train.train.put_together", lambda project, views, steps, by_photo: seen.append(by_photo) or 1 / 0)
    for settings in ({}, {"train.seed": 7}):  # that one, and a new one
        with pytest.raises(ZeroDivisionError):
            train(open_project(copy_of_trained.folder, settings=settings, device="cpu"))
    assert seen == [False, True]


@pytest.mark.slow
def test_photos_that_came_later_get_the_steps_that_the_others_had(make_dataset, photo_folder, capsys):
    project = make_dataset(**{"train.steps": 6})
    first = train(project)
    draw_photo(30).save(photo_folder / "photo_7.jpg")
    draw_photo(31).save(photo_folder / "photo_8.jpg")
    for name in ("photo_7", "photo_8"):
        (photo_folder / f"{name}.txt").write_text(f"a mug, {name}")
    again = open_project(project.folder, device="cpu")
    pipeline.walk(again, last="dataset")
    capsys.readouterr()
    run = train(again)
    said = capsys.readouterr().err
    assert run.continues == {"run": first.folder.name, "step": 6, "steps": 8}
    assert "2 photos are new (photo_7.jpg, photo_8.jpg); no steps were left" in said
    assert "the cosine schedule begins anew for these steps, from 0.0" in said
    peak = project.settings.train.learning_rate
    assert [entry["rate"] for entry in run.read_metrics()][-2:] == [pytest.approx(peak), pytest.approx(peak / 2)]

    # killed on its way it goes on with the same plan, and says where from; with run.json torn too
    stop_after(run, 6)
    (run.folder / "run.json").write_text('{"stamp')
    again = open_project(project.folder, device="cpu")
    assert train(again).folder == run.folder and adapter(run)
    assert checkpoint.all_steps(run)[-1] == 8 and runs.Run(run.folder).continues["step"] == 6


@pytest.mark.parametrize(
    ("settings", "text", "why"),
    [
        ({"train.steps": 6, "train.rank": 2}, None, "train.rank 4 -> 2, train.steps 4 -> 6"),
        ({"train.steps": 6}, "a zwx mug", "train.steps 4 -> 6, 1 photos are gone or have other texts"),
        ({"train.steps": 3}, None, "train.steps 4 -> 3"),
    ],
)
def test_what_means_a_new_run_is_said_and_how_to_begin_with_what_was_learned(copy_of_trained, capsys, settings, text, why):
    project = open_project(copy_of_trained.folder, settings=settings, device="cpu")
    if text:
        project.manifest.keep({**project.manifest.selected[0], "text": text})
    run = going_on.start(project, stamps.train(project), project.manifest.selected)
    going_on.say_where_it_begins(project, run)
    said = capsys.readouterr().err
    assert not run.continues and not run.saved_steps
    assert sorted(why.split(", ")) == sorted(said.split("(")[1].split(")")[0].split(", "))
    assert said.count("zwx_object_tiny-random.safetensors") == said.count("--from-lora") == 1


def test_a_damaged_last_checkpoint_is_passed_over(copy_of_trained, capsys):
    run = runs.all_runs(copy_of_trained.folder)[0]
    (checkpoint.folder_of(run, 4) / "optimizer.pt").write_bytes(b"torn")
    project = open_project(copy_of_trained.folder, settings={"train.steps": 6}, device="cpu")
    found = going_on.find(project, stamps.taught(project), 4)
    assert found and found[1:] == (2, 6) and "step 4 is damaged" in capsys.readouterr().err


def test_a_run_that_noted_not_what_it_taught_goes_on_with_more_steps(copy_of_trained):
    run = runs.all_runs(copy_of_trained.folder)[0]
    del run.facts["taught"]  # as lorakit 0.1.0 left it
    run.finish("note", "none")
    project = open_project(copy_of_trained.folder, settings={"train.steps": 5}, device="cpu")
    found = going_on.find(project, stamps.taught(project), 4)
    assert found and found[1:] == (4, 5)
    assert plan.steps_of(project, project.manifest.selected)["goes_on_from"] == {"run": run.folder.name, "step": 4}


def test_the_rate_of_what_goes_on_begins_anew():
    settings = Train(lr_schedule="cosine", warmup_steps=2)
    assert [optim.lr_at(step, 30, settings, begun=20) for step in (20, 21, 22)] == [optim.lr_at(step, 10, settings) for step in (0, 1, 2)]


@pytest.mark.slow
def test_new_is_for_a_training_that_could_go_on(copy_of_trained):
    words = ["train", str(copy_of_trained.folder), "--device", "cpu", "--until", "train"]
    assert CliRunner().invoke(group, [*words, "--set", "train.steps=5"]).exit_code == 0
    assert CliRunner().invoke(group, [*words, "--new"]).exit_code == 0
    last, before = (run for run in reversed(runs.all_runs(copy_of_trained.folder)[1:]))
    assert before.continues["step"] == 4 and not last.continues and last.facts["stamp"] == before.facts["stamp"]
