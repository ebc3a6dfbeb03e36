"""What OneTrainer's options are in lorakit's settings: its configurations and presets, which are JSON. One says what differs from its own
defaults, or everything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorakit.bases.purposes import purpose
from lorakit.project.catalog import Card
from lorakit.report.settings_from import bases
from lorakit.report.settings_from.options import Options, side_of, sizes

TITLE = "OneTrainer"
MARKS = {
    "training_method",
    "base_model_name",
    "model_type",
    "lora_rank",
    "workspace_dir",
    "timestep_distribution",
    "output_model_destination",
}
OPTIMIZERS = {"ADAMW": "adamw", "ADAMW_8BIT": "adamw8bit", "ADAFACTOR": "adafactor", "LION": "lion", "PRODIGY": "prodigy", "SCHEDULE_FREE_ADAMW": "schedulefree"}  # fmt: skip
SCHEDULES = {"CONSTANT": "constant", "LINEAR": "linear", "COSINE": "cosine"}
TIMESTEPS = {"UNIFORM": "uniform", "LOGIT_NORMAL": "logit_normal"}
PRECISIONS = {"FLOAT_32": "fp32", "FLOAT_16": "fp16", "BFLOAT_16": "bf16"}
IN_FEW_BITS = {"FLOAT_8": "fp8", "NFLOAT_4": "nf4"}
# What changes a training and has no like here, with the values at which it does nothing; all else is folders, logs and the machine.
WITHOUT_LIKE = {
    "layer_filter_preset": "full", "min_noising_strength": 0, "max_noising_strength": 1, "dropout_probability": 0, "learning_rate_min_factor": 0,
    "learning_rate_cycles": 1, "masked_prior_preservation_weight": 0, "unmasked_probability": 0.1, "loss_scaler": "NONE", "mae_strength": 0,
    "log_cosh_strength": 0, "huber_strength": 0, "text_encoder_layer_skip": 0, "generalized_offset_noise": False, "learning_rate_scaler": "NONE",
    "lora_model_name": "", "force_circular_padding": False,
}  # fmt: skip


PARTS = ("optimizer", "text_encoder", "text_encoder_2", "transformer", "unet")  # tables


def is_one(values: Mapping[str, Any]) -> bool:
    return "model_type" in values and len(MARKS & set(values)) >= 3


def options_of(values: Mapping[str, Any], folder: Path) -> Options:
    """{'learning_rate': 1e-4, 'optimizer.weight_decay': 0.01, ...} of what is known here; nothing of `secrets` and `cloud`."""
    found = {str(key): value for key, value in values.items() if key not in PARTS}
    for part in PARTS:
        own = values.get(part)
        found |= {f"{part}.{key}": value for key, value in own.items()} if isinstance(own, dict) else {part: own}
    options = Options(found, folder)
    for part in PARTS:
        options.table(part)
    return options


def take(options: Options) -> tuple[Card | None, dict[str, Any], frozenset[str]]:
    """(the base's card, settings, the names of what is left to lorakit)."""
    kind = options.text("model_type")
    family = bases.family_of("onetrainer", lambda words: kind in words["model_types"])
    card, found = bases.take(options, "base_model_name", family, bases.of_words(kind, family))
    if kind and (what := purpose(kind)):
        options.lack("model_type", f"a base {what}; a plain one is trained, name it with --base")
    elif card is None and kind:
        options.lack("model_type", "no base here is of it, or its name does not tell which; name one with --base")
    if options.text("training_method", "LORA") != "LORA":
        options.lack("training_method", "a LoRA is trained")
    found |= {**_network(options), **_learning(options), **_data(options), **_noise(options)}
    for name, nothing in WITHOUT_LIKE.items():
        if options.get(name, nothing) not in (nothing, str(nothing)):
            options.lack(name)
    others = {name for name, value in options.values.items() if name not in options.dealt and isinstance(value, (dict, list))}
    options.values = {name: value for name, value in options.values.items() if name not in others}  # what nobody reads, secrets too
    return card, found, frozenset(options.values) - options.dealt


def _network(options: Options) -> dict[str, Any]:
    kind, rank, alpha = options.text("peft_type", "LORA"), options.number("lora_rank", 16), options.number("lora_alpha", 1.0)
    found = {"train.adapter": "lora", "train.rank": rank, "train.alpha": None if alpha == rank else alpha}
    if kind == "LOHA":
        found["train.adapter"] = "loha"
    elif kind == "LOKR":
        found |= {
            "train.adapter": "lokr",
            "train.rank": options.number("lokr_dim", 16),
            "train.lokr_factor": options.number("lokr_decompose_factor", -1),
        }
    elif options.flag("lora_decompose"):
        found["train.adapter"] = "dora"
    elif kind != "LORA":
        options.lack("peft_type", "a plain LoRA is trained")
    return found


def _learning(options: Options) -> dict[str, Any]:
    given, schedule = options.text("optimizer.optimizer", "ADAMW"), options.text("learning_rate_scheduler", "CONSTANT")
    if given not in OPTIMIZERS:
        options.lack("optimizer.optimizer", "adamw is used")
    if schedule not in SCHEDULES:
        options.lack("learning_rate_scheduler", "constant is used")
    warm = options.number("learning_rate_warmup_steps", 200) or 0
    if 0 < warm <= 1:
        options.lack("learning_rate_warmup_steps", "a share of steps that are not known; set train.warmup_steps")
        warm = 0
    batch, accumulation, epochs = (options.number(name, default) or 1 for name, default in
                                   (("batch_size", 1), ("gradient_accumulation_steps", 1), ("epochs", 100)))  # fmt: skip
    a_photo = max(1, round(epochs / (batch * accumulation)))
    own = {key: value for key in ("learning_rate", "weight_decay") if (value := options.number(key if key in options.values else f"optimizer.{key}")) is not None}  # fmt: skip
    texts = options.flag("text_encoder.train") or options.flag("text_encoder_2.train")
    found = {
        **{f"train.{key}": value for key, value in own.items()}, "train.optimizer": OPTIMIZERS.get(given, "adamw"),
        "train.lr_schedule": SCHEDULES.get(schedule, "constant"), "train.warmup_steps": int(warm), "train.batch_size": batch,
        "train.gradient_accumulation": accumulation, "train.steps": None, "train.steps_per_photo": a_photo, "train.min_steps": 1,
        "train.max_steps": 10**9, "train.max_grad_norm": options.number("clip_grad_norm", 1.0), "train.text_encoder": texts,
    }  # fmt: skip
    if texts and (rate := options.number("text_encoder.learning_rate")) is not None:
        found["train.text_encoder_rate"] = rate
    if options.text("ema", "OFF") != "OFF":
        options.lack("ema", "counted every few steps there; set train.ema")
    precision, held = (
        options.text("train_dtype"),
        options.text("transformer.weight_dtype") or options.text("unet.weight_dtype"),
    )
    found |= {"train.precision": PRECISIONS[precision]} if precision in PRECISIONS else {}
    return found | ({"train.base_precision": IN_FEW_BITS[held]} if held in IN_FEW_BITS else {})


def _data(options: Options) -> dict[str, Any]:
    sides = [side for word in options.text("resolution", "512").split(",") if (side := side_of(options, "resolution", word.strip()))]
    found = sizes(sides) | {"train.masked_loss": options.flag("masked_training")}
    if options.flag("masked_training"):
        found["train.mask_outside"] = options.number("unmasked_weight", 0.1)
    if (dropped := options.number("text_encoder.dropout_probability")) is not None:
        found["train.caption_dropout"] = dropped
    return found


def _noise(options: Options) -> dict[str, Any]:
    given, weighting = options.text("timestep_distribution", "UNIFORM"), options.text("loss_weight_fn", "CONSTANT")
    found: dict[str, Any] = {"train.noise_offset": options.number("offset_noise_weight", 0.0), "train.input_perturbation": options.number("perturbation_noise_weight", 0.0)}  # fmt: skip
    spread, middle, shift = (
        options.number("noising_weight", 0.0),
        options.number("noising_bias", 0.0),
        options.number("timestep_shift", 1.0),
    )
    dynamic = options.flag("dynamic_timestep_shifting")
    if "transformer.train" in options.values or "transformer.weight_dtype" in options.values:  # a flow
        if given not in TIMESTEPS:
            options.lack("timestep_distribution", "logit_normal is used")
        else:
            found |= {"train.timestep_sampling": TIMESTEPS[given], "train.flow_shift": None if dynamic else shift}
            found |= {"train.logit_mean": middle, "train.logit_std": (spread or 0.0) + 1.0} if given == "LOGIT_NORMAL" else {}
    elif given != "UNIFORM":
        options.lack("timestep_distribution", "all timesteps are as likely")
    gamma = options.number("loss_weight_strength", 5.0)
    if weighting == "MIN_SNR_GAMMA":
        found |= {"train.loss_weighting": "min_snr", "train.min_snr_gamma": gamma}
    elif weighting == "DEBIASED_ESTIMATION":
        found["train.loss_weighting"] = "debiased"
    elif weighting != "CONSTANT":
        options.lack("loss_weight_fn", "none is used")
    if options.flag("force_v_prediction"):
        found["train.prediction"] = "v_prediction"
    if options.flag("rescale_noise_scheduler_to_zero_terminal_snr"):
        found["train.zero_terminal_snr"] = True
    return found
