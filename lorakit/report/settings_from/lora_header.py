"""The header of a LoRA file: sd-scripts' options as `ss_*`, which lorakit and others write too."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lorakit.errors import LorakitError
from lorakit.project.catalog import Card
from lorakit.report.settings_from import bases, sd_scripts
from lorakit.report.settings_from.options import Options

# What happened, not what was set.
FACTS = re.compile(
    r"(session_id|training_(started|finished)_at|output_name|num_(train|reg)_images|num_batches_per_epoch|steps|epoch|tag_frequency|dataset_dirs|"
    r"reg_dataset_dirs|bucket_info|sd_scripts_commit_hash|.*_hash|new_.*|training_comment|cache_latents|lowram|total_batch_size|v2|"
    r"base_model_version|datasets|full_.*_te|enable_bucket|bucket_no_upscale|(min|max)_bucket_reso|num_train_images|vae_name|sd_model_name)"
)
NAMES = {
    "num_epochs": "max_train_epochs", "optimizer": "optimizer_type", "batch_size_per_device": "train_batch_size",
    "debiased_estimation": "debiased_estimation_loss", "sd_model_name": "pretrained_model_name_or_path",
}  # fmt: skip
OF_DATASETS = {"batch_size_per_device": "batch_size", "batch_size": "batch_size", "resolution": "resolution"}
OF_SUBSETS = ("num_repeats", "img_count", "shuffle_caption", "keep_tokens", "is_reg", "flip_aug", "color_aug", "random_crop",
              "caption_dropout_rate", "caption_tag_dropout_rate")  # fmt: skip


def options_of(path: Path, header: Mapping[str, str], keys: Sequence[str]) -> Options:
    """sd-scripts' options as the header has them. Raises `LorakitError` where it has none."""
    said = {name.removeprefix("ss_"): value for name, value in header.items() if name.startswith("ss_")}
    if not {"network_dim", "learning_rate", "unet_lr", "max_train_steps"} & set(said):
        what = "no settings in its header" if header else "no header with settings"
        raise LorakitError(f"{path}: {what}; `--from-lora` takes rank and layers from the tensors, and starts at them")
    found = {NAMES.get(name, name): _plain(value) for name, value in said.items() if name in NAMES or not FACTS.fullmatch(name)}
    if found.get("max_train_steps"):
        found.pop("max_train_epochs", None)
    found |= _optimizer(str(found.get("optimizer_type") or ""))
    if (
        not str(said.get("text_encoder_lr") or "")
        and not any(re.match(r"lora_te|text_encoder|te\d?\.", key) for key in keys)
        or str(said.get("text_encoder_lr")) in ("None", "")
        and not any(re.match(r"lora_te|text_encoder|te\d?\.", key) for key in keys)
    ):
        found["network_train_unet_only"] = True
    options = Options({**found, "v2": said.get("v2") == "True"}, path.parent)
    data = _json(said.get("datasets"))
    if isinstance(data, list):
        options.values.pop("resolution", None)
        sd_scripts.add_dataset(options, {"datasets": [_dataset(one) for one in data if isinstance(one, dict)]})
    return options


def take(options: Options, header: Mapping[str, str]) -> tuple[Card | None, dict[str, Any]]:
    card = bases.of_version(header.get("ss_base_model_version"))
    own: dict[str, Any] = {}
    if "lorakit_version" in header:
        own = _own(options)
    card, found = sd_scripts.take(options, card.family if card else None, card)
    return card, found | own


def _own(options: Options) -> dict[str, Any]:
    """What lorakit says of its adapters itself, in place of a network's arguments."""
    args = options.get("network_args")
    args = args if isinstance(args, dict) else {}
    options.values.pop("network_args", None)
    options.values.pop("network_module", None)
    names = {"adapter": "train.adapter", "targets": "train.targets", "factor": "train.lokr_factor", "block_ranks": "train.block_ranks", "init": "train.init"}  # fmt: skip
    own = {key: args[name] for name, key in names.items() if name in args}
    if args.get("init"):  # the file holds the difference of two adapters
        half = int(options.number("network_dim", 2) or 2) // 2
        options.lacking.append(f"network_alpha (is not said of train.init = {args['init']}; alpha = rank)")
        own |= {"train.rank": half, "train.alpha": None}
    if options.values.get("lr_scheduler") == "constant" and options.values.get("lr_warmup_steps"):
        options.values["lr_scheduler"] = "constant_with_warmup"
    return own


def _plain(value: str) -> Any:
    """'None' is none, '["a=1"]' a list, all else stays text or a number."""
    found = _json(value)
    return {"True": True, "False": False, "None": None}.get(value, value) if found is None else found


def _json(text: str | None) -> Any:
    try:
        return json.loads(text or "")
    except (ValueError, RecursionError):
        return None


def _dataset(said: Mapping[str, Any]) -> dict[str, Any]:
    found = {ours: said[name] for name, ours in OF_DATASETS.items() if said.get(name) is not None}
    subsets = said.get("subsets")
    own = (
        [{name: one[name] for name in OF_SUBSETS if name in one} for one in subsets if isinstance(one, dict)]
        if isinstance(subsets, list)
        else []
    )
    return found | {"subsets": own or [{}]}


def _optimizer(said: str) -> dict[str, Any]:
    """'bitsandbytes.optim.adamw.AdamW8bit(weight_decay=0.1)' as name and arguments."""
    name, _, args = said.partition("(")
    if not args:
        return {}
    words = [word.strip() for word in args.rstrip(")").split(",") if "=" in word]
    return {"optimizer_type": name.rpartition(".")[2], "optimizer_args": words}
