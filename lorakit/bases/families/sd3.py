"""Stable Diffusion 3 and 3.5: two CLIP text encoders and T5, a transformer that learns a rectified flow."""

from __future__ import annotations

import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel

from lorakit.bases.families.base import Family, Text
from lorakit.bases.schedules import Flow
from lorakit.bases.single_file_configs import AUTOENCODER_16, CLIP, CLIP_G, T5_XXL


class SD3(Family):
    DENOISER, FOLDER = SD3Transformer2DModel, "transformer"
    CONFIG = {  # 3.5 medium
        "sample_size": 128, "num_layers": 24, "num_attention_heads": 24, "attention_head_dim": 64, "caption_projection_dim": 1536,
        "pos_embed_max_size": 384, "dual_attention_layers": tuple(range(13)), "qk_norm": "rms_norm",
        "out_channels": 16, "in_channels": 16, "joint_attention_dim": 4096, "pooled_projection_dim": 2048,
    }  # fmt: skip
    ENCODERS = {
        "text_encoder": CLIPTextModelWithProjection,
        "text_encoder_2": CLIPTextModelWithProjection,
        "text_encoder_3": T5EncoderModel,
    }
    TOKENIZERS = {"tokenizer": CLIPTokenizer, "tokenizer_2": CLIPTokenizer, "tokenizer_3": AutoTokenizer}
    VAE_CONFIG = {**AUTOENCODER_16, "scaling_factor": 1.5305, "shift_factor": 0.0609}
    ENCODER_CONFIGS = {"text_encoder": CLIP, "text_encoder_2": CLIP_G, "text_encoder_3": T5_XXL}
    SCHEDULER_CONFIG = {"shift": 3.0}
    TARGETS = {
        "attention": ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
        "mlp": ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
        "linear": ("norm1.linear", "norm1_context.linear"),
        "conv": (),
    }
    PIPELINE = StableDiffusion3Pipeline
    PROCESS, PIXEL_STEP = Flow, 16
    NAME, FORMAT = "sd3", "diffusers"

    text_length = 256  # T5 tokens: what diffusers' pipeline draws with

    def text_shapes(self) -> dict[str, tuple[int, ...]]:
        config = self.denoiser.config
        return {"states": (77 + self.text_length, config.joint_attention_dim), "pooled": (config.pooled_projection_dim,)}

    def embed(self, prepared: Text) -> Text:
        """CLIP's two last but one layers side by side, padded to T5's width, then T5; and CLIP's pooled projections."""
        names = ("text_encoder", "text_encoder_2")
        clips = [self.encoder(name)(prepared[name].to(self.device), output_hidden_states=True) for name in names]
        clip = torch.cat([output.hidden_states[-2] for output in clips], dim=-1)
        t5 = self.t5_states("text_encoder_3", prepared)
        padded = torch.nn.functional.pad(clip, (0, t5.shape[-1] - clip.shape[-1]))
        return {"states": torch.cat([padded, t5], dim=-2), "pooled": torch.cat([output.text_embeds for output in clips], dim=-1)}

    def predict(self, noisy: Tensor, timesteps: Tensor, text: Text, sizes: Tensor) -> Tensor:
        dtype = self.denoiser.dtype
        return self.denoiser(
            hidden_states=noisy.to(dtype),
            timestep=timesteps,
            encoder_hidden_states=text["states"].to(dtype),
            pooled_projections=text["pooled"].to(dtype),
            return_dict=False,
        )[0]

    def pipeline(self) -> StableDiffusion3Pipeline:
        return StableDiffusion3Pipeline(**self.sampling_parts(), scheduler=self.process.schedule)


CLASS = SD3
