"""Latents as transformers read them: two by two of their pixels are one token, row after row."""

from __future__ import annotations

from torch import Tensor


def pack(latents: Tensor) -> Tensor:
    """[B, C, h, w] -> [B, h/2 * w/2, 4C]."""
    count, channels, height, width = latents.shape
    grid = latents.reshape(count, channels, height // 2, 2, width // 2, 2)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(count, height // 2 * (width // 2), channels * 4)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """[B, h/2 * w/2, 4C] -> [B, C, h, w]; height and width are the latents'."""
    count, _, features = tokens.shape
    grid = tokens.view(count, height // 2, width // 2, features // 4, 2, 2)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(count, features // 4, height, width)


def sides(height: int, width: int, latent_side: int) -> tuple[int, int]:
    """(height, width) of the latents of a picture: whole tokens, one latent pixel standing for `latent_side` of its pixels by side."""
    return height // (2 * latent_side) * 2, width // (2 * latent_side) * 2
