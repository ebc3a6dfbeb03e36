"""Stable Diffusion 1.x: one CLIP text encoder, a U-Net that predicts the noise (or velocity), DDPM schedule."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from lorakit.errors import LorakitError
from lorakit.train.families.base import Text
from lorakit.weights import Source, hub_errors_in_words


def load(source: Source, device: str, dtype: torch.dtype) -> SD15:
    family = SD15(source, device, dtype)
    if family.schedule.config.prediction_type not in ("epsilon", "v_prediction"):
        raise LorakitError(f"{source.location}: predicts {family.schedule.config.prediction_type}, which this family does not train")
    return family


class SD15:
    # Every linear layer and 1x1 convolution inside the transformer blocks: 192 modules, what sd-scripts trains too.
    TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")
    WEIGHT_PREFIX = "lora_unet"

    def __init__(self, source: Source, device: str, dtype: torch.dtype):
        self.source, self.device, self.dtype = source, device, dtype
        self.schedule: DDPMScheduler = self._part(DDPMScheduler, "scheduler")

    def _part(self, cls: type, subfolder: str, **options: Any) -> Any:
        with hub_errors_in_words(self.source):
            return cls.from_pretrained(self.source.location, subfolder=subfolder, **options)

    @cached_property
    def denoiser(self) -> UNet2DConditionModel:
        unet = self._part(UNet2DConditionModel, "unet", torch_dtype=self.dtype, use_safetensors=True)
        return unet.requires_grad_(False).to(self.device)

    @cached_property
    def vae(self) -> AutoencoderKL:
        # In fp32: half precision loses detail in every latent, and encoding is done once.
        vae = self._part(AutoencoderKL, "vae", torch_dtype=torch.float32, use_safetensors=True)
        return vae.requires_grad_(False).to(self.device).eval()

    @cached_property
    def text_encoder(self) -> CLIPTextModel:
        encoder = self._part(CLIPTextModel, "text_encoder", torch_dtype=torch.float32, use_safetensors=True)
        return encoder.requires_grad_(False).to(self.device).eval()

    @cached_property
    def tokenizer(self) -> CLIPTokenizer:
        return self._part(CLIPTokenizer, "tokenizer")

    def release_encoders(self) -> None:
        self.__dict__.pop("vae", None)
        self.__dict__.pop("text_encoder", None)
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def encode_picture(self, pixels: Tensor) -> dict[str, Tensor]:
        found = self.vae.encode(pixels.to(self.device, torch.float32)).latent_dist
        scale, shift = self.vae.config.scaling_factor, self.vae.config.shift_factor or 0.0
        return {"mean": ((found.mean - shift) * scale)[0].cpu(), "std": (found.std * scale)[0].cpu()}

    @torch.inference_mode()
    def encode_text(self, text: str) -> Text:
        length = self.tokenizer.model_max_length
        tokens = self.tokenizer(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return {"states": self.text_encoder(tokens.input_ids.to(self.device))[0][0].cpu()}

    def draw_timesteps(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randint(0, self.schedule.config.num_train_timesteps, (count,), generator=generator)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return self.schedule.add_noise(latents, noise, timesteps)

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        if self.schedule.config.prediction_type == "v_prediction":
            return self.schedule.get_velocity(latents, noise, timesteps)
        return noise

    def predict(self, noisy: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        states = text["states"].to(self.denoiser.dtype)
        return self.denoiser(noisy.to(self.denoiser.dtype), timesteps, encoder_hidden_states=states, return_dict=False)[0]

    def pipeline(self) -> StableDiffusionPipeline:
        pipeline = StableDiffusionPipeline(
            vae=self.vae.to(self.denoiser.dtype),
            text_encoder=self.text_encoder.to(self.denoiser.dtype),
            tokenizer=self.tokenizer,
            unet=self.denoiser,
            scheduler=DPMSolverMultistepScheduler.from_config(self.schedule.config),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def kohya_name(self, module: str) -> str:
        return f"{self.WEIGHT_PREFIX}_{module.replace('.', '_')}"
