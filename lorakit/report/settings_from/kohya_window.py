"""The .json of kohya_ss' window: sd-scripts' options, some by other names, with a value for each that it can show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorakit import lookup
from lorakit.report.settings_from import bases, shell
from lorakit.report.settings_from.options import Options, in_words, is_on, place

TITLE = "kohya_ss"
MARKS = {"LoRA_type", "lr_warmup", "max_resolution", "train_data_dir", "epoch", "optimizer", "network_dim"}
NAMES = {"optimizer": "optimizer_type", "max_resolution": "resolution", "flux_guidance_scale": "guidance_scale"}  # fmt: skip
ALGORITHMS = {"LyCORIS/LoCon": "locon", "LyCORIS/LoHa": "loha", "LyCORIS/LoKr": "lokr", "LyCORIS/GLoRA": "glora", "LyCORIS/iA3": "ia3",
              "LyCORIS/DyLoRA": "dylora", "LyCORIS/Native Fine-Tuning": "full", "LyCORIS/Diag-OFT": "diag-oft", "LyCORIS/BOFT": "boft"}  # fmt: skip
PLAIN = ("Standard", "Kohya LoCon", "LoRA-FA")
OF_LYCORIS = ("factor", "decompose_both", "use_cp", "use_tucker", "use_scalar", "rank_dropout_scale", "train_norm", "bypass_mode", "full_matrix",
              "constrain", "rescaled", "block_size", "unit", "dora_wd")  # fmt: skip
OF_FLOWS = {"timestep_sampling", "weighting_scheme", "guidance_scale", "discrete_flow_shift", "sigmoid_scale", "model_prediction_type", "logit_mean",
            "logit_std", "mode_scale", "training_shift", "t5xxl", "clip_l", "clip_g", "ae", "t5xxl_max_token_length"}  # fmt: skip
COUNTED = ("max_train_steps", "max_train_epochs", "epoch", "lr_warmup", "lr_warmup_steps", "learning_rate", "unet_lr", "text_encoder_lr",
           "stop_text_encoder_training", "conv_dim", "conv_alpha", "loraplus_lr_ratio")  # fmt: skip
SAID = ("LoRA_type", "additional_parameters", "train_data_dir", "LyCORIS_preset", "noise_offset_type")
LEFT = frozenset(
    "LoRA_type additional_parameters loss_weighting noise_offset_type use_wandb sample_sampler save_as_bool folder_07 no_token_padding "
    "extra_accelerate_launch_args dynamo_mode dynamo_use_dynamic dynamo_use_fullgraph reg_data_dir_help model_list num_machines vae_path "
    "stop_text_encoder_training_pct max_token_length clip_skip_help LyCORIS_preset adaptive_noise_scale_help".split()
)


def is_one(values: Mapping[str, Any]) -> bool:
    return "LoRA_type" in values or ("pretrained_model_name_or_path" in values and len(MARKS & set(values)) >= 3)


def options_of(values: Mapping[str, Any], folder: Path) -> tuple[Options, str | None]:
    """sd-scripts' options, and the family."""
    kind = str(values.get("LoRA_type", "Standard"))
    words = {name: value for name, value in values.items() if is_on(value)}
    family = bases.family_of("sd_scripts", lambda own: any(words.get(name) is True or name == kind for name in own.get("window", ())))
    windows = [name for one in lookup.names(lookup.FAMILIES) for name in _windows(one)]
    others = [name for one in lookup.names(lookup.FAMILIES) if one != family for name in _windows(one)]
    found = {NAMES.get(name, name): value for name, value in words.items() if not name.startswith(tuple(others)) and name not in windows}
    network = _network(found, kind)
    found |= _numbers(found, words)
    if family and (prefix := next(iter(_windows(family)), "")):
        stem = prefix.removesuffix("_checkbox")
        found = {name.removeprefix(f"{stem}_") if name.startswith(stem) else name: value for name, value in found.items()}
    found |= shell.options_in(str(found.pop("additional_parameters", "")).split())
    if not (family and _words(family).get("timesteps")):
        found = {name: value for name, value in found.items() if name not in OF_FLOWS}  # shown, and not sent
    options = Options(found | network, folder)
    options.lacking += [f"{in_words(name, words[name])} (no number)" for name in COUNTED if name in words and number(words[name]) is None]
    options.lacking += [f"{in_words(name, words[name])} (no text)" for name in SAID if isinstance(words.get(name), (dict, list))]
    if (share := number(words.get("stop_text_encoder_training"))) and share > 0:
        options.lack("stop_text_encoder_training", "it learns to the end")
    options.values.pop("LoRA_type", None)
    if kind not in (*PLAIN, *ALGORITHMS) and kind not in windows:
        options.lacking.append(f"LoRA_type = {kind} (a plain LoRA is trained)")
    options.values["repeats"] = _repeats(words, folder)
    return options, family


