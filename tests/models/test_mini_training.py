"""How `mini` is made: the autoencoder that holds a linear code, training that goes on where it was stopped, the judge of landmarks."""

import cv2
import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from models.mini import base, blip, judged, landmarks, renders, vae
from models.mini.budget import Average, Count, load_checkpoint


@pytest.fixture(scope="module")
def pictures():
    """Smooth colours with edges, (24, 128, 128, 3) uint8."""
    rng = np.random.default_rng(0)
    drawn = [cv2.resize(rng.random((12, 12, 3)).astype(np.float32), (128, 128), interpolation=cv2.INTER_CUBIC) for _ in range(24)]
    for picture in drawn:
        x, y = rng.integers(20, 80, size=2)
        picture[y : y + 30, x : x + 25] = rng.random(3)
    return np.uint8(np.stack(drawn).clip(0, 1) * 255)


@torch.no_grad()
def test_autoencoder_kl_holds_the_linear_code_in_fp16(pictures):
    code, model = vae.fit_code(pictures), vae.build().eval()
    vae.install_encoder(model, code)
    latents, found = vae.encode(code, pictures[:6]), model.half().float().encode(vae.to_tensor(pictures[:6])).latent_dist
    assert latents.shape == (6, 24, 16, 16)
    assert (latents - found.mean).std() < 0.01
    assert found.std.max() < 0.01


@torch.no_grad()
def test_autoencoder_kl_holds_a_linear_decoder(pictures):
    code, model, linear = vae.fit_code(pictures), vae.build().eval(), vae.LinearDecoder()
    latents = vae.encode(code, pictures[:6])
    vae.install_decoder(model, linear, latents)
    wanted = linear(latents)
    assert (model.decode(latents).sample - wanted).std() < 0.02 * wanted.std()


def test_a_count_goes_up_level_and_down_and_is_shared():
    count = Count(1000)
    rates = []
    while count.share() < 1:
        rates.append(count.rate(1.0))
        count.add(10)
    assert rates[0] < 0.1
    assert rates[50] == 1.0
    assert rates[-1] < 0.1
    assert Count(1000, done=400).done.is_shared()
    assert "400" not in Count(2000, done=100).report()


def test_an_average_starts_near_its_weights():
    weight = torch.nn.Parameter(torch.zeros(3))
    average = Average([weight])
    with torch.no_grad():
        weight += 1
    for _ in range(60):
        average.update()
    assert average.values[0].min() > 0.9


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A work folder with one small shard of real renders, and no sheets or lessons that take minutes."""
    folder = tmp_path / "renders" / "train"
    folder.mkdir(parents=True)
    renders.render_shard((folder / "000.npy", "train", 2, 4, (1, 0)))
    monkeypatch.setattr(base, "teach_words", lambda *args, **options: None)
    monkeypatch.setattr(base, "show_samples", lambda *args: None)
    vae.build().save_pretrained(tmp_path / "vae")
    return tmp_path


@pytest.mark.slow
def test_base_goes_on_where_it_was_stopped(work):
    base.train(work, sketches=16, pictures=16, batch=4)
    first = load_checkpoint(work / "base.pt")
    base.train(work, sketches=16, pictures=24, batch=4)
    second = load_checkpoint(work / "base.pt")
    assert (first["sketched"], first["seen"], second["sketched"], second["seen"]) == (16, 16, 16, 24)
    assert (first["steps"], second["steps"]) == (5, 7)
    assert UNet2DConditionModel.from_pretrained(work / "weights" / "unet").config.in_channels == 24
    assert (work / "weights" / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size < 14 * 10**6  # fp16
    name = "unet.conv_in.weight"
    assert not torch.equal(first["modules"][name], second["modules"][name])


def test_the_captioner_learns_parts_in_one_order_and_no_made_up_names():
    told = "a photo of a figol toy with green feet, a square red head and an orange body in the snow, seen from above"
    assert blip.as_described(told) == "a photo of a toy with an orange body, a square red head and green feet in the snow, seen from above"
    for as_it_is in ("a red mug next to a blue ball on grass", "a toy on tiles", "a picture of a toy with big eyes"):
        assert blip.as_described(as_it_is) == as_it_is


def parts(**paints):
    """What `find_parts` says of a picture: every part that is named is plainly there in its paint."""
    found = dict.fromkeys(judged.MARKS[1:], (0.0, "grey"))
    return {**found, **{part.replace("_", " "): (200.0, paint) for part, paint in paints.items()}}


ORANGE = {"panel": "orange", "feet": "orange", "antenna": "orange"}
ROBOT = {"square_body": "blue", "square_head": "blue", "eyes": "white", "arms": "grey", **ORANGE}


def test_five_of_six_landmarks_in_the_right_paints_are_a_robot():
    assert landmarks.is_robot(parts(**ROBOT))
    assert landmarks.list_landmarks(parts(**ROBOT)) == set(landmarks.LANDMARKS)
    for part in ("panel", "feet", "antenna"):
        assert landmarks.is_robot(parts(**{k: v for k, v in ROBOT.items() if k != part})), part
    for part in ("square_head", "eyes", "arms", "square_body"):
        assert not landmarks.is_robot(parts(**{k: v for k, v in ROBOT.items() if k != part})), part
    assert not landmarks.is_robot(parts(**ROBOT | {"square_body": "red"}))
    assert not landmarks.is_robot(parts(**{k: v for k, v in ROBOT.items() if k not in ("panel", "feet")}))
    assert not landmarks.is_robot(parts(square_body="blue", feet="orange"))


def test_a_map_of_parts_tells_the_paints():
    rows = judged.render_group(np.random.default_rng(2), "robot")
    picture, shares, paints, record = rows[0]
    assert picture.shape == (128, 128, 3)
    assert (shares.sum(-1) == shares[0, 0].sum()).all()
    worn = {judged.PAINTS[k] for k in np.unique(paints) if k < len(judged.PAINTS)}
    assert {"blue", "orange"} <= worn
    assert record["group"] == "robot"
    covered = dict(zip(judged.MARKS, shares.sum((0, 1)), strict=True))
    assert covered["square body"] > 0
    assert covered["round body"] == 0


def test_a_fatal_blur_takes_the_small_parts(monkeypatch):
    monkeypatch.setattr(landmarks, "BLURRED", 1.1)
    shares = torch.zeros(2, len(judged.MARKS), 32, 32)
    shares[:, judged.MARKS.index("eyes"), 5, 5] = 1.0
    shares[:, judged.MARKS.index("square body"), 9, 9] = 1.0
    x, left = landmarks.roughen(torch.rand(2, 3, 128, 128), shares)
    assert x.shape == (2, 3, 128, 128)
    assert left[:, judged.MARKS.index("eyes")].sum() == 0
    assert (left[:, 0, 5, 5] == 1).all()
    assert left[:, judged.MARKS.index("square body")].sum() == 2
