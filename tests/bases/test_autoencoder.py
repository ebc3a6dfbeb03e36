"""The VAE where memory is short: tiles only where they are needed, and the picture is whole all the same."""

import re

import numpy as np
import pytest
import torch

from lorakit import device
from lorakit.bases import autoencoder, families
from lorakit.bases.autoencoder import MAPS, tile_side


@pytest.mark.parametrize(
    ("height", "width", "free", "side"),
    [(1024, 1024, None, None), (1024, 1024, 24.0, None), (1024, 1024, 3.4, None), (1024, 1024, 3.0, 768), (1536, 1536, 3.4, 768),
     (1024, 1024, 1.5, 512), (512, 512, 1.0, None), (1024, 1024, 0.1, 256)],
)  # fmt: skip
def test_tiles_are_as_large_as_what_is_free(height, width, free, side):
    assert tile_side(height, width, 128, MAPS, free) == side


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


RESIDUAL = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6", "conv_shortcut": "shortcut"}


def wan_name(key):
    """What a tensor of Qwen-Image's autoencoder is called in ComfyUI's file of it, which has Wan's names."""
    for ours, theirs in (
        (r"^quant_conv", "conv1"), (r"^post_quant_conv", "conv2"), (r"coder\.conv_in", "coder.conv1"), (r"coder\.norm_out", "coder.head.0"),
        (r"coder\.conv_out", "coder.head.2"), (r"mid_block\.attentions\.0", "middle.1"), (r"mid_block\.resnets\.0", "middle.0"),
        (r"mid_block\.resnets\.1", "middle.2"), (r"down_blocks", "downsamples"), (r"up_blocks\.(\d)\.upsamplers\.0", r"up_blocks.\1.resnets.3"),
    ):  # fmt: skip
        key = re.sub(ours, theirs, key)
    key = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda found: f"upsamples.{4 * int(found[1]) + int(found[2])}", key)
    return re.sub(r"(?<=\d\.)(norm1|conv1|norm2|conv2|conv_shortcut)(?=\.)", lambda found: RESIDUAL[found[1]], key)


@pytest.mark.parametrize("family", ["krea2", "qwen_image", "anima"])
def test_a_video_s_autoencoder_in_a_file_has_all_that_it_needs(family):
    cls = families.load(family)
    with torch.device("meta"):
        state = cls.VAE().state_dict()
    found = cls.vae_from_file({wan_name(key): tensor for key, tensor in state.items()}, {})
    assert len(state) == 194 and found.keys() == state.keys() and all(found[key] is state[key] for key in state)
