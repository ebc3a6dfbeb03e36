"""Stable Diffusion 1.x and 2.x: one CLIP text encoder, a U-Net that predicts the noise or the velocity."""

from __future__ import annotations

from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from lorakit.bases import unet_names
from lorakit.bases.families.base import Family, Text
from lorakit.bases.layer_names import Original
from lorakit.bases.schedules import Diffusion
from lorakit.bases.single_file_configs import CLIP, CLIP_H, DDPM, SD2_UNET, Layout

TITLE = "Stable Diffusion 1 and 2"

OTHER_TRAINERS = {
    "onetrainer": {
        "model_types": (
            "STABLE_DIFFUSION_15",
            "STABLE_DIFFUSION_20",
            "STABLE_DIFFUSION_20_BASE",
            "STABLE_DIFFUSION_21",
            "STABLE_DIFFUSION_21_BASE",
        )
    },
    "sd_scripts": {"script": "train_network.py"},
    "diffusers": {"script": "text_to_image/train_text_to_image_lora.py"},
    "ai_toolkit": {"arch": "sd1", "scheduler": "ddpm"},
}

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
    CHANNELS_LAST = True
    IN_TOOLS = {
        "a1111": {"sd_v1": "SD1", "sd_v2": "SD2"},
        "comfyui": {"latent": "EmptyLatentImage", "sampler": "dpmpp_2m", "scheduler": "karras"},
    }
    NAME, FORMAT = "sd15", "kohya"

    MEMBERS = {
        "sd21": SD2_UNET,
        "mini": {  # whose blocks are laid out otherwise
            "sample_size": 16, "in_channels": 24, "out_channels": 24, "layers_per_block": 1, "block_out_channels": (80, 160),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "cross_attention_dim": 192, "attention_head_dim": 4, "norm_num_groups": 16,
            "addition_embed_type": "text", "addition_embed_type_num_heads": 8,
        },
    }  # fmt: skip
    KOHYA_TEXT = {"text_encoder": "lora_te"}
    TOOLS = ("comfyui", "a1111", "forge", "diffusers")
    DIFFUSERS_READS_KOHYA = True
    LAYOUTS = (
        Layout(
            "sd15", "Stable Diffusion 1", {"text_encoder": "cond_stage_model.transformer."}, cards={"sd15": ""}, usual="sd15",
            mark="cond_stage_model.transformer.", text_width=768, inputs=unet_names.INPUTS,
        ),
        Layout(
            "sd2", "Stable Diffusion 2", {"text_encoder": "cond_stage_model.model."}, cards={"sd21": ""}, usual="sd21",
            mark="cond_stage_model.model.", text_width=1024, inputs=unet_names.INPUTS, config=SD2_UNET,
            encoder_configs={"text_encoder": CLIP_H}, others={"diffusion_model.label_emb.": "Stable Diffusion 2 unCLIP, for variations of a picture"},
        ),
    )  # fmt: skip

    @staticmethod
    def original_name(path: str) -> Original | None:
        return unet_names.original_name(path, with_attention=(1, 2, 3))

    def text_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"states": (77, self.denoiser.config.cross_attention_dim)}

    def read(self, name: str, prepared: Tensor) -> Text:
        return {"states": self.encoder(name)(prepared.to(self.device))[0]}

    def predict(self, noisy: Tensor, timesteps: Tensor, text: Text, sizes: Tensor) -> Tensor:
        dtype = self.dtype
        return self.denoiser(noisy.to(dtype), timesteps, encoder_hidden_states=text["states"].to(dtype), return_dict=False)[0]

    def prompt_options(self, text: Text, empty: Text, negative: Text | None = None) -> dict[str, Tensor]:
        return {"prompt_embeds": text["states"], "negative_prompt_embeds": (negative or empty)["states"]}

    def pipeline(self) -> StableDiffusionPipeline:
        return StableDiffusionPipeline(
            **self.sampling_parts(),
            scheduler=DPMSolverMultistepScheduler.from_config(self.process.schedule.config),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


CLASS = SD15
