"""Crops lie inside the photo and have the shape of their bucket; bucket sides keep the base's step and area."""

import pytest
from PIL import Image

from lorakit.photos import buckets
from lorakit.photos.images import load_crop
from tests.conftest import draw_photo


@pytest.mark.parametrize("resolution, step", [(512, 64), (768, 64), (1024, 64), (1024, 32), (64, 16)])
def test_buckets_keep_step_area_and_aspect(resolution, step):
    found = buckets.sizes(resolution, step, 2.0)
    assert (resolution, resolution) in found and len(found) == len(set(found))
    for width, height in found:
        assert width % step == height % step == 0 and width * height <= resolution**2
        assert max(width, height) / min(width, height) <= 2 and (height, width) in found


@pytest.mark.parametrize("size", [(640, 512), (512, 640), (6000, 4000), (513, 511), (1000, 3000)])
def test_box_has_the_shape_of_its_bucket_and_fills_one_side(size):
    bucket = buckets.nearest(*size, buckets.sizes(512, 64, 2.0))
    width, height = buckets.largest_box(*size, bucket)
    assert width <= size[0] and height <= size[1] and (width == size[0] or height == size[1])
    assert abs(width / height - bucket[0] / bucket[1]) < 0.01


@pytest.mark.parametrize("weights, expected", [([0] * 8, 300), ([1] * 8, 300), ([9, 0, 0, 0, 0, 0, 0, 0], 0), ([0] * 7 + [9], 600)])
def test_box_is_laid_where_the_weight_is(weights, expected):
    assert abs(buckets.best_offset(weights, 1000, 400) - expected) <= 10


@pytest.mark.parametrize("side", ["left", "right"])
def test_subject_at_the_edge_of_a_wide_photo_stays_in(curated, make_photo, side):
    photo = Image.new("RGB", (1600, 640), (120, 130, 140))
    photo.paste(draw_photo(8, (260, 400)), (200 if side == "left" else 1140, 120))
    make_photo("wide.jpg", image=photo, quality=95)
    project = curated("crop", **{"crop.max_aspect": 1.0, "check.sharpness.min_sharpness": 0.0})
    box = next(r for r in project.manifest.selected if r["file"] == "wide.jpg")["crop"]["box"]
    assert (box[2] < 900) if side == "left" else (box[0] > 700)


def test_borders_are_cut_away(curated, make_photo):
    framed = Image.new("RGB", (800, 900), "black")
    framed.paste(draw_photo(9, (800, 640)), (0, 130))
    make_photo("framed.jpg", image=framed)
    box = next(r for r in curated("crop").manifest.selected if r["file"] == "framed.jpg")["crop"]["box"]
    assert box[1] >= 130 and box[3] <= 770


@pytest.mark.parametrize("resolution, most", [(1024, 1.5), (768, 1.0)])
def test_small_photos_get_a_smaller_bucket_rather_than_be_enlarged(curated, resolution, most):
    project = curated("crop", **{"train.resolution": resolution, "crop.max_upscale": most, "check.size.min_side": 300})
    assert len(project.manifest.selected) == 6
    for record in project.manifest.selected:
        box, bucket = record["crop"]["box"], record["crop"]["bucket"]
        assert bucket[0] <= (box[2] - box[0]) * most and bucket[0] % 64 == bucket[1] % 64 == 0


def test_every_chosen_photo_gets_a_box_and_a_bucket(curated):
    project = curated("crop", **{"train.resolution": 256})
    for record in project.manifest.selected:
        box, bucket = record["crop"]["box"], record["crop"]["bucket"]
        assert (box[2] - box[0] > box[3] - box[1]) == (bucket[0] > bucket[1])
        assert bucket[0] * bucket[1] <= 256 * 256


def test_rotated_photo_is_cut_as_it_is_seen(curated, make_photo):
    exif = Image.Exif()
    exif[0x0112] = 6
    make_photo("turned.jpg", 30, (900, 600), exif=exif.tobytes())
    project = curated("crop")
    record = next(r for r in project.manifest.selected if r["file"] == "turned.jpg")
    assert (record["measures"]["size"]["width"], record["measures"]["size"]["height"]) == (600, 900)
    assert load_crop(record).size == tuple(record["crop"]["bucket"]) and record["crop"]["bucket"][1] > record["crop"]["bucket"][0]
