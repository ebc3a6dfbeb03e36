"""The adapter: LoRA matrices put into a denoiser, read out of it and set again, by peft."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from lorakit.errors import LorakitError
from lorakit.settings import Train
from lorakit.train.families.base import Family

NAME = "lorakit"


def add_lora(family: Family, settings: Train) -> list[nn.Parameter]:
    """Put a LoRA into every target module of the denoiser; returns its parameters, in fp32 and alone in needing gradients.

    The start values depend on the seed alone: A Kaiming uniform, B zero, as in the paper (arXiv:2106.09685)."""
    torch.manual_seed(settings.seed)
    family.denoiser.add_adapter(make_config(find_targets(family.denoiser, family.TARGETS, settings), settings), adapter_name=NAME)
    parameters = [p for p in family.denoiser.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.data = parameter.data.float()
    return parameters


def make_config(targets: list[str], settings: Train) -> LoraConfig:
    return LoraConfig(
        r=settings.rank,
        lora_alpha=alpha_of(settings),
        target_modules=targets,
        use_rslora=settings.rank_stabilised,
        use_dora=settings.adapter == "dora",
    )


def find_targets(denoiser: nn.Module, levels: Mapping[str, tuple[str, ...]], settings: Train) -> list[str]:
    """Full names of the modules that get a LoRA. Raises `LorakitError` when none is left."""
    upto = list(levels).index(settings.targets) + 1
    endings = tuple(f".{ending}" for level in list(levels)[:upto] for ending in levels[level])
    found = [
        name
        for name, module in denoiser.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
        and name.endswith(endings)
        and (not settings.include or re.search(settings.include, name))
        and not (settings.exclude and re.search(settings.exclude, name))
    ]
    if not found:
        raise LorakitError(f"no layer is left to train with train.targets={settings.targets}, train.include and train.exclude; widen them")
    return found


def alpha_of(settings: Train) -> float:
    """Alpha, which is the rank (scale 1) where none is set."""
    return float(settings.rank if settings.alpha is None else settings.alpha)


def file_alpha(settings: Train) -> float:
    """The alpha that a file must say so that alpha / rank is the scale that was trained with."""
    return alpha_of(settings) * (settings.rank**0.5 if settings.rank_stabilised else 1.0)


def read_lora(denoiser: nn.Module) -> dict[str, Tensor]:
    """{'<module>.lora_A.weight': tensor, ...} of the adapter, on the CPU."""
    state = get_peft_model_state_dict(denoiser, adapter_name=NAME)
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def set_lora(denoiser: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put back what `read_lora` read. Raises when a key does not fit."""
    result = set_peft_model_state_dict(denoiser, tensors, adapter_name=NAME)
    missing = [key for key in result.missing_keys if "lora_" in key]
    if result.unexpected_keys or missing:
        raise ValueError(f"adapter does not fit the model: {(list(result.unexpected_keys) + missing)[:3]}")
