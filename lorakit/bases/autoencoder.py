"""The autoencoders of the bases: pictures to latents and back, whichever class it is; where memory is short in tiles, else in one piece."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLQwenImage
from torch import Tensor

from lorakit import device

# So many maps of full size, in fp32 with the first level's channels, are there at once: 3.0 GB for 1024 x 1024 px and 128 channels. A
# video's convolutions pad each picture with two empty frames before it.
MAPS, MAPS_OF_VIDEO = 6, 18
MARGIN = 1.1
TILES = (768, 512, 256)  # pixels by side

Autoencoder = AutoencoderKL | AutoencoderKLQwenImage


def latent_side(config: Mapping[str, Any]) -> int:
    """Pixels of a picture that one latent pixel stands for, by side."""
    return 2 ** (len(config["temperal_downsample"]) if _is_of_video(config) else len(config["block_out_channels"]) - 1)


def encode(vae: Autoencoder, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation, each [B, C, h, w], of the latents of pictures [B, 3, H, W] in -1..1; not normalised."""
    found = vae.encode(_one_frame(vae, pixels)).latent_dist
    return _picture(vae, found.mean), _picture(vae, found.std)


def decode(vae: Autoencoder, latents: Tensor) -> Tensor:
    """[B, 3, H, W] in -1..1 of latents [B, C, h, w], not normalised."""
    return _picture(vae, vae.decode(_one_frame(vae, latents), return_dict=False)[0])


def normalised(config: Mapping[str, Any], mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """What the denoiser is to see of latents [B, C, h, w]: mean and deviation of about 0 and 1 over all pictures, for each channel or for
    all of them."""
    if _is_of_video(config):
        centre, spread = _statistics(config, mean)
        return (mean - centre) / spread, std / spread
    scale, shift = config["scaling_factor"], config["shift_factor"] or 0.0
    return (mean - shift) * scale, std * scale


def unnormalised(config: Mapping[str, Any], latents: Tensor) -> Tensor:
    """The other way, for the decoder."""
    if _is_of_video(config):
        centre, spread = _statistics(config, latents)
        return latents * spread + centre
    return latents / config["scaling_factor"] + (config["shift_factor"] or 0.0)


def set_tiles(vae: Autoencoder, height: int, width: int, where: str) -> None:
    """Make ready for a picture of this size: in one piece where the memory that is free on the device allows it. What tiles give
    differs a little from the whole, so they are taken only where they are needed."""
    use_tiles(vae, tile_side(height, width, *_size(vae.config), device.free_gb(where)))


def use_tiles(vae: Autoencoder, side: int | None) -> None:
    """Work in tiles of so many pixels by side; in one piece where that is None."""
    vae.use_tiling = side is not None
    if side and _is_of_video(vae.config):
        vae.tile_sample_min_height = vae.tile_sample_min_width = side
        vae.tile_sample_stride_height = vae.tile_sample_stride_width = side * 3 // 4
    elif side:
        vae.tile_sample_min_size = side
        vae.tile_latent_min_size = side // latent_side(vae.config)


def whole_gb(config: Mapping[str, Any], height: int, width: int) -> float:
    """What a picture of this size takes in one piece, beside the weights."""
    channels, maps = _size(config)
    return maps * channels * 4 * height * width / 2**30


def _size(config: Mapping[str, Any]) -> tuple[int, int]:
    """(channels of the first level, maps of full size that are there at once)."""
    return (config["base_dim"], MAPS_OF_VIDEO) if _is_of_video(config) else (config["block_out_channels"][0], MAPS)


def tile_side(height: int, width: int, channels: int, maps: int, free: float | None) -> int | None:
    """The largest tile, in pixels, that fits into `free` GB; the smallest where none does; None for the whole picture."""
    if free is None:
        return None
    pixels = free * 2**30 / (MARGIN * maps * channels * 4)
    return None if height * width <= pixels else next((side for side in TILES if side**2 <= pixels), TILES[-1])


def _is_of_video(config: Mapping[str, Any]) -> bool:
    """Whether it takes [B, C, frames, H, W], as Qwen-Image's, which is Wan's, does."""
    return "temperal_downsample" in config


def _one_frame(vae: Autoencoder, pictures: Tensor) -> Tensor:
    return pictures.unsqueeze(2) if _is_of_video(vae.config) else pictures


def _picture(vae: Autoencoder, frames: Tensor) -> Tensor:
    return frames.squeeze(2) if _is_of_video(vae.config) else frames


def _statistics(config: Mapping[str, Any], like: Tensor) -> tuple[Tensor, Tensor]:
    """(mean, deviation) of all pictures' latents, by channel, each [C, 1, 1]."""
    found = (torch.tensor(config[name]).to(like).view(-1, 1, 1) for name in ("latents_mean", "latents_std"))
    return next(found), next(found)
