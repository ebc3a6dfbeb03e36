"""The cache: nothing stale is read, nothing is made twice."""

import torch
from PIL import Image

from lorakit import open_project
from lorakit.bases.load import load_family
from lorakit.train import cache as caching
from lorakit.train.cache import cache, latents_path, load_latents, load_text, text_path


def files(project):
    return {path: path.stat().st_mtime_ns for path in project.cache_folder.rglob("*.safetensors")}


def test_cached_latents_and_texts_are_what_the_base_makes(make_dataset):
    project = make_dataset()
    cache(project)
    record, family = project.manifest.selected[0], load_family(project)
    latents = load_latents(project, record)
    width, height = record["crop"]["bucket"]
    assert latents["mean"].shape == latents["std"].shape == (4, height // 8, width // 8)
    with Image.open(project.dataset_folder / record["dataset"]["file"]) as image:
        assert image.size == (width, height)
    assert torch.equal(load_text(project, record["text"])["states"], family.encode_text(record["text"])["states"])
    assert not torch.equal(load_text(project, record["text"])["states"], load_text(project, "")["states"])


def test_second_time_writes_nothing(make_dataset):
    project = make_dataset()
    cache(project)
    before = files(project)
    assert len(before) == 6 + 6 + 1  # latents, texts, the empty text
    cache(open_project(project.folder, device="cpu"))
    assert files(project) == before


def test_a_changed_caption_encodes_one_text_and_no_picture(make_dataset):
    from lorakit import pipeline
    from lorakit.caption.review import review

    project = make_dataset()
    cache(project)
    before = files(project)
    review(project, ["photo_0.jpg"], None, "zwx mug on a shelf", False)
    pipeline.walk(project, "trigger", "cache")
    new = set(files(project)) - set(before)
    changed = next(r for r in project.manifest.selected if r["file"] == "photo_0.jpg")
    assert new == {text_path(project, changed["text"])}
    assert {path: time for path, time in files(project).items() if path in before} == before


def test_other_weights_never_find_these_latents(make_dataset, tmp_path, tiny_weights):
    import shutil

    project = make_dataset()
    other = shutil.copytree(tiny_weights, tmp_path / "other")
    moved = open_project(project.folder, settings={"train.weights": str(other)}, device="cpu")
    record = project.manifest.selected[0]
    assert latents_path(moved, record) == latents_path(project, record)  # a copy is the same weights
    config = other / "vae" / "config.json"
    config.write_text(config.read_text().replace('"sample_size": 512', '"sample_size": 256'))
    caching.weights._folder_identity.cache_clear()
    assert latents_path(moved, record) != latents_path(project, record)
