"""ostris' ai-toolkit: one YAML for its `run.py`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lorakit import files
from lorakit.report.trainers.base import EVERYWHERE, PRECISIONS, Handover, Subset, filled, is_velocity
from lorakit.settings import Train

TITLE = "ai-toolkit"
CARRIED = EVERYWHERE | {
    "other_resolutions", "text_encoder", "text_encoder_rate", "rank_stabilised", "optimizer", "weight_decay", "lr_schedule", "ema",
    "caption_dropout", "shuffle_tags", "keep_tags", "tag_dropout", "loss_weighting", "min_snr_gamma", "noise_offset", "prediction", "masked_loss",
    "mask_outside", "regularisation", "regularisation_weight", "preservation", "lokr_factor", "timestep_sampling",
}  # fmt: skip
OPTIMIZERS = ("adamw", "adamw8bit", "adafactor", "lion", "prodigy")
SCHEDULES = {"constant": {}, "cosine": {}, "linear": {"start_factor": 1.0, "end_factor": 0.0}}  # its linear would rise


def carried(train: Train, words: Mapping[str, Any]) -> set[str]:
    without = {
        "lr_schedule": train.lr_schedule not in SCHEDULES, "optimizer": train.optimizer not in OPTIMIZERS,
        "loss_weighting": train.loss_weighting == "debiased", "timestep_sampling": train.timestep_sampling == "mode",
    }  # fmt: skip
    return {*CARRIED, *(["adapter"] if train.adapter == "lokr" else [])} - {name for name, is_lost in without.items() if is_lost}


def write(handover: Handover, folder: Path) -> list[str]:
    process = {
        "type": "sd_trainer", "training_folder": "output", "device": "cuda:0", "training_seed": handover.train.seed,
        **filled({"trigger_word": handover.project.trigger}), "network": _network(handover), "save": _save(handover),
        "datasets": [_dataset(handover, subset) for subset in handover.subsets], "train": _train(handover), "model": _model(handover),
        "sample": _sample(handover),
    }  # fmt: skip
    job = {"job": "extension", "config": {"name": handover.name, "process": [process]}, "meta": {"name": "[name]", "version": "1.0"}}
    head = "# ai-toolkit finds the folders from where it is started: begin it here\n"
    files.write_text(folder / "train.yaml", head + yaml.safe_dump(job, sort_keys=False, allow_unicode=True))
    return ["python path/to/ai-toolkit/run.py train.yaml"]


def _network(handover: Handover) -> dict[str, Any]:
    train = handover.train
    conv = {"conv": train.rank, "conv_alpha": handover.alpha} if train.targets == "conv" else {}
    kind = {"type": "lokr", "lokr_full_rank": False, "lokr_factor": train.lokr_factor} if train.adapter == "lokr" else {"type": "lora"}
    return {**kind, "linear": train.rank, "linear_alpha": handover.alpha, **conv}


def _save(handover: Handover) -> dict[str, Any]:
    precision = {"fp16": "float16", "bf16": "bf16", "fp32": "float32"}[handover.project.settings.export.precision]
    kept = handover.train.keep_checkpoints or 1000
    return {"dtype": precision, "save_every": handover.train.checkpoint_every or handover.steps, "max_step_saves_to_keep": kept}


def _dataset(handover: Handover, subset: Subset) -> dict[str, Any]:
    train = handover.train
    shuffled = train.shuffle_tags or train.tag_dropout
    return {
        "folder_path": subset.images, "caption_ext": "txt", "num_repeats": subset.repeats, "resolution": handover.resolutions,
        "bucket_tolerance": train.bucket_step, "cache_latents_to_disk": True,
        **filled({
            "caption_dropout_rate": train.caption_dropout or None, "shuffle_tokens": train.shuffle_tags,
            "token_dropout_rate": train.tag_dropout or None, "keep_tokens": handover.kept_tags if shuffled else None, "mask_path": subset.masks,
            "mask_min_value": train.mask_outside if subset.masks and train.mask_outside else None, "is_reg": subset.is_regularisation,
        }),
    }  # fmt: skip


def _train(handover: Handover) -> dict[str, Any]:
    train, scheduler = handover.train, handover.words["scheduler"]
    of_flows = {"timestep_type": "linear" if train.timestep_sampling == "uniform" else "sigmoid"}
    return {
        "batch_size": train.batch_size, "steps": handover.steps, "gradient_accumulation": train.gradient_accumulation, "train_unet": True,
        "train_text_encoder": train.text_encoder, "gradient_checkpointing": train.checkpoints_gradients, "lr": train.learning_rate,
        "optimizer": train.optimizer if train.optimizer in OPTIMIZERS else "adamw",
        "optimizer_params": {"weight_decay": train.weight_decay}, "max_grad_norm": train.max_grad_norm,
        "dtype": "fp32" if train.precision == "fp32" else PRECISIONS[train.precision],
        "noise_scheduler": scheduler, **(of_flows if scheduler == "flowmatch" else {}),
        **filled({
            "lr_scheduler": train.lr_schedule if train.lr_schedule in SCHEDULES else None,
            "lr_scheduler_params": SCHEDULES.get(train.lr_schedule) or None,
            "text_encoder_lr": handover.text_encoder_rate if train.text_encoder else None, "noise_offset": train.noise_offset or None,
            "min_snr_gamma": train.min_snr_gamma if train.loss_weighting == "min_snr" else None,
            "ema_config": {"use_ema": True, "ema_decay": train.ema} if train.ema else None,
            "reg_weight": train.regularisation_weight if train.regularisation else None,
            "diff_output_preservation": train.preservation > 0, "diff_output_preservation_multiplier": train.preservation or None,
            "diff_output_preservation_class": handover.project.settings.trigger.class_word if train.preservation else None,
        }),
    }  # fmt: skip


def _model(handover: Handover) -> dict[str, Any]:
    version = handover.project.card.metadata.get("ss_base_model_version", "")
    arch = "sd2" if version.startswith("sd_v2") else version if version in handover.words.get("other_archs", ()) else handover.words["arch"]
    return {"name_or_path": handover.base, "arch": arch, **filled({"is_v_pred": is_velocity(handover)})}


def _sample(handover: Handover) -> dict[str, Any]:
    sample, side = handover.project.settings.sample, handover.train.resolution
    return {
        "sampler": handover.words["scheduler"], "sample_every": sample.every or handover.steps, "width": side,
        "height": side, "prompts": handover.prompts, "neg": "", "seed": sample.seed, "walk_seed": True, "guidance_scale": sample.guidance, "sample_steps": sample.steps,
    }  # fmt: skip
