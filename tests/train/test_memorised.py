"""A sample that repeats a training photo is told from one that only shows the same thing."""

from types import SimpleNamespace

from lorakit.train import memorised
from tests.conftest import draw_photo


def test_a_sample_that_repeats_a_photo_is_named(tmp_path, capsys):
    photos, samples = tmp_path / "photos", tmp_path / "samples"
    photos.mkdir(), samples.mkdir()
    for number in range(3):
        draw_photo(number, (512, 512)).save(photos / f"{number}.png")
    records = [{"dataset": {"file": f"{number}.png"}} for number in range(3)]
    project = SimpleNamespace(dataset_folder=photos, manifest=SimpleNamespace(selected=records))
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
