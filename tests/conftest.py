"""Photos and checkpoints that the tests make for themselves; nothing is downloaded."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: see lorakit.cli.main
os.environ["HF_HUB_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:  # one of several: threads would only wait for each other, here and in the children
    os.environ["OMP_NUM_THREADS"] = "1"

import gc
import io
import json
import shutil
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter


def pytest_collection_finish():
    """What the imports left, a million objects, outlives every test: the garbage collector need not walk over it a thousand times,
    nor over the rest at every 700 objects more."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


def pytest_unconfigure():
    gc.unfreeze()


@pytest.fixture(autouse=True)
def same_numbers_for_all():
    """No test may change how many threads torch has: trainings that other tests compare bit by bit would differ."""
    before = sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None
    yield
    if before:
        left = sys.modules["torch"].get_num_threads()
        sys.modules["torch"].set_num_threads(before)
        assert left == before, f"the test leaves torch with {left} threads of {before}"


def draw_photo(seed: int, size: tuple[int, int] = (640, 512)) -> Image.Image:
    """A sharp, textured picture of coloured shapes over grain; different for every seed."""
    return _drawn(seed, size).copy()


@lru_cache(maxsize=64)  # the same few are asked for hundreds of times
def _drawn(seed: int, size: tuple[int, int]) -> Image.Image:
    random = np.random.default_rng(seed)
    width, height = size
    ramp = np.linspace(0, 1, width)[None, :, None] * random.uniform(60, 160, 3) + random.uniform(20, 90, 3)
    grain = random.normal(0, 9, (height, width, 1))
    picture = Image.fromarray(np.clip(ramp + grain, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(14):
        x, y = random.integers(0, width), random.integers(0, height)
        r = int(random.integers(20, 110))
        colour = tuple(int(c) for c in random.integers(0, 255, 3))
        shape = draw.ellipse if random.random() < 0.5 else draw.rectangle
        shape((x - r, y - r, x + r, y + r), fill=colour, outline=(255, 255, 255))
    return picture.filter(ImageFilter.SHARPEN)


@pytest.fixture
def make_photo(tmp_path):
    """make_photo('a.jpg', seed=1) writes a good photo below tmp_path/photos and returns its path."""

    def make(name: str, seed: int = 0, size: tuple[int, int] = (640, 512), image: Image.Image | None = None, **options) -> Path:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (image or draw_photo(seed, size)).save(path, **options)
        return path

    return make


# None so near another that dedupe looks at the pair more closely: that would be half the work of a small project.
GOOD = ((0, (640, 512)), (1, (640, 512)), (2, (512, 640)), (3, (512, 640)), (140, (600, 600)), (150, (600, 600)))

WRITTEN = 1_700_000_000  # when, so that a project's copy finds them as it left them


@lru_cache(maxsize=16)
def _good_jpeg(seed: int, size: tuple[int, int]) -> bytes:
    draw_photo(seed, size).save(kept := io.BytesIO(), "JPEG", quality=92)
    return kept.getvalue()


@pytest.fixture
def photo_folder(tmp_path) -> Path:
    """A folder of six good photos in three aspects."""
    folder = tmp_path / "photos"
    folder.mkdir(exist_ok=True)
    for number, (seed, size) in enumerate(GOOD):
        (folder / f"photo_{number}.jpg").write_bytes(_good_jpeg(seed, size))
        os.utime(folder / f"photo_{number}.jpg", (WRITTEN, WRITTEN))
    return folder


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory) -> Path:
    """The random base in SD1.5's shape, built once for all tests."""
    from lorakit.bases.tiny_random import build

    folder = tmp_path_factory.mktemp("weights") / "tiny-random"
    build(folder)
    return folder


QUICK = {  # the least that still runs every stage
    "train.steps": 4, "train.rank": 4, "train.resolution": 64, "train.bucket_step": 16, "sample.every": 0, "sample.steps": 2,
    "sample.count": 2, "select.least": 1, "caption.captioner": "imagenet", "train.checkpoint_every": 2,
}  # fmt: skip


@pytest.fixture
def make_project(tmp_path, photo_folder, tiny_weights):
    """make_project(**{'train.rank': 8}) begins a project on photo_folder with quick settings and the tiny base."""
    from lorakit import new_project

    def make(name: str = "project", base: str = "tiny-random", kind: str = "object", trigger: str | None = "zwx", **settings):
        weights = {"train.weights": str(tiny_weights)}
        return new_project(
            tmp_path / name, photo_folder, base=base, kind=kind, trigger=trigger, class_word="mug", device="cpu",
            settings={**QUICK, **weights, **settings},
        )  # fmt: skip

    return make


@pytest.fixture(scope="session")
def six_cropped(tmp_path_factory, tiny_weights) -> Path:
    """The project that make_project begins, walked up to the crops once."""
    import lorakit

    folder = tmp_path_factory.mktemp("six")
    (folder / "photos").mkdir()
    for number, (seed, size) in enumerate(GOOD):
        (folder / "photos" / f"photo_{number}.jpg").write_bytes(_good_jpeg(seed, size))
        os.utime(folder / "photos" / f"photo_{number}.jpg", (WRITTEN, WRITTEN))
    project = lorakit.new_project(
        folder / "project", folder / "photos", base="tiny-random", kind="object", trigger="zwx", class_word="mug", device="cpu",
        settings={**QUICK, "train.weights": str(tiny_weights)},
    )  # fmt: skip
    lorakit.walk(project, last="crop")
    return folder


@pytest.fixture
def make_cropped(six_cropped, tmp_path, photo_folder):
    """make_cropped(**settings) is a project on photo_folder whose photos are chosen and cropped: a copy, of which only that is done
    again which the settings, or other files in the folder, ask for."""
    from lorakit import open_project, pipeline

    def make(name: str = "project", base: str | None = None, kind: str | None = None, **settings):
        folder = tmp_path / name
        shutil.copytree(six_cropped / "project", folder, ignore=shutil.ignore_patterns(".lock"))
        for file in (folder / "project.yaml", folder / "manifest.jsonl"):
            words = file.read_text(encoding="utf-8").replace(str(six_cropped / "photos"), str(photo_folder))
            file.write_text(words, encoding="utf-8")
        project = open_project(folder, base=base, kind=kind, settings=settings, device="cpu")
        project.keep_words()
        pipeline.walk(project, last="crop")
        return project

    return make


@pytest.fixture(scope="session")
def trained(tmp_path_factory, tiny_weights):
    """A project that has gone the whole way once; tests must not change it (copy its folder to do so)."""
    import lorakit

    photos = tmp_path_factory.mktemp("trained") / "photos"
    photos.mkdir()
    for number, size in enumerate([(640, 512), (640, 512), (512, 640), (600, 600)]):
        draw_photo(number, size).save(photos / f"photo_{number}.jpg", quality=92)
    project = lorakit.new_project(
        photos.parent / "project", photos, base="tiny-random", trigger="zwx", class_word="mug", device="cpu",
        settings={**QUICK, "train.weights": str(tiny_weights), "sample.every": 2, "train.learning_rate": 1e-2},
    )  # fmt: skip
    lorakit.walk(project)
    return project


@pytest.fixture
def copy_of_trained(trained, tmp_path):
    """A copy of the trained project that a test may change."""
    from lorakit import open_project

    shutil.copytree(trained.folder, tmp_path / "copy", ignore=shutil.ignore_patterns(".lock"))
    return open_project(tmp_path / "copy", device="cpu")


TINY_CLIP = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
}


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory) -> Path:
    """A tiny random open_clip model in the hub's format."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("clip")
    (folder / "open_clip_config.json").write_text(json.dumps(TINY_CLIP))
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**TINY_CLIP["model_cfg"]).state_dict(), folder / "open_clip_model.safetensors")
    return folder


BY_HAND = {"caption.captioner": "text_files", "select.everything": True, "train.steps": 6, "sample.every": 0, "train.bucket_step": 8}


@pytest.fixture
def make_dataset(make_cropped, photo_folder):
    """make_dataset(**settings) is a project walked up to its dataset; six photos in three buckets, each with its words."""

    def make(name: str = "project", **settings):
        for path in photo_folder.glob("*.jpg"):
            path.with_suffix(".txt").write_text(f"a mug, {path.stem}", encoding="utf-8")
        project = make_cropped(name, **{**BY_HAND, **settings})
        from lorakit import pipeline

        pipeline.walk(project, last="dataset")
        return project

    return make


@pytest.fixture(scope="session")
def tiny_base(tiny_weights, tmp_path_factory):
    """tiny_base('flux1') is a folder with random weights of that family, built once."""
    from tests.tiny_bases import build

    made = {"sd15": tiny_weights}

    def base(family: str):
        if family not in made:
            made[family] = build(family, tmp_path_factory.mktemp("bases") / family)
        return made[family]

    return base


@pytest.fixture
def load_tiny(tiny_base):
    """load_tiny('flux1', Train(...)) is that tiny base, loaded in fp32 on the CPU."""
    import torch

    from lorakit import lookup
    from lorakit.settings import Train
    from lorakit.weights import Source

    def load(family: str, settings: Train | None = None):
        module = lookup.load(lookup.FAMILIES, family)
        return module.CLASS(Source(str(tiny_base(family)), True), "cpu", torch.float32, settings or Train(rank=4))

    return load


def write_training_adapter(denoiser, layers, path):
    """A random adapter of rank 2 for these layers, named as those that are published; returns the path."""
    import torch
    from safetensors.torch import save_file

    generator, tensors = torch.Generator().manual_seed(7), {}
    for layer in layers:
        out, into = denoiser.get_submodule(layer).weight.shape
        for part, shape in (("A", (2, into)), ("B", (out, 2))):
            tensors[f"diffusion_model.{layer}.lora_{part}.weight"] = torch.randn(shape, generator=generator) * 0.2
    save_file(tensors, path)
    return path


def adapter(run):
    """The tensors of a run's newest checkpoint."""
    from lorakit.train import checkpoint

    return checkpoint.load_adapter(run, checkpoint.all_steps(run)[-1])


def stop_after(run, step):
    """Leave the run folder as a kill leaves it: later checkpoints missing, the last line of the metrics torn."""
    from lorakit.train import checkpoint

    for later in checkpoint.all_steps(run):
        if later > step:
            shutil.rmtree(run.checkpoints / f"step_{later:06d}")
    lines = run.metrics.read_text(encoding="utf-8").splitlines(keepends=True)
    run.metrics.write_text("".join(lines[: step + 1]) + lines[step + 1][:20], encoding="utf-8")
    facts = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    (run.folder / "run.json").write_text(json.dumps({**facts, "done": {}, "result": {}}), encoding="utf-8")
