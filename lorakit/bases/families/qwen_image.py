"""Qwen-Image: the last states of Qwen2.5-VL, and one transformer over text and picture that learns a rectified flow in latents of an
autoencoder of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import AutoencoderKLQwenImage, QwenImagePipeline, QwenImageTransformer2DModel
from torch import Tensor
from transformers import AutoTokenizer, Qwen2_5_VLModel

from lorakit.bases import patches
from lorakit.bases.families.base import Family, Text, flow_in_comfyui, mask_of
from lorakit.bases.instruction import AFTER, BEFORE, TOKENS_BEFORE
from lorakit.bases.layer_names import JOINT_ATTENTION, Original
from lorakit.bases.original_layout import Place, count_blocks
from lorakit.bases.schedules import Flow
from lorakit.bases.single_file_configs import QWEN2_5_VL_7B, Layout

TITLE = "Qwen-Image"

OTHER_TRAINERS = {
    "diffusers": {"script": "dreambooth/train_dreambooth_lora_qwen_image.py", "takes": ("lora_alpha",)},
    "ai_toolkit": {"arch": "qwen_image", "scheduler": "flowmatch"},
}

READS = ("Qwen2",)  # how the class of its tokenizer begins

LAST = (-1,)  # of the language model's layers, behind its norm


class QwenImage(Family):
    DENOISER, FOLDER = QwenImageTransformer2DModel, "transformer"
    CONFIG = {}  # the class's own defaults are Qwen-Image
    ENCODERS = {"text_encoder": Qwen2_5_VLModel}
    TOKENIZERS = {"tokenizer": AutoTokenizer}
    VAE, VAE_CONFIG = AutoencoderKLQwenImage, {"z_dim": 16}  # else the class's own defaults, too
    ENCODER_CONFIGS = {"text_encoder": QWEN2_5_VL_7B}
    SCHEDULER_CONFIG = {
        "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 0.9, "base_image_seq_len": 256, "max_image_seq_len": 8192,
        "shift_terminal": 0.02,
    }  # fmt: skip
    TARGETS = {  # not the modulation: as musubi has it
        "attention": JOINT_ATTENTION,
        "mlp": ("img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2"),
        "linear": (),
        "conv": (),
    }  # fmt: skip
    PIPELINE = QwenImagePipeline
    GUIDANCE = "true_cfg_scale"
    PROCESS, PIXEL_STEP, PACKED = Flow, 16, True
    FP16 = False  # ComfyUI computes it in bf16 or fp32 alone
    IN_TOOLS = {
        "comfyui": flow_in_comfyui(
            "qwen_image_vae.safetensors", {"clip_name": "qwen_2.5_vl_7b_fp8_scaled.safetensors", "type": "qwen_image"}
        )
    }
    NAME, FORMAT = "qwen_image", "diffusers"

    COMFYUI_PREFIXES = ("",)
    COMFYUI_UNDERSCORED = ("lycoris",)
    DIFFUSERS_READS_KOHYA = True
    DIFFUSERS_CONVERTS = ("diffusion_model.", "")

    OTHER_CONFIGS = {"zero_cond_t": "Qwen-Image-Edit-2511", "use_additional_t_cond": "Qwen-Image-Layered"}
    LAYOUTS = (
        Layout(
            "qwen-image", "Qwen-Image", {"text_encoder": "text_encoders.qwen25_7b.transformer."}, cards={"qwen-image": ""},
            usual="qwen-image", blocks="transformer_blocks.0.img_mod.", inputs=("img_in.weight", 64),
            others={"__index_timestep_zero__": "Qwen-Image-Edit-2511", "addition_t_embedding.": "Qwen-Image-Layered"}, unknown_tokenizers=("tokenizer",),
        ),
    )  # fmt: skip

    text_length = 512  # as the pipeline cuts a text, which could have 1024

    @staticmethod
    def original_name(path: str) -> Original | None:
        return Original(path)

    @staticmethod
    def place(key: str, shape: tuple[int, ...]) -> Place | None:
        return Place(key)

    @classmethod
    def config_from(cls, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        width, channels = shapes["img_in.weight"]
        head = shapes["transformer_blocks.0.attn.norm_q.weight"][0]
        return {
            "in_channels": channels, "out_channels": shapes["proj_out.weight"][0] // 4, "num_layers": count_blocks("transformer_blocks", shapes),
            "attention_head_dim": head, "num_attention_heads": width // head, "joint_attention_dim": shapes["txt_in.weight"][1],
        }  # fmt: skip

    def text_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"states": (self.text_length, self.denoiser.config.joint_attention_dim)}

    @torch.no_grad()
    def prepare(self, name: str, text: str) -> Tensor:
        """[tokens, width] of the text and of the end of its template, as many as there are."""
        tokenizer = self.tokenizer(self.tokenizer_of(name))
        read = tokenizer(BEFORE + text + AFTER, truncation=True, max_length=TOKENS_BEFORE + self.text_length, return_tensors="pt")
        return self.language_states(name, read["input_ids"], LAST)[0][TOKENS_BEFORE:]

    def read(self, name: str, prepared: Tensor) -> Text:
        return {"states": prepared}

    def predict(self, noisy: Tensor, timesteps: Tensor, text: Text, sizes: Tensor) -> Tensor:
        dtype, (count, _, height, width) = self.dtype, noisy.shape
        found = self.denoiser(
            hidden_states=patches.pack(noisy.to(dtype)),
            encoder_hidden_states=text["states"].to(dtype),
            encoder_hidden_states_mask=mask_of(text, "states"),
            timestep=timesteps / 1000,
            img_shapes=[[(1, height // 2, width // 2)]] * count,
            return_dict=False,
        )[0]
        return patches.unpack(found, height, width)

    def prompt_options(self, text: Text, empty: Text, negative: Text | None = None) -> dict[str, Any]:
        against = negative or empty
        masks = {
            f"{of}prompt_embeds_mask": torch.ones(one["states"].shape[:2], dtype=torch.long, device=one["states"].device)
            for of, one in (("", text), ("negative_", against))
        }
        return {"prompt_embeds": text["states"], "negative_prompt_embeds": against["states"], **masks}

    def pipeline(self) -> QwenImagePipeline:
        return QwenImagePipeline(**self.sampling_parts(), scheduler=self.process.schedule)


CLASS = QwenImage
