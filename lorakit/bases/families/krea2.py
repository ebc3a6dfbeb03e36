"""Krea 2: twelve layers of Qwen3-VL's states for each token of the text, and one transformer over text and picture that learns a
rectified flow in the latents of Qwen-Image's autoencoder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLQwenImage, Krea2Pipeline, Krea2Transformer2DModel
from torch import Tensor
from transformers import AutoTokenizer, Qwen3VLModel

from lorakit.bases import patches
from lorakit.bases.families.base import Family, Text, flow_in_comfyui, mask_of, stack_texts
from lorakit.bases.instruction import AFTER, BEFORE, TOKENS_AFTER, TOKENS_BEFORE
from lorakit.bases.layer_names import Original
from lorakit.bases.original_layout import Place, count_blocks
from lorakit.bases.schedules import Flow
from lorakit.bases.single_file_configs import QWEN3_VL_4B, Layout
from lorakit.weights import hub_errors_in_words

TITLE = "Krea 2"

OTHER_TRAINERS = {
    "diffusers": {"script": "dreambooth/train_dreambooth_lora_krea2.py", "takes": ("lora_alpha",)},
    "ai_toolkit": {"arch": "krea2", "scheduler": "flowmatch"},
}

READS = ("Qwen2",)  # how the class of its tokenizer begins

LAYERS = (2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 32, 35)  # of the language model; 0 is before the first

OUTER = {
    "img_in": "first", "final_layer.linear": "last.linear", "time_embed.linear_1": "tmlp.0", "time_embed.linear_2": "tmlp.2",
    "time_mod_proj": "tproj.1", "txt_in.linear_1": "txtmlp.1", "txt_in.linear_2": "txtmlp.3", "text_fusion.projector": "txtfusion.projector",
}  # fmt: skip
PARTS = {
    "attn.to_q": "attn.wq", "attn.to_k": "attn.wk", "attn.to_v": "attn.wv", "attn.to_out.0": "attn.wo", "attn.to_gate": "attn.gate",
    "ff.gate": "mlp.gate", "ff.up": "mlp.up", "ff.down": "mlp.down",
}  # fmt: skip
NORMS = {"norm1": "prenorm", "norm2": "postnorm", "attn.norm_q": "attn.qknorm.qnorm", "attn.norm_k": "attn.qknorm.knorm"}
ONLY_IN_FILES = {  # of the base, in which no LoRA is trained
    "txt_in.norm.weight": "txtmlp.0.scale", "final_layer.norm.weight": "last.norm.scale", "final_layer.scale_shift_table": "last.modulation.lin",
}  # fmt: skip


class Krea2(Family):
    DENOISER, FOLDER = Krea2Transformer2DModel, "transformer"
    CONFIG = {}  # the class's own defaults are Krea 2
    ENCODERS = {"text_encoder": Qwen3VLModel}
    TOKENIZERS = {"tokenizer": AutoTokenizer}
    VAE, VAE_CONFIG = AutoencoderKLQwenImage, {"z_dim": 16}  # else the class's own defaults, too
    ENCODER_CONFIGS = {"text_encoder": QWEN3_VL_4B}
    SCHEDULER_CONFIG = {
        "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 6400,
    }  # fmt: skip
    TARGETS = {
        "attention": ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.to_gate"),
        "mlp": ("ff.gate", "ff.up", "ff.down"),
        "linear": tuple(f"^{path}" for path in OUTER),  # the authors' own choice has these too
        "conv": (),
    }
    PIPELINE = Krea2Pipeline
    PROCESS, PIXEL_STEP, PACKED = Flow, 16, True
    IN_TOOLS = {
        "comfyui": flow_in_comfyui(
            "qwen_image_vae.safetensors", {"clip_name": "qwen3vl_4b_bf16.safetensors", "type": "krea2"}, guidance_is_from_zero=True
        )
    }
    NAME, FORMAT = "krea2", "diffusers"

    KOHYA_NAMES = ("original",)
    COMFYUI_UNDERSCORED = ()
    DIFFUSERS_CONVERTS_ORIGINAL = ("diffusion_model.", "base_model.model.")

    LAYOUTS = (
        Layout(
            "krea2", "Krea 2", {"text_encoder": "text_encoders.qwen3vl_4b.transformer."}, cards={"krea2": ""}, usual="krea2",
            blocks="txtfusion.", inputs=("first.weight", 64), has_schedule=False, unknown_tokenizers=("tokenizer",),
        ),
    )  # fmt: skip

    text_length = 512

    @staticmethod
    def original_name(path: str) -> Original | None:
        if path in OUTER:
            return Original(OUTER[path])
        found = re.fullmatch(r"(transformer_blocks|text_fusion\.(?:layerwise|refiner)_blocks)(\.\d+)\.(.+)", path)
        if not found or found[3] not in PARTS:
            return None
        return Original(f"{_blocks(found[1])}{found[2]}.{PARTS[found[3]]}")

    @staticmethod
    def place(key: str, shape: tuple[int, ...]) -> Place | None:
        if key in ONLY_IN_FILES:
            return Place(ONLY_IN_FILES[key])
        path, _, kind = key.rpartition(".")
        if layer := Krea2.original_name(path):
            return Place(f"{layer.name}.{kind}")
        found = re.fullmatch(r"(transformer_blocks|text_fusion\.(?:layerwise|refiner)_blocks)(\.\d+)\.(.+)", key)
        if not found:
            return None
        block = f"{_blocks(found[1])}{found[2]}"
        if found[3] == "scale_shift_table":
            return Place(f"{block}.mod.lin", in_a_row=True)
        norm = NORMS.get(found[3].removesuffix(".weight"))
        return Place(f"{block}.{norm}.scale") if norm else None

    @classmethod
    def config_from(cls, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        width, channels = shapes["first.weight"]
        head = shapes["blocks.0.attn.qknorm.qnorm.scale"][0]
        text_width = shapes["txtmlp.0.scale"][0]
        text_head = shapes["txtfusion.refiner_blocks.0.attn.qknorm.qnorm.scale"][0]
        return {
            "in_channels": channels, "num_layers": count_blocks("blocks", shapes), "attention_head_dim": head, "num_attention_heads": width // head,
            "num_key_value_heads": shapes["blocks.0.attn.wk.weight"][0] // head, "intermediate_size": shapes["blocks.0.mlp.up.weight"][0],
            "timestep_embed_dim": shapes["tmlp.0.weight"][1], "text_hidden_dim": text_width, "num_text_layers": shapes["txtfusion.projector.weight"][1],
            "text_num_attention_heads": text_width // text_head,
            "text_num_key_value_heads": shapes["txtfusion.refiner_blocks.0.attn.wk.weight"][0] // text_head,
            "text_intermediate_size": shapes["txtfusion.refiner_blocks.0.mlp.up.weight"][0],
            "num_layerwise_text_blocks": count_blocks(r"txtfusion\.layerwise_blocks", shapes),
            "num_refiner_text_blocks": count_blocks(r"txtfusion\.refiner_blocks", shapes),
        }  # fmt: skip

    def text_shapes(self) -> dict[str, tuple[int, ...]]:
        config = self.denoiser.config
        return {"states": (self.text_length, config.num_text_layers, config.text_hidden_dim)}

    @torch.no_grad()
    def prepare(self, name: str, text: str) -> Tensor:
        """[tokens, layers, width] of the text and of the end of its template, as many as there are. The pipeline fills up between the
        two, and masks that; the states of all else are the same without."""
        tokenizer = self.tokenizer(self.tokenizer_of(name))
        read = tokenizer(BEFORE + text, truncation=True, max_length=TOKENS_BEFORE + self.text_length - TOKENS_AFTER)["input_ids"]
        ids = torch.tensor([read + tokenizer(AFTER)["input_ids"]])
        return torch.stack(self.language_states(name, ids, self.layers()), dim=1)[TOKENS_BEFORE:]

    def layers(self) -> tuple[int, ...]:
        """Those of the language model that are read, as the checkpoint says, where it is a diffusers folder."""
        return tuple(self._about().get("text_encoder_select_layers") or LAYERS)

    def _about(self) -> Mapping[str, Any]:
        """The pipeline's own configuration; it lies where the schedule does."""
        source = self.source_of("scheduler")
        if source.is_local and not (Path(source.location) / source.marker).is_file():
            return {}  # a folder with what single files lack
        with hub_errors_in_words(source):
            return Krea2Pipeline.load_config(source.location)

    def read(self, name: str, prepared: Tensor) -> Text:
        return {"states": prepared}

    def predict(self, noisy: Tensor, timesteps: Tensor, text: Text, sizes: Tensor) -> Tensor:
        dtype, (height, width) = self.dtype, noisy.shape[-2:]
        states = text["states"].to(dtype)
        found = self.denoiser(
            hidden_states=patches.pack(noisy.to(dtype)),
            encoder_hidden_states=states,
            timestep=timesteps / 1000,
            position_ids=Krea2Pipeline.prepare_position_ids(states.shape[1], height // 2, width // 2, noisy.device),
            encoder_attention_mask=mask_of(text, "states"),
            return_dict=False,
        )[0]
        return patches.unpack(found, height, width)

    def prompt_options(self, text: Text, empty: Text, negative: Text | None = None) -> dict[str, Any]:
        """Both are as long as the longer one: the pipeline counts the places of the picture after the prompt for both."""
        both = stack_texts([{"states": one["states"][0]} for one in (text, negative or empty)])
        mask = mask_of(both, "states")
        masks = torch.ones(both["states"].shape[:2], dtype=torch.bool, device=both["states"].device) if mask is None else mask
        return {
            "prompt_embeds": both["states"][:1], "prompt_embeds_mask": masks[:1],
            "negative_prompt_embeds": both["states"][1:], "negative_prompt_embeds_mask": masks[1:],
        }  # fmt: skip

    def pipeline(self) -> Krea2Pipeline:
        """That of a distilled checkpoint draws with another schedule."""
        distilled = self._about().get("is_distilled", False)
        return Krea2Pipeline(**self.sampling_parts(), scheduler=self.process.schedule, is_distilled=distilled)


def _blocks(list_of_blocks: str) -> str:
    return list_of_blocks.replace("transformer_blocks", "blocks").replace("text_fusion", "txtfusion")


CLASS = Krea2
