"""The cache: nothing stale is read, nothing is made twice; and of the base no two large parts are in memory together."""

import shutil
import weakref

import pytest
import torch
from PIL import Image

from lorakit import open_project
from lorakit.bases.families.base import Family
from lorakit.bases.load import load_family
from lorakit.project import runs
from lorakit.train import cache as caching
from lorakit.train.cache import cache, latents_path, load_latents, load_text, text_path
from lorakit.train.grid import grid
from lorakit.train.prompts import sample_prompts
from lorakit.train.sample import sample
from lorakit.train.train import train


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
    assert len(before) == 6 + 6 + 4  # latents, texts; the empty one, a sample prompt that is no caption, two texts that are watched
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


@pytest.fixture
def loads(monkeypatch):
    """[(the model that is loaded, those that live then)] of everything with weights, in the order of the loading."""
    found, alive = [], {}
    for way in ("_load", "_load_large", "_load_denoiser"):
        real = getattr(Family, way)

        def load(family, name=None, *rest, way=way, real=real, **options):
            model = real(family, name, *rest, **options)
            if isinstance(model, torch.nn.Module):
                title = family.FOLDER if way == "_load_denoiser" else name
                there = {other for other, ref in alive.items() if ref() is not None}
                found.append((title, there))
                alive[title] = weakref.ref(model)
            return model

        monkeypatch.setattr(Family, way, load)
    return found


def test_no_two_large_parts_are_in_memory_together(make_dataset, tiny_base, tmp_path, loads):
    """CLIP, T5, VAE, transformer; samples in the training load the VAE alone, and want no text encoder's files."""
    weights = shutil.copytree(tiny_base("flux1"), tmp_path / "flux")
    settings = {"train.weights": str(weights), "train.bucket_step": 16, "check.size.min_side": 64, "train.steps": 2, "sample.every": 1,
                "select.everything": False, "select.count": 2, "sample.count": 1, "train.preservation": 0.1}  # fmt: skip
    project = make_dataset(base="flux1-dev", **settings)
    cache(project)
    assert loads == [("text_encoder", set()), ("text_encoder_2", set()), ("vae", set())]
    loads.clear()
    for name in ("text_encoder", "text_encoder_2"):
        [path.unlink() for path in (weights / name).glob("*.safetensors")]
    run = train(project)
    assert loads == [("transformer", set()), ("vae", {"transformer"})]
    assert [path.name for path in run.samples.rglob("*.png")] == ["0.png"]
    sample(project)
    grid(project, [prompt.text for prompt in sample_prompts(project)], strengths=(0.0,))
    assert {title for title, _ in loads} == {"transformer", "vae"}
    assert len(list((runs.all_runs(project.folder)[0].samples / "final").glob("*.png"))) == 2


def test_other_weights_never_find_these_latents(make_dataset, tmp_path, tiny_weights):
    project = make_dataset()
    other = shutil.copytree(tiny_weights, tmp_path / "other")
    moved = open_project(project.folder, settings={"train.weights": str(other)}, device="cpu")
    record = project.manifest.selected[0]
    assert latents_path(moved, record) == latents_path(project, record)  # a copy is the same weights
    config = other / "vae" / "config.json"
    config.write_text(config.read_text().replace('"sample_size": 512', '"sample_size": 256'))
    caching.weights._folder_identity.cache_clear()
    assert latents_path(moved, record) != latents_path(project, record)
