"""Numbers for the pictures of a grid, with the small open_clip that the project has: photos are the subject, grey is the base."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lorakit.text.prompts import Prompt
from lorakit.train.picture_scores import score_pictures
from models import mini

CLIP = str(Path(mini.__path__[0]) / "clip")
PROMPTS = [Prompt("zwx mug"), Prompt("mug")]


@pytest.fixture(scope="module")
def photos():
    """A red disc on grass, a little otherwise each time."""
    found = []
    for n in range(6):
        pixels = np.random.default_rng(n).integers(60, 90, (64, 64, 3), dtype=np.uint8)
        pixels[..., 1] += 60
        y, x = np.mgrid[:64, :64]
        pixels[(x - 28 - n) ** 2 + (y - 32) ** 2 < 250] = (210, 30, 30)
        found.append(Image.fromarray(pixels))
    return found


def column(first, second):
    return [first, second]


def test_the_subject_is_there_as_far_as_the_pictures_are_like_the_photos(make_dataset, photos):
    project = make_dataset(**{"embed.clip": CLIP})
    for record, photo in zip((r for r in project.manifest.selected), photos, strict=False):
        photo.save(project.dataset_folder / record["dataset"]["file"])
    grey = Image.new("RGB", (64, 64), (128, 128, 128))
    found = score_pictures(project, [column(grey, grey), column(photos[0], grey), column(photos[0], photos[1])], PROMPTS, (0, 0.5, 1))
    assert found["by"] == "open_clip" and found["strengths"] == [0, 0.5, 1]
    assert found["subject"] == pytest.approx([0, 1, 1], abs=0.2)
    assert found["leak"] == pytest.approx([0, 0, 1], abs=0.2), "at 1 the class word alone brings it too"
    same = score_pictures(project, [column(photos[0], photos[1])] * 2, PROMPTS, (0, 1))
    assert same["subject"] is None, "the base draws it already"


def test_pictures_without_detail_are_burnt_and_without_open_clip_nothing_else_is_told(make_dataset):
    project = make_dataset()
    grey, white = (Image.new("RGB", (64, 64), (shade,) * 3) for shade in (128, 255))
    half = Image.fromarray(np.where(np.mgrid[:64, :64][0][..., None] < 32, 255, 128).astype(np.uint8).repeat(3, axis=2))
    found = score_pictures(project, [column(grey, grey), column(half, half), column(white, white)], PROMPTS, (0, 0.7, 1))
    assert (found["by"], found["subject"], found["leak"]) == ("pixels", None, None)
    assert found["burnt"][0] == 0 and found["burnt"][1] == pytest.approx(0.5, abs=0.1)
    assert found["burnt"][2] > found["burnt"][1]
    assert score_pictures(project, [column(grey, grey)], PROMPTS, (1,)) is None
