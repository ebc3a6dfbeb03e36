"""Stable Diffusion 1.x and 2.x: one CLIP text encoder, a U-Net that predicts the noise or the velocity."""

from __future__ import annotations

from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from lorakit.bases.families.base import Family, Text
from lorakit.bases.schedules import Diffusion
from lorakit.bases.single_file_configs import CLIP, DDPM

UNET_TARGETS = {
    "attention": ("to_q", "to_k", "to_v", "to_out.0"),
    "mlp": ("ff.net.0.proj", "ff.net.2"),
    "linear": ("proj_in", "proj_out"),  # with these all of the transformer blocks: what sd-scripts trains
    "conv": ("conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv"),
}


class SD15(Family):
    DENOISER, FOLDER = UNet2DConditionModel, "unet"
    CONFIG = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
    ENCODERS = {"text_encoder": CLIPTextModel}
    TOKENIZERS = {"tokenizer": CLIPTokenizer}
    ENCODER_CONFIGS = {"text_encoder": CLIP}
    SCHEDULER_CONFIG = DDPM
    TARGETS = UNET_TARGETS
    PIPELINE = StableDiffusionPipeline
    OPTIONAL = ("safety_checker", "feature_extractor")
    PROCESS, PIXEL_STEP = Diffusion, 8
    NAME, FORMAT = "sd15", "kohya"

    def text_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"states": (77, self.denoiser.config.cross_attention_dim)}

    def embed(self, prepared: Text) -> Text:
        return {"states": self.encoder("text_encoder")(prepared["text_encoder"].to(self.device))[0]}

    def predict(self, noisy: Tensor, timesteps: Tensor, text: Text, sizes: Tensor) -> Tensor:
        dtype = self.denoiser.dtype
        return self.denoiser(noisy.to(dtype), timesteps, encoder_hidden_states=text["states"].to(dtype), return_dict=False)[0]

    def pipeline(self) -> StableDiffusionPipeline:
        return StableDiffusionPipeline(
            **self.sampling_parts(),
            scheduler=DPMSolverMultistepScheduler.from_config(self.process.schedule.config),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


CLASS = SD15
