"""The optimizer and its learning-rate schedule. The rate is a function of the step, so resuming needs no state of it."""

from __future__ import annotations

import contextlib
import importlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lorakit.errors import LorakitError
from lorakit.settings import Train

PATHS = {
    "adamw": "torch.optim.AdamW",
    "adafactor": "torch.optim.Adafactor",
    "adamw8bit": "bitsandbytes.optim.AdamW8bit",
    "lion": "lion_pytorch.Lion",
    "prodigy": "prodigyopt.Prodigy",
    "schedulefree": "schedulefree.AdamWScheduleFree",
}
PACKAGES = {"lion_pytorch": "lion-pytorch"}  # where pip's name is another
EXTRAS = {"bitsandbytes": "8bit", "lion_pytorch": "optimizers", "prodigyopt": "optimizers", "schedulefree": "optimizers"}
LEAST_FACTOR = 0.1  # Prodigy's rate is a factor of the one that it finds; what is smaller was meant for another optimizer
MOMENT_BLOCK = 256  # moments in 8 bits that share a scale, as bitsandbytes has it
COOL_DOWN = 0.2  # share of the steps in which `wsd` falls


def make_optimizer(model: nn.Module, settings: Train, encoders: Sequence[nn.Module] = ()) -> torch.optim.Optimizer:
    """An optimizer of all that needs gradients in `model`, and in text `encoders` at their own rate; LoRA's B matrices learn
    `lora_plus_ratio` times as fast. Raises `LorakitError` when it is not installed, or cannot take these settings."""
    own = settings.text_encoder_rate / settings.learning_rate if settings.text_encoder_rate is not None and settings.learning_rate else 1.0
    groups = [
        group for part, ratio in ((model, 1.0), *((encoder, own) for encoder in encoders)) for group in _groups(part, ratio, settings)
    ]
    named = groups[0]["params"]
    cls = find_class(settings.optimizer)
    options = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    options |= {"fused": True} if cls is torch.optim.AdamW and named[0].device.type == "cuda" else {}
    options |= _prodigy_options(settings) if is_prodigy(settings) else {}
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # some greet
            optimizer = cls(groups, **options)
    except (AssertionError, TypeError, ValueError) as error:
        raise LorakitError(f"train.optimizer = {settings.optimizer}: does not take {options} ({error or 'refused'})") from None
    if has_modes(optimizer):
        optimizer.train()
    return optimizer


def _prodigy_options(settings: Train) -> dict[str, Any]:
    """What its author advises for diffusion models."""
    return {"use_bias_correction": True, "safeguard_warmup": settings.warmup_steps > 0}


def is_prodigy(settings: Train) -> bool:
    return "prodigy" in settings.optimizer.lower()


def is_schedule_free(settings: Train) -> bool:
    """Schedule-free optimizers (arXiv:2405.15682) average the weights instead of lowering the rate."""
    return "schedulefree" in settings.optimizer.lower()


