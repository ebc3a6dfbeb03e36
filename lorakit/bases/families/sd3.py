"""Stable Diffusion 3 and 3.5: two CLIP text encoders and T5, a transformer that learns a rectified flow."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel

from lorakit.bases.families.base import Family, Text
from lorakit.bases.layer_names import QKV, SLOTS, Original
from lorakit.bases.original_layout import Place, count_blocks, outer_place
from lorakit.bases.schedules import Flow
from lorakit.bases.single_file_configs import AUTOENCODER_16, CLIP, CLIP_G, T5_XXL, Layout

TITLE = "Stable Diffusion 3"

OTHER_TRAINERS = {
    "sd_scripts": {
        "script": "sd3_train_network.py",
        "network": "networks.lora_sd3",
        "timesteps": "weighting_scheme",
        "window": ("sd3_checkbox", "sd3"),
        "beside": {"clip_l": "clip_l.safetensors", "clip_g": "clip_g.safetensors", "t5xxl": "t5xxl_fp16.safetensors"},
    },
    "diffusers": {"script": "dreambooth/train_dreambooth_lora_sd3.py", "takes": ("train_text_encoder",)},
    "ai_toolkit": {"arch": "sd3", "scheduler": "flowmatch", "flag": "is_v3"},
}

BLOCK = {
    "attn.to_out.0": "x_block.attn.proj", "attn.to_add_out": "context_block.attn.proj", "attn2.to_out.0": "x_block.attn2.proj",
    "ff.net.0.proj": "x_block.mlp.fc1", "ff.net.2": "x_block.mlp.fc2", "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2", "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
}  # fmt: skip
ONLY_IN_FILES = {  # of the base, in which no LoRA is trained
    "pos_embed.pos_embed": "pos_embed", "pos_embed.proj": "x_embedder.proj", "context_embedder": "context_embedder",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0", "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0", "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "norm_out.linear": "final_layer.adaLN_modulation.1", "proj_out": "final_layer.linear",
}  # fmt: skip


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
    IN_TOOLS = {
        "a1111": {"sd3": "SD3"},
        "comfyui": {
            "latent": "EmptySD3LatentImage",
            "sampler": "dpmpp_2m",
            "scheduler": "sgm_uniform",
            "clip_loader": "TripleCLIPLoader",
            "clip": {"clip_name1": "clip_l.safetensors", "clip_name2": "clip_g.safetensors", "clip_name3": "t5xxl_fp16.safetensors"},
        },
    }
    NAME, FORMAT = "sd3", "diffusers"

    MEMBERS = {  # the layers of 3 medium are among those of 3.5 medium
        "sd35-large": {"num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432, "dual_attention_layers": ()},
    }
    KOHYA_NAMES = ("original",)
    COMFYUI_PREFIXES = ("base_model.model",)
    LAYOUTS = (
        Layout(
            "sd3", "Stable Diffusion 3",
            {"text_encoder": "text_encoders.clip_l.transformer.", "text_encoder_2": "text_encoders.clip_g.transformer.",
             "text_encoder_3": "text_encoders.t5xxl.transformer."},
            cards={"sd35-medium": ".attn2.", "sd35-large": ".ln_q.", "sd3-medium": ""}, usual="sd35-medium", blocks="joint_blocks.",
            inputs=("x_embedder.proj.weight", 16),
        ),
    )  # fmt: skip

    text_length = 256  # T5 tokens: what diffusers' pipeline draws with

    @staticmethod
    def original_name(path: str) -> Original | None:
        found = re.fullmatch(r"transformer_blocks\.(\d+)\.(.+)", path)
        if not found:
            return None
        block, part = f"joint_blocks.{found[1]}", found[2]
        if fused := re.fullmatch(r"(attn2?)\.(?:to_([qkv])|add_([qkv])_proj)", part):
            side = "x_block" if fused[2] else "context_block"
            return Original(f"{block}.{side}.{fused[1]}.qkv", SLOTS[fused[2] or fused[3]], QKV)
        return Original(f"{block}.{BLOCK[part]}") if part in BLOCK else None

    @staticmethod
    def place(key: str, shape: tuple[int, ...]) -> Place | None:
        if at := outer_place(ONLY_IN_FILES, key):
            return at
        path, _, kind = key.rpartition(".")
        if found := re.fullmatch(r"transformer_blocks\.(\d+)\.(attn2?)\.norm_(added_)?([qk])", path):
            side = "context_block" if found[3] else "x_block"
            return Place(f"joint_blocks.{found[1]}.{side}.{found[2]}.ln_{found[4]}.{kind}")
        layer = SD3.original_name(path)
        # the last block's norm of the text has one shift and one scale, which diffusers has the other way round
        halves = path.endswith("norm1_context.linear") and len(shape) > 1 and shape[0] == 2 * shape[1]
        return Place(f"{layer.name}.{kind}", layer.slot, layer.heights, swapped=halves) if layer else None

    @classmethod
    def config_from(cls, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        width, channels, patch, _ = shapes["x_embedder.proj.weight"]
        dual = {int(found[1]) for key in shapes if (found := re.match(r"joint_blocks\.(\d+)\.x_block\.attn2\.", key))}
        return {
            "num_layers": count_blocks("joint_blocks", shapes), "in_channels": channels, "patch_size": patch,
            "out_channels": shapes["final_layer.linear.weight"][0] // patch**2, "num_attention_heads": width // cls.CONFIG["attention_head_dim"],
            "caption_projection_dim": shapes["context_embedder.weight"][0], "joint_attention_dim": shapes["context_embedder.weight"][1],
            "pooled_projection_dim": shapes["y_embedder.mlp.0.weight"][1], "pos_embed_max_size": math.isqrt(shapes["pos_embed"][1]),
            "dual_attention_layers": tuple(sorted(dual)), "qk_norm": "rms_norm" if any(".ln_q." in key for key in shapes) else None,
        }  # fmt: skip

    def text_shapes(self) -> dict[str, tuple[int, ...]]:
        config = self.denoiser.config
        return {"states": (77 + self.text_length, config.joint_attention_dim), "pooled": (config.pooled_projection_dim,)}

    def read(self, name: str, prepared: Tensor) -> Text:
        """CLIP's last but one layer and its pooled projection; T5's states."""
        if name == "text_encoder_3":
            return {"states": self.t5_states(name, prepared)}
        found = self.encoder(name)(prepared.to(self.device), output_hidden_states=True)
        return {"states": found.hidden_states[-2], "pooled": found.text_embeds}

    def join(self, read: Mapping[str, Text]) -> Text:
        """Both CLIPs side by side, padded to T5's width, then T5."""
        clips, t5 = [read["text_encoder"], read["text_encoder_2"]], read["text_encoder_3"]["states"]
        clip = torch.cat([said["states"] for said in clips], dim=-1)
        padded = torch.nn.functional.pad(clip, (0, t5.shape[-1] - clip.shape[-1]))
        return {"states": torch.cat([padded, t5], dim=-2), "pooled": torch.cat([said["pooled"] for said in clips], dim=-1)}

    def predict(self, noisy: Tensor, timesteps: Tensor, text: Text, sizes: Tensor) -> Tensor:
        dtype = self.dtype
        return self.denoiser(
            hidden_states=noisy.to(dtype),
            timestep=timesteps,
            encoder_hidden_states=text["states"].to(dtype),
            pooled_projections=text["pooled"].to(dtype),
            return_dict=False,
        )[0]

    def prompt_options(self, text: Text, empty: Text, negative: Text | None = None) -> dict[str, Tensor]:
        both = {"": text, "negative_": negative or empty}
        states = {f"{which}prompt_embeds": one["states"] for which, one in both.items()}
        return states | {f"{which}pooled_prompt_embeds": one["pooled"] for which, one in both.items()}

    def pipeline(self) -> StableDiffusion3Pipeline:
        return StableDiffusion3Pipeline(**self.sampling_parts(), scheduler=self.process.schedule)


CLASS = SD3
