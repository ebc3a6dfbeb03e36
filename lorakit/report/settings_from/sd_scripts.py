"""What sd-scripts' options are in lorakit's settings; kohya's window and the headers of LoRA files say the same in other words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lorakit import lookup
from lorakit.errors import LorakitError
from lorakit.project.catalog import Card
from lorakit.report.settings_from import bases
from lorakit.report.settings_from.options import Options, place, short, side_of, sizes
from lorakit.report.trainers.sd_scripts import OPTIMIZERS, PYRAMID_LEVELS, STILL_SHIFT
from lorakit.text import prompts

# Folders, names, logs, speed and the machine: what lorakit decides by itself, or is told elsewhere.
LEFT = frozenset(
    "output_dir output_name logging_dir log_with log_prefix log_tracker_name wandb_run_name save_model_as sdpa xformers mem_eff_attn cache_latents "
    "cache_latents_to_disk cache_text_encoder_outputs cache_text_encoder_outputs_to_disk max_data_loader_n_workers persistent_data_loader_workers "
    "vae_batch_size lowram highvram no_half_vae num_cpu_threads_per_process caption_extension enable_bucket bucket_no_upscale min_bucket_reso "
    "max_bucket_reso save_state save_state_on_train_end save_state_to_huggingface training_comment metadata_title metadata_author "
    "metadata_description metadata_license metadata_tags clip_l clip_g t5xxl ae image_dir metadata_file train_data_dir skip_cache_check "
    "ddp_timeout ddp_gradient_as_bucket_view ddp_static_graph dynamo_backend num_processes num_machines multi_gpu gpu_ids main_process_port "
    "console_log_level console_log_file disable_mmap_load_safetensors torch_compile t5xxl_max_token_length apply_t5_attn_mask "
    "huggingface_repo_id huggingface_token network_train_unet_only loss_weighting model_type wandb_api_key".split()
)
AS_HERE = {
    "clip_skip": "1",
    "max_timestep": "1000",
    "min_timestep": "0",
    "max_token_length": "75",
    "unit": "1",
}  # which lorakit does anyway
BY_BITSANDBYTES = ("PagedAdamW8bit", "PagedAdamW", "Lion8bit", "PagedLion8bit")
OF_ADAMW = ("adamw", "adamw8bit", "schedulefree")  # whose weight decay is 0.01 where none is given; of others it is 0
SAID_ANYWAY = {"relative_step": "False", "scale_parameter": "False", "warmup_init": "False", "use_bias_correction": "True"}
PRECISIONS = {"no": "fp32", "fp32": "fp32", "float": "fp32", "fp16": "fp16", "bf16": "bf16", "auto": "auto"}
OF_SUBSETS = {  # options of dataset.toml that lorakit has once for all
    "batch_size": "train_batch_size", "shuffle_caption": "shuffle_caption", "keep_tokens": "keep_tokens", "bucket_reso_steps": "bucket_reso_steps",
    "caption_dropout_rate": "caption_dropout_rate", "caption_tag_dropout_rate": "caption_tag_dropout_rate",
}  # fmt: skip
KNOWN = {"network_dim", "network_module", "pretrained_model_name_or_path", "learning_rate", "unet_lr", "max_train_steps", "max_train_epochs",
         "optimizer_type", "dataset_config", "lr_scheduler"}  # fmt: skip
USUAL_GUIDANCE = 3.5  # that a distilled base is trained with where none is given
SEVERAL = 10**9  # steps, which a rule by epochs never meets


def with_dataset(options: Options, read: Callable[[Path], dict[str, Any]]) -> Options:
    """The options of a training, and with them those of the dataset that `dataset_config` names, which `read` reads."""
    if "dataset_config" not in options.values:
        return options
    path = options.path("dataset_config") or place(
        str(options.values["dataset_config"]).replace("\\", "/").rpartition("/")[2], options.folder
    )
    if path is None:
        options.lack("dataset_config", "not beside; resolution, batch and texts are not taken over")
        return options
    return add_dataset(options, read(path))


def add_dataset(options: Options, data: Mapping[str, Any]) -> Options:
    """Fill in what a dataset's tables say: options of all subsets alike by sd-scripts' own names, `repeats` and `resolutions`."""
    own: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    general = data["general"] if isinstance(data.get("general"), Mapping) else {}
    for dataset in _tables(data.get("datasets")):
        subsets = _tables(dataset.get("subsets")) or [{}]
        upper = {key: value for key, value in dataset.items() if key != "subsets"}
        for subset in subsets:
            merged = {**general, **upper, **subset}
            (others if merged.get("is_reg") else own).append(merged)
    own = own or [dict(general)]
    for name in sorted({key for subset in own for key in subset} - {"resolution", "num_repeats", "image_dir", "is_reg", "class_tokens"}):
        values = list({str(value): value for value in (subset.get(name) for subset in own)}.values())
        known = OF_SUBSETS.get(name, name)
        if name == "conditioning_data_dir":
            options.dealt.add(name)
            options.values.setdefault("masked_loss", True)
        elif len(values) > 1:
            options.lacking.append(f"{name} = {' and '.join(short(value) for value in values)} (one for all photos)")
        elif values[0] not in (None, False, "", []):
            options.values[known] = values[0]
    if found := [subset["resolution"] for subset in own if "resolution" in subset]:
        options.values["resolution"] = found[0] if len(found) == 1 else found
        options.values["resolutions"] = found
    options.values["repeats"] = [_repeats(subset, options.folder) for subset in own if _is_number(subset.get("num_repeats"))] or None
    for subset in others:
        if "image_dir" in subset:
            options.values["reg_data_dir"] = subset["image_dir"]
        if "class_tokens" in subset:
            options.values["class_tokens_of_class"] = subset["class_tokens"]
    if any("class_tokens" in subset for subset in own):
        options.lacking.append(
            f"class_tokens = {short(next(s['class_tokens'] for s in own if 'class_tokens' in s))} (name the word with --trigger)"
        )
    return options


def _tables(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _repeats(subset: Mapping[str, Any], folder: Path) -> tuple[float, int | None]:
    """(repeats, pictures in the folder, where it is here)."""
    path = place(str(subset.get("image_dir", "")), folder) if subset.get("image_dir") else None
    count = subset.get("img_count")
    if count is None and path and path.is_dir():
        count = sum(one.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".bmp") for one in path.iterdir())
    return float(subset["num_repeats"]), count


def take(options: Options, family: str | None = None, card: Card | None = None, whole: bool = True) -> tuple[Card | None, dict[str, Any]]:
    """(the base's card, settings). `whole`: the file is a whole training, in which what is not said is as sd-scripts has it by itself."""
    module = str(options.values.get("network_module", ""))
    options.text("model_type")  # named where it is none
    family = family or bases.of_sd_scripts(options.values, lambda words: words.get("network") == module)
    card, weights = bases.take(options, "pretrained_model_name_or_path", family, card)
    found = {**weights, **_data(options, whole)}
    if whole:
        found |= {**_network(options), **_rates(options), **_schedule(options), **_length(options, found), **_loss(options, card)}
        found |= {**_flow(options, card), **_rest(options)}
    return card, found


def _data(options: Options, whole: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    several, given = options.get("resolutions"), options.get("resolution")
    if several or given is not None:
        found |= sizes([side for value in several or [given] if (side := side_of(options, "resolution", value))])
    found |= _numbers(options, {"train_batch_size": "train.batch_size", "bucket_reso_steps": "train.bucket_step"})
    shuffled, dropped = options.flag("shuffle_caption"), options.number("caption_tag_dropout_rate", 0.0)
    if whole or {"shuffle_caption", "caption_tag_dropout_rate", "caption_dropout_rate", "keep_tokens"} & set(options.values):
        found |= {"train.shuffle_tags": shuffled, "train.tag_dropout": dropped}
        found["train.caption_dropout"] = options.number("caption_dropout_rate", 0.0)
    keep = options.number("keep_tokens", 0)
    if shuffled or dropped:
        found["train.keep_tags"] = keep
    reg, word = options.path("reg_data_dir"), options.get("class_tokens_of_class")
    if reg:
        found["train.regularisation"] = str(reg)
    elif options.get("reg_data_dir"):
        options.lack("reg_data_dir", "no such folder here")
    return found | ({"trigger.class_word": word} if word else {})


def _numbers(options: Options, names: Mapping[str, str]) -> dict[str, Any]:
    return {key: value for name, key in names.items() if (value := options.number(name)) is not None}


def _network(options: Options) -> dict[str, Any]:
    module, args = options.get("network_module", "networks.lora"), pairs(options, "network_args")
    rank, alpha = options.number("network_dim", 4) or 4, options.number("network_alpha", 1.0) or 1.0
    found: dict[str, Any] = {"train.rank": rank, "train.alpha": None if alpha == rank else alpha, "train.rank_stabilised": False}
    if str(module).startswith("lycoris"):
        found |= _lycoris(options, args)
    elif str(module).startswith("networks.lora"):
        found |= {"train.adapter": "lora"}
    else:
        options.lack("network_module", "a plain LoRA is trained")
    conv, conv_alpha = (_number_in(args, key) for key in ("conv_dim", "conv_alpha"))
    if conv and float(conv) and found.get("train.targets", "conv") == "conv" and "attn-mlp" not in str(options.values.get("network_args")):
        found["train.targets"] = "conv"
        if (float(conv), float(conv_alpha or 1)) != (rank, alpha):
            found["train.block_ranks"] = [f"(conv1|conv2|conv_shortcut|samplers.0.conv)$={int(float(conv))}/{float(conv_alpha or 1):g}"]
    if ratio := args.pop("loraplus_lr_ratio", None):
        found["train.lora_plus_ratio"] = ratio
    found["train.t5"] = str(args.pop("train_t5xxl", "")) == "True"
    for key, value in args.items():
        if str(value) not in ("", "None", "0", "0.0", "False"):
            options.lacking.append(f"network_args {key} = {short(value)}")
    start = options.get("network_weights")
    if path := options.path("network_weights"):
        found["train.from_lora"] = str(path)
    elif start:
        options.lack("network_weights", "no such file here")
    return found


def _number_in(args: dict[str, Any], name: str) -> float | None:
    """Of a network's argument; what is none stays there, to be named."""
    try:
        found = float(args[name])
    except (KeyError, TypeError, ValueError):
        return None
    del args[name]
    return found if math.isfinite(found) else None


def _lycoris(options: Options, args: dict[str, Any]) -> dict[str, Any]:
    algo, dora = str(args.pop("algo", "lora")).lower(), str(args.pop("dora_wd", "")) == "True"
    factor, preset = args.pop("factor", -1), str(args.pop("preset", "full"))
    kind = {"lora": "lora", "locon": "lora", "lokr": "lokr", "loha": "loha"}.get(algo)
    found: dict[str, Any] = {"train.adapter": "dora" if dora and kind == "lora" else kind or "lora"}
    if kind is None:
        options.lacking.append(f"network_args algo = {algo} (a plain LoRA is trained)")
    elif dora and kind != "lora":
        options.lacking.append(f"network_args dora_wd = True (not for {algo})")
    if kind == "lokr":
        found["train.lokr_factor"] = factor
    levels = {"full": "conv", "attn-only": "attention", "unet-transformer-only": "linear"}
    if preset in levels:
        found["train.targets"] = levels[preset]
    elif preset != "attn-mlp":  # which is what the base's card has by itself
        options.lacking.append(f"network_args preset = {preset}")
    return found


def pairs(options: Options, name: str) -> dict[str, Any]:
    """{'conv_dim': '8'} of ['conv_dim=8'], of 'conv_dim=8 conv_alpha=1', or of a table."""
    given = options.get(name) or []
    if isinstance(given, Mapping):
        return dict(given)
    if not isinstance(given, (str, list)):
        options.lack(name, "no list of name=value")
        return {}
    words = given.replace(",", " ").split() if isinstance(given, str) else [str(word) for word in given]
    return {key.strip(): value.strip().strip("'\"") for key, _, value in (word.partition("=") for word in words)}


def _rates(options: Options) -> dict[str, Any]:
    rate, own, encoder = options.number("learning_rate"), options.number("unet_lr"), options.number("text_encoder_lr")
    only_denoiser = options.flag("network_train_unet_only")
    main = own if own else rate
    trained = not only_denoiser and encoder != 0
    found: dict[str, Any] = {"train.text_encoder": trained} | ({"train.learning_rate": main} if main is not None else {})
    if trained:
        other = rate if encoder is None else encoder
        found["train.text_encoder_rate"] = None if other in (None, main) else other
    return found | _optimizer(options)


def _optimizer(options: Options) -> dict[str, Any]:
    given = options.text("optimizer_type")
    for flag, name in (("use_8bit_adam", "AdamW8bit"), ("use_lion_optimizer", "Lion")):
        if options.flag(flag) and not given:
            given = name
    words, args = given or "AdamW", pairs(options, "optimizer_args")
    ours = {their.lower(): own for own, their in OPTIMIZERS.items()} | {own: own for own in OPTIMIZERS}
    name = ours.get(words.lower())
    if name is None and "." in words:
        name = words
    if name is None and words in BY_BITSANDBYTES:
        name = f"bitsandbytes.optim.{words}"
    found: dict[str, Any] = {"train.optimizer": name or "adamw"}
    if name is None:
        options.lack("optimizer_type", "adamw is used")
    decay = args.pop("weight_decay", None)
    found["train.weight_decay"] = decay if decay is not None else 0.01 if (name or "adamw") in OF_ADAMW else 0.0
    for key, value in args.items():
        if SAID_ANYWAY.get(key) != str(value) and not (key == "safeguard_warmup" and options.values.get("lr_warmup_steps")):
            options.lacking.append(f"optimizer_args {key} = {short(value)}")
    return found


def _schedule(options: Options) -> dict[str, Any]:
    given, cycles = options.text("lr_scheduler", "constant"), options.number("lr_scheduler_num_cycles", 1)
    ours = {"constant_with_warmup": "constant", "constant": "constant", "cosine": "cosine", "linear": "linear", "warmup_stable_decay": "wsd", "wsd": "wsd"}  # fmt: skip
    if given == "cosine_with_restarts" and cycles in (None, 0, 1):
        given = "cosine"
    name = ours.get(given)
    if name is None:
        near = "cosine" if given.startswith("cosine") else "linear" if given == "polynomial" else "constant"
        options.lack("lr_scheduler", f"{near} is used")
        name = near
        options.dealt.add("lr_scheduler_num_cycles")
    steps, warm, fall = options.number("max_train_steps"), options.number("lr_warmup_steps", 0) or 0, options.number("lr_decay_steps")
    if given == "constant" and warm:
        options.lack("lr_warmup_steps", "its constant has no warm-up")
        warm = 0
    if 0 < warm < 1:  # a share of the steps
        if steps is None or options.values.get("max_train_epochs"):
            options.lack("lr_warmup_steps", "a share of steps that are not known; set train.warmup_steps")
            warm = 0
        else:
            warm = int(warm * steps)
    if fall and not (name == "wsd" and steps and fall == int(steps) // 5):
        options.lack("lr_decay_steps", "wsd falls in the last fifth" if name == "wsd" else "")
    return {"train.lr_schedule": name, "train.warmup_steps": warm}


def _length(options: Options, found: Mapping[str, Any]) -> dict[str, Any]:
    """Steps as they are given, else so many a photo as the epochs, repeats and the batch make."""
    steps, epochs, repeats = options.number("max_train_steps"), options.number("max_train_epochs"), options.get("repeats")
    accumulation = options.number("gradient_accumulation_steps", 1) or 1
    own: dict[str, Any] = {"train.gradient_accumulation": accumulation}
    if not epochs:
        steps = steps or None
        if repeats and len({number for number, _ in repeats}) > 1:
            options.lacking.append(
                f"num_repeats = {', '.join(f'{number:g}' for number, _ in repeats)} (photos in folders named 10_name are seen ten times)"
            )
        return own | {"train.steps": steps or 1600, **_every(options, steps)}
    times = _mean(repeats)
    if times is None:
        options.lack("max_train_epochs", "how often photos are repeated is not known here; set train.steps")
        return own | _every(options, None)
    a_photo = epochs * times / (accumulation * (float(found.get("train.batch_size") or 1)))
    if a_photo != round(a_photo):
        options.lacking.append(f"max_train_epochs = {epochs:g} (are {a_photo:g} steps a photo, taken as {max(1, round(a_photo))})")
    rule = {"train.steps_per_photo": max(1, round(a_photo)), "train.min_steps": 1, "train.max_steps": SEVERAL}
    return own | {"train.steps": None, **rule, **_every(options, None)}


def _mean(repeats: list[tuple[float, int | None]] | None) -> float | None:
    """Repeats of the photos, weighed by how many have them; None where that cannot be told."""
    if not repeats:
        return None
    if len({number for number, _ in repeats}) == 1:
        return repeats[0][0]
    counts = [count for _, count in repeats]
    if None in counts or not sum(counts):  # type: ignore[arg-type]
        return None
    return sum(number * (count or 0) for number, count in repeats) / sum(count or 0 for count in counts)


def _every(options: Options, steps: float | None) -> dict[str, Any]:
    every = options.number("save_every_n_steps")
    for name in ("save_every_n_epochs", "sample_every_n_epochs"):
        if options.number(name):
            options.lack(name, "lorakit counts steps")
    found: dict[str, Any] = {} if not every else {"train.checkpoint_every": 0 if steps and every >= steps else every}
    samples = options.number("sample_every_n_steps")
    return found | ({"sample.every": samples} if samples else {})


def _loss(options: Options, card: Card | None) -> dict[str, Any]:
    snr, debiased = options.number("min_snr_gamma"), options.flag("debiased_estimation_loss")
    found: dict[str, Any] = {"train.loss_weighting": "min_snr" if snr else "debiased" if debiased else "none"}
    if snr:
        found["train.min_snr_gamma"] = snr
        if debiased:
            options.lack("debiased_estimation_loss", "min_snr is used")
    found |= {"train.noise_offset": options.number("noise_offset", 0.0), "train.input_perturbation": options.number("ip_noise_gamma", 0.0)}
    levels, discount = options.number("multires_noise_iterations"), options.number("multires_noise_discount", 0.3)
    found["train.multires_noise"] = discount if levels else 0.0
    if levels and levels != PYRAMID_LEVELS:
        options.lack("multires_noise_iterations", "levels go down to single pixels")
    second, velocity = options.flag("v2"), options.flag("v_parameterization")
    if velocity:
        found["train.prediction"] = "v_prediction"
    elif second or (card and "v_prediction" in str(card.settings.get("train.prediction"))):
        found["train.prediction"] = "epsilon"
    found |= {"train.zero_terminal_snr": options.flag("zero_terminal_snr"), "train.masked_loss": options.flag("masked_loss")}
    if options.flag("alpha_mask"):
        found["train.masked_loss"] = True
    kind, schedule, width = options.get("loss_type", "l2"), options.get("huber_schedule"), options.number("huber_c", 0.1)
    if kind == "huber":
        found["train.loss"] = "huber"
        if schedule not in (None, "constant") or width != 0.1:
            options.lacking.append(f"huber_schedule = {schedule}, huber_c = {width} (lorakit's is constant, 0.1)")
    elif kind not in ("l2", "mse"):
        options.lack("loss_type", "mse is used")
    else:
        found["train.loss"] = "mse"
    weight = options.number("prior_loss_weight")
    return found | ({"train.regularisation_weight": weight} if weight is not None and options.values.get("reg_data_dir") else {})


def _flow(options: Options, card: Card | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    scheme, sampling = options.get("weighting_scheme"), options.get("timestep_sampling")
    if sampling is not None:
        ours = {"uniform": "uniform", "sigmoid": "sigmoid", "shift": "logit_normal", "flux_shift": "logit_normal"}
        if str(sampling) in ours:
            found["train.timestep_sampling"] = ours[str(sampling)]
        else:
            options.lack("timestep_sampling")
        shift = options.number("discrete_flow_shift")
        found["train.flow_shift"] = shift if sampling == "shift" else None
        found["train.logit_std"] = options.number("sigmoid_scale", 1.0)
    elif scheme is not None:
        ours = {"uniform": "uniform", "none": "uniform", "logit_normal": "logit_normal", "mode": "mode"}
        if str(scheme) in ours:
            found["train.timestep_sampling"] = ours[str(scheme)]
        else:
            options.lack("weighting_scheme")
        shift = options.number("training_shift", 1.0)
        found |= {"train.flow_shift": None if shift == STILL_SHIFT else shift}
        found |= {"train.logit_mean": options.number("logit_mean", 0.0), "train.logit_std": options.number("logit_std", 1.0)}
    guidance, kind = options.number("guidance_scale"), options.get("model_prediction_type")
    by_name = card and lookup.constant(lookup.FAMILIES, card.family, "OTHER_TRAINERS", {}).get("sd_scripts", {}).get("timesteps")
    if guidance is None and by_name == "timestep_sampling":
        guidance = USUAL_GUIDANCE
    if guidance is not None:
        found["train.guidance"] = guidance
    if kind not in (None, "raw"):
        options.lack("model_prediction_type", "raw is used")
    return found


def _rest(options: Options) -> dict[str, Any]:
    names = {"seed": "train.seed", "max_grad_norm": "train.max_grad_norm", "blocks_to_swap": "train.swap_blocks"}
    found = _numbers(options, names)
    for name, key in (("mixed_precision", "train.precision"), ("save_precision", "export.precision")):
        given = options.get(name)
        if given is not None and PRECISIONS.get(str(given)) not in (None, "auto"):
            found[key] = PRECISIONS[str(given)]
        elif given not in (None, "auto"):
            options.lack(name)
    if options.flag("gradient_checkpointing"):
        found["train.gradient_checkpointing"] = "on"
    if options.flag("fp8_base"):
        found["train.base_precision"] = "fp8"
    return found | _prompts(options)


def _prompts(options: Options) -> dict[str, Any]:
    """`sample_prompts` is a file, and in the window's files the prompts themselves."""
    given = options.get("sample_prompts")
    if isinstance(given, dict):
        options.lack("sample_prompts", "no text")
    if not given or isinstance(given, dict):
        return {}
    path = options.path("sample_prompts") if isinstance(given, str) and "\n" not in given and len(given) < 250 else None
    if path and path.suffix.lower() == prompts.FILE:
        entries = [str(path)]
    elif path or (isinstance(given, str) and given.lower().endswith((".txt", ".toml", ".json"))):
        options.lack("sample_prompts", "no .txt file that is here")
        return {}
    else:
        lines = str(given).splitlines() if not isinstance(given, list) else [str(line) for line in given]
        entries = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    return {"sample.prompts": readable(options, entries)}


def readable(options: Options, entries: list[str]) -> list[str]:
    """The prompts that lorakit can read; the others are named."""
    found = []
    for entry in entries:
        try:
            prompts.read([entry], options.folder, "[trigger]")
        except LorakitError as error:
            options.lacking.append(str(error).replace("sample.prompts, entry 1", "a sample prompt"))
        else:
            found.append(entry)
    return found
