"""The adapter: LoRA matrices put into a denoiser, read out of it and set again, by peft."""

from __future__ import annotations

import torch
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from lorakit.settings import Train

NAME = "lorakit"


def add_lora(denoiser: nn.Module, targets: tuple[str, ...], settings: Train) -> list[nn.Parameter]:
    """Put a LoRA into every target module; returns its parameters, in fp32 and alone in needing gradients.

    The start values depend on the seed alone: A Kaiming uniform, B zero, as in the paper (arXiv:2106.09685)."""
    torch.manual_seed(settings.seed)
    config = LoraConfig(r=settings.rank, lora_alpha=alpha_of(settings), target_modules=list(targets), init_lora_weights=True)
    denoiser.add_adapter(config, adapter_name=NAME)
    parameters = [p for p in denoiser.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.data = parameter.data.float()
    return parameters


def alpha_of(settings: Train) -> float:
    """Alpha, which is the rank (scale 1) where none is set."""
    return float(settings.rank if settings.alpha is None else settings.alpha)


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
