"""Decisions by hand on crops, copies and checkpoints, and undo and redo of them all."""

import json
import os

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import lorakit
from lorakit import open_project
from lorakit.caption import words
from lorakit.caption.review import review
from lorakit.cli import group
from lorakit.errors import Conflict, LorakitError
from lorakit.photos.decode import load_image
from lorakit.project import by_hand


def run(*arguments) -> str:
    done = CliRunner().invoke(group, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def anew(project):
    return open_project(project.folder, device="cpu")


def human(project, file: str) -> dict | None:
    return next(r for r in anew(project).manifest if r["file"] == file).get("human")


@pytest.fixture
def curated(make_project):
    project = make_project()
    lorakit.walk(project, last="crop")
    return project


def test_undo_and_redo_after_a_restart(curated):
    review(curated, ["photo_0.jpg", "photo_1.jpg"], verdict="reject")
    review(curated, ["photo_1.jpg"], text="a mug")
    by_hand.undo(anew(curated))
    assert human(curated, "photo_1.jpg") == {"verdict": "reject"}
    by_hand.undo(anew(curated))
    assert not human(curated, "photo_0.jpg") and not human(curated, "photo_1.jpg")
    with pytest.raises(LorakitError, match="no decision stands"):
        by_hand.undo(anew(curated))
    by_hand.undo(anew(curated), redo=True)
    by_hand.undo(anew(curated), redo=True)
    assert human(curated, "photo_1.jpg") == {"verdict": "reject", "text": "a mug"}
    with pytest.raises(LorakitError, match="nothing has been undone"):
        by_hand.undo(anew(curated), redo=True)
    by_hand.undo(anew(curated))
    assert human(curated, "photo_1.jpg") == {"verdict": "reject"}, "a redo can be undone"


def test_undo_of_an_older_decision_by_its_number(curated):
    review(curated, ["photo_0.jpg"], verdict="keep")
    review(curated, ["photo_1.jpg"], verdict="reject")
    review(curated, ["photo_0.jpg"], verdict="reject")
    with pytest.raises(Conflict, match=r"decision 1 cannot be taken back \(it was changed again by 3: take that back first\)"):
        by_hand.undo(anew(curated), 1)
    by_hand.undo(anew(curated), 2)
    assert not human(curated, "photo_1.jpg") and human(curated, "photo_0.jpg") == {"verdict": "reject"}
    with pytest.raises(LorakitError, match="was taken back by 4 already"):
        by_hand.undo(anew(curated), 2)
    by_hand.undo(anew(curated), 4)
    assert human(curated, "photo_1.jpg") == {"verdict": "reject"}


def test_history_is_readable_and_undo_says_what_it_did(curated):
    assert "nothing has been decided" in run("history", curated.folder)
    run("review", curated.folder, "photo_0.jpg", "photo_1.jpg", "--reject")
    assert "undoes 1" in run("undo", curated.folder)
    first, second = run("history", curated.folder).splitlines()
    assert first.split()[0] == "1" and "command" in first and "verdict as judged -> reject: photo_0.jpg, photo_1.jpg" in first
    assert "(undone by 2)" in first and "verdict reject -> as judged: photo_" in second and "(undoes 1)" in second
    found = json.loads(run("history", curated.folder, "--json"))
    assert found[0]["changes"][0]["file"] == "photo_0.jpg" and found[1]["undoes"] == 1
    assert "undoes 2" in run("undo", curated.folder, "--redo")
    assert human(curated, "photo_0.jpg") == {"verdict": "reject"}
    run("review", curated.folder, "photo_2.jpg", "--apart", "photo_3.jpg")
    assert "apart as nobody had decided -> photo_3.jpg: photo_2.jpg" in run("history", curated.folder).splitlines()[-1]


@pytest.mark.skipif(os.name == "nt", reason="no such names there")
def test_a_name_is_taken_as_status_prints_it(tmp_path, make_photo, make_project):
    make_photo("c.jpg", seed=8).rename(tmp_path / "photos" / "a\\nc\n.jpg")
    make_photo("a\nb.jpg", seed=7)
    project = make_project(name="my mugs")
    lorakit.walk(project, last="check")
    shown = [line.split()[0] for line in run("status", project.folder).splitlines() if line.startswith("a\\n")]
    assert len(shown) == 2
    told = run("review", project.folder, *shown, "--reject")
    assert f"`lorakit curate -o '{project.folder}'`" in told
    assert human(project, "a\nb.jpg") == human(project, "a\\nc\n.jpg") == {"verdict": "reject"}
    with pytest.raises(LorakitError, match="lorakit status '.*my mugs'"):
        by_hand.find_photos(project, ["none.jpg"])


def test_rules_are_decisions_too(curated):
    words.with_rules(curated, ["remove: red spoon"])
    assert "rule +'remove: red spoon'" in run("history", curated.folder)
    run("undo", curated.folder)
    assert anew(curated).settings.caption.rules == ()
    run("undo", curated.folder, "--redo")
    assert anew(curated).settings.caption.rules == ("remove: red spoon",)
    other = anew(curated)
    words.with_rules(curated, ["add: studio"])
    with pytest.raises(Conflict, match="caption.rules are others by now"):
        words.with_rules(other, ["add: garden"])
    assert anew(curated).settings.caption.rules == ("remove: red spoon", "add: studio")


def test_a_run_takes_new_decisions_and_rules_in_before_each_stage(curated):
    other = anew(curated)
    review(other, ["photo_0.jpg"], verdict="reject")
    words.with_rules(other, ["add: studio"])
    curated.take_decisions()
    assert curated.settings.caption.rules == ("add: studio",)
    assert next(r for r in curated.manifest if r["file"] == "photo_0.jpg")["human"] == {"verdict": "reject"}


def test_review_and_undo_wait_for_no_work(curated):
    with curated.locked():
        run("review", curated.folder, "photo_0.jpg", "--reject")
        run("words", curated.folder, "--unlock", "--preview")
        run("undo", curated.folder)
        run("undo", curated.folder, "--redo")
    assert human(curated, "photo_0.jpg") == {"verdict": "reject"}


@pytest.mark.slow
def test_words_are_decided_while_others_work_and_follow_with_the_next_run(make_project, photo_folder):
    for number in range(6):
        (photo_folder / f"photo_{number}.txt").write_text(f"mug, spoon, place {number}")
    project = make_project()
    lorakit.walk(project, last="dataset")
    before = {r["file"]: r["text"] for r in project.manifest.selected}
    with project.locked():
        assert "the texts follow with the next run" in run("words", project.folder, "--replace", "spoon", "fork")
    lorakit.walk(anew(project), last="dataset")
    assert all("fork" in r["text"] for r in anew(project).manifest.selected)
    with project.locked():
        assert "the texts follow with the next run" in run("words", project.folder, "--undo")
    lorakit.walk(anew(project), last="dataset")
    assert {r["file"]: r["text"] for r in anew(project).manifest.selected} == before
    assert not any(r.get("former") for r in anew(project).manifest.selected)


def test_crop_by_hand_reaches_the_pixels_of_the_dataset(make_dataset):
    project = make_dataset(**{"train.bucket_step": 16})
    shown = run("review", project.folder, "photo_0.jpg", "--crop", "100,50,420,370")
    assert "photo_0.jpg: crop 100,50,420,370 for 64x64" in shown
    project = anew(project)
    lorakit.walk(project, last="dataset")
    record = next(r for r in project.manifest if r["file"] == "photo_0.jpg")
    assert record["crop"] == {"box": [100, 50, 420, 370], "bucket": [64, 64]}
    wanted = load_image(record["path"]).resize((64, 64), Image.Resampling.LANCZOS, box=(100, 50, 420, 370))
    with Image.open(project.dataset_folder / "photo_0.png") as found:
        assert np.abs(np.asarray(found, dtype=int) - np.asarray(wanted, dtype=int)).max() <= 1
    run("review", project.folder, "photo_0.jpg", "--clear")
    lorakit.walk(anew(project), last="crop")
    assert next(r for r in anew(project).manifest if r["file"] == "photo_0.jpg")["crop"]["box"] != [100, 50, 420, 370]


def test_crop_by_hand_for_another_base_stays_within_the_box(curated):
    review(curated, ["photo_0.jpg"], crop=(100, 50, 420, 370))
    project = open_project(curated.folder, settings={"train.resolution": 128, "train.bucket_step": 64}, device="cpu")
    lorakit.walk(project, last="crop")
    found = next(r for r in project.manifest if r["file"] == "photo_0.jpg")["crop"]
    assert found == {"box": [100, 50, 420, 370], "bucket": [128, 128]}


@pytest.mark.parametrize("box", ["0,0,9000,10", "-5,0,100,100", "50,50,50,90", "90,0,10,100"])
def test_crop_outside_of_the_photo_is_refused(curated, box):
    done = CliRunner().invoke(group, ["review", str(curated.folder), "photo_0.jpg", "--crop", box])
    assert isinstance(done.exception, LorakitError) and "does not lie in its 640 x 512 pixels" in str(done.exception)
    assert not human(curated, "photo_0.jpg")


def test_crop_has_the_shape_of_its_bucket(curated):
    record = next(iter(curated.manifest))
    for box in ((3, 7, 611, 401), (0, 0, 640, 60), (10, 10, 50, 500)):
        found = by_hand.crop_to(curated, record, box)
        left, top, right, bottom = found["box"]
        assert box[0] <= left < right <= box[2] and box[1] <= top < bottom <= box[3]
    with pytest.raises(LorakitError, match="has not the bucket's shape"):
        by_hand.check_crop(record, {"box": [0, 0, 100, 50], "bucket": [64, 64]})


def test_photos_set_apart_are_both_kept(make_photo, tmp_path, tiny_weights):
    for name, quality in (("a.jpg", 95), ("near.jpg", 60)):
        make_photo(name, seed=1, quality=quality)
    (tmp_path / "photos" / "same.jpg").write_bytes((tmp_path / "photos" / "a.jpg").read_bytes())
    for number in range(2, 5):
        make_photo(f"{number}.jpg", seed=number)
    project = lorakit.new_project(tmp_path / "p", tmp_path / "photos", base="tiny-random", settings={"select.least": 1}, device="cpu")
    lorakit.walk(project, last="select")
    kept = {r["file"]: r["dedupe"]["of"] is None for r in project.manifest}
    assert [kept[name] for name in ("a.jpg", "near.jpg", "same.jpg")] == [True, False, False]
    run("review", project.folder, "near.jpg", "same.jpg", "--apart", "a.jpg")
    project = anew(project)
    lorakit.walk(project, last="select")
    of = {r["file"]: r["dedupe"]["of"] for r in project.manifest}
    assert of["a.jpg"] is None and of["same.jpg"] is None
    assert of["near.jpg"] == next(r["id"] for r in project.manifest if r["file"] == "same.jpg"), "still a copy of the other"
    run("review", project.folder, "near.jpg", "--apart", "same.jpg")
    project = anew(project)
    lorakit.walk(project, last="select")
    assert all(r["dedupe"]["of"] is None and r["select"]["selected"] for r in project.manifest)
    run("review", project.folder, "a.jpg", "--clear")
    assert human(project, "same.jpg")["apart"] == [r["id"] for r in project.manifest if r["file"] == "near.jpg"]
    with pytest.raises(LorakitError, match="set apart from itself"):
        review(anew(project), ["a.jpg"], apart="a.jpg")


def test_what_no_run_has_applied_yet_is_known(curated):
    assert by_hand.waiting(curated.manifest) == []
    review(curated, ["photo_0.jpg"], verdict="reject")
    assert [r["file"] for r in by_hand.waiting(curated.manifest)] == ["photo_0.jpg"]
    lorakit.walk(curated, last="crop")
    assert by_hand.waiting(curated.manifest) == []


def test_edited_text_is_a_decision_by_file(make_dataset):
    project = make_dataset()
    (project.dataset_folder / "photo_2.txt").write_text("zwx mug, a slip")
    lorakit.walk(anew(project), last="dataset")
    assert [(line["by"], line["changes"][0]["now"]) for line in anew(project).manifest.decisions.lines] == [("file", "zwx mug, a slip")]
    run("undo", project.folder)
    lorakit.walk(anew(project), last="dataset")
    assert "photo_2" in (project.dataset_folder / "photo_2.txt").read_text()


def test_kept_photo_takes_over_the_text_and_crop_that_were_given_its_copy(make_project, make_photo, photo_folder):
    small = make_photo("small.jpg", seed=20, size=(640, 512), quality=60)
    project = make_project()
    lorakit.walk(project, last="crop")
    review(project, ["small.jpg"], text="a mug, as I say", crop=(0, 0, 300, 300))
    make_photo("better.jpg", seed=20, size=(640, 512), quality=97)
    (photo_folder / "copy of small.jpg").write_bytes(small.read_bytes())
    lorakit.walk(anew(project), last="crop")
    project = anew(project)
    better, first = (next(r for r in project.manifest if r["file"] == name) for name in ("better.jpg", "small.jpg"))
    assert first["dedupe"]["of"] == better["id"]
    assert better["human"] == {"text": "a mug, as I say", "taken_from": {"text": first["id"]}}, "its pixels are others, so is its crop"
    assert "takes over the text that was given its copy small.jpg" in run("status", project.folder)
    review(project, ["better.jpg"], text="my own")
    assert human(project, "better.jpg") == {"text": "my own"} and human(project, "small.jpg")["text"] == "a mug, as I say"
    by_hand.undo(anew(project))
    review(anew(project), ["better.jpg"], clear=True)
    assert not human(project, "better.jpg") and "text" not in human(project, "small.jpg")


def test_rejected_after_the_choice_is_not_chosen_and_rejected_at_once_in_the_report(curated):
    from lorakit.report.report import photo_part

    review(curated, ["photo_0.jpg"], verdict="reject")
    found = photo_part(anew(curated))
    assert found["waiting"] == ["photo_0.jpg"] and found["chosen_count"] == 6
    assert found["rejected"]["count"] == 0 and not any(cell.file == "photo_0.jpg" for cell in found["rejected"]["cells"])
    assert f"decided and not applied yet, `lorakit run -o {curated.folder}` does it: photo_0.jpg" in run("status", curated.folder)
