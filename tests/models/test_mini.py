"""The small base as a user meets it: the demo's folder in, a LoRA out that has visibly learned the robot."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

import lorakit
from bench.mini_quality import DEMO, LANDMARKS, ask_subject
from lorakit.bases.families.sd15 import SD15
from lorakit.clip import Clip
from lorakit.lora_file.verify import judge_file
from models.mini.base import build_scheduler, sample
from models.mini.geometry import Camera, Placed, march
from models.mini.landmarks import find_parts, is_robot, load_landmarks
from models.mini.renders import SIZE, to_bytes
from models.mini.shading import shade
from models.mini.vae import to_tensor
from models.mini.world import COLOURS, OBJECTS, Look, Scene, draw_lights

ROOT = Path(__file__).parents[2]
MINI = ROOT / "models" / "mini"
SAMPLES = ROOT / "sample_data"
MEGABYTE = 10**6


def test_all_of_mini_stays_small_enough_for_a_repository():
    tensors = list(MINI.rglob("*.safetensors"))
    assert {path.parent.name for path in tensors} == {"unet", "vae", "text_encoder", "blip", "clip"}
    assert sum(path.stat().st_size for path in tensors) <= 24 * MEGABYTE
    assert (MINI / "blip" / "model.safetensors").stat().st_size <= 12 * MEGABYTE


def test_no_part_tells_where_it_was_made():
    assert not [path for path in MINI.rglob("*.json") if "_name_or_path" in path.read_text(encoding="utf-8")]


def test_its_layers_are_known_by_name():
    """By which a LoRA file without a project is told to be one of it."""
    config = SD15.DENOISER.load_config(MINI / "weights" / "unet")
    known = SD15.config_of("mini")
    assert {key: list(value) if isinstance(value, tuple) else value for key, value in known.items()} == {key: config[key] for key in known}


def test_what_is_benched_is_the_demo():
    demo = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(f"--set {key}={value} " in demo for key, value in DEMO.items())


def test_open_clip_knows_the_things_of_the_world():
    """Renders at the size of a photo, through the same class that curation uses."""
    clip = Clip(str(MINI / "clip"), "embed.clip", "cpu")
    said = clip.say([f"a photo of a {kind}" for kind in OBJECTS])
    seen = np.stack(list(clip.see(look_at(kind, colour, side=128) for kind, colour in zip(OBJECTS, [*COLOURS, *COLOURS], strict=False))))
    assert (np.argmax(seen @ said.T, axis=1) == np.arange(len(OBJECTS))).mean() >= 0.75


def look_at(kind, colour, side) -> Image.Image:
    """One thing on concrete."""
    scene = Scene((Placed(kind, yaw=0.4),), Camera(), draw_lights(np.random.default_rng(1), 0.0))
    buffers = march(scene.things, scene.camera, scene.lights, side, side)
    return Image.fromarray(to_bytes(shade(scene, Look((colour,), ("matte",), "concrete", "studio light"), buffers)))


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A project that went the demo's whole way, with half its steps."""
    folder = tmp_path_factory.mktemp("mini") / "project"
    project = lorakit.new_project(
        folder, SAMPLES / "photos", base="mini", kind="object", trigger="zwx", class_word="toy", device="cpu",
        settings={"train.steps": 240, "train.hold_out": False, **DEMO},
    )  # fmt: skip
    lorakit.walk(project)
    return project


@pytest.mark.slow
def test_curation_agrees_with_what_the_folder_was_made_for(taught):
    """A photo made to be good is kept, one made to be bad is rejected for what was done to it."""
    expected = json.loads((SAMPLES / "expected.json").read_text(encoding="utf-8"))
    seen = {photo["file"]: photo for photo in lorakit.status(taught)["photos"]}
    wrong = [
        (name, seen[name]["verdict"], seen[name]["reasons"], wanted)
        for name, wanted in expected.items()
        if (seen[name]["verdict"] == "reject") != (wanted["verdict"] == "reject")
        or (wanted["reason"] and wanted["reason"] not in {reason["reason"] for reason in seen[name]["reasons"]})
    ]
    assert wrong == []


@pytest.mark.slow
def test_captions_name_the_toy(taught):
    texts = [record["text"] for record in taught.manifest.selected]
    assert sum("zwx toy" in text for text in texts) >= 0.8 * len(texts)
    assert all(text.count("zwx") == 1 for text in texts)


@pytest.mark.slow
def test_its_file_is_told_by_its_layers_and_loads_everywhere(taught):
    (file,) = taught.folder.glob("runs/*/*.safetensors")
    family, judgements = judge_file(file)
    assert family == "sd15" and all(judgement.is_whole for judgement in judgements)


@pytest.mark.slow
def test_lora_learns_the_subject_and_the_trigger_calls_it(taught):
    """On fixed noise the LoRA predicts the subject's pictures better than the base does, and better with the trigger. What it paints is
    the robot, by the parts that can be seen in it, with the trigger, and is not without."""
    pipeline = StableDiffusionPipeline.from_pretrained(MINI / "weights").to(torch.float32)
    latents = encode_photos(pipeline, taught)
    with_trigger, without = "a photo of a zwx toy", "a photo of a toy"
    before = denoising_loss(pipeline, latents, with_trigger)
    (file,) = taught.folder.glob("runs/*/*.safetensors")
    pipeline.load_lora_weights(str(file.parent), weight_name=file.name)
    after, uncalled = (denoising_loss(pipeline, latents, prompt) for prompt in (with_trigger, without))
    assert after < 0.85 * before
    assert after < uncalled
    pictures = sample(pipeline, ask_subject(16, "zwx", "toy") + ask_subject(16, "", "toy"))
    robots = [is_robot(found) for found in find_parts(load_landmarks(LANDMARKS), pictures)]
    assert sum(robots[:16]) >= 4 and sum(robots[16:]) <= 2


def encode_photos(pipeline, project) -> torch.Tensor:
    """Latents (N, 24, 16, 16) of every picture of the dataset."""
    files = sorted((project.folder / "dataset").glob("*.png"))
    pictures = [Image.open(file).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BOX) for file in files]
    with torch.no_grad():
        return pipeline.vae.encode(to_tensor(np.stack(pictures))).latent_dist.mean * pipeline.vae.config.scaling_factor


@torch.no_grad()
def denoising_loss(pipeline, latents, prompt) -> float:
    """Mean squared error of the predicted velocity over fixed noise at eight timesteps of the middle and late schedule."""
    words, schedule = pipeline.encode_prompt(prompt, "cpu", 1, False)[0], build_scheduler()
    losses = []
    for step in range(200, 1000, 100):
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(step))
        steps = torch.full((len(latents),), step)
        predicted = pipeline.unet(schedule.add_noise(latents, noise, steps), steps, words.expand(len(latents), -1, -1)).sample
        losses.append(torch.nn.functional.mse_loss(predicted, schedule.get_velocity(latents, noise, steps)).item())
    return sum(losses) / len(losses)