def _words(family: str) -> dict[str, Any]:
    return lookup.constant(lookup.FAMILIES, family, "OTHER_TRAINERS", {}).get("sd_scripts", {})


def _windows(family: str) -> tuple[str, ...]:
    return tuple(_words(family).get("window", ()))


def number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _network(found: dict[str, Any], kind: str) -> dict[str, Any]:
    conv, alpha = found.pop("conv_dim", None), found.pop("conv_alpha", None)
    args = [f"conv_dim={conv}", f"conv_alpha={alpha or 1}"] if conv and kind not in ("Standard",) else []
    own = {name: found.pop(name) for name in OF_LYCORIS if name in found}
    preset = found.pop("LyCORIS_preset", "full")
    if kind in ALGORITHMS:
        args += [
            f"algo={ALGORITHMS[kind]}",
            f"preset={preset}",
            *(f"{name}={value}" for name, value in own.items() if value not in (False, 0)),
        ]
        return {"network_module": "lycoris.kohya", "network_args": args}
    ratio = found.pop("loraplus_lr_ratio", None)
    return {"network_module": "networks.lora", "network_args": args + ([f"loraplus_lr_ratio={ratio}"] if number(ratio) else [])}


def _numbers(found: dict[str, Any], words: Mapping[str, Any]) -> dict[str, Any]:
    """What the window counts in another way: epochs where there are no steps, warm-up in percent, noise of one of two kinds."""
    changed: dict[str, Any] = {}
    steps, epochs, percent = number(words.get("max_train_steps")), found.pop("epoch", None), number(found.pop("lr_warmup", None))
    if not steps and not words.get("max_train_epochs"):
        changed["max_train_epochs"] = epochs
    if percent and not number(words.get("lr_warmup_steps")):
        changed["lr_warmup_steps"] = percent / 100
    if number(words.get("unet_lr")) and not number(words.get("text_encoder_lr")):
        changed["network_train_unet_only"] = True
    for name in ("learning_rate", "unet_lr", "text_encoder_lr"):
        if name in found and not number(found[name]):
            found.pop(name)
    off = {"Original": ("multires_noise_iterations", "multires_noise_discount"), "Multires": ("noise_offset", "adaptive_noise_scale")}
    for name in off.get(str(words.get("noise_offset_type", "Original")), ()):
        found.pop(name, None)
    return changed


def _repeats(words: Mapping[str, Any], folder: Path) -> list[tuple[float, int | None]] | None:
    """Of the folders named 10_name that the photos lie in, where they are here."""
    path = place(str(words.get("train_data_dir") or ""), folder) if words.get("train_data_dir") else None
    found = []
    for one in sorted(path.iterdir()) if path and path.is_dir() else ():
        times = one.name.partition("_")[0]
        if one.is_dir() and times.isdigit():
            pictures = sum(file.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".bmp") for file in one.iterdir())
            found.append((float(times), pictures))
    return found or None
