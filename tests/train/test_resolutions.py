"""Several resolutions: each picture is seen at every size, shrunk from the dataset's own."""

import numpy as np
import pytest
import torch
from PIL import Image

from lorakit.bases.load import load_family
from lorakit.errors import LorakitError
from lorakit.train import cache as caching
from lorakit.train.cache import cache, latents_path, load_latents
from lorakit.train.preflight import check_settings, plan_in_words
from lorakit.train.resolutions import at_every_resolution
from lorakit.train.train import train


def test_every_picture_is_there_at_every_size_it_has_the_pixels_for(make_dataset):
    project = make_dataset(**{"train.resolution": 64, "train.other_resolutions": [48, 32]})
    photos = project.manifest.selected
    found = at_every_resolution(project, photos)
    assert [record["file"] for record in found] == 3 * [record["file"] for record in photos]
    areas = [np.prod(record["crop"]["bucket"]) for record in found]
    assert all(area <= side * side for area, side in zip(areas, np.repeat([64, 48, 32], len(photos)), strict=True))
    for record, whole in zip(found[len(photos) :], 2 * photos, strict=True):
        (left, top, right, bottom), outer = record["crop"]["box"], whole["crop"]["box"]
        assert outer[0] <= left < right <= outer[2] and outer[1] <= top < bottom <= outer[3]
        width, height = record["crop"]["bucket"]
        assert (right - left) / (bottom - top) == pytest.approx(width / height, rel=0.05)
    small = {**photos[0], "crop": {**photos[0]["crop"], "bucket": [32, 32]}}
    assert at_every_resolution(project, [small]) == [small]


@pytest.mark.slow
def test_smaller_sizes_are_shrunk_cached_trained_and_told(make_dataset):
    project = make_dataset(**{"train.other_resolutions": [32], "train.steps": 12, "train.resolution": 64})
    run = train(project)
    photos = cache(project)
    view = at_every_resolution(project, photos)[len(photos)]
    assert latents_path(project, view) != latents_path(project, photos[0])
    with Image.open(project.dataset_folder / view["dataset"]["file"]) as image:
        shrunk = image.convert("RGB").resize(tuple(view["crop"]["bucket"]), Image.Resampling.LANCZOS, box=tuple(view["view"]))
    pixels = torch.from_numpy(np.asarray(shrunk, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    assert torch.allclose(load_latents(project, view)["mean"], load_family(project).encode_picture(pixels)["mean"], atol=1e-5)
    assert run.facts["result"]["visits"] == {record["file"]: 2 for record in photos}  # 12 steps: every photo at both sizes
    assert run.facts["result"]["photos"] == 6
    words = plan_in_words(project.settings.train, at_every_resolution(project, photos), 12)
    assert words == "12 pictures of 6 photos x 1 repeat x 1.0 epochs / batch 1 = 12 steps"


def test_masks_are_shrunk_with_their_picture(make_dataset, photo_folder):
    mask = Image.new("L", (640, 512))
    mask.paste(255, (0, 0, 320, 512))
    mask.save(photo_folder / "photo_0_mask.png")
    project = make_dataset(**{"train.other_resolutions": [32], "train.masked_loss": True, "train.resolution": 64})
    photos = cache(project)
    number = next(i for i, record in enumerate(photos) if record["file"] == "photo_0.jpg")
    view = at_every_resolution(project, photos)[len(photos) + number]
    found, latents = caching.load_mask(project, view), load_latents(project, view)["mean"]
    assert found.shape[-2:] == latents.shape[-2:] and found[..., 0].min() == 1 and found[..., -1].max() == 0


@pytest.mark.parametrize(
    ("sizes", "line"), [([64], "these are the smaller ones"), ([4], "smaller than train.bucket_step = 16"), (["x"], "is not a list")]
)
def test_sizes_that_are_none_are_one_line(make_project, sizes, line):
    with pytest.raises(LorakitError, match=line):
        check_settings(make_project("p", **{"train.other_resolutions": sizes}))
