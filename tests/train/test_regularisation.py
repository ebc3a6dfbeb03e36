"""Regularisation photos are trained on between the photos, at their own weight, and leave the photos' visits as they were."""

import pytest
import torch

from lorakit import open_project
from lorakit.bases.load import load_family
from lorakit.errors import LorakitError
from lorakit.project import runs, stamps
from lorakit.settings import Train
from lorakit.train import batches, lora
from lorakit.train.cache import cache
from lorakit.train.loss import BatchLoss
from lorakit.train.preflight import plan_in_words
from lorakit.train.regularisation import Interleaved, regularisation_photos
from lorakit.train.train import train
from tests.conftest import adapter, stop_after


@pytest.fixture
def others(make_photo, tmp_path):
    """A folder of three mugs: two with captions."""
    for number, size in enumerate([(640, 512), (600, 600), (512, 640)]):
        make_photo(f"../others/mug_{number}.jpg", seed=50 + number, size=size)
    for number in range(2):
        (tmp_path / "others" / f"mug_{number}.txt").write_text(f"another mug, {number}", encoding="utf-8")
    return tmp_path / "others"


def test_they_are_read_with_their_captions_or_the_class_word(make_project, others):
    found = regularisation_photos(make_project(**{"train.regularisation": str(others)}))
    assert [(r["file"], r["text"]) for r in found] == [
        ("mug_0.jpg", "another mug, 0"), ("mug_1.jpg", "another mug, 1"), ("mug_2.jpg", "mug"),
    ]  # fmt: skip
    assert [r["crop"]["box"] for r in found] == [[64, 0, 576, 512], [0, 0, 600, 600], [0, 64, 512, 576]]


@pytest.mark.slow
def test_half_of_the_batches_are_theirs_and_the_photos_keep_their_visits_and_a_resume_changes_nothing(make_dataset, others):
    project = make_dataset(**{"train.steps": 8, "train.regularisation": str(others)})
    run = train(project)
    entries = run.read_metrics()
    assert [len(e["photos"]) for e in entries] == [1, 0] * 4 and [len(e.get("regularisation", [])) for e in entries] == [0, 1] * 4
    assert len({name for e in entries for name in e.get("regularisation", [])}) == 3
    assert sum(run.facts["result"]["visits"].values()) == 4 and run.facts["result"]["photos"] == 6
    wanted = adapter(run)
    stop_after(run, step=4)
    found = adapter(train(open_project(project.folder, device="cpu")))
    assert all(torch.equal(wanted[key], found[key]) for key in wanted)


def test_their_loss_has_its_own_weight(make_dataset, others):
    losses = []
    for weight in (1.0, 0.25):
        project = make_dataset(f"weight_{weight}", **{"train.regularisation": str(others), "train.regularisation_weight": weight})
        photos = cache(project)
        family = load_family(project)
        lora.add_lora(family, Train(rank=2))
        with torch.no_grad():
            visit = BatchLoss(project, family)
            losses.append([visit.loss(batch, 3).item() for batch in (regularisation_photos(project)[:1], photos[:1])])
    (theirs, own), (lighter, same) = losses
    assert lighter == pytest.approx(0.25 * theirs, rel=1e-6) and own == same


def test_batches_are_spread_by_their_share_and_every_photo_comes_in_its_turn():
    photos, beside = ([{"id": n, "crop": {"bucket": [64, 64]}, "own": own} for n in range(4)] for own in (True, False))
    order = Interleaved(batches.BatchSampler(photos, 1, 0), batches.BatchSampler(beside, 1, 1), 0.25)
    drawn = [order[n][0] for n in range(16)]
    assert [r["own"] for r in drawn] == [True, True, True, False] * 4
    own = [r["id"] for r in drawn if r["own"]]
    assert all(sorted(own[start : start + 4]) == [0, 1, 2, 3] for start in (0, 4, 8))
    assert order.per_epoch == pytest.approx(16 / 3)


def test_another_content_is_another_training_and_a_moved_folder_is_not(make_dataset, others):
    project = make_dataset(**{"train.regularisation": str(others)})
    before = stamps.train(project)
    moved = others.rename(others.with_name("moved"))
    project = open_project(project.folder, settings={"train.regularisation": str(moved)}, device="cpu")
    assert stamps.train(project) == before and runs.find(project.folder, before) is None
    (moved / "mug_0.jpg").rename(moved.parent / "mug_0.jpg")
    fewer = moved.rename(moved.with_name("fewer"))  # fingerprints are kept by path while a program runs
    assert stamps.train(open_project(project.folder, settings={"train.regularisation": str(fewer)}, device="cpu")) != before


def test_what_is_of_no_use_is_one_line(make_project, others, tmp_path):
    with pytest.raises(LorakitError, match="train.regularisation: no folder .*nowhere; give one"):
        regularisation_photos(make_project("a", **{"train.regularisation": str(tmp_path / "nowhere")}))
    (tmp_path / "empty").mkdir()
    with pytest.raises(LorakitError, match="train.regularisation: no photos in .*empty"):
        regularisation_photos(make_project("b", **{"train.regularisation": str(tmp_path / "empty")}))
    with pytest.raises(LorakitError, match="mug_2.jpg: has no caption, and there is no --class-word"):
        regularisation_photos(make_project("c", **{"train.regularisation": str(others), "trigger.class_word": None}))
    (others / "mug_0.txt").write_text("a zwx mug", encoding="utf-8")
    with pytest.raises(LorakitError, match="mug_0.jpg: its caption has the trigger 'zwx'"):
        regularisation_photos(make_project("d", **{"train.regularisation": str(others.rename(others.with_name("wrong")))}))


@pytest.mark.parametrize(
    ("repeats", "settings", "steps", "others", "line"),
    [
        ([2] * 6, {"batch_size": 3}, 20, False, "6 photos x 2 repeats x 5.0 epochs / batch 3 = 20 steps"),
        ([1] * 6, {"gradient_accumulation": 2}, 9, False, "6 photos x 1 repeat x 3.0 epochs / batch 2 = 9 steps"),
        ([1, 10], {}, 22, False, "2 photos x 1-10 repeats (11 visits) x 2.0 epochs / batch 1 = 22 steps"),
        ([1] * 5, {"batch_size": 2}, 6, False, "5 photos x 1 repeat x 2.0 epochs / batch 2 (the buckets' last ones smaller) = 6 steps"),
        ([1] * 4, {"regularisation_share": 0.5}, 16, True, "4 photos x 1 repeat x 2.0 epochs / batch 1 = 8 steps + 8 of regularisation"),
    ],
)
def test_the_plan_is_the_sum_that_people_know(repeats, settings, steps, others, line):
    photos = [{"crop": {"bucket": [64, 64]}, "repeats": count} for count in repeats]
    assert plan_in_words(Train(**settings), photos, steps, others) == line


def test_steps_by_the_rule_leave_the_photos_their_visits(make_project, others):
    rule = {"train.steps": None, "train.steps_per_photo": 10, "train.min_steps": 50, "train.max_steps": 200}
    project = make_project(**rule, **{"train.regularisation": str(others), "train.regularisation_share": 0.2})
    assert project.settings.train.planned_steps(10) == 125
