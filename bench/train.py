"""What a lorakit step costs beside nothing but forward, backward and optimizer, on a CPU or a card.

    python -m bench.train                          # SD1.5 at its real size, random weights, 256 px
    python -m bench.train --size small --rounds 8  # a U-Net of 41 M parameters: minutes become seconds
    python -m bench.train --script train_text_to_image_lora.py --size small

Both are the same model with the same adapter and optimizer, and take turns, so that what else the machine does meets both; on a
CPU the seconds of the processor are counted beside those of the clock. The goal is a ratio of 1.03 at most. `--script` is diffusers'
own, which you bring (diffusers' examples/text_to_image): it is run on the same base, with photos of the same size, and loads and
encodes them in every step, as it does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench.gpu_rows import fill_at_random
from lorakit import settings
from lorakit.bases import families
from lorakit.project import catalog
from lorakit.train import learner as learners
from lorakit.train import loss
from lorakit.train.batches import BatchSampler
from lorakit.train.memory import family_without_weights
from lorakit.weights import quiet_libraries

SIZES = {
    "real": {},
    "small": {"block_out_channels": (64, 128, 256, 256)},
    "tiny": {"block_out_channels": (16, 32, 32, 32), "norm_num_groups": 8},
}
PHOTOS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="real")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=4, help="of one step of each")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--script", type=Path, help="diffusers' train_text_to_image_lora.py, run beside it")
    given = parser.parse_args()
    quiet_libraries()
    found = compare(given)
    if given.script:
        found["diffusers' script"] = run_script(given)
    print(json.dumps(found, indent=1))


def compare(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a step of each, the median over the rounds, and how they stand to each other."""
    project, family, photos = make(given)
    ours, parameters, optimizer = lorakit_step(project, family, photos)
    bare = bare_step(project, family, parameters, optimizer)
    times: dict[str, list[tuple[float, float]]] = {"lorakit": [], "bare": []}
    for work in (ours, bare):  # first steps make moments and choose kernels
        work()
    for number in range(given.rounds):
        order = (("lorakit", ours), ("bare", bare))
        for name, work in order if number % 2 else reversed(order):
            times[name].append(seconds_of(work, given.device))
    wall, cpu = ({name: statistics.median(one[which] for one in some) for name, some in times.items()} for which in (0, 1))
    found = {"s/step": wall, "ratio": wall["lorakit"] / wall["bare"], "load": os.getloadavg()[0], "threads": torch.get_num_threads()}
    if given.device == "cpu":
        found |= {"CPU s/step": cpu, "ratio of CPU seconds": cpu["lorakit"] / cpu["bare"]}
    return found | {"parameters, M": sum(p.numel() for p in family.denoiser.parameters()) / 1e6}


