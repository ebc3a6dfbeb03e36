"""Pictures that were enlarged lack the finest detail; photos as they are, dark, pale or noisy ones do not."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from lorakit.curate.check import measure
from lorakit.quality import verdicts
from lorakit.settings import resolve


def natural_picture(width: int, height: int) -> Image.Image:
    """Structures of all sizes, as photos have them: their amplitude falls as one over the frequency (Field 1987)."""
    random = np.random.default_rng(0)
    across, down = np.meshgrid(np.fft.rfftfreq(width), np.fft.fftfreq(height))
    waves = np.fft.rfft2(random.normal(size=(height, width))) / np.maximum(np.hypot(across, down), 1 / height)
    pixels = np.fft.irfft2(waves, (height, width))
    return Image.fromarray(np.clip(128 + 45 * pixels / pixels.std(), 0, 255).astype(np.uint8)).convert("RGB")


SHARP = natural_picture(1600, 1280)


def falloff(path) -> float:
    return measure(path)["measures"]["detail"]["falloff"]


def is_told(path, **settings) -> bool:
    found = verdicts.judge({"id": "a", **measure(path)}, resolve([("test", settings)]))
    return ("warn", "upscaled") in [(r.verdict, r.reason) for r in found.reasons]


@pytest.mark.parametrize(("side", "to"), [(256, (640, 512)), (256, (1600, 1280)), (320, (1600, 1280)), (360, (1600, 1280))])
@pytest.mark.parametrize("way", [Image.Resampling.BICUBIC, Image.Resampling.LANCZOS])
def test_an_enlarged_picture_is_told(make_photo, side, way, to):
    small = SHARP.resize((side * 5 // 4, side), Image.Resampling.LANCZOS)
    assert is_told(make_photo("a.jpg", image=small.resize(to, way), quality=92))


CHANGES = {
    "as it is": lambda p: p,
    "dark": lambda p: np.asarray(p) * 0.25,
    "pale": lambda p: np.asarray(p) * 0.3 + 90.0,
    "noisy": lambda p: np.asarray(p) + np.random.default_rng(0).normal(0, 6, (1280, 1600, 1)),
    "shrunk": lambda p: p.resize((640, 512), Image.Resampling.LANCZOS),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_photo_is_not(make_photo, change):
    pixels = np.clip(np.asarray(CHANGES[change](SHARP)), 0, 255).astype(np.uint8)
    assert not is_told(make_photo("a.jpg", image=Image.fromarray(pixels), quality=85))


def test_the_limit_is_a_setting_and_what_cannot_be_told_is_not(make_photo):
    path = make_photo("a.jpg", image=SHARP, quality=92)
    assert is_told(path, **{"check.detail.max_falloff": falloff(path) - 0.01})
    assert falloff(make_photo("small.jpg", 1, (400, 300))) is None
    assert falloff(make_photo("plain.png", image=Image.new("RGB", (800, 700), (90, 120, 30)))) is None


def on_white(picture: Image.Image, soft: float = 0) -> Image.Image:
    shape = Image.new("L", picture.size, 0)
    ImageDraw.Draw(shape).ellipse((200, 160, picture.width - 200, picture.height - 160), fill=255)
    page = Image.new("RGB", picture.size, "white")
    page.paste(picture, mask=shape.filter(ImageFilter.GaussianBlur(soft)))
    return page


def test_of_a_cut_out_the_thing_is_looked_at_not_the_cut(make_photo):
    enlarged = SHARP.resize((400, 320), Image.Resampling.LANCZOS).resize(SHARP.size, Image.Resampling.BICUBIC)
    assert is_told(make_photo("enlarged.jpg", image=on_white(enlarged), quality=92))
    assert not is_told(make_photo("sharp.jpg", image=on_white(SHARP), quality=92))
    assert not is_told(make_photo("softly.jpg", image=on_white(SHARP, 8), quality=92))
