"""The verdict on trainings that were run (`bench/record_runs.py`): the first mini, of 64 px, and the robot of the demo, at settings that
are right and wrong."""

import json
import re
from pathlib import Path

import pytest

from lorakit.quality.judge import judge

RUNS = json.loads((Path(__file__).parent / "recorded_runs.json").read_text())


def judged(name, steps=None):
    run = RUNS[name]
    lines = [{"step": n, "loss": loss, "rate": run["settings"]["train.learning_rate"]} for n, loss in enumerate(run["loss"], 1)]
    for number, line in enumerate(lines):
        line["photos"] = [f"{number % run.get('photos', 16)}.png"]
    for step, validation in run["validation"].items():
        lines[int(step) - 1]["validation"] = validation
    return judge(lines[:steps], run["settings"], run["saved"], run["result"])


@pytest.mark.parametrize(
    ("name", "verdict", "advice"),
    [
        # its rate falls to nothing, and so does what it learns: photos held out fit as well as ever
        ("tenth", "plateau", "more steps would gain little"),
        ("ten", "diverging", "train.learning_rate 0.01 -> 0.003"),
        ("hundred", "diverging", "train.learning_rate 0.1 -> 0.03"),
        ("long", "overfitting", "take the checkpoint of step 100"),
    ],
)
def test_a_training_that_was_run_is_named_by_what_was_done_to_it(name, verdict, advice):
    found = judged(name)
    assert found.verdict == verdict and advice in found.advice, found


def test_two_hundred_steps_of_ten_times_the_rate_and_of_a_tenth_suffice():
    for steps in (100, 200, 240):
        assert re.search("the loss rises from the start, to (1[5-9]|2[0-9])", judged("ten", steps).findings[0].words)
    assert judged("ten", 200).verdict == "diverging" and judged("tenth", 200).verdict in ("learning", "plateau")


def test_at_the_right_rate_it_learned_and_its_pictures_tell_the_strength():
    """Its held-out photos fit worse from step 60 on, and the pictures stay good: so what is advised is to look at both."""
    found = judged("right")
    assert found.verdict in ("learning", "plateau", "overfitting") and found.findings[0].words.startswith("the validation fell")
    assert found.strength == (0.3, 1.0) and found.strength_by == "pictures" and found.best_by == "pictures"


@pytest.mark.parametrize(("name", "count"), [("three_bad_photos", 3), ("one_bad_photo", 1)])
def test_photos_that_do_not_belong_there_are_named_and_the_rest_is_judged_as_ever(name, count):
    """Noise among 14 photos of the robot. A step of one shows in no spike: it has been there since the start."""
    found = judged(name)
    assert found.verdict in ("learning", "plateau") and found.best_step == 300
    assert [f"noise_{n}.png" in found.advice for n in range(3)] == [n < count for n in range(3)] and "IMG_" not in found.advice


def test_four_photos_that_were_seen_often_are_no_reason_to_train_longer():
    """None is held out of so few, so the validation falls as long as they are learned by heart."""
    found = judged("four_photos")
    assert found.verdict == "learning" and "of which it has seen each 120 times" in found.advice and "train.steps" not in found.advice
