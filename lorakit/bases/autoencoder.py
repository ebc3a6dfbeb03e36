"""The VAE where memory is short: whole pictures while these fit, else in tiles."""

from __future__ import annotations

from diffusers import AutoencoderKL

from lorakit import device

MAPS = 6  # of full size, in fp32 with the first level's channels, are there at once: 3.0 GB for 1024 x 1024 px and 128 channels
MARGIN = 1.1
TILES = (768, 512, 256)  # pixels by side


def set_tiles(vae: AutoencoderKL, height: int, width: int, where: str) -> None:
    """Make ready for a picture of this size: in one piece where the memory that is free on the device allows it. What tiles give
    differs a little from the whole, so they are taken only where they are needed."""
    side = tile_side(height, width, vae.config.block_out_channels[0], device.free_gb(where))
    vae.use_tiling = side is not None
    if side:
        vae.tile_sample_min_size = side
        vae.tile_latent_min_size = side // 2 ** (len(vae.config.block_out_channels) - 1)


def tile_side(height: int, width: int, channels: int, free: float | None) -> int | None:
    """The largest tile, in pixels, that fits into `free` GB; the smallest where none does; None for the whole picture."""
    if free is None:
        return None
    pixels = free * 2**30 / (MARGIN * MAPS * channels * 4)
    return None if height * width <= pixels else next((side for side in TILES if side**2 <= pixels), TILES[-1])