def has_modes(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the weights that are trained on are others than those to be used; `train()` and `eval()` change between them."""
    return "train_mode" in optimizer.param_groups[0]


def conflicts(settings: Train) -> Iterator[tuple[bool, str]]:
    """(whether it is so, the line that says so) of optimizer settings that do not go together."""
    name, rate = settings.optimizer, settings.learning_rate
    prodigy, free = is_prodigy(settings), is_schedule_free(settings)
    yield (
        prodigy and rate < LEAST_FACTOR,
        f"train.learning_rate = {rate}: {name} finds the rate and takes this times it; set train.learning_rate=1",
    )
    yield prodigy and settings.lora_plus_ratio != 1, f"train.lora_plus_ratio: {name} has one rate for all; take it out"
    scheduled = free and settings.lr_schedule not in ("cosine", "constant")
    yield scheduled, f"train.lr_schedule = {settings.lr_schedule}: {name} needs no schedule; take it out"
    yield free and settings.ema > 0, f"train.ema: {name} gives a mean of the weights already; take one of them out"


def _groups(model: nn.Module, ratio: float, settings: Train) -> list[dict]:
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    ups = [p for name, p in named if "lora_B" in name]
    others = [p for name, p in named if "lora_B" not in name]
    ratios = [(others, ratio), (ups, ratio * settings.lora_plus_ratio)]
    return [{"params": group, "lr": settings.learning_rate * ratio, "ratio": ratio} for group, ratio in ratios if group]


def find_class(name: str) -> type[torch.optim.Optimizer]:
    """The class of a name in PATHS, or of a dotted path. Raises `LorakitError` that says what to install."""
    module, _, cls = PATHS.get(name, name).rpartition(".")
    if not module:
        raise LorakitError(f"train.optimizer = {name}: choose {', '.join(PATHS)}, or write a class with its module (package.module.Class)")
    try:
        return getattr(importlib.import_module(module), cls)
    except (ImportError, AttributeError):
        package = module.split(".")[0]
        extra = f", or lorakit with its extra [{EXTRAS[package]}]" if package in EXTRAS else ""
        raise LorakitError(
            f"train.optimizer = {name}: {module}.{cls} is not installed; pip install {PACKAGES.get(package, package)}{extra}"
        ) from None


def update_where(optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], is_finite: Tensor) -> None:
    """One update, of which nothing is to be seen where `is_finite` (one bool, on the parameters' device) is false, and nobody
    waits to hear which it is. Fused optimizers leave it out by themselves, as a GradScaler asks them to; others are given
    gradients of zero, which keeps the weights numbers until the loop hears of it."""
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        optimizer.grad_scale, optimizer.found_inf = None, (~is_finite).float()
        try:
            optimizer.step()
        finally:
            del optimizer.grad_scale, optimizer.found_inf
        return
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.masked_fill_(~is_finite, 0.0)
    optimizer.step()


def load_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """What `state_dict` gave. AdamW's moments may go on in 8 bits: they are rounded, once."""
    held = next(iter(state["state"].values()), {})
    if "exp_avg" not in held or not hasattr(optimizer, "init_state"):
        optimizer.load_state_dict(state)
        return
    from bitsandbytes.functional import quantize_blockwise

    numbers = iter(sorted(state["state"]))
    for at, group in enumerate(optimizer.param_groups):
        for within, parameter in enumerate(group["params"]):
            moments = state["state"][next(numbers)]
            optimizer.init_state(group, parameter, at, within)
            ours = optimizer.state[parameter]
            ours["step"] = int(moments["step"])
            for number, name in ((1, "exp_avg"), (2, "exp_avg_sq")):
                values = moments[name].to(parameter.device, torch.float32)
                if ours[f"state{number}"].dtype == torch.uint8:
                    packed, scales = quantize_blockwise(values, code=ours[f"qmap{number}"], blocksize=MOMENT_BLOCK)
                    ours[f"state{number}"].copy_(packed)
                    ours[f"absmax{number}"].copy_(scales.absmax)
                else:
                    ours[f"state{number}"].copy_(values)


def lr_at(step: int, steps: int, settings: Train, begun: int = 0) -> float:
    """Learning rate of a step (from 0): linear warm-up, then the schedule, of which schedule-free optimizers have none. A training that
    goes on after step `begun` of another begins both anew (a warm restart, arXiv:1608.03983): else there were next to nothing left of the rate."""
    step, steps = step - begun, steps - begun
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, steps - settings.warmup_steps)
    return settings.learning_rate * _left("constant" if is_schedule_free(settings) else settings.lr_schedule, done)


def _left(schedule: str, done: float) -> float:
    """Share of the peak rate when `done` (0..1) of the steps after the warm-up are behind."""
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    if schedule == "linear":
        return 1 - done
    if schedule == "wsd":  # warm-up, stable, decay (arXiv:2405.18392)
        return min(1.0, (1 - done) / COOL_DOWN)
    return 1.0


def set_lr(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["ratio"]
