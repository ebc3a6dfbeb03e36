"""FLUX.1 dev and schnell: CLIP's pooled text, T5, and a transformer over packed latents that learns a rectified flow."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextModel, CLIPTokenizer, T5EncoderModel

from lorakit.bases.families.base import Family, Text
from lorakit.bases.schedules import Flow
from lorakit.bases.single_file_configs import AUTOENCODER_16, CLIP, T5_XXL


class Flux1(Family):
    DENOISER, FOLDER = FluxTransformer2DModel, "transformer"
    CONFIG = {"guidance_embeds": True}  # the class's own defaults are FLUX.1
    ENCODERS = {"text_encoder": CLIPTextModel, "text_encoder_2": T5EncoderModel}
    TOKENIZERS = {"tokenizer": CLIPTokenizer, "tokenizer_2": AutoTokenizer}
    VAE_CONFIG = {**AUTOENCODER_16, "scaling_factor": 0.3611, "shift_factor": 0.1159}
    ENCODER_CONFIGS = {"text_encoder": CLIP, "text_encoder_2": T5_XXL}
    SCHEDULER_CONFIG = {"base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096}
    TARGETS = {
        "attention": ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
        "mlp": ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp", "proj_out"),
        "linear": ("norm1.linear", "norm1_context.linear", "norm.linear"),
        "conv": (),
    }
    PIPELINE = FluxPipeline
    PROCESS, PIXEL_STEP = Flow, 16
    NAME, FORMAT = "flux1", "diffusers"

    @cached_property
    def text_length(self) -> int:
        """T5 tokens: schnell, which knows no guidance, was trained on shorter texts than dev."""
        return 512 if self.denoiser_config()["guidance_embeds"] else 256

    @classmethod
    def scheduler_config(cls, denoiser: Mapping[str, Any]) -> dict[str, Any]:
        """dev is shifted by the picture's size, schnell not at all."""
        shift = {"shift": 3.0, "use_dynamic_shifting": True} if denoiser["guidance_embeds"] else {"shift": 1.0}
        return {**cls.SCHEDULER_CONFIG, **shift}

    def latent_channels(self) -> int:
        return self.denoiser.config.in_channels // 4  # two by two are one token

    def text_shapes(self) -> dict[str, tuple[int, ...]]:
        config = self.denoiser.config
        length = 512 if config.guidance_embeds else 256
        return {"states": (length, config.joint_attention_dim), "pooled": (config.pooled_projection_dim,)}

    def embed(self, prepared: Text) -> Text:
        pooled = self.encoder("text_encoder")(prepared["text_encoder"].to(self.device)).pooler_output
        return {"states": self.t5_states("text_encoder_2", prepared), "pooled": pooled}

    def predict(self, noisy: Tensor, timesteps: Tensor, text: Text, sizes: Tensor) -> Tensor:
        """Two by two latent pixels are one token; where each token stands is told beside it."""
        dtype, (count, channels, height, width) = self.denoiser.dtype, noisy.shape
        packed = FluxPipeline._pack_latents(noisy.to(dtype), count, channels, height, width)
        guidance = None
        if self.denoiser.config.guidance_embeds:
            guidance = torch.full((count,), self.settings.guidance, device=noisy.device, dtype=torch.float32)
        found = self.denoiser(
            hidden_states=packed,
            timestep=timesteps / 1000,
            guidance=guidance,
            pooled_projections=text["pooled"].to(dtype),
            encoder_hidden_states=text["states"].to(dtype),
            txt_ids=torch.zeros(text["states"].shape[1], 3, device=noisy.device, dtype=dtype),
            img_ids=FluxPipeline._prepare_latent_image_ids(count, height // 2, width // 2, noisy.device, dtype),
            return_dict=False,
        )[0]
        return _unpack(found, height, width)

    def sampling_options(self) -> dict[str, Any]:
        return {"max_sequence_length": self.text_length}

    def pipeline(self) -> FluxPipeline:
        return FluxPipeline(**self.sampling_parts(), scheduler=self.process.schedule)


def _unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """[B, h/2 * w/2, 4C] -> [B, C, h, w]."""
    count, _, features = tokens.shape
    grid = tokens.view(count, height // 2, width // 2, features // 4, 2, 2)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(count, features // 4, height, width)


CLASS = Flux1
