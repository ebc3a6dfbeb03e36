"""Z-Image and its Turbo: a language model's states, and one transformer over picture and text that learns a rectified flow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import ZImagePipeline, ZImageTransformer2DModel
from torch import Tensor
from transformers import AutoTokenizer, Qwen3Model

from lorakit.bases.families.base import Family, Text, flow_in_comfyui, rows_of
from lorakit.bases.layer_names import QKV, SLOTS, LokrForm, Original
from lorakit.bases.original_layout import Place, count_blocks
from lorakit.bases.schedules import Flow
from lorakit.bases.single_file_configs import AUTOENCODER_16, QWEN3_4B, Layout

TITLE = "Z-Image"

OTHER_TRAINERS = {
    "diffusers": {"script": "dreambooth/train_dreambooth_lora_z_image.py", "takes": ("lora_alpha",)},
    "ai_toolkit": {"arch": "zimage", "scheduler": "flowmatch"},
}

READS = ("Qwen2",)  # how the class of its tokenizer begins

NORMS = {"norm_q": "q_norm", "norm_k": "k_norm"}
OUTER = {"all_x_embedder.2-1": "x_embedder", "all_final_layer.2-1": "final_layer"}  # by the sizes of their patches
LAST_BUT_ONE = (-2,)  # of the language model's layers


class ZImage(Family):
    DENOISER, FOLDER = ZImageTransformer2DModel, "transformer"
    CONFIG = {"axes_lens": (1536, 512, 512)}  # else the class's own defaults are Z-Image
    ENCODERS = {"text_encoder": Qwen3Model}
    TOKENIZERS = {"tokenizer": AutoTokenizer}
    VAE_CONFIG = {**AUTOENCODER_16, "scaling_factor": 0.3611, "shift_factor": 0.1159}  # FLUX.1's
    ENCODER_CONFIGS = {"text_encoder": QWEN3_4B}
    SCHEDULER_CONFIG = {"shift": 6.0}  # Turbo's is 3.0
    TARGETS = {
        "attention": ("attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0"),
        "mlp": ("feed_forward.w1", "feed_forward.w2", "feed_forward.w3"),
        "linear": (),
        "conv": (),
    }
    NOT_TARGETS = r"^(noise|context)_refiner\."  # as OneTrainer and musubi have it
    BLOCKS = ("noise_refiner", "context_refiner", "layers")
    PIPELINE = ZImagePipeline
    PROCESS, PIXEL_STEP = Flow, 16
    IN_TOOLS = {
        "comfyui": flow_in_comfyui("ae.safetensors", {"clip_name": "qwen_3_4b.safetensors", "type": "lumina2"}, guidance_is_from_zero=True)
    }
    NAME, FORMAT = "z_image", "diffusers"

    KOHYA_NAMES = ("original", "diffusers")  # ComfyUI knows its own in this form, not those that musubi writes
    COMFYUI_PREFIXES = ("diffusion_model",)
    COMFYUI_UNDERSCORED = ("lycoris",)
    DIFFUSERS_READS_KOHYA = True
    DIFFUSERS_CONVERTS = ("diffusion_model.",)
    DIFFUSERS_LOKR = (
        LokrForm("diffusion_model.", "paths"), LokrForm("", "paths", by_alphas=True), LokrForm("transformer.", "paths", alphas=False),
    )  # fmt: skip
    LYCORIS_PREFIX = "diffusion_model."  # which ComfyUI knows too

    OTHER_CONFIGS = {"siglip_feat_dim": "Z-Image Omni, which sees pictures too"}
    LAYOUTS = (
        Layout(
            "z-image", "Z-Image", {"text_encoder": "text_encoders.qwen3_4b.transformer."}, cards={"z-image": ""}, usual="z-image",
            blocks="noise_refiner.", others={"layers.0.adaLN_modulation.1.": "Lumina 2", "siglip_embedder.": "Z-Image Omni"}, has_schedule=False, unknown_tokenizers=("tokenizer",),
        ),
    )  # fmt: skip

    text_length = 512

    @staticmethod
    def original_name(path: str) -> Original | None:
        found = re.fullmatch(r"((?:noise_refiner|context_refiner|layers)\.\d+)\.(.+)", path)
        if not found:
            return None
        block, part = found.groups()
        if fused := re.fullmatch(r"attention\.to_([qkv])", part):
            return Original(f"{block}.attention.qkv", SLOTS[fused[1]], QKV)
        return Original(f"{block}.attention.out" if part == "attention.to_out.0" else path)

    @staticmethod
    def place(key: str, shape: tuple[int, ...]) -> Place | None:
        path, _, kind = key.rpartition(".")
        for ours, theirs in OUTER.items():
            if path == ours or path.startswith(f"{ours}."):
                return Place(f"{theirs}{path.removeprefix(ours)}.{kind}")
        block, _, last = path.rpartition(".")
        if last in NORMS:
            return Place(f"{block}.{NORMS[last]}.{kind}")
        layer = ZImage.original_name(path)
        return Place(f"{layer.name}.{kind}", layer.slot, layer.heights) if layer else Place(key)

    @classmethod
    def config_from(cls, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        width, patches = shapes["x_embedder.weight"]
        heads = width // shapes["layers.0.attention.q_norm.weight"][0]
        return {
            "dim": width, "in_channels": patches // 4, "n_heads": heads, "n_kv_heads": heads, "n_layers": count_blocks("layers", shapes),
            "n_refiner_layers": count_blocks("noise_refiner", shapes), "cap_feat_dim": shapes["cap_embedder.1.weight"][1],
        }  # fmt: skip

    @classmethod
    def text_width(cls, config: Mapping[str, Any]) -> int:
        return config["cap_feat_dim"]

    def text_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"states": (self.text_length, self.denoiser.config.cap_feat_dim)}

    def prepare(self, name: str, text: str) -> Tensor:
        """[tokens, width], as many as the text has: the transformer fills them up itself, with rows that it has learned."""
        return self.chat_states(name, text, LAST_BUT_ONE, thinking=True)

    def read(self, name: str, prepared: Tensor) -> Text:
        return {"states": prepared}

    def predict(self, noisy: Tensor, timesteps: Tensor, text: Text, sizes: Tensor) -> Tensor:
        """Pictures and texts are lists, of which no one sees another; time runs from noise to picture, and so does what is predicted."""
        pictures = list(noisy.to(self.dtype).unsqueeze(2))  # each [C, 1, h, w]
        texts = [states.to(self.dtype) for states in rows_of(text, "states")]
        return -torch.stack(self.denoiser(pictures, (1000 - timesteps) / 1000, texts, return_dict=False)[0]).squeeze(2)

    def prompt_options(self, text: Text, empty: Text, negative: Text | None = None) -> dict[str, Any]:
        return {"prompt_embeds": list(text["states"]), "negative_prompt_embeds": list((negative or empty)["states"])}

    def pipeline(self) -> ZImagePipeline:
        return ZImagePipeline(**self.sampling_parts(), scheduler=self.process.schedule)


CLASS = ZImage
