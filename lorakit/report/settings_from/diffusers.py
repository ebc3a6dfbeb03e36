"""What the options of diffusers' example scripts are in lorakit's settings."""

from __future__ import annotations

from typing import Any

from lorakit.project.catalog import Card
from lorakit.report.settings_from import bases
from lorakit.report.settings_from.options import Options, side_of, sizes

TITLE = "diffusers"
LEFT = frozenset(
    "dataset_name train_data_dir instance_data_dir caption_column image_column instance_prompt center_crop output_dir logging_dir report_to push_to_hub "
    "hub_model_id hub_token cache_dir dataloader_num_workers enable_xformers_memory_efficient_attention allow_tf32 local_rank checkpoints_total_limit "
    "resume_from_checkpoint variant revision cache_latents offload upcast_before_saving".split()
)


def family_of(script: str) -> str | None:
    """The family that one of its scripts trains."""
    name = script.rpartition("/")[2]
    return bases.family_of("diffusers", lambda words: words["script"].rpartition("/")[2] == name)


def take(options: Options, family: str) -> tuple[Card | None, dict[str, Any]]:
    card, found = bases.take(options, "pretrained_model_name_or_path", family)
    if (given := options.get("resolution")) is not None:
        found |= sizes([side] if (side := side_of(options, "resolution", given)) else [])
    names = {
        "train_batch_size": "train.batch_size", "gradient_accumulation_steps": "train.gradient_accumulation", "max_train_steps": "train.steps",
        "learning_rate": "train.learning_rate", "rank": "train.rank", "seed": "train.seed", "adam_weight_decay": "train.weight_decay",
        "max_grad_norm": "train.max_grad_norm", "lr_warmup_steps": "train.warmup_steps", "logit_mean": "train.logit_mean", "logit_std": "train.logit_std",
        "guidance_scale": "train.guidance",
    }  # fmt: skip
    found |= {key: value for name, key in names.items() if (value := options.number(name)) is not None}
    rank, alpha = found.setdefault("train.rank", 4), options.number("lora_alpha")
    found |= {"train.adapter": "lora", "train.alpha": None if alpha in (None, rank) else alpha, "train.rank_stabilised": False}
    if options.flag("use_dora"):
        found["train.adapter"] = "dora"
    if not found.get("train.steps") and "num_train_epochs" in options.values:
        options.lack("num_train_epochs", "lorakit counts steps; set train.steps")
    every = options.number("checkpointing_steps")
    if every is not None:
        found["train.checkpoint_every"] = 0 if every >= found.get("train.steps", every + 1) else every
    trained, rate = options.flag("train_text_encoder"), options.number("text_encoder_lr")
    found |= {"train.text_encoder": trained} | (
        {"train.text_encoder_rate": None if rate == found.get("train.learning_rate") else rate} if trained else {}
    )
    schedule = options.text("lr_scheduler", "constant")
    if schedule == "constant" and found.pop("train.warmup_steps", 0):
        options.lack("lr_warmup_steps", "its constant has no warm-up")
    if schedule not in ("constant", "constant_with_warmup", "cosine", "linear"):
        options.lack("lr_scheduler", "constant is used")
        schedule = "constant"
    found["train.lr_schedule"] = schedule.removesuffix("_with_warmup")
    optimizer = options.text("optimizer", "adamw").lower()
    if optimizer not in ("adamw", "prodigy"):
        options.lack("optimizer", "adamw is used")
        optimizer = "adamw"
    found["train.optimizer"] = "adamw8bit" if optimizer == "adamw" and options.flag("use_8bit_adam") else optimizer
    snr = options.number("snr_gamma")
    found |= {"train.loss_weighting": "min_snr", "train.min_snr_gamma": snr} if snr else {"train.loss_weighting": "none"}
    found |= {
        "train.noise_offset": options.number("noise_offset", 0.0),
        "train.caption_dropout": options.number("proportion_empty_prompts", 0.0),
    }
    return card, found | _base(options)


def _base(options: Options) -> dict[str, Any]:
    found: dict[str, Any] = {}
    scheme = options.get("weighting_scheme")
    ours = {"logit_normal": "logit_normal", "mode": "mode", "none": "uniform"}
    if scheme is not None and str(scheme) not in ours:
        options.lack("weighting_scheme")
    elif scheme is not None:
        found["train.timestep_sampling"] = ours[str(scheme)]
    prediction, precision = options.get("prediction_type"), options.get("mixed_precision")
    if prediction is not None:
        found["train.prediction"] = prediction
    if precision is not None:
        found["train.precision"] = {"no": "fp32"}.get(str(precision), precision)
    if options.flag("gradient_checkpointing"):
        found["train.gradient_checkpointing"] = "on"
    return found
