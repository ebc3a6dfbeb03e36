"""The VAE where memory is short: tiles only where they are needed, and the picture is whole all the same."""

import numpy as np
import pytest
import torch

from lorakit import device
from lorakit.bases import autoencoder
from lorakit.bases.autoencoder import tile_side


@pytest.mark.parametrize(
    ("height", "width", "free", "side"),
    [(1024, 1024, None, None), (1024, 1024, 24.0, None), (1024, 1024, 3.4, None), (1024, 1024, 3.0, 768), (1536, 1536, 3.4, 768),
     (1024, 1024, 1.5, 512), (512, 512, 1.0, None), (1024, 1024, 0.1, 256)],
)  # fmt: skip
def test_tiles_are_as_large_as_what_is_free(height, width, free, side):
    assert tile_side(height, width, 128, free) == side


@pytest.mark.parametrize("name", ["flux1", "krea2"])
def test_a_picture_in_tiles_is_as_large_and_nearly_the_same(load_tiny, monkeypatch, name):
    family = load_tiny(name)
    height, width = (40, 48) if name == "flux1" else (10, 12)  # a video's convolutions take long
    if name != "flux1":
        monkeypatch.setattr(autoencoder, "TILES", (64,))
    latents = torch.randn(1, 16, height, width, generator=torch.Generator().manual_seed(0))
    whole = family.decode(latents)
    monkeypatch.setattr(device, "free_gb", lambda where: 0.001)
    tiled = family.decode(latents)
    assert family.vae.use_tiling and whole.size == tiled.size == (8 * width, 8 * height)
    difference = np.abs(np.asarray(whole, float) - np.asarray(tiled, float))
    assert 0 < difference.mean() < 8
    pixels = torch.zeros(1, 3, 8 * height, 8 * width)
    assert family.encode_picture(pixels)["mean"].shape == (16, height, width)
    monkeypatch.undo()
    family.decode(latents)
    assert not family.vae.use_tiling
