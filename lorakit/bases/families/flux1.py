"""FLUX.1 dev and schnell: CLIP's pooled text, T5, and a transformer over packed latents that learns a rectified flow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextModel, CLIPTokenizer, T5EncoderModel

from lorakit.bases import double_blocks, patches
from lorakit.bases.families.base import Family, Text, flow_in_comfyui
from lorakit.bases.layer_names import QKV, SLOTS, OddForm, Original
from lorakit.bases.original_layout import Place, outer_place
from lorakit.bases.schedules import Flow
from lorakit.bases.single_file_configs import AUTOENCODER_16, CLIP, T5_XXL, Layout

TITLE = "FLUX.1"

OTHER_TRAINERS = {
    "sd_scripts": {
        "script": "flux_train_network.py",
        "network": "networks.lora_flux",
        "timesteps": "timestep_sampling",
        "window": ("flux1_checkbox", "Flux1", "flux1"),
        "beside": {"clip_l": "clip_l.safetensors", "t5xxl": "t5xxl_fp16.safetensors", "ae": "ae.safetensors"},
    },
    "diffusers": {
        "script": "dreambooth/train_dreambooth_lora_flux.py",
        "takes": ("train_text_encoder", "lora_alpha", "guidance_scale"),
    },
    "ai_toolkit": {"arch": "flux", "scheduler": "flowmatch", "flag": "is_flux"},
}

LINEAR1 = (1, 1, 1, 4)  # query, key, value and the MLP of a single block
BLOCK = {
    "attn.to_out.0": "img_attn.proj", "attn.to_add_out": "txt_attn.proj", "ff.net.0.proj": "img_mlp.0", "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0", "ff_context.net.2": "txt_mlp.2", "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
}  # fmt: skip
SINGLE_BLOCK = {"proj_out": "linear2", "norm.linear": "modulation.lin"}
OUTER = {"x_embedder": "img_in", "context_embedder": "txt_in", "proj_out": "final_layer.linear"}
ONLY_IN_FILES = {  # of the base, in which no LoRA is trained
    **{f"time_text_embed.{ours}_embedder.linear_{number}": f"{theirs}_in.{layer}_layer"
       for ours, theirs in (("timestep", "time"), ("guidance", "guidance"), ("text", "vector")) for number, layer in ((1, "in"), (2, "out"))},
    "norm_out.linear": "final_layer.adaLN_modulation.1",
}  # fmt: skip


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
    PROCESS, PIXEL_STEP, PACKED = Flow, 16, True
    TAKES_NEGATIVE = False  # its guidance is an input of the transformer, and no second prediction is made
    FP16 = False  # sd-scripts#1595
    IN_TOOLS = {
        "comfyui": flow_in_comfyui(
            "ae.safetensors", {"clip_name1": "clip_l.safetensors", "clip_name2": "t5xxl_fp16.safetensors", "type": "flux"},
            clip_loader="DualCLIPLoader", is_distilled=True,
        )
    }  # fmt: skip
    NAME, FORMAT = "flux1", "diffusers"

    IN_HEADERS = "flux1"
    KOHYA_NAMES = ("original",)
    KOHYA_TEXT = {"text_encoder_2": "lora_te3"}  # as SD3's T5
    TOOLS = ("comfyui", "forge", "diffusers")
    DIFFUSERS_READS_KOHYA, DIFFUSERS_READS_ALPHA = True, True
    ODD_FORMS = (
        # depth and canny; they bring the norms of the attention too
        OddForm("control LoRA", re.compile(r".*\.norm\.query_norm\.scale"), ("comfyui", "diffusers"), whole=True),
        OddForm(
            "XLabs' LoRA", re.compile(r"(double|single)_blocks\.\d+\.processor\.(qkv|proj)_lora[12]?\.(up|down)\.weight"), ("diffusers",)
        ),
    )
    LAYOUTS = (
        Layout(
            "flux1", "FLUX.1", {"text_encoder": "text_encoders.clip_l.transformer.", "text_encoder_2": "text_encoders.t5xxl.transformer."},
            cards={"flux1-dev": "guidance_in.", "flux1-schnell": ""}, usual="flux1-dev", blocks="double_blocks.", inputs=("img_in.weight", 64),
            others={"distilled_guidance_layer.": "Chroma", "double_stream_modulation": "FLUX.2", "controlnet_": "a ControlNet"},
        ),
    )  # fmt: skip

    @staticmethod
    def original_name(path: str) -> Original | None:
        if path in OUTER:
            return Original(OUTER[path])
        if layer := double_blocks.in_double_block(path, BLOCK):
            return layer
        if found := re.fullmatch(r"single_transformer_blocks\.(\d+)\.(.+)", path):
            block, part = f"single_blocks.{found[1]}", found[2]
            if part == "proj_mlp" or part.startswith("attn.to_"):
                return Original(f"{block}.linear1", 3 if part == "proj_mlp" else SLOTS[part[-1]], LINEAR1)
            return Original(f"{block}.{SINGLE_BLOCK[part]}") if part in SINGLE_BLOCK else None
        return None

    @staticmethod
    def other_name(path: str) -> Original | None:
        """XLabs': of a block's attention what is fused and the projection; in a single block without the MLP."""
        if found := re.fullmatch(r"transformer_blocks\.(\d+)\.attn\.(?:to_([qkv])|add_([qkv])_proj|(to_out\.0)|(to_add_out))", path):
            block, part = f"double_blocks.{found[1]}.processor", found[2] or found[3]
            side = 1 if found[2] or found[4] else 2
            return Original(f"{block}.qkv_lora{side}", SLOTS[part], QKV) if part else Original(f"{block}.proj_lora{side}")
        if found := re.fullmatch(r"single_transformer_blocks\.(\d+)\.(?:attn\.to_([qkv])|proj_out)", path):
            block = f"single_blocks.{found[1]}.processor"
            return Original(f"{block}.qkv_lora", SLOTS[found[2]], QKV) if found[2] else Original(f"{block}.proj_lora")
        return None

    @staticmethod
    def place(key: str, shape: tuple[int, ...]) -> Place | None:
        return outer_place(ONLY_IN_FILES, key) or double_blocks.place(Flux1.original_name, key)

    @classmethod
    def config_from(cls, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        return double_blocks.config_from(shapes) | {
            "guidance_embeds": "guidance_in.in_layer.weight" in shapes, "pooled_projection_dim": shapes["vector_in.in_layer.weight"][1],
        }  # fmt: skip

    @cached_property
    def text_length(self) -> int:
        """T5 tokens: schnell, which knows no guidance, was trained on shorter texts than dev."""
        return 512 if self.denoiser_config()["guidance_embeds"] else 256

    @classmethod
    def scheduler_config(cls, denoiser: Mapping[str, Any]) -> dict[str, Any]:
        """dev is shifted by the picture's size, schnell not at all."""
        shift = {"shift": 3.0, "use_dynamic_shifting": True} if denoiser["guidance_embeds"] else {"shift": 1.0}
        return {**cls.SCHEDULER_CONFIG, **shift}

    def text_shapes(self) -> dict[str, tuple[int, ...]]:
        config = self.denoiser.config
        length = 512 if config.guidance_embeds else 256
        return {"states": (length, config.joint_attention_dim), "pooled": (config.pooled_projection_dim,)}

    def read(self, name: str, prepared: Tensor) -> Text:
        if name == "text_encoder_2":
            return {"states": self.t5_states(name, prepared)}
        return {"pooled": self.encoder(name)(prepared.to(self.device)).pooler_output}

    def predict(self, noisy: Tensor, timesteps: Tensor, text: Text, sizes: Tensor) -> Tensor:
        """Two by two latent pixels are one token; where each token stands is told beside it."""
        dtype, (count, _, height, width) = self.dtype, noisy.shape
        found = self.denoiser(
            hidden_states=patches.pack(noisy.to(dtype)),
            timestep=timesteps / 1000,
            guidance=self.guidance_input(count, noisy.device),
            pooled_projections=text["pooled"].to(dtype),
            encoder_hidden_states=text["states"].to(dtype),
            txt_ids=torch.zeros(text["states"].shape[1], 3, device=noisy.device, dtype=dtype),
            img_ids=FluxPipeline._prepare_latent_image_ids(count, height // 2, width // 2, noisy.device, dtype),
            return_dict=False,
        )[0]
        return patches.unpack(found, height, width)

    def prompt_options(self, text: Text, empty: Text, negative: Text | None = None) -> dict[str, Tensor]:
        return {"prompt_embeds": text["states"], "pooled_prompt_embeds": text["pooled"]}

    def pipeline(self) -> FluxPipeline:
        return FluxPipeline(**self.sampling_parts(), scheduler=self.process.schedule)


CLASS = Flux1
