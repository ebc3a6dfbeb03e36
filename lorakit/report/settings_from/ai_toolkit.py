"""What ai-toolkit's options are in lorakit's settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorakit.project.catalog import Card
from lorakit.report.settings_from import bases
from lorakit.report.settings_from.options import Options, place, short, side_of, sizes
from lorakit.report.settings_from.sd_scripts import readable
from lorakit.report.trainers.ai_toolkit import OPTIMIZERS

TITLE = "ai-toolkit"
LEFT = frozenset(
    "type training_folder device sqlite_db_path performance_log_every log_dir process_name train.train_unet train.disable_sampling train.skip_first_sample "
    "train.unload_text_encoder train.cache_text_encoder_embeddings model.low_vram model.quantize_te model.qtype_te datasets.caption_ext "
    "datasets.cache_latents_to_disk datasets.cache_latents datasets.folder_path datasets.num_repeats model.layer_offloading sample.sampler sample.width "
    "sample.height sample.walk_seed save.push_to_hub save.save_format train.optimizer_params datasets.control_path sample.neg sample.fps sample.num_frames "
    "datasets.num_frames datasets.shrink_video_to_frames train.force_first_sample logging.log_every logging.use_ui_logger model.model_kwargs".split()
)
PRECISIONS = {"fp16": "fp16", "float16": "fp16", "bf16": "bf16", "bfloat16": "bf16", "fp32": "fp32", "float32": "fp32", "float": "fp32"}


def is_one(values: Mapping[str, Any]) -> bool:
    return _process(values) is not None


def _process(values: Mapping[str, Any]) -> dict[str, Any] | None:
    config = values.get("config")
    processes = config.get("process") if isinstance(config, dict) else None
    first = processes[0] if isinstance(processes, list) and processes else None
    return first if isinstance(first, dict) and isinstance(first.get("train"), dict) else None


def options_of(values: Mapping[str, Any], folder: Path) -> Options:
    """{'train.lr': 1e-4, 'network.linear': 16, ...}; datasets as `datasets.*` with a list of what each of them says."""
    process, found = _process(values) or {}, {}
    for name, value in process.items():
        if name == "datasets":
            continue
        if isinstance(value, dict):
            found |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            found[name] = value
    sets = process.get("datasets") or []
    is_list = isinstance(sets, list) and all(isinstance(one, dict) for one in sets)
    wrong = [] if is_list else [f"datasets = {short(sets)} (no list of tables)"]
    sets = [one for one in sets if isinstance(one, dict)] if isinstance(sets, list) else []
    own = [one for one in sets if not one.get("is_reg")]
    options = Options({str(name): value for name, value in found.items()}, folder)
    options.lacking += wrong
    for name in sorted({key for one in own for key in one if isinstance(key, str)} - {"is_reg", "mask_path"}):
        several = list({str(one.get(name)): one.get(name) for one in own}.values())
        if len(several) > 1 and f"datasets.{name}" not in LEFT:
            options.lacking.append(f"datasets.{name} = {' and '.join(short(value) for value in several)} (one for all photos)")
        elif several[0] not in (None, False, "", []):
            options.values[f"datasets.{name}"] = several[0]
    if len({str(one.get("num_repeats", 1)) for one in own}) > 1:
        options.lacking.append("datasets.num_repeats (photos in folders named 10_name are seen ten times)")
    options.values["masked"] = any(one.get("mask_path") for one in own)
    if reg := next((one.get("folder_path") for one in sets if one.get("is_reg")), None):
        options.values["reg"] = reg
    return options


def take(options: Options) -> tuple[Card | None, dict[str, Any]]:
    arch = options.text("model.arch")

    def is_it(words: Mapping[str, Any]) -> bool:
        return arch in (words["arch"], *words.get("other_archs", ())) or options.flag(f"model.{words.get('flag', '')}")

    family = bases.family_of("ai_toolkit", is_it)
    second = bases.of_version("sd_v2_v") if arch.startswith("sd2") or options.flag("model.is_v2") else None
    second = second or bases.of_version(arch)  # of a family with several
    if arch and family is None and second is None:
        options.lack("model.arch", "no base here is of it; name one with --base")
    card, found = bases.take(options, "model.name_or_path", second.family if second else family, second)
    if options.flag("model.is_v_pred"):
        found["train.prediction"] = "v_prediction"
    elif card and card.settings.get("train.prediction"):
        found["train.prediction"] = "epsilon"
    if options.flag("model.quantize"):
        kind = options.text("model.qtype", "qfloat8")
        if "float8" in kind:
            found["train.base_precision"] = "fp8"
        else:
            options.lack("model.qtype", "left to lorakit")
    found |= {**_network(options), **_data(options), **_train(options), **_sample(options)}
    return card, found


def _network(options: Options) -> dict[str, Any]:
    kind, rank = options.text("network.type", "lora").lower(), options.number("network.linear") or options.number("network.rank") or 4
    options.get("network.rank")
    plain = options.number("network.alpha", 1.0)
    alpha = options.number("network.linear_alpha", plain)
    found: dict[str, Any] = {
        "train.adapter": "lora",
        "train.rank": rank,
        "train.alpha": None if alpha == rank else alpha,
        "train.rank_stabilised": False,
    }
    if kind in ("lokr", "dora"):
        found["train.adapter"] = kind
    elif kind not in ("lora", "locon"):
        options.lack("network.type", "a plain LoRA is trained")
    if kind == "lokr":
        found["train.lokr_factor"] = options.number("network.lokr_factor", -1)
        if options.values.get("network.lokr_full_rank") is not False and "network.lokr_full_rank" in options.values:
            options.lack("network.lokr_full_rank", "the rank holds")
    conv, conv_alpha = options.number("network.conv"), options.number("network.conv_alpha")
    if conv:
        found["train.targets"] = "conv"
        if (conv, conv if conv_alpha is None else conv_alpha) != (rank, alpha):
            at = conv if conv_alpha is None else conv_alpha
            found["train.block_ranks"] = [f"(conv1|conv2|conv_shortcut|samplers.0.conv)$={int(conv)}/{at:g}"]
    return found


def _data(options: Options) -> dict[str, Any]:
    given = options.get("datasets.resolution", 512)
    found = sizes(
        [side for one in (given if isinstance(given, list) else [given]) if (side := side_of(options, "datasets.resolution", one))]
    )
    shuffled, dropped = options.flag("datasets.shuffle_tokens"), options.number("datasets.token_dropout_rate", 0.0)
    found |= {"train.shuffle_tags": shuffled, "train.tag_dropout": dropped}
    found["train.caption_dropout"] = options.number("datasets.caption_dropout_rate", 0.0)
    keep = options.number("datasets.keep_tokens", 0)
    if shuffled or dropped:
        found["train.keep_tags"] = keep
    if (step := options.number("datasets.bucket_tolerance")) is not None:
        found["train.bucket_step"] = step
    found["train.masked_loss"] = options.flag("masked")
    outside = options.number("datasets.mask_min_value", 0.0)
    if found["train.masked_loss"]:
        found["train.mask_outside"] = outside
    reg = options.text("reg")
    if reg and (path := place(reg, options.folder)):
        found["train.regularisation"] = str(path)
    elif reg:
        options.lacking.append(f"datasets.is_reg, {reg} (no such folder here)")
    return found


def _train(options: Options) -> dict[str, Any]:
    found: dict[str, Any] = {
        "train.gradient_accumulation": options.number("train.gradient_accumulation", options.number("train.gradient_accumulation_steps", 1))
    }
    names = {"train.batch_size": "train.batch_size", "train.steps": "train.steps", "train.lr": "train.learning_rate", "train.max_grad_norm": "train.max_grad_norm",
             "training_seed": "train.seed", "train.unet_lr": "train.learning_rate", "train.reg_weight": "train.regularisation_weight", "train.text_encoder_lr": "train.text_encoder_rate"}  # fmt: skip
    found |= {key: value for name, key in names.items() if (value := options.number(name)) is not None}
    found["train.text_encoder"] = options.flag("train.train_text_encoder") or "train.train_text_encoder" not in options.given
    if found.get("train.text_encoder_rate") == found.get("train.learning_rate"):
        found["train.text_encoder_rate"] = None
    optimizer = options.text("train.optimizer", "adamw").lower()
    if optimizer not in OPTIMIZERS:
        options.lack("train.optimizer", "adamw is used")
    found["train.optimizer"] = optimizer if optimizer in OPTIMIZERS else "adamw"
    params = options.table("train.optimizer_params")
    found["train.weight_decay"] = params.get("weight_decay", 0.01 if optimizer.startswith("adamw") else 0.0)
    options.lacking += [f"train.optimizer_params {key} = {short(value)}" for key, value in params.items() if key != "weight_decay"]
    schedule, of_it = options.text("train.lr_scheduler", "constant"), options.table("train.lr_scheduler_params")
    if schedule in ("constant", "cosine", "linear"):
        found["train.lr_schedule"] = schedule
        if schedule == "linear" and of_it.get("end_factor") != 0.0:
            options.lack("train.lr_scheduler", "lorakit's linear falls to zero")
    else:
        options.lack("train.lr_scheduler", "constant is used")
        found["train.lr_schedule"] = "constant"
    found["train.warmup_steps"] = options.number("train.lr_warmup_steps", 0) or 0
    snr = options.number("train.min_snr_gamma", options.number("train.snr_gamma"))
    found["train.loss_weighting"] = "min_snr" if snr else "none"
    found |= {"train.min_snr_gamma": snr} if snr else {}
    found["train.noise_offset"] = options.number("train.noise_offset", 0.0)
    ema = options.table("train.ema_config")
    found["train.ema"] = ema.get("ema_decay", 0.999) if ema.get("use_ema") else 0.0
    given = options.text("train.dtype")
    if given in PRECISIONS:
        found["train.precision"] = PRECISIONS[given]
    elif given:
        options.lack("train.dtype")
    if options.flag("train.gradient_checkpointing") or "train.gradient_checkpointing" not in options.given:
        found["train.gradient_checkpointing"] = "on"
    return found | _flow(options) | _preservation(options)


def _flow(options: Options) -> dict[str, Any]:
    flows = options.text("train.noise_scheduler") == "flowmatch"
    kind = options.text("train.timestep_type", "sigmoid")
    if not flows:
        return {}
    ours = {"linear": "uniform", "sigmoid": "sigmoid"}
    if kind not in ours:
        options.lack("train.timestep_type", "left to lorakit")
        return {}
    return {"train.timestep_sampling": ours[kind]}


def _preservation(options: Options) -> dict[str, Any]:
    is_on, weight = options.flag("train.diff_output_preservation"), options.number("train.diff_output_preservation_multiplier", 1.0)
    word = options.text("train.diff_output_preservation_class")
    return {"train.preservation": weight if is_on else 0.0} | ({"trigger.class_word": word} if is_on and word else {})


def _sample(options: Options) -> dict[str, Any]:
    found: dict[str, Any] = {}
    names = {"sample.sample_every": "sample.every", "sample.seed": "sample.seed", "sample.guidance_scale": "sample.guidance",
             "sample.sample_steps": "sample.steps", "save.save_every": "train.checkpoint_every", "save.max_step_saves_to_keep": "train.keep_checkpoints"}  # fmt: skip
    found |= {key: value for name, key in names.items() if (value := options.number(name)) is not None}
    steps = options.number("train.steps", 1000) or 1000
    for key in ("train.checkpoint_every", "sample.every"):
        if found.get(key, 0) >= steps:
            found[key] = 0
    given = options.get("sample.prompts") or options.get("sample.samples") or []
    if not isinstance(given, list):
        options.lack("sample.prompts" if "sample.prompts" in options.values else "sample.samples", "no list")
        given = []
    lines = [str(one.get("prompt", "")) if isinstance(one, dict) else str(one) for one in given]
    if prompts := readable(options, [line for line in lines if line.strip()]):
        found["sample.prompts"] = prompts
    dtype = options.text("save.dtype")
    if dtype in PRECISIONS:
        found["export.precision"] = PRECISIONS[dtype]
    elif dtype:
        options.lack("save.dtype")
    word = options.text("trigger_word")
    return found | ({"trigger.word": word} if word else {})
