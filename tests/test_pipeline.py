"""The walk along the stages: it does what is to be done, and only that."""

import json

import pytest

import lorakit
from lorakit import pipeline
from lorakit.cli import options
from lorakit.errors import LorakitError, WeightsMissing


def test_whole_way_ends_with_lora_samples_and_report(trained):
    found = pipeline.status(trained)
    assert all(counts["pending"] == counts["failed"] == 0 and counts["done"] for counts in found["stages"].values())
    assert found["lora"].endswith("zwx_object_tiny-random.safetensors")
    json.dumps(found)


def test_second_walk_has_nothing_to_do(copy_of_trained):
    assert pipeline.walk(copy_of_trained) == []


def test_results_that_a_change_has_made_old_are_not_shown(copy_of_trained):
    project = copy_of_trained
    assert [line.split()[0] for line in options.results(project, "crop")] == ["dataset", "LoRA", "samples", "report"]
    lorakit.review(project, [project.manifest.selected[0]["file"]], verdict="reject")
    pipeline.walk(project, last="crop")
    assert options.results(project, "crop") == []


def test_changed_threshold_redoes_no_pixel_work(copy_of_trained):
    before = {r["id"]: r["done"]["check"] for r in copy_of_trained.manifest}
    again = lorakit.open_project(copy_of_trained.folder, settings={"check.size.min_side": 550})
    worked = pipeline.walk(again, last="crop")
    assert "check" not in worked and "select" in worked
    assert {r["id"]: r["done"]["check"] for r in again.manifest} == before
    assert len(again.manifest.selected) == 1


@pytest.mark.slow
def test_changed_rank_trains_anew_but_keeps_captions_and_latents(copy_of_trained):
    again = lorakit.open_project(copy_of_trained.folder, settings={"train.rank": 2}, device="cpu")
    assert pipeline.walk(again) == ["train", "sample", "export", "report"]


def test_unknown_stage_names_the_nearest(copy_of_trained):
    with pytest.raises(LorakitError, match="did you mean 'dedupe'"):
        pipeline.walk(copy_of_trained, "dedup")


def test_stages_are_plain_functions_of_the_package(make_project):
    project = make_project()
    for name in ("scan", "check", "dedupe", "select", "crop"):
        getattr(lorakit, name)(project)
    assert len(project.manifest.selected) == 6
    lorakit.caption(project)
    lorakit.trigger(project)
    assert all(r["text"].startswith("zwx") for r in project.manifest.selected)


def test_a_new_project_without_photos_is_told_before_anything_else(tmp_path, capsys):
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    (tmp_path / "photos" / "sub" / "notes.txt").write_text("a mug")
    project = lorakit.new_project(tmp_path / "p", tmp_path / "photos", trigger="zwx", settings={"caption.captioner": "blipp"})
    with pytest.raises(LorakitError, match="no photos in .*name the folder"):
        pipeline.walk(project)
    assert not capsys.readouterr().err and {path.name for path in project.folder.iterdir()} == {"project.yaml"}


def test_texts_that_should_lie_beside_the_photos_are_missed_before_any_is_opened(make_project, photo_folder):
    project = make_project(**{"caption.captioner": "text_files"})
    with pytest.raises(LorakitError, match="none of 6 photos has a caption"):
        pipeline.walk(project, last="dataset")
    assert len(project.manifest) == 6 and not any("measures" in record for record in project.manifest)
    (photo_folder / "photo_1.txt").write_text("a mug")
    pipeline.walk(project, last="check")
    pipeline._check_texts_beside(project)


def test_base_of_a_family_that_is_not_built_is_refused_before_any_work(make_project):
    project = make_project()
    card = project.folder / "models" / "next.yaml"
    card.parent.mkdir()
    card.write_text("{title: Next, family: next, licence: none, size_gb: 1, min_vram_gb: 1}")
    with pytest.raises(LorakitError, match="family next cannot be trained"):
        pipeline.walk(lorakit.open_project(project.folder, base="next", device="cpu"))
    assert not list(project.manifest)


def test_two_at_once_are_refused(make_project):
    project = make_project()
    with project.locked(), pytest.raises(LorakitError, match="another lorakit"):
        pipeline.walk(project, last="scan")


def test_settings_that_fight_are_named_before_any_photo_is_opened(make_project):
    project = make_project(**{"train.optimizer": "prodigy"})
    with pytest.raises(LorakitError, match="set train.learning_rate=1"):
        pipeline.walk(project)
    assert not list(project.manifest)
    pipeline.walk(project, last="scan")  # curating wants no peace in the training's settings
    assert list(project.manifest)


def test_a_scan_that_found_other_photos_has_not_done_nothing(make_project, photo_folder, make_photo, capsys):
    project = make_project()
    pipeline.walk(project, last="scan")
    (photo_folder / "photo_0.jpg").unlink()
    make_photo("another.jpg", seed=40)
    capsys.readouterr()
    assert pipeline.walk(project, last="scan") == ["scan"]
    assert "1 new, 1 gone" in (said := capsys.readouterr().err) and "nothing to do" not in said


def test_what_is_decided_meanwhile_is_taken_in_before_the_next_stage(make_project, monkeypatch, capsys):
    from lorakit.caption.review import review
    from lorakit.curate import dedupe

    project = make_project()
    usual = dedupe.dedupe

    def meanwhile(working):
        review(lorakit.open_project(project.folder), ["photo_0.jpg"], verdict="reject")
        usual(working)

    monkeypatch.setattr(dedupe, "dedupe", meanwhile)
    pipeline.walk(project, last="crop")
    chosen = {r["file"] for r in project.manifest.selected}
    assert "photo_0.jpg" not in chosen and len(chosen) == 5
    assert "1 decision was made meanwhile" in capsys.readouterr().err
    assert next(r for r in project.manifest if r["file"] == "photo_0.jpg")["human"] == {"verdict": "reject"}


def test_without_network_and_weights_all_before_the_training_is_done(tmp_path, photo_folder, capsys):
    settings = {"select.least": 1, "select.count": 2}
    project = lorakit.new_project(tmp_path / "p", photo_folder, base="sd15", trigger="zwx", class_word="mug", settings=settings)
    with pytest.raises(WeightsMissing, match="the weights of Stable Diffusion 1.5 .* Three ways") as error:
        pipeline.walk(project)
    assert "\n" not in str(error.value)
    said = capsys.readouterr().err
    assert said.index("all before the training is done without them") < said.index("scan")
    assert "imagenet reads the photos" in said
    assert pipeline.progress_of(project, "dataset") == {"done": 2, "pending": 0, "failed": 0}
    before = {r["id"]: r["done"]["caption"] for r in project.manifest.selected}
    again = lorakit.open_project(project.folder)
    assert again.settings.caption.captioner == "blip", "for this run alone"
    pipeline.walk(again, last="dataset")
    assert {r["id"]: r["done"]["caption"] for r in again.manifest.selected} == before
    chosen = lorakit.open_project(project.folder, settings={"caption.captioner": "blip"})
    with pytest.raises(WeightsMissing, match="BLIP"):
        pipeline.walk(chosen, last="dataset")