def make(given: argparse.Namespace) -> tuple[Any, Any, list[dict]]:
    """(what the loop needs of a project, a family with random weights, records of photos whose latents and texts are random)."""
    card = catalog.card("sd15")
    changes = {"train.resolution": given.resolution, "train.batch_size": given.batch, "train.precision": given.precision}
    resolved = settings.resolve([("card", card.settings), ("bench", changes)])
    cls = families.load(card.family)
    dtype = torch.float32 if given.precision == "fp32" else torch.bfloat16
    family = family_without_weights(cls, {**cls.CONFIG, **SIZES[given.size]}, resolved.train, dtype)
    family.device = given.device
    fill_at_random(family.denoiser, given.device)
    side = given.resolution
    photos = [
        {"id": str(number), "file": f"{number}.jpg", "text": f"a mug, {number}", "measures": {"size": {"width": side, "height": side}},
         "crop": {"bucket": [side, side], "box": [0, 0, side, side]}}
        for number in range(PHOTOS)
    ]  # fmt: skip
    torch.manual_seed(0)
    latents = {
        photo["id"]: {"mean": torch.randn(4, side // 8, side // 8), "std": torch.full((4, side // 8, side // 8), 0.1)} for photo in photos
    }
    texts = {text: {"states": torch.randn(77, 768)} for text in ("", *(photo["text"] for photo in photos))}
    loss.load_latents = lambda project, record: latents[record["id"]]  # in memory, as the cache keeps them
    loss.load_text = lambda project, text: texts[text]
    return types.SimpleNamespace(settings=resolved, trigger=None, card=card), family, photos


def lorakit_step(project: Any, family: Any, photos: list[dict]) -> tuple[Callable[[], Any], list, Any]:
    """(a step of the loop, the parameters that learn, their optimizer)."""
    train = project.settings.train
    sampler = BatchSampler(photos, train.batch_size, train.seed)
    learners.load_family = lambda project: family
    learner = learners.Learner(project)
    return lambda: learner.learn(train.learning_rate, sampler), learner.parameters, learner.optimizer


def bare_step(project: Any, family: Any, parameters: list, optimizer: Any) -> Callable[[], Any]:
    """Forward, backward and optimizer of the same model, its input on the device already."""
    train, device = project.settings.train, family.device
    side = train.resolution // 8
    noisy, noise = (torch.randn(train.batch_size, 4, side, side, device=device) for _ in range(2))
    text, timesteps = torch.randn(train.batch_size, 77, 768, device=device), torch.full((train.batch_size,), 500, device=device)
    dtype = family.dtype

    def work() -> None:
        with torch.autocast(device.split(":")[0], dtype=torch.bfloat16, enabled=dtype != torch.float32):
            found = family.denoiser(noisy.to(dtype), timesteps, encoder_hidden_states=text.to(dtype), return_dict=False)[0]
        torch.nn.functional.mse_loss(found.float(), noise).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return work


def seconds_of(work: Callable[[], Any], device: str) -> tuple[float, float]:
    """(seconds of the clock, of the processor)."""

    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    wait()
    began, used = time.perf_counter(), time.process_time()
    work()
    wait()
    return time.perf_counter() - began, time.process_time() - used


def run_script(given: argparse.Namespace, steps: tuple[int, int] = (2, 8)) -> dict[str, float]:
    """Seconds of a step of diffusers' script, by the difference of two runs; of the clock, and of the processor."""
    with tempfile.TemporaryDirectory() as work:
        folder, photos = Path(work) / "base", Path(work) / "photos"
        write_base(given, folder)
        photos.mkdir()
        for number in range(PHOTOS):
            coarse = np.random.default_rng(number).integers(0, 255, (32, 32, 3), np.uint8)
            Image.fromarray(coarse).resize((given.resolution,) * 2).save(photos / f"{number}.png")
        lines = [json.dumps({"file_name": f"{number}.png", "text": f"a mug, {number}"}) for number in range(PHOTOS)]
        (photos / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
        taken = [_run_script(given, folder, photos, Path(work) / f"out{count}", count) for count in steps]
    many = steps[1] - steps[0]
    return {"s/step": (taken[1][0] - taken[0][0]) / many, "CPU s/step": (taken[1][1] - taken[0][1]) / many}


def _run_script(given: argparse.Namespace, folder: Path, photos: Path, out: Path, steps: int) -> tuple[float, float]:
    words = {
        "pretrained_model_name_or_path": folder, "train_data_dir": photos, "caption_column": "text", "resolution": given.resolution,
        "train_batch_size": given.batch, "max_train_steps": steps, "rank": 32, "output_dir": out, "dataloader_num_workers": 0,
        "checkpointing_steps": 10_000, "seed": 0, "mixed_precision": "no" if given.precision == "fp32" else "bf16",
    }  # fmt: skip
    before, began = os.times(), time.perf_counter()
    command = [sys.executable, str(given.script), *(str(word) for key, value in words.items() for word in (f"--{key}", value))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{given.script}: ended with {done.returncode}\n{done.stderr[-2000:]}")
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - began, used


def write_base(given: argparse.Namespace, folder: Path) -> None:
    """A diffusers folder of that U-Net, with CLIP and the VAE as they are in SD1.5, all random."""
    from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline
    from transformers import CLIPTextConfig, CLIPTextModel

    from lorakit.bases.single_file_configs import AUTOENCODER
    from lorakit.bases.tiny_random import clip_tokenizer

    cls = families.load("sd15")
    torch.manual_seed(0)
    StableDiffusionPipeline(
        vae=AutoencoderKL(**{**AUTOENCODER, **cls.VAE_CONFIG}), text_encoder=CLIPTextModel(CLIPTextConfig(**cls.ENCODER_CONFIGS["text_encoder"])),
        tokenizer=clip_tokenizer(folder), unet=cls.DENOISER(**{**cls.CONFIG, **SIZES[given.size]}),
        scheduler=DDPMScheduler(**cls.SCHEDULER_CONFIG), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip


if __name__ == "__main__":
    main()
