"""The optimizer and its learning-rate schedule. The rate is a function of the step, so resuming needs no state of it."""

from __future__ import annotations

import math

import torch
from torch import nn

from lorakit.settings import Train


def make_optimizer(parameters: list[nn.Parameter], settings: Train) -> torch.optim.AdamW:
    fused = parameters[0].device.type == "cuda"
    return torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=fused)


def rate_at(step: int, steps: int, settings: Train) -> float:
    """Learning rate of a step (from 0): linear warm-up, then constant, or a cosine that ends at zero."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.lr_schedule == "constant":
        return settings.learning_rate
    done = (step - settings.warmup_steps) / max(1, steps - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
