"""Anima: a small Qwen3 read through the token ids of T5, and the transformer of Cosmos-Predict 2, which learns a rectified flow in latents of
Qwen-Image's autoencoder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import AnimaAutoBlocks, AnimaModularPipeline, AnimaTextConditioner, AutoencoderKLQwenImage, CosmosTransformer3DModel
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from transformers import AutoTokenizer, Qwen3Model

from lorakit.bases import streaming
from lorakit.bases.families.base import Family, Text, flow_in_comfyui
from lorakit.bases.layer_names import Original
from lorakit.bases.original_layout import Place, count_blocks
from lorakit.bases.schedules import Flow
from lorakit.bases.single_file_configs import QWEN3_06B, Layout

TITLE = "Anima"

OTHER_TRAINERS = {
    "sd_scripts": {
        "script": "anima_train_network.py",
        "network": "networks.lora_anima",
        "timesteps": "timestep_sampling",
        "beside": {"qwen3": "qwen_3_06b_base.safetensors", "vae": "qwen_image_vae.safetensors"},
    },
    "ai_toolkit": {"arch": "anima", "scheduler": "flowmatch"},
}

READS = ("Qwen2",)  # how the class of its first tokenizer begins; of T5's it sees the ids

CONDITIONER = "text_conditioner"  # of its own folder: what makes embeddings of the states and the ids
LAST = (-1,)  # of the language model's layers, behind its norm

PARTS = {
    **{f"attn{number}.to_{part}": f"{kind}_attn.{name}_proj" for number, kind in ((1, "self"), (2, "cross"))
       for part, name in (("q", "q"), ("k", "k"), ("v", "v"), ("out.0", "output"))},
    "ff.net.0.proj": "mlp.layer1", "ff.net.2": "mlp.layer2",
    **{f"norm{number}.linear_{layer}": f"adaln_modulation_{kind}.{layer}"
       for number, kind in ((1, "self_attn"), (2, "cross_attn"), (3, "mlp")) for layer in (1, 2)},
}  # fmt: skip
OUTER = {
    "patch_embed.proj": "x_embedder.proj.1", "time_embed.t_embedder.linear_1": "t_embedder.1.linear_1",
    "time_embed.t_embedder.linear_2": "t_embedder.1.linear_2", "norm_out.linear_1": "final_layer.adaln_modulation.1",
    "norm_out.linear_2": "final_layer.adaln_modulation.2", "proj_out": "final_layer.linear",
}  # fmt: skip
ATTENTIONS = {"attn1": "self_attn", "attn2": "cross_attn"}


class Anima(Family):
    DENOISER, FOLDER = CosmosTransformer3DModel, "transformer"
    CONFIG = {
        "num_attention_heads": 16, "attention_head_dim": 128, "num_layers": 28, "text_embed_dim": 1024, "adaln_lora_dim": 256,
        "rope_scale": (1.0, 4.0, 4.0), "concat_padding_mask": True, "extra_pos_embed_type": None,
    }  # fmt: skip
    CONDITIONER_CONFIG: Mapping[str, Any] = {}  # of a single file: the class's own defaults are Anima's
    ENCODERS = {"text_encoder": Qwen3Model}
    TOKENIZERS = {"tokenizer": AutoTokenizer, "t5_tokenizer": AutoTokenizer}
    VAE, VAE_CONFIG = AutoencoderKLQwenImage, {"z_dim": 16}  # else the class's own defaults
    ENCODER_CONFIGS = {"text_encoder": QWEN3_06B}
    SCHEDULER_CONFIG = {"shift": 3.0}
    TARGETS = {
        "attention": tuple(part for part in PARTS if part.startswith("attn")),
        "mlp": ("ff.net.0.proj", "ff.net.2"),
        "linear": tuple(part for part in PARTS if part.startswith("norm")),
        "conv": (),
    }
    PIPELINE = AnimaModularPipeline
    PROCESS, PIXEL_STEP = Flow, 16
    IN_TOOLS = {
        "comfyui": flow_in_comfyui("qwen_image_vae.safetensors", {"clip_name": "qwen_3_06b_base.safetensors", "type": "stable_diffusion"})
    }
    NAME, FORMAT = "anima", "diffusers"

    KOHYA_NAMES = ("original",)
    PEFT_ORIGINAL = "diffusion_model."
    COMFYUI_LACKS = r"."  # of diffusers' paths it knows none
    COMFYUI_UNDERSCORED = ()
    DIFFUSERS_CONVERTS_ORIGINAL = ("diffusion_model.",)

    LAYOUTS = (
        Layout(
            "anima", "Anima", {"text_encoder": "text_encoders.qwen3_06b.transformer.",
                               CONDITIONER: ("net.llm_adapter.", "model.diffusion_model.llm_adapter.", "llm_adapter.")},
            cards={"anima": ""}, usual="anima", blocks="llm_adapter.",
            unknown_tokenizers=("tokenizer", "t5_tokenizer"),
        ),
    )  # fmt: skip

    text_length = 512

    @staticmethod
    def original_name(path: str) -> Original | None:
        if path in OUTER:
            return Original(OUTER[path])
        found = re.fullmatch(r"transformer_blocks\.(\d+)\.(.+)", path)
        return Original(f"blocks.{found[1]}.{PARTS[found[2]]}") if found and found[2] in PARTS else None

    @staticmethod
    def place(key: str, shape: tuple[int, ...]) -> Place | None:
        path, _, kind = key.rpartition(".")
        if path == "time_embed.norm":
            return Place(f"t_embedding_norm.{kind}")
        if found := re.fullmatch(r"transformer_blocks\.(\d+)\.(attn[12])\.norm_([qk])", path):
            return Place(f"blocks.{found[1]}.{ATTENTIONS[found[2]]}.{found[3]}_norm.{kind}")
        layer = Anima.original_name(path)
        return Place(f"{layer.name}.{kind}") if layer else None

    @classmethod
    def config_from(cls, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        width, patches = shapes["x_embedder.proj.1.weight"]
        head = shapes["blocks.0.self_attn.q_norm.weight"][0]
        return {
            "in_channels": patches // 4 - 1, "out_channels": shapes["final_layer.linear.weight"][0] // 4, "num_attention_heads": width // head,
            "attention_head_dim": head, "num_layers": count_blocks("blocks", shapes), "mlp_ratio": shapes["blocks.0.mlp.layer1.weight"][0] / width,
            "text_embed_dim": shapes["blocks.0.cross_attn.k_proj.weight"][1],
            "adaln_lora_dim": shapes["blocks.0.adaln_modulation_self_attn.1.weight"][0],
        }  # fmt: skip

    def text_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"states": (self.text_length, self.denoiser.config.text_embed_dim)}

    @property
    def conditioner(self) -> AnimaTextConditioner:
        """In the denoiser's precision; it never learns."""
        if CONDITIONER not in self._parts and self.file and self.file.has(CONDITIONER):
            tensors = streaming.LazyFile(self.file.path, self.file.prefixes[CONDITIONER])
            model = streaming.build(lambda: AnimaTextConditioner(**self.CONDITIONER_CONFIG), None, self.dtype)
            named = ((key, tensors[key], tensors.scales.get(key)) for key in tensors)
            where = f"{self.file.path}: its llm_adapter"
            self._parts[CONDITIONER] = streaming.fill(model, named, self.dtype, self.device, where).requires_grad_(False).eval()
        return self.model(CONDITIONER, AnimaTextConditioner, self.dtype)

    def release(self, *names: str) -> None:
        """With the text encoder goes what reads it."""
        super().release(*names, *([CONDITIONER] if "text_encoder" in names else []))

    @torch.no_grad()
    def prepare(self, name: str, text: str) -> Tensor:
        """[T5's tokens, width]: what the conditioner makes of the text, without the zeros that it ends in."""
        read, asked = (
            self.tokenizer(kind)(text, truncation=True, max_length=self.text_length)["input_ids"] for kind in ("tokenizer", "t5_tokenizer")
        )
        ids, own = torch.tensor([read or [0]]), torch.full((1, max(len(read), 1)), int(bool(read)), device=self.device)
        states = self.language_states(name, ids, LAST)[0][None] * own[..., None]
        queries = torch.tensor([asked], device=self.device)
        found = self.conditioner(
            source_hidden_states=states.to(self.dtype),
            target_input_ids=queries,
            target_attention_mask=torch.ones_like(queries),
            source_attention_mask=own,
        )
        return found[0, : len(asked)]

    def read(self, name: str, prepared: Tensor) -> Text:
        return {"states": prepared}

    def predict(self, noisy: Tensor, timesteps: Tensor, text: Text, sizes: Tensor) -> Tensor:
        dtype = self.dtype
        found = self.denoiser(
            hidden_states=noisy.to(dtype).unsqueeze(2),
            timestep=timesteps / 1000,
            encoder_hidden_states=filled_up(text["states"], self.text_length).to(dtype),
            padding_mask=noisy.new_zeros(1, 1, *noisy.shape[-2:], dtype=dtype),
            return_dict=False,
        )[0]
        return found.squeeze(2)

    def prompt_options(self, text: Text, empty: Text, negative: Text | None = None) -> dict[str, Any]:
        both = {"prompt_embeds": text, "negative_prompt_embeds": negative or empty}
        return {name: filled_up(one["states"], self.text_length) for name, one in both.items()}

    def latents_of(self, drawn: Tensor, height: int, width: int) -> Tensor:
        return drawn.squeeze(2)

    def pipeline(self) -> Sampler:
        return Sampler(self.denoiser, self.process.schedule)

    def bare_pipeline(self) -> AnimaModularPipeline:
        pipeline = AnimaAutoBlocks().init_pipeline()
        pipeline.update_components(transformer=self.denoiser)
        return pipeline


