"""A sample that repeats a training photo is told from one that only shows the same thing."""

import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

from PIL import Image, ImageDraw

from lorakit.report import training_part
from lorakit.train import memorised
from tests.conftest import draw_photo

MINI_CLIP = Path(__file__).parents[2] / "models" / "mini" / "clip"


def set_of(tmp_path, count):
    """(a project of so many photos, their folder, a folder for samples)."""
    photos, samples = tmp_path / "photos", tmp_path / "samples"
    photos.mkdir(), samples.mkdir()
    for number in range(count):
        draw_photo(number, (512, 512)).save(photos / f"{number}.png")
    book = SimpleNamespace(selected=[{"dataset": {"file": f"{number}.png"}} for number in range(count)])
    settings = SimpleNamespace(embed=SimpleNamespace(clip=None))
    return SimpleNamespace(dataset_folder=photos, manifest=book, device="cpu", settings=settings), photos, samples


def test_a_sample_that_repeats_a_photo_is_named(tmp_path, capsys):
    project, photos, samples = set_of(tmp_path, 3)
    assert memorised.look(project, samples) == {}
    for number in range(2):
        draw_photo(90 + number, (256, 256)).save(samples / f"{number}_base.png")
        draw_photo(70 + number, (256, 256)).save(samples / f"{number}_lora.png")
    assert not memorised.look(project, samples)["memorised"]
    again = draw_photo(1, (512, 512)).transpose(0).resize((200, 200))  # mirrored
    again.save(samples / "1_lora.png")
    found = memorised.look(project, samples)
    assert found["memorised"] and found["nearest"][1][0] == "1.png" and found["nearest"][1][1] > 0.95
    again.save(samples / "1_base.png")  # the base draws it too: nothing that the LoRA has learned
    assert not memorised.look(project, samples)["memorised"]
    again.save(samples / "1_lora.png")
    draw_photo(90, (256, 256)).save(samples / "1_base.png")
    torn = photos / "0.png"
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    assert memorised.look(project, samples)["memorised"], "a photo that is damaged is left out, and ends nothing"
    assert "0.png: cannot be read" in capsys.readouterr().err


def one_framing(number, size=(256, 256)):
    """The same backdrop, the same thing, turned a little."""
    picture = draw_photo(5, size)
    shape, far = ImageDraw.Draw(picture), 6 * (number % 4)
    shape.ellipse((100 + far, 90, 160 + far, 170 + number % 3), fill=(200, 40, 30))
    shape.rectangle((115 + far, 110 + number % 5, 130 + far, 130), fill=(250, 240, 90))
    return picture


def test_a_new_picture_of_a_thing_that_was_always_shot_in_one_frame_is_no_repetition(tmp_path):
    """Nor can it be told from one: the photos are as like each other as a copy is."""
    project, photos, samples = set_of(tmp_path, 8)
    for number in range(8):
        one_framing(number).save(photos / f"{number}.png")
    draw_photo(90, (256, 256)).save(samples / "0_base.png")
    one_framing(11).save(samples / "0_lora.png")
    for clip in (None, str(MINI_CLIP)):
        project.settings.embed.clip = clip
        found = memorised.look(project, samples)
        assert found["memorised"] is None and found["nearest"][0][1] > 0.95
    for number in range(2, 8):  # of which two alone are alike: one may be a copy of the other, which hides no repetition
        draw_photo(20 + number, (256, 256)).save(photos / f"{number}.png")
    one_framing(0).save(samples / "0_lora.png")
    assert memorised.look(project, samples)["memorised"] is True


def test_pictures_of_others_among_the_samples_are_named_and_passed_over(tmp_path, capsys):
    project, _, samples = set_of(tmp_path, 3)
    for name in ("0_base.png", "0_lora.png", "old_lora.png", "old_base.png", "-1_lora.png"):
        draw_photo(90, (64, 64)).save(samples / name)
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + struct.pack(">I", 9)
        + b"IDAT"
        + bytes(13)
    )
    (samples / "1_lora.png").write_bytes(bomb)
    draw_photo(91, (64, 64)).save(samples / "1_base.png")
    found = memorised.look(project, samples)
    assert found["memorised"] is False and len(found["nearest"]) == 1
    err = capsys.readouterr().err
    assert err.count("is none of lorakit's samples") == 2 and err.count("cannot be read (too_many_pixels") == 1 and err.count("\n") == 3
    assert training_part.file_uri(samples / "1_lora.png", 64) == ""


def test_open_clip_finds_a_photo_that_was_cut_and_moved(tmp_path):
    """Its pixels no longer lie over those of the photo. A picture of the same thing is not one."""
    project, photos, samples = set_of(tmp_path, 4)
    draw_photo(90, (256, 256)).save(samples / "0_base.png")
    with Image.open(photos / "2.png") as photo:
        photo.crop((90, 60, 512, 482)).resize((256, 256)).save(samples / "0_lora.png")
    by_pixels = memorised.look(project, samples)
    assert by_pixels["nearest_by"] == "pixels" and not by_pixels["memorised"]
    project.settings.embed.clip = str(MINI_CLIP)
    found = memorised.look(project, samples)
    assert found["memorised"] and found["nearest_by"] == "open_clip" and found["nearest"][0][0] == "2.png"
    draw_photo(70, (256, 256)).save(samples / "0_lora.png")
    assert not memorised.look(project, samples)["memorised"]
