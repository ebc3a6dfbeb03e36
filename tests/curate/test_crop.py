"""Crops lie inside the photo and have the shape of their bucket; bucket sides keep the base's step and area."""

import pytest

from lorakit import buckets


@pytest.mark.parametrize("resolution, step", [(512, 64), (768, 64), (1024, 64), (1024, 32), (64, 16)])
def test_buckets_keep_step_area_and_aspect(resolution, step):
    found = buckets.sizes(resolution, step, 2.0)
    assert (resolution, resolution) in found and len(found) == len(set(found))
    for width, height in found:
        assert width % step == height % step == 0 and width * height <= resolution**2
        assert max(width, height) / min(width, height) <= 2 and (height, width) in found


@pytest.mark.parametrize("size", [(640, 512), (512, 640), (6000, 4000), (513, 511), (1000, 3000)])
def test_box_has_the_shape_of_its_bucket_and_lies_in_the_photo(size):
    bucket = buckets.nearest(*size, buckets.sizes(512, 64, 2.0))
    left, top, right, bottom = buckets.centre_box(*size, bucket)
    assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]
    assert abs((right - left) / (bottom - top) - bucket[0] / bucket[1]) < 0.01
    assert right - left == size[0] or bottom - top == size[1]


def test_every_chosen_photo_gets_a_box_and_a_bucket(curated):
    project = curated("crop", **{"train.resolution": 256})
    for record in project.manifest.selected:
        box, bucket = record["crop"]["box"], record["crop"]["bucket"]
        assert (box[2] - box[0] > box[3] - box[1]) == (bucket[0] > bucket[1])
        assert bucket[0] * bucket[1] <= 256 * 256


def test_rotated_photo_is_cut_as_it_is_seen(curated, make_photo):
    from PIL import Image

    from lorakit.images import load_crop

    exif = Image.Exif()
    exif[0x0112] = 6
    make_photo("turned.jpg", 30, (900, 600), exif=exif.tobytes())
    project = curated("crop")
    record = next(r for r in project.manifest.selected if r["file"] == "turned.jpg")
    assert (record["measures"]["size"]["width"], record["measures"]["size"]["height"]) == (600, 900)
    assert (
        load_crop(record).size == tuple(record["crop"]["bucket"])
        and record["crop"]["bucket"][1] > record["crop"]["bucket"][0]
    )
