"""A sample that repeats a training photo is told from one that only shows the same thing."""

from pathlib import Path
from types import SimpleNamespace

from PIL import Image

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
