"""kohya's sd-scripts: dataset.toml and train.toml, which its `--dataset_config` and `--config_file` read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorakit import files
from lorakit.report.trainers.base import EVERYWHERE, PRECISIONS, Handover, Subset, filled, is_velocity
from lorakit.settings import Train

TITLE = "sd-scripts"
CARRIED = EVERYWHERE | {
    "other_resolutions", "text_encoder", "text_encoder_rate", "t5", "rank_stabilised", "optimizer", "weight_decay", "lr_schedule", "warmup_steps",
    "lora_plus_ratio", "caption_dropout", "shuffle_tags", "keep_tags", "tag_dropout", "loss", "loss_weighting", "min_snr_gamma", "noise_offset",
    "multires_noise", "input_perturbation", "prediction", "zero_terminal_snr", "masked_loss", "regularisation", "regularisation_weight", "adapter",
    "lokr_factor", "timestep_sampling", "logit_mean", "logit_std", "flow_shift", "guidance",
}  # fmt: skip
OPTIMIZERS = {
    "adamw": "AdamW", "adafactor": "Adafactor", "adamw8bit": "AdamW8bit", "lion": "Lion", "prodigy": "Prodigy", "schedulefree": "AdamWScheduleFree",
}  # fmt: skip
PYRAMID_LEVELS = 6  # of multires noise, which sd-scripts has off at 0
STILL_SHIFT = 3.0  # of still pictures' flows, where the settings leave it to the base


def carried(train: Train, words: Mapping[str, Any]) -> set[str]:
    by_name = words.get("timesteps") == "timestep_sampling"
    without = {"timestep_sampling": by_name and train.timestep_sampling == "mode", "logit_mean": by_name}
    return CARRIED - {name for name, is_lost in without.items() if is_lost}


def write(handover: Handover, folder: Path) -> list[str]:
    files.write_text(folder / "dataset.toml", "\n".join(_dataset(handover)) + "\n")
    settings = _settings(handover)
    files.write_text(folder / "train.toml", "".join(f"{key} = {toml(value)}\n" for key, value in settings.items()))
    beside = handover.words.get("beside")
    words = [f"accelerate launch path/to/sd-scripts/{handover.words['script']} --config_file train.toml"]
    if settings["network_module"] == "lycoris.kohya":
        words.insert(0, "pip install lycoris_lora")
    if not beside:
        return words
    what = "the base's own file" if handover.train.weights is None else "your file"
    return [*words, "", f"In train.toml, set the paths of {', '.join(beside)} and of pretrained_model_name_or_path ({what})."]


def _dataset(handover: Handover) -> list[str]:
    train = handover.train
    general = {
        "caption_extension": ".txt", "enable_bucket": True, "bucket_no_upscale": True, "bucket_reso_steps": train.bucket_step,
        "min_bucket_reso": train.bucket_step, "max_bucket_reso": 4 * train.resolution, "shuffle_caption": train.shuffle_tags,
        "keep_tokens": handover.kept_tags if train.shuffle_tags or train.tag_dropout else 0, "caption_dropout_rate": train.caption_dropout,
        "caption_tag_dropout_rate": train.tag_dropout,
    }  # fmt: skip
    lines = ["# sd-scripts finds the folders from where it is started: begin it here", "[general]", *_lines(filled(general))]
    others = [subset for subset in handover.subsets if subset.is_regularisation]
    for resolution in handover.resolutions:
        for some in (handover.own, others):  # one kind of subset a dataset: with masks, or of the class
            if some:
                lines += ["", "[[datasets]]", f"resolution = {resolution}", f"batch_size = {train.batch_size}"]
            for subset in some:
                lines += ["", "  [[datasets.subsets]]", *(f"  {line}" for line in _lines(_subset(handover, subset)))]
    return lines


def _subset(handover: Handover, subset: Subset) -> dict[str, Any]:
    found: dict[str, Any] = {"image_dir": subset.images, "num_repeats": subset.repeats}
    if subset.masks:
        return found | {"conditioning_data_dir": subset.masks}
    class_word = handover.project.settings.trigger.class_word
    return found | ({"is_reg": True} | ({"class_tokens": class_word} if class_word else {}) if subset.is_regularisation else {})


def _lines(values: dict[str, Any]) -> list[str]:
    return [f"{key} = {toml(value)}" for key, value in values.items()]


def toml(value: Any) -> str:
    """Numbers, truth values, texts and lists are written alike in JSON and TOML."""
    return json.dumps(value, ensure_ascii=False)


def _settings(handover: Handover) -> dict[str, Any]:
    train, project = handover.train, handover.project
    beside = handover.words.get("beside", {})  # files of the base that are named one by one
    single = project.card.metadata.get("ss_sd_model_name", handover.base)
    always = {
        "pretrained_model_name_or_path": handover.base if train.weights or not beside else single,
        "dataset_config": "dataset.toml", "output_dir": "output", "output_name": handover.name, "save_model_as": "safetensors",
        "save_precision": {"fp32": "float"}.get(project.settings.export.precision, project.settings.export.precision),
        "save_every_n_steps": train.checkpoint_every or handover.steps,
        "max_train_steps": handover.steps, "learning_rate": train.learning_rate, "network_dim": train.rank, "network_alpha": handover.alpha,
        "mixed_precision": PRECISIONS[train.precision], "seed": train.seed, "max_grad_norm": train.max_grad_norm, "sdpa": True, "cache_latents": True,
    }  # fmt: skip
    lion_or_own = OPTIMIZERS.get(train.optimizer, train.optimizer)
    fixed = ["relative_step=False", "scale_parameter=False", "warmup_init=False"] if train.optimizer == "adafactor" else []
    sometimes = {
        "network_train_unet_only": not train.text_encoder, "text_encoder_lr": handover.text_encoder_rate if train.text_encoder else None,
        "optimizer_type": lion_or_own, "optimizer_args": [*fixed, f"weight_decay={train.weight_decay}"], **_schedule(handover),
        "gradient_accumulation_steps": train.gradient_accumulation, "gradient_checkpointing": train.checkpoints_gradients,
        "noise_offset": train.noise_offset or None, "multires_noise_discount": train.multires_noise or None,
        "multires_noise_iterations": PYRAMID_LEVELS if train.multires_noise else None, "ip_noise_gamma": train.input_perturbation or None,
        "min_snr_gamma": train.min_snr_gamma if train.loss_weighting == "min_snr" else None,
        "debiased_estimation_loss": train.loss_weighting == "debiased", "masked_loss": train.masked_loss,
        "prior_loss_weight": train.regularisation_weight if train.regularisation else None,
        "v2": project.card.metadata.get("ss_base_model_version", "").startswith("sd_v2"), "v_parameterization": is_velocity(handover),
        "zero_terminal_snr": train.zero_terminal_snr, **_network(handover), **_flow(handover), **beside,
        **({"loss_type": "huber", "huber_schedule": "constant", "huber_c": 0.1} if train.loss == "huber" else {}),
    }  # fmt: skip
    return always | filled(sometimes) | handover.words.get("fixed", {})  # of this base in a script of several


def _schedule(handover: Handover) -> dict[str, Any]:
    train = handover.train
    if train.lr_schedule == "wsd":
        return {"lr_scheduler": "warmup_stable_decay", "lr_decay_steps": handover.steps // 5, "lr_warmup_steps": train.warmup_steps or None}
    warm = train.lr_schedule == "constant" and train.warmup_steps
    return {"lr_scheduler": "constant_with_warmup" if warm else train.lr_schedule, "lr_warmup_steps": train.warmup_steps or None}


def _network(handover: Handover) -> dict[str, Any]:
    """LoRA by sd-scripts' own modules; DoRA, LoKr and LoHa by LyCORIS, which is a package of its own."""
    train = handover.train
    if train.adapter == "lora":
        conv = [f"conv_dim={train.rank}", f"conv_alpha={handover.alpha:g}"] if train.targets == "conv" else []
        plus = [f"loraplus_lr_ratio={train.lora_plus_ratio:g}"] if train.lora_plus_ratio != 1 else []
        t5 = ["train_t5xxl=True"] if train.t5 and "t5xxl" in handover.words.get("beside", {}) else []
        return {"network_module": handover.words.get("network", "networks.lora"), "network_args": conv + plus + t5}
    kind = {"dora": ["algo=lora", "dora_wd=True"], "lokr": ["algo=lokr", f"factor={train.lokr_factor}"], "loha": ["algo=loha"]}[
        train.adapter
    ]
    return {"network_module": "lycoris.kohya", "network_args": [*kind, f"preset={'full' if train.targets == 'conv' else 'attn-mlp'}"]}


def _flow(handover: Handover) -> dict[str, Any]:
    train = handover.train
    if handover.words.get("timesteps") == "weighting_scheme":  # one script of flows draws its timesteps by this option ...
        scheme = {"logit_normal": "logit_normal", "mode": "mode"}.get(train.timestep_sampling, "uniform")
        shift = STILL_SHIFT if train.flow_shift is None else train.flow_shift
        return {"weighting_scheme": scheme, "logit_mean": train.logit_mean or None, "logit_std": train.logit_std, "training_shift": shift}
    if handover.words.get("timesteps") == "timestep_sampling":  # ... and the others by this
        usual = "flux_shift" if train.flow_shift is None else "shift"
        sampling = {"uniform": "uniform", "sigmoid": "sigmoid"}.get(train.timestep_sampling, usual)
        return {
            "timestep_sampling": sampling,
            "discrete_flow_shift": train.flow_shift,
            **({"sigmoid_scale": train.logit_std} if train.logit_std != 1 else {}),
            "guidance_scale": train.guidance,
            "model_prediction_type": "raw",
        }
    return {}
