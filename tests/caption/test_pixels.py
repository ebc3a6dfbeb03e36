"""What is measured in a crop's pixels."""

import colorsys

import numpy as np
import pytest
from PIL import Image

from lorakit.caption import pixels
from lorakit.text.facets import HUES, NONE_OF_IT


@pytest.mark.parametrize(
    "name, colour",
    [
        ("red", (200, 20, 20)), ("red", (120, 40, 45)), ("orange", (240, 130, 20)), ("orange", (120, 80, 40)), ("yellow", (240, 220, 60)),
        ("green", (40, 120, 50)), ("green", (120, 150, 60)), ("blue", (30, 60, 200)), ("blue", (140, 180, 220)), ("purple", (120, 40, 160)),
        ("pink", (250, 150, 190)), ("pink", (230, 180, 190)),
    ],
)  # fmt: skip
def test_a_colour_is_seen_where_a_person_may_see_it(name, colour):
    patch = Image.new("RGB", (400, 300), (128, 128, 128))
    patch.paste(colour, (10, 10, 40, 40))
    assert pixels.measure(patch)["colours"][name] > NONE_OF_IT


def test_every_hue_has_a_name():
    for degrees in range(360):
        colour = tuple(round(255 * c) for c in colorsys.hsv_to_rgb(degrees / 360, 0.8, 0.8))
        assert max(pixels.measure(Image.new("RGB", (8, 8), colour))["colours"].values()) == 1.0


def test_gray_has_no_colour_and_luma_is_measured():
    ramp = np.repeat(np.linspace(0, 255, 101, dtype=np.uint8)[None, :, None], 60, axis=0).repeat(3, axis=2)
    found = pixels.measure(Image.fromarray(ramp))
    assert set(found["colours"]) == set(HUES) and not any(found["colours"].values())
    assert found["luma"] == pytest.approx([13, 128, 242], abs=2)


def test_large_crops_are_measured_as_small_ones():
    small = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)).resize((192, 144), Image.Resampling.BICUBIC)
    large = small.resize((768, 576), Image.Resampling.NEAREST)
    assert pixels.measure(large) == pixels.measure(small)
