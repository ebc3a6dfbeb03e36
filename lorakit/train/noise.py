"""The noise that latents are mixed with. All chance is drawn on the CPU from the generator that is given."""

from __future__ import annotations

import torch
from torch import Tensor

from lorakit.settings import Train


def draw_noise(shape: torch.Size, settings: Train, generator: torch.Generator) -> Tensor:
    """Gaussian noise [B, C, h, w]; with noise offset also one shift per channel, so that very dark and very bright
    pictures are learned; with multires noise also coarser grains."""
    noise = torch.randn(shape, generator=generator)
    if settings.noise_offset:
        noise += settings.noise_offset * torch.randn((*shape[:2], 1, 1), generator=generator)
    if settings.multires_noise:
        noise = _add_coarser(noise, settings.multires_noise, generator)
    return noise


def _add_coarser(noise: Tensor, discount: float, generator: torch.Generator) -> Tensor:
    """Pyramid noise: each level is half as fine and weighs `discount` times the one before; the sum has variance 1."""
    height, width = noise.shape[-2:]
    for level in range(1, 7):
        size = (max(1, height >> level), max(1, width >> level))
        coarse = torch.randn((*noise.shape[:2], *size), generator=generator)
        noise = noise + discount**level * torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
        if size == (1, 1):
            break
    return noise / noise.std()
