"""What stands before a plain backdrop is judged, not the backdrop."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lorakit.curate.check import measure
from lorakit.photos.photo import backdrop, read_photo
from lorakit.quality import coverage
from lorakit.quality.verdicts import judge
from lorakit.settings import resolve
from tests.conftest import draw_photo

SETTINGS = resolve([])


def reasons(path) -> list[str]:
    return [reason.reason for reason in judge(measure(path), SETTINGS).reasons]


def cut_out(behind: str | None, seed: int = 1) -> Image.Image:
    """The middle of a picture on a plain colour, or on nothing."""
    thing, shape = draw_photo(seed, (700, 700)), Image.new("L", (700, 700), 0)
    ImageDraw.Draw(shape).ellipse((180, 160, 520, 540), fill=255)
    page = Image.new("RGBA", thing.size, behind or (0, 0, 0, 0))
    page.paste(thing, mask=shape)
    return page.convert("RGB") if behind else page


def line_art(ink: str, paper: str) -> Image.Image:
    drawing = Image.new("RGB", (1400, 1600), paper)
    pen = ImageDraw.Draw(drawing)
    pen.ellipse((400, 200, 1000, 800), outline=ink, width=9)
    pen.polygon([(480, 800), (920, 800), (1100, 1500), (300, 1500)], outline=ink, width=9)
    for x in (570, 800):
        pen.ellipse((x, 420, x + 90, 500), outline=ink, width=9)
    pen.arc((560, 560, 840, 700), 0, 180, fill=ink, width=9)
    return drawing.resize((700, 800), Image.Resampling.LANCZOS)


def lines_over_the_edge(ink: str, paper: str) -> Image.Image:
    """A drawing that goes on beyond the page, in thin soft lines."""
    drawing, lot = Image.new("RGB", (2048, 2048), paper), np.random.default_rng(1)
    pen = ImageDraw.Draw(drawing)
    for _ in range(40):
        x, y, r = lot.integers(-200, 2200, 3)
        pen.ellipse((x - abs(r) // 3, y - 90, x + abs(r) // 3 + 1, y + 90), outline=ink, width=5)
    for at in range(0, 2048, 100):
        for line in ((at, 0, at + 40, 160), (at, 2048, at - 30, 1900), (0, at, 170, at + 20), (2048, at, 1880, at - 50)):
            pen.line(line, fill=ink, width=7)
    return drawing.resize((1024, 1024), Image.Resampling.BOX)


def sprite() -> Image.Image:
    cells = np.random.default_rng(0).integers(0, 4, (24, 12, 3)).astype(np.uint8) * 80
    page = Image.new("RGB", (32, 32), "white")
    page.paste(Image.fromarray(np.concatenate([cells, cells[:, ::-1]], axis=1)), (4, 4))
    return page.resize((640, 640), Image.Resampling.NEAREST)


PICTURES = {
    "on white": cut_out("white"), "on black": cut_out("black"), "on gray": cut_out("#cccccc"), "on nothing": cut_out(None),
    "ink on paper": line_art("black", "white"), "chalk on slate": line_art("white", "black"),
    "lines over the edge": lines_over_the_edge("black", "white"), "chalk over the edge": lines_over_the_edge("white", "black"), "pixels": sprite(),
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_cut_outs_line_art_and_sprites_are_kept(make_photo, name):
    path = make_photo("a.png", image=PICTURES[name])
    assert reasons(path) == {"on nothing": ["transparent"], "pixels": ["borders"]}.get(name, [])
    assert measure(path)["measures"]["exposure"]["backdrop"] > 0.2


def test_a_black_thing_on_white_is_not_too_dark(make_photo):
    dark = Image.eval(draw_photo(1, (700, 700)), lambda value: value // 6)
    page, shape = Image.new("RGB", dark.size, "white"), Image.new("L", dark.size, 0)
    ImageDraw.Draw(shape).ellipse((150, 150, 550, 550), fill=255)
    page.paste(dark, mask=shape)
    assert "too_dark" not in reasons(make_photo("a.png", image=page))


def test_a_blown_out_thing_on_white_is_still_found(make_photo):
    burnt = Image.eval(cut_out("white"), lambda value: min(255, value * 3))
    assert {"too_bright", "clipped", "flat"} & set(reasons(make_photo("a.png", image=burnt)))


def lit(colour: tuple[int, int, int], light: float) -> Image.Image:
    """A ball of a colour on white paper, as a camera develops so much light."""
    y, x = np.mgrid[-1:1:700j, -1:1:700j]
    height = np.sqrt(np.clip(0.36 - x * x - y * y, 0, None))
    shade = np.where(height > 0, 0.35 + height, 0)[..., None] * (np.array(colour) / 255) ** 2.2
    scene = np.where(height[..., None] > 0, shade, 1.0) * light
    return Image.fromarray(np.uint8(np.clip(scene, 0, 1) ** (1 / 2.2) * 255))


def test_a_coloured_thing_washed_out_on_white_is_too_bright_and_a_white_one_is_not(make_photo):
    assert "too_bright" in reasons(make_photo("washed.png", image=lit((130, 160, 200), 4.0)))
    assert "too_bright" not in reasons(make_photo("well.png", image=lit((130, 160, 200), 1.0)))
    assert "too_bright" not in reasons(make_photo("mug.png", image=lit((235, 235, 235), 1.0)))
    assert "too_bright" not in reasons(make_photo("duck.png", image=lit((255, 220, 0), 1.1)))


def test_an_empty_page_is_still_rejected(make_photo):
    assert "flat" in reasons(make_photo("a.png", image=Image.new("RGB", (600, 600), "white")))


def test_a_blown_out_sky_is_no_backdrop(make_photo):
    photo = draw_photo(1)
    photo.paste((255, 255, 255), (0, 0, photo.width, photo.height * 55 // 100))
    path = make_photo("a.png", image=photo)
    shot = read_photo(path)
    assert backdrop(shot.gray) is None and "too_bright" in reasons(path)


def test_a_set_that_is_all_on_white_is_told_once(curated, make_photo):
    for number in range(6):
        make_photo(f"photo_{number}.jpg", image=cut_out("white", number), quality=92)
    project = curated("select")
    chosen = project.manifest.selected
    assert len(chosen) == 6
    lines = [line for line in coverage.find(chosen, project.kind, project.settings) if "plain backdrop" in line]
    assert lines == ["6 of 6 photos stand on a plain backdrop, which is learned with the thing; other surroundings would help"]
