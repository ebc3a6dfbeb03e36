"""FLUX.2 klein: three layers of a language model side by side, and a transformer over patches of 32 channels that learns a rectified flow.
FLUX.2 dev, in a file of its own, has the same transformer and VAE."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline, Flux2Transformer2DModel
from torch import Tensor, nn
from transformers import AutoTokenizer, Qwen3Model

from lorakit.bases import double_blocks
from lorakit.bases.families.base import Family, Text, flow_in_comfyui
from lorakit.bases.layer_names import JOINT_ATTENTION, LokrForm, Original
from lorakit.bases.original_layout import Place, outer_place
from lorakit.bases.schedules import Flow
from lorakit.bases.single_file_configs import QWEN3_4B, Layout

TITLE = "FLUX.2"

OTHER_TRAINERS = {
    "diffusers": {"script": "dreambooth/train_dreambooth_lora_flux2_klein.py", "takes": ("lora_alpha",)},
    "ai_toolkit": {"arch": "flux2_klein_4b", "other_archs": ("flux2_klein_9b",), "scheduler": "flowmatch"},
}

READS = ("Qwen2",)  # how the class of its tokenizer begins

LAYERS = (9, 18, 27)  # of the language model's 36
BLOCK = {
    "attn.to_out.0": "img_attn.proj", "attn.to_add_out": "txt_attn.proj", "ff.linear_in": "img_mlp.0", "ff.linear_out": "img_mlp.2",
    "ff_context.linear_in": "txt_mlp.0", "ff_context.linear_out": "txt_mlp.2",
}  # fmt: skip
SINGLE_BLOCK = {"attn.to_qkv_mlp_proj": "linear1", "attn.to_out": "linear2"}
OUTER = {
    "x_embedder": "img_in", "context_embedder": "txt_in", "proj_out": "final_layer.linear",
    **{f"{place}.linear": f"{place}.lin" for place in ("double_stream_modulation_img", "double_stream_modulation_txt", "single_stream_modulation")},
    **{f"time_guidance_embed.{ours}_embedder.linear_{number}": f"{theirs}_in.{layer}_layer"
       for ours, theirs in (("timestep", "time"), ("guidance", "guidance")) for number, layer in ((1, "in"), (2, "out"))},
}  # fmt: skip
STATISTICS = ("bn.running_mean", "bn.running_var")  # buffers, which would begin as 0 and 1


class Flux2(Family):
    DENOISER, FOLDER = Flux2Transformer2DModel, "transformer"
    CONFIG = {  # klein 4B; the class's own defaults are dev
        "num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680, "guidance_embeds": False,
    }  # fmt: skip
    ENCODERS = {"text_encoder": Qwen3Model}
    TOKENIZERS = {"tokenizer": AutoTokenizer}
    VAE = AutoencoderKLFlux2
    VAE_CONFIG = {"latent_channels": 32, "sample_size": 1024}
    ENCODER_CONFIGS = {"text_encoder": QWEN3_4B}  # klein 9B's is Qwen3-8B, which is read off its file
    LAYERS_READ = {"text_encoder": LAYERS[-1]}
    SCHEDULER_CONFIG = {
        "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096, "shift": 3.0, "use_dynamic_shifting": True,
    }  # fmt: skip
    TARGETS = {
        "attention": (*JOINT_ATTENTION, "attn.to_qkv_mlp_proj", "attn.to_out"),  # in a single block the MLP is fused with it
        "mlp": ("ff.linear_in", "ff.linear_out", "ff_context.linear_in", "ff_context.linear_out"),
        "linear": (),  # none of the modulation, which is one for all blocks and which ComfyUI does not know by these names
        "conv": (),
    }  # fmt: skip
    PIPELINE = Flux2KleinPipeline
    PROCESS, PIXEL_STEP, PACKED = Flow, 16, True
    FP16 = False  # built as FLUX.1, which overflows; published and used in bf16
    IN_TOOLS = {
        "comfyui": flow_in_comfyui(
            "flux2-vae.safetensors", {"clip_name": "qwen_3_4b.safetensors", "type": "flux2"}, latent="EmptyFlux2LatentImage",
            by_version={"flux2_klein_9b": {"clip": {"clip_name": "qwen_3_8b.safetensors", "type": "flux2"}}},
        )
    }  # fmt: skip
    NAME, FORMAT = "flux2", "diffusers"

    MEMBERS = {
        "flux2-klein-9b": {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288},
    }
    IN_HEADERS = "flux2"
    KOHYA_NAMES = ("original",)
    COMFYUI_LACKS = r"^((double|single)_stream_modulation|time_guidance_embed)"
    DIFFUSERS_READS_KOHYA = True
    DIFFUSERS_CONVERTS_ORIGINAL = ("diffusion_model.", "base_model.model.")
    DIFFUSERS_LOKR = (
        LokrForm("lycoris_", "blocks"), LokrForm("diffusion_model.", "original"), LokrForm("base_model.model.", "original"),
        LokrForm("transformer.", "paths", alphas=False), LokrForm("", "paths"),
    )  # fmt: skip
    DIFFUSERS_CONVERTS_PATHS = r"^(single_)?transformer_blocks\."
    LAYOUTS = (
        Layout(
            "flux2", "FLUX.2 klein", {"text_encoder": ("text_encoders.qwen3_4b.transformer.", "text_encoders.qwen3_8b.transformer.")},
            cards={"flux2-klein-9b": "single_blocks.23.", "flux2-klein-4b": ""}, usual="flux2-klein-4b", blocks="double_stream_modulation_img.",
            inputs=("img_in.weight", 128), others={"guidance_in.": "FLUX.2 dev"}, unknown_tokenizers=("tokenizer",),
        ),
    )  # fmt: skip

    text_length = 512

    @staticmethod
    def original_name(path: str) -> Original | None:
        if path in OUTER:
            return Original(OUTER[path])
        if layer := double_blocks.in_double_block(path, BLOCK):
            return layer
        found = re.fullmatch(r"single_transformer_blocks\.(\d+)\.(.+)", path)
        return Original(f"single_blocks.{found[1]}.{SINGLE_BLOCK[found[2]]}") if found and found[2] in SINGLE_BLOCK else None

    @staticmethod
    def place(key: str, shape: tuple[int, ...]) -> Place | None:
        return outer_place({"norm_out.linear": "final_layer.adaLN_modulation.1"}, key) or double_blocks.place(Flux2.original_name, key)

    @classmethod
    def config_from(cls, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        return double_blocks.config_from(shapes) | {
            "guidance_embeds": "guidance_in.in_layer.weight" in shapes, "timestep_guidance_channels": shapes["time_in.in_layer.weight"][1],
        }  # fmt: skip

    @classmethod
    def text_width(cls, config: Mapping[str, Any]) -> int:
        return config["joint_attention_dim"] // len(LAYERS)

    @classmethod
    def vae_from_file(cls, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
        """By the names of the original code, with the two outer convolutions inside of encoder and decoder or beside them, or by diffusers'."""
        if "encoder.conv_norm_out.weight" in tensors:
            return dict(tensors)
        inside = {"encoder.quant_conv.": "quant_conv.", "decoder.post_quant_conv.": "post_quant_conv."}
        named = {key: next((ours + key.removeprefix(at) for at, ours in inside.items() if key.startswith(at)), key) for key in tensors}
        found = {name: tensors[key] for key, name in named.items()}
        return Family.vae_from_file(found, config) | {key: found[key] for key in STATISTICS}

    def latents_of(self, drawn: Tensor, height: int, width: int) -> Tensor:
        return drawn  # its pipeline unpacks them itself

    def normalised(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """The VAE counts mean and variance of each channel of a patch, and holds them among its weights; what comes out are latents again."""
        middle, spread = self._statistics()
        return unpatched((patched(mean) - middle) / spread), unpatched(patched(std) / spread)

    def unnormalised(self, latents: Tensor) -> Tensor:
        middle, spread = self._statistics()
        return unpatched(patched(latents) * spread + middle)

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """(mean, deviation), each [1, 4C, 1, 1]."""
        seen = self.vae.bn
        return seen.running_mean.view(1, -1, 1, 1), torch.sqrt(seen.running_var.view(1, -1, 1, 1) + self.vae.config.batch_norm_eps)

    def text_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"states": (self.text_length, self.denoiser.config.joint_attention_dim)}

    def prepare(self, name: str, text: str) -> Tensor:
        """[512, 3 x width]: the transformer attends to what fills a text up, so that is kept."""
        return self.chat_states(name, text, LAYERS, thinking=False, pad=True)

    def read(self, name: str, prepared: Tensor) -> Text:
        return {"states": prepared}

    def predict(self, noisy: Tensor, timesteps: Tensor, text: Text, sizes: Tensor) -> Tensor:
        """Two by two latent pixels are one token; where each token stands is told beside it, of texts on an axis of their own."""
        patches, states = patched(noisy.to(self.dtype)), text["states"].to(self.dtype)
        found = self.denoiser(
            hidden_states=patches.flatten(2).transpose(1, 2),
            timestep=timesteps / 1000,
            guidance=self.guidance_input(len(noisy), noisy.device),
            encoder_hidden_states=states,
            txt_ids=_positions(1, 1, states.shape[1], noisy.device),
            img_ids=_positions(*patches.shape[-2:], 1, noisy.device),
            return_dict=False,
        )[0]
        return unpatched(found.transpose(1, 2).reshape(patches.shape))

    def prompt_options(self, text: Text, empty: Text, negative: Text | None = None) -> dict[str, Tensor]:
        return {"prompt_embeds": text["states"], "negative_prompt_embeds": (negative or empty)["states"]}

    def pipeline(self) -> Flux2KleinPipeline:
        parts = self.sampling_parts() | {"vae": _NoStatistics(self.denoiser.config.in_channels)}
        return Flux2KleinPipeline(**parts, scheduler=self.process.schedule)


patched, unpatched = Flux2KleinPipeline._patchify_latents, Flux2KleinPipeline._unpatchify_latents  # [B, C, h, w] <-> [B, 4C, h/2, w/2]


class _NoStatistics:
    """Stands for the VAE in a pipeline that draws latents, and undoes the normalisation by the VAE's numbers before it gives them: by these
    nothing is changed, and `unnormalised` does it when the VAE is there."""

    def __init__(self, channels: int):
        self.bn = nn.BatchNorm2d(channels, affine=False)
        self.config = SimpleNamespace(batch_norm_eps=0.0, block_out_channels=(1, 1, 1, 1))


def _positions(height: int, width: int, length: int, device: torch.device) -> Tensor:
    """[height x width x length, 4]: of every token its picture, row, column and place in the text."""
    return torch.cartesian_prod(*(torch.arange(count, device=device) for count in (1, height, width, length)))


CLASS = Flux2