def filled_up(states: Tensor, length: int) -> Tensor:
    """[B, length, width]: with zeros behind, which the transformer sees as rows of the text."""
    return torch.nn.functional.pad(states, (0, 0, 0, length - states.shape[1])) if states.shape[1] < length else states


@dataclass
class Drawn:
    images: Tensor


class Sampler:
    """Called as a pipeline of diffusers, which has none for Anima but in blocks: the steps of AnimaCoreDenoiseStep."""

    vae_scale_factor = 8

    def __init__(self, transformer: CosmosTransformer3DModel, scheduler: Any):
        self.transformer, self.scheduler = transformer, scheduler

    def set_progress_bar_config(self, **options: Any) -> None:
        """It shows none."""

    @torch.no_grad()
    def __call__(
        self,
        prompt_embeds: Tensor,
        negative_prompt_embeds: Tensor,
        width: int,
        height: int,
        num_inference_steps: int,
        guidance_scale: float,
        generator: torch.Generator,
        output_type: str = "latent",
    ) -> Drawn:
        """Latents [1, C, 1, h, w]. Guidance is counted as usual: at 1 the prompt alone speaks."""
        dtype, device, scheduler = prompt_embeds.dtype, prompt_embeds.device, self.scheduler
        sides = (height // self.vae_scale_factor, width // self.vae_scale_factor)
        latents = randn_tensor((1, self.transformer.config.in_channels, 1, *sides), generator=generator, device=device, dtype=torch.float32)
        nothing_padded = latents.new_zeros(1, 1, *sides, dtype=dtype)
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / num_inference_steps, num_inference_steps), device=device)
        scheduler.set_begin_index(0)

        def predicted(embeds: Tensor, time: Tensor) -> Tensor:
            return self.transformer(latents.to(dtype), time, embeds, padding_mask=nothing_padded, return_dict=False)[0]

        for step in scheduler.timesteps:
            time = step.expand(1).to(dtype) / scheduler.config.num_train_timesteps
            found = predicted(prompt_embeds, time)
            if guidance_scale != 1:
                against = predicted(negative_prompt_embeds, time)
                found = against + guidance_scale * (found - against)
            latents = scheduler.step(found, step, latents, return_dict=False)[0]
        return Drawn(latents)


CLASS = Anima
