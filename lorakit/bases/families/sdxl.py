"""Stable Diffusion XL: two CLIP text encoders, and a U-Net that is told the photo's size and where it was cropped."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from lorakit.bases import unet_names
from lorakit.bases.families.base import Family, Text
from lorakit.bases.families.sd15 import UNET_TARGETS
from lorakit.bases.layer_names import Original
from lorakit.bases.schedules import Diffusion
from lorakit.bases.single_file_configs import CLIP, CLIP_G, DDPM, Layout

TITLE = "SDXL"

OTHER_TRAINERS = {
    "onetrainer": {"model_types": ("STABLE_DIFFUSION_XL_10_BASE",)},
    "sd_scripts": {"script": "sdxl_train_network.py", "window": ("sdxl", "sdxl_checkbox")},
    "diffusers": {"script": "text_to_image/train_text_to_image_lora_sdxl.py", "takes": ("train_text_encoder",)},
    "ai_toolkit": {"arch": "sdxl", "scheduler": "ddpm", "flag": "is_xl"},
}


class SDXL(Family):
    DENOISER, FOLDER = UNet2DConditionModel, "unet"
    CONFIG = {
        "sample_size": 128, "cross_attention_dim": 2048, "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10), "attention_head_dim": (5, 10, 20), "use_linear_projection": True,
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
    }  # fmt: skip
    ENCODERS = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
    TOKENIZERS = {"tokenizer": CLIPTokenizer, "tokenizer_2": CLIPTokenizer}
    VAE_CONFIG = {"scaling_factor": 0.13025, "sample_size": 1024}
    ENCODER_CONFIGS = {"text_encoder": CLIP, "text_encoder_2": CLIP_G}
    SCHEDULER_CONFIG = DDPM
    TARGETS = UNET_TARGETS
    PIPELINE = StableDiffusionXLPipeline
    PROCESS, PIXEL_STEP = Diffusion, 8
    CHANNELS_LAST = True
    IN_TOOLS = {
        "a1111": {"sdxl": "SDXL"},
        "comfyui": {"latent": "EmptyLatentImage", "sampler": "dpmpp_2m", "scheduler": "karras"},
    }
    NAME, FORMAT = "sdxl", "kohya"

    KOHYA_NAMES = ("original", "diffusers")
    TOOLS = ("comfyui", "a1111", "forge", "diffusers")
    DIFFUSERS_READS_KOHYA = True
    LAYOUTS = (
        Layout(
            "sdxl", "SDXL",
            {"text_encoder": "conditioner.embedders.0.transformer.", "text_encoder_2": "conditioner.embedders.1.model."},
            cards={"sdxl": ""}, usual="sdxl", mark="conditioner.embedders.1.", text_width=2048, inputs=unet_names.INPUTS,
        ),
    )  # fmt: skip

    @staticmethod
    def original_name(path: str) -> Original | None:
        return unet_names.original_name(path, with_attention=(0, 1))

    def text_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"states": (77, self.denoiser.config.cross_attention_dim), "pooled": (CLIP_G["projection_dim"],)}

    def read(self, name: str, prepared: Tensor) -> Text:
        """The last but one layer, and the second encoder's pooled projection."""
        found = self.encoder(name)(prepared.to(self.device), output_hidden_states=True)
        return {"states": found.hidden_states[-2], **({"pooled": found.text_embeds} if name == "text_encoder_2" else {})}

    def join(self, read: Mapping[str, Text]) -> Text:
        first, second = (read[name] for name in self.ENCODERS)
        return {"states": torch.cat([first["states"], second["states"]], dim=-1), "pooled": second["pooled"]}

    def predict(self, noisy: Tensor, timesteps: Tensor, text: Text, sizes: Tensor) -> Tensor:
        dtype = self.dtype
        added = {"text_embeds": text["pooled"].to(dtype), "time_ids": sizes.to(noisy.device, dtype)}
        states = text["states"].to(dtype)
        return self.denoiser(noisy.to(dtype), timesteps, encoder_hidden_states=states, added_cond_kwargs=added, return_dict=False)[0]

    def prompt_options(self, text: Text, empty: Text, negative: Text | None = None) -> dict[str, Tensor]:
        """Without a negative prompt SDXL is drawn away from zeros, not from the empty text."""
        positive = {"prompt_embeds": text["states"], "pooled_prompt_embeds": text["pooled"]}
        if negative:
            return positive | {"negative_prompt_embeds": negative["states"], "negative_pooled_prompt_embeds": negative["pooled"]}
        return positive | {f"negative_{name}": torch.zeros_like(tensor) for name, tensor in positive.items()}

    def pipeline(self) -> StableDiffusionXLPipeline:
        scheduler = DPMSolverMultistepScheduler.from_config(self.process.schedule.config)
        return StableDiffusionXLPipeline(**self.sampling_parts(), scheduler=scheduler, add_watermarker=False)


CLASS = SDXL
