"""Chroma: FLUX.1's blocks without their own modulation, which one small network makes for all of them, read by T5 alone and without guidance
distilled into it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import ChromaPipeline, ChromaTransformer2DModel, FluxPipeline
from torch import Tensor
from transformers import AutoTokenizer, T5EncoderModel

from lorakit.bases import double_blocks, patches
from lorakit.bases.families.base import Text, flow_in_comfyui, rows_of
from lorakit.bases.families.flux1 import Flux1
from lorakit.bases.layer_names import Original
from lorakit.bases.original_layout import Place, count_blocks
from lorakit.bases.single_file_configs import T5_XXL, Layout
from lorakit.settings import Train

warnings.filterwarnings("ignore", "`FluxPosEmbed` is deprecated", FutureWarning)  # said by diffusers of its own Chroma

TITLE = "Chroma"

OTHER_TRAINERS = {
    "onetrainer": {"model_types": ("CHROMA_1",)},
    "sd_scripts": {
        "script": "flux_train_network.py",
        "network": "networks.lora_flux",
        "timesteps": "timestep_sampling",
        "beside": {"t5xxl": "t5xxl_fp16.safetensors", "ae": "ae.safetensors"},
        "fixed": {"model_type": "chroma", "apply_t5_attn_mask": True, "guidance_scale": 0.0},
    },
    "ai_toolkit": {"arch": "chroma", "scheduler": "flowmatch"},
}

READS = ("T5",)  # how the class of its tokenizer begins

MODULATION = "distilled_guidance_layer"
MODULATION_PARTS = {"linear_1": "in_layer", "linear_2": "out_layer"}


class Chroma(Flux1):
    """What differs from FLUX.1: texts, modulation, and that it is drawn with a negative prompt."""

    DENOISER = ChromaTransformer2DModel
    CONFIG = {}  # the class's own defaults are Chroma
    ENCODERS = {"text_encoder": T5EncoderModel}
    TOKENIZERS = {"tokenizer": AutoTokenizer}
    ENCODER_CONFIGS = {"text_encoder": T5_XXL}
    TARGETS = {**Flux1.TARGETS, "linear": ()}
    PIPELINE = ChromaPipeline
    TAKES_NEGATIVE = True
    IN_TOOLS = {"comfyui": flow_in_comfyui("ae.safetensors", {"clip_name": "t5xxl_fp16.safetensors", "type": "chroma"})}
    NAME = "chroma1"

    IN_HEADERS = "chroma"
    KOHYA_TEXT = {"text_encoder": "lora_te3"}
    TOOLS = ("comfyui", "diffusers")
    COMFYUI_LACKS = rf"^{MODULATION}\."
    ODD_FORMS = ()
    LAYOUTS = (
        Layout(
            "chroma", "Chroma", {"text_encoder": "text_encoders.t5xxl.transformer."}, cards={"chroma": ""}, usual="chroma",
            blocks=f"{MODULATION}.", inputs=("img_in.weight", 64), others={"nerf_blocks.": "Chroma Radiance"}, has_schedule=False,
        ),
    )  # fmt: skip

    text_length = 512

    @staticmethod
    def original_name(path: str) -> Original | None:
        if found := re.fullmatch(rf"({MODULATION}\.layers\.\d+)\.(linear_[12])", path):
            return Original(f"{found[1]}.{MODULATION_PARTS[found[2]]}")
        return Original(path) if path.startswith(f"{MODULATION}.") else Flux1.original_name(path)

    @staticmethod
    def other_name(path: str) -> Original | None:
        return None

    @staticmethod
    def place(key: str, shape: tuple[int, ...]) -> Place | None:
        if not key.startswith(f"{MODULATION}."):
            return Flux1.place(key, shape)
        path, _, kind = key.rpartition(".")
        if path.startswith(f"{MODULATION}.norms."):
            return Place(f"{path}.scale")
        layer = Chroma.original_name(path)
        return Place(f"{layer.name}.{kind}") if layer else None

    @classmethod
    def config_from(cls, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        blocks, (hidden, inputs) = double_blocks.config_from(shapes), shapes[f"{MODULATION}.in_proj.weight"]
        layers = count_blocks(rf"{MODULATION}\.layers", shapes)
        return blocks | {"approximator_num_channels": inputs, "approximator_hidden_dim": hidden, "approximator_layers": layers}

    @classmethod
    def scheduler_config(cls, denoiser: Mapping[str, Any]) -> dict[str, Any]:
        return dict(cls.SCHEDULER_CONFIG)

    @classmethod
    def encoders_that_learn(cls, settings: Train) -> tuple[str, ...]:
        """None: T5's texts are of several lengths here."""
        return ()

    def text_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"states": (self.text_length, self.denoiser.config.joint_attention_dim)}

    @torch.no_grad()
    def prepare(self, name: str, text: str) -> Tensor:
        """[tokens, width] of the text and, where there is room, of one pad, which T5 does not see and the transformer does. The pipeline
        fills a text up and masks the other pads; the states of all else are the same without."""
        tokenizer = self.tokenizer(self.tokenizer_of(name))
        read = tokenizer(text, truncation=True, max_length=self.text_length)["input_ids"]
        pads = int(len(read) < self.text_length)
        ids = torch.tensor([read + [tokenizer.pad_token_id] * pads], device=self.device)
        seen = torch.tensor([[1] * len(read) + [0] * pads], device=self.device)
        return self.encoder(name)(ids, attention_mask=seen)[0][0]

    def read(self, name: str, prepared: Tensor) -> Text:
        return {"states": prepared}

    def predict(self, noisy: Tensor, timesteps: Tensor, text: Text, sizes: Tensor) -> Tensor:
        """Texts of one length together, of several one by one: the transformer's mask would be lost in blocks that are computed again."""
        states = text["states"].to(self.dtype)
        if "states_rows" not in text:
            return self._predict(noisy, timesteps, states)
        own = [rows[None] for rows in rows_of({**text, "states": states}, "states")]
        return torch.cat([self._predict(*one) for one in zip(noisy.split(1), timesteps.split(1), own, strict=True)])

    def _predict(self, noisy: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
        dtype, (count, _, height, width) = self.dtype, noisy.shape
        found = self.denoiser(
            hidden_states=patches.pack(noisy.to(dtype)),
            timestep=timesteps / 1000,
            encoder_hidden_states=states,
            txt_ids=torch.zeros(states.shape[1], 3, device=noisy.device, dtype=dtype),
            img_ids=FluxPipeline._prepare_latent_image_ids(count, height // 2, width // 2, noisy.device, dtype),
            return_dict=False,
        )[0]
        return patches.unpack(found, height, width)

    def prompt_options(self, text: Text, empty: Text, negative: Text | None = None) -> dict[str, Any]:
        """Nothing is masked; of numbers, diffusers would add a mask to the attention in place of hiding what is 0."""
        both = {"": text["states"], "negative_": (negative or empty)["states"]}
        masks = {f"{of}prompt_attention_mask": torch.ones(s.shape[:2], dtype=torch.bool, device=s.device) for of, s in both.items()}
        return {f"{of}prompt_embeds": states for of, states in both.items()} | masks

    def pipeline(self) -> ChromaPipeline:
        return ChromaPipeline(**self.sampling_parts(), scheduler=self.process.schedule)


CLASS = Chroma
