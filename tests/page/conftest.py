"""A curated project for the page, made once without any model, and copied for each test."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageFilter

from tests.conftest import draw_photo


@pytest.fixture(scope="session")
def curated_once(tmp_path_factory) -> Path:
    """Six photos with their texts in three aspects, one of them twice, and a blurred one; walked up to the dataset."""
    import lorakit

    photos = tmp_path_factory.mktemp("curated") / "photos"
    photos.mkdir()
    words = ["on grass", "at night, red scarf", "on a table, red scarf", "in a garden", "on grass, seen from above", "in a room"]
    for number, size in enumerate([(640, 512), (640, 512), (512, 640), (512, 640), (600, 600), (600, 600)]):
        draw_photo(number, size).save(photos / f"photo_{number}.jpg", quality=92)
        (photos / f"photo_{number}.txt").write_text(f"a mug {words[number]}", encoding="utf-8")
    Image.open(photos / "photo_0.jpg").save(photos / "copy.jpg", quality=70)
    draw_photo(9).filter(ImageFilter.GaussianBlur(9)).save(photos / "blurred.jpg", quality=92)
    project = lorakit.new_project(
        photos.parent / "project", photos, base="tiny-random", trigger="zwx", class_word="mug", device="cpu",
        settings={"train.resolution": 64, "train.bucket_step": 16, "select.least": 1, "caption.captioner": "text_files"},
    )  # fmt: skip
    lorakit.walk(project, last="dataset")
    return project.folder


@pytest.fixture
def curated(curated_once, tmp_path) -> Path:
    """A copy of it that a test may change."""
    shutil.copytree(curated_once, tmp_path / "project", ignore=shutil.ignore_patterns(".lock"))
    return tmp_path / "project"


def add_run(folder: Path, steps: int = 40, planned: int = 60, done: bool = False) -> Path:
    """A training's folder as the loop leaves it in the middle, or at its end; without any model. Returns it."""
    run = folder / "runs" / "2026-01-01_00-00-00"
    facts = {"stamp": "x", "done": {"train": "x"} if done else {}, "planned": {"steps": planned, "prompts": PROMPTS, "sample_every": 20}}
    for place in ("samples/step_000020", "samples/final", "samples/grid"):
        (run / place).mkdir(parents=True)
    for step in (20, 40):
        (run / f"checkpoints/step_{step:06d}").mkdir(parents=True)
        (run / f"checkpoints/step_{step:06d}/optimizer.pt").touch()
    (run / "run.json").write_text(json.dumps(facts | {"result": {"prompts": PROMPTS, "lora": "mug.safetensors"}}), encoding="utf-8")
    (run / "mug.safetensors").write_bytes(b"x" * 3000)
    (run / "settings.yaml").write_text("train.rank: 4\ntrain.steps: 60\n", encoding="utf-8")
    (run / "metrics.jsonl").write_text("".join(metrics_line(step) for step in range(1, steps + 1)), encoding="utf-8")
    for n in range(len(PROMPTS)):
        for name in (f"step_000020/{n}.png", f"final/{n}_base.png", f"final/{n}_lora.png", f"grid/{n}_0.png", f"grid/{n}_1.png"):
            draw_photo(n, (64, 64)).save(run / "samples" / name)
    told = {"prompts": PROMPTS, "strengths": [0.0, 1.0], "columns": ["base", "1"], "step": None, "with": {}}
    (run / "samples/grid.json").write_text(json.dumps(told), encoding="utf-8")
    return run


PROMPTS = ["a photo of a zwx mug", "a photo of a mug"]


def metrics_line(step: int) -> str:
    facts = {"step": step, "epoch": step / 3, "loss": 0.2 / step**0.5, "rate": 1e-4, "grad_norm": 0.1, "seconds": 0.5}
    return json.dumps(facts | {"photos": [f"photo_{step % 6}.jpg", f"photo_{(step + 1) % 6}.jpg"]}) + "\n"
