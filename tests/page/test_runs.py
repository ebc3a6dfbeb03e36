"""The routes of training and results, on a run's folder as the loop leaves it."""

from io import BytesIO

import pytest
from PIL import Image

from lorakit.page.children import Children
from lorakit.project import open_project, work
from tests.page.conftest import PROMPTS, add_run, metrics_line
from tests.page.test_page import Page


@pytest.fixture
def run(curated):
    return add_run(curated)


@pytest.fixture
def page(run, curated):
    return Page(curated)


def test_metrics_are_read_on_from_where_the_last_answer_ended(page, run):
    first = page.get("/runs/0/metrics").json()
    assert first["columns"]["step"] == list(range(1, 41)) and first["run"]["saved"] == [20, 40] and first["run"]["sampled"] == [20]
    with open(run / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(metrics_line(41) + metrics_line(42)[:20])  # the last is being written
    again = page.get("/runs/0/metrics", params={"from": first["next"], "of": first["of"]}).json()
    assert again["columns"]["step"] == [41] and again["from"] == first["next"]
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").write_text(metrics_line(1), encoding="utf-8")  # it went on from an earlier checkpoint
    anew = page.get("/runs/0/metrics", params={"from": again["next"], "of": again["of"]}).json()
    assert anew["from"] == 0 and anew["columns"]["step"] == [1]
    assert page.get("/runs/7/metrics").status_code == 404


def test_where_a_training_stands_is_derived(page, run):
    assert page.get("/runs").json()["standing"] == "stopped"
    assert page.tell("/stop").status_code == 400 and not (run / "stop").exists()
    with work.locked(page.folder, "train") as held:
        held.note_stage("train")
        assert page.get("/runs").json()["standing"] == "training"
        assert page.tell("/train", new=False).status_code == 423  # somebody is at work
        assert page.tell("/stop").status_code == 200 and (run / "stop").is_file()
        assert page.get("/runs").json()["standing"] == "stopping"
    assert page.get("/runs").json()["standing"] == "stopped"


def test_each_photo_has_its_mean_loss_and_visits(page):
    visits = page.get("/visits").json()["visits"]
    assert len(visits) == 6 and sum(count for _, count in visits.values()) == 80
    assert page.get("/runs/0/judgement").json()["advice"]


def test_pictures_and_files_of_a_run_go_by_their_numbers(page):
    found = page.get("/runs/0/results").json()
    assert [prompt["leak"] for prompt in found["prompts"]] == [False, True] and found["grids"][0]["strengths"] == [0.0, 1.0]
    for path in ("step/20/1.jpg", "final/0/base.jpg", "final/1/lora.jpg", "grid/0/1/1.jpg"):
        answer = page.get(f"/runs/0/{path}")
        assert answer.headers["content-type"] == "image/jpeg" and Image.open(BytesIO(answer.content)).size == (64, 64)
    for path in ("step/99/0.jpg", "step/20/9.jpg", "grid/1/0/0.jpg", "final/0/..%2f..%2frun.jpg", "file/9", "file/..%2frun.json"):
        assert page.get(f"/runs/0/{path}").status_code == 404, path
    assert [file["name"] for file in found["files"]] == ["mug.safetensors"]
    assert page.get("/runs/0/file/0").content == b"x" * 3000


def test_a_pick_is_a_decision_like_any_other(page):
    assert page.tell("/pick", n=0, step=30, strength=0.8).status_code == 400  # no checkpoint
    assert page.tell("/pick", n=0, step=20, strength=0.8).json()["picked"] == {"step": 20, "strength": 0.8}
    assert page.get("/runs/0/results").json()["picked"] == {"step": 20, "strength": 0.8}
    book = open_project(page.folder).manifest.decisions
    assert book.pick("2026-01-01_00-00-00") == {"step": 20, "strength": 0.8} and book.lines[-1]["by"] == "page"
    assert page.tell("/undo", n=book.lines[-1]["n"]).status_code == 200
    assert page.get("/runs/0/results").json()["picked"] is None
    assert len(PROMPTS) == 2


@pytest.mark.parametrize("strengths", [[], ["1; rm -rf /"], [99], list(range(13))])
def test_what_is_drawn_are_numbers(page, strengths):
    assert page.tell("/draw", step=20, strengths=strengths).status_code == 400


def test_a_command_outlives_the_page_and_says_how_it_ended(curated, tmp_path):
    children = Children(curated, tmp_path)
    children.start("status")
    assert children._last is not None and children._last.wait(60) == 0
    told = children.told()
    assert (told["running"], told["exit"]) == (False, 0) and "photo_0.jpg" in told["said"]
