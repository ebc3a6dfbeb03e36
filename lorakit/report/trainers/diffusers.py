"""The example scripts of diffusers: a shell script that starts the one of this base. They know one size and no buckets."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorakit import files
from lorakit.report.trainers.base import EVERYWHERE, PRECISIONS, Handover, filled
from lorakit.settings import Train

TITLE = "diffusers"
CARRIED = EVERYWHERE | {
    "text_encoder", "text_encoder_rate", "weight_decay", "lr_schedule", "warmup_steps", "loss_weighting", "min_snr_gamma", "noise_offset",
    "prediction", "timestep_sampling", "logit_mean", "logit_std", "guidance",
}  # fmt: skip
SCHEDULES = ("cosine", "constant", "linear")


def carried(train: Train, words: Mapping[str, Any]) -> set[str]:
    without = {
        "lr_schedule": train.lr_schedule not in SCHEDULES, "loss_weighting": train.loss_weighting == "debiased",
        "timestep_sampling": train.timestep_sampling == "sigmoid",
        "text_encoder": "train_text_encoder" not in words.get("takes", ()), "text_encoder_rate": not words["script"].startswith("dreambooth/"),
    }  # fmt: skip
    return {*CARRIED, *(["optimizer"] if train.optimizer == "adamw8bit" else [])} - {name for name, is_lost in without.items() if is_lost}


def write(handover: Handover, folder: Path) -> list[str]:
    words = [f"accelerate launch path/to/diffusers/examples/{handover.words['script']}"]
    for key, value in _options(handover).items():
        words.append(f"  --{key}" if value is True else f"  --{key}={shlex.quote(str(value))}")
    files.write_text(folder / "train.sh", "#!/bin/sh\n" + " \\\n".join(words) + "\n")
    return [
        "sh train.sh", "",
        "The path of diffusers is to be set in it. The scripts cut every picture to a square of one size about its middle, and their",
        "alpha is the rank (FLUX's script takes an alpha). The file that they write: `lorakit convert` makes it one for other tools.",
    ]  # fmt: skip


def _options(handover: Handover) -> dict[str, Any]:
    train, dreambooth = handover.train, _is_dreambooth(handover)
    data = {"dataset_name": "images", "instance_prompt": handover.prompt} if dreambooth else {"train_data_dir": "images"}
    schedule = train.lr_schedule if train.lr_schedule in SCHEDULES else "constant"
    return {
        "pretrained_model_name_or_path": handover.base, **data, "caption_column": "text", "resolution": train.resolution, "center_crop": True,
        "train_batch_size": train.batch_size, "gradient_accumulation_steps": train.gradient_accumulation, "max_train_steps": handover.steps,
        "learning_rate": train.learning_rate, "lr_scheduler": "constant_with_warmup" if schedule == "constant" and train.warmup_steps else schedule,
        "lr_warmup_steps": train.warmup_steps, "rank": train.rank, "seed": train.seed, "mixed_precision": PRECISIONS[train.precision],
        "adam_weight_decay": train.weight_decay, "max_grad_norm": train.max_grad_norm, "output_dir": "output",
        "checkpointing_steps": train.checkpoint_every or handover.steps, **_sometimes(handover),
    }  # fmt: skip


def _is_dreambooth(handover: Handover) -> bool:
    """Whether the base's script is one of the dreambooth ones, which all flows have: it wants a prompt, and takes other options."""
    return handover.words["script"].startswith("dreambooth/")


def _sometimes(handover: Handover) -> dict[str, Any]:
    train, takes = handover.train, handover.words.get("takes", ())
    scheme = {"logit_normal": "logit_normal", "mode": "mode"}.get(train.timestep_sampling, "none")
    found: dict[str, Any] = {
        "gradient_checkpointing": train.checkpoints_gradients, "use_8bit_adam": train.optimizer == "adamw8bit",
        "train_text_encoder": train.text_encoder and "train_text_encoder" in takes,
    }  # fmt: skip
    if _is_dreambooth(handover):
        found |= {"weighting_scheme": scheme, "logit_mean": train.logit_mean, "logit_std": train.logit_std}
        found |= {"text_encoder_lr": handover.text_encoder_rate if train.text_encoder else None}
        found |= {"optimizer": "prodigy" if train.optimizer == "prodigy" else None}
        further = {"lora_alpha": round(handover.alpha), "guidance_scale": train.guidance}
        found |= {key: value for key, value in further.items() if key in takes}
        return filled(found)
    found |= {
        "snr_gamma": train.min_snr_gamma if train.loss_weighting == "min_snr" else None, "noise_offset": train.noise_offset or None,
        "prediction_type": None if train.prediction == "base" else train.prediction,
    }  # fmt: skip
    return filled(found)
