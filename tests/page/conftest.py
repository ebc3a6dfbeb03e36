"""A curated project for the page, made once without any model, and copied for each test."""

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
