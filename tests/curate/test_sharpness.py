"""Blur is found whatever its kind, at any resolution and under noise; plain, dark and pale photos are not blurred."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from lorakit.curate import blur, thing
from lorakit.curate.checks import sharpness
from lorakit.photos.photo import read_photo
from tests.conftest import draw_photo

SIZE = (1300, 1024)


def scored(image: Image.Image, tmp_path, **settings) -> tuple[float, dict[str, str]]:
    """(sharpness, {reason: verdict}) of a picture saved as a JPEG."""
    image.save(tmp_path / "a.jpg", quality=92)
    measures = sharpness.measure(read_photo(tmp_path / "a.jpg"))
    return measures["sharpness"], {r.reason: r.verdict for r in sharpness.judge(measures, sharpness.Settings(**settings))}


def shaken(image: Image.Image, length: int) -> Image.Image:
    pixels = np.asarray(image).astype(float)
    return Image.fromarray(np.mean([np.roll(pixels, step, axis=1) for step in range(length)], axis=0).astype(np.uint8))


def noisy(image: Image.Image, sigma: float) -> Image.Image:
    pixels = np.asarray(image) + np.random.default_rng(0).normal(0, sigma, (image.height, image.width, 1))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


BLURS = {
    "out of focus": lambda p: p.filter(ImageFilter.GaussianBlur(4)),
    "shaken": lambda p: shaken(p, 20),
    "out of focus, noisy": lambda p: noisy(p.filter(ImageFilter.GaussianBlur(4)), 4),
    "shaken, noisy": lambda p: noisy(shaken(p, 24), 4),
}


@pytest.mark.parametrize("blur", BLURS)
def test_blurred_photo_is_rejected(tmp_path, blur):
    assert scored(BLURS[blur](draw_photo(3, SIZE)), tmp_path)[1] == {"blurry": "reject"}


@pytest.mark.parametrize("change", ["none", "dark", "pale", "noisy"])
def test_sharp_photo_is_not(tmp_path, change):
    photo = draw_photo(3, SIZE)
    changed = {
        "none": photo,
        "dark": photo.point(lambda v: v // 4),
        "pale": photo.point(lambda v: v // 4 + 110),
        "noisy": noisy(photo, 6),
    }
    assert scored(changed[change], tmp_path)[1] == {}


@pytest.mark.parametrize("blurred", [False, True])
def test_score_means_the_same_at_any_resolution(tmp_path, blurred):
    photo = draw_photo(4, (2600, 2048))
    photo = photo.filter(ImageFilter.GaussianBlur(8)) if blurred else photo
    scores = [scored(photo.resize((round(side * 1.27), side), Image.Resampling.LANCZOS), tmp_path)[0] for side in (512, 1024, 2048)]
    assert max(scores) - min(scores) < 0.2 and all((score < 0.3) == blurred for score in scores)


def test_photo_with_little_texture_is_warned_of_and_never_rejected(tmp_path):
    sky = Image.linear_gradient("L").resize((1200, 1000)).convert("RGB")
    assert scored(sky, tmp_path)[1] == {"little_texture": "warn"}


def test_limits_can_be_set(tmp_path):
    blurred = draw_photo(3, SIZE).filter(ImageFilter.GaussianBlur(4))
    score, _ = scored(blurred, tmp_path)
    assert scored(blurred, tmp_path, min_sharpness=score / 2, good_sharpness=1.0)[1] == {"soft": "warn"}


def test_tiny_photo_is_not_scored(tmp_path):
    assert scored(draw_photo(1, (160, 120)), tmp_path) == (None, {})


@pytest.mark.parametrize("degrees", [30, 45, 120, 150])
def test_streaks_of_a_slanted_shake_are_no_texture(degrees):
    """Grain, shaken aslant: to the score it is full of detail."""
    grain = np.random.default_rng(1).integers(0, 256, (512, 640)).astype(np.uint8)
    kernel = np.zeros((25, 25), np.float32)
    kernel[12] = 1
    kernel = cv2.warpAffine(kernel, cv2.getRotationMatrix2D((12, 12), degrees, 1), (25, 25))
    shaken = cv2.filter2D(grain, -1, kernel / kernel.sum())
    assert blur.streaks(shaken) > sharpness.Settings().max_streaks > blur.streaks(grain)
    found = {"sharpness": 0.95, "texture": 0.9, "streaks": blur.streaks(shaken)}
    assert [reason.reason for reason in sharpness.judge(found, sharpness.Settings())] == ["soft"]
    assert not list(sharpness.judge({"sharpness": 0.95, "texture": 0.9}, sharpness.Settings()))  # measured by an earlier version


def cut_out(thing: Image.Image, behind: str | None, soft: float = 0) -> Image.Image:
    shape = Image.new("L", thing.size, 0)
    ImageDraw.Draw(shape).ellipse((thing.width // 5, thing.height // 6, thing.width * 4 // 5, thing.height * 5 // 6), fill=255)
    shape = shape.filter(ImageFilter.GaussianBlur(soft))
    page = Image.new("RGBA", thing.size, behind or (0, 0, 0, 0))
    page.paste(thing, mask=shape)
    return page.convert("RGB") if behind else page


@pytest.mark.parametrize("behind", ["white", "black", "#6090c0", None])
def test_a_sharp_cut_around_what_is_blurred_is_no_sharpness_and_a_soft_one_around_what_is_sharp_no_blur(make_photo, behind):
    sharp, found = draw_photo(3, SIZE), {}
    blurred = BLURS["out of focus"](sharp)
    for name, picture in (("blurred", cut_out(blurred, behind)), ("sharp", cut_out(sharp, behind)), ("soft", cut_out(sharp, behind, 8))):
        path = make_photo(f"{name}.png", image=picture)
        measures = sharpness.measure(read_photo(path))
        found[name] = {r.reason for r in sharpness.judge(measures, sharpness.Settings())}
    assert found == {"blurred": {"blurry"}, "sharp": set(), "soft": set()}


def test_a_long_thing_aslant_on_white_is_not_shaken(make_photo):
    shape = Image.new("L", (1024, 1024), 0)
    ImageDraw.Draw(shape).rectangle((60, 420, 960, 600), fill=255)
    page = Image.new("RGB", shape.size, "white")
    page.paste(draw_photo(3, shape.size), mask=shape.rotate(35, Image.Resampling.BICUBIC))
    measures = sharpness.measure(read_photo(make_photo("a.png", image=page)))
    assert not list(sharpness.judge(measures, sharpness.Settings()))


def test_before_a_photographed_backdrop_the_whole_frame_is_looked_at(make_photo):
    """Its silhouette is as sharp as the lens made it."""
    shot = read_photo(make_photo("a.png", image=noisy(cut_out(draw_photo(3, SIZE), "#6090c0"), 1.5)))
    assert shot.behind is not None and thing.inside(shot) is None
