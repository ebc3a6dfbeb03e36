"""What the layers of a base are called: diffusers' dotted paths, which lorakit trains under, and the names of the original
code (sgm, BFL, mmdit), where query, key and value are often one fused layer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from lorakit import lookup

FAMILIES = ("sd15", "sdxl", "sd3", "flux1")
CLIP_LAYERS = {"sd15": {"text_encoder": 12}, "sdxl": {"text_encoder": 12, "text_encoder_2": 32},
               "sd3": {"text_encoder": 12, "text_encoder_2": 32}, "flux1": {"text_encoder": 12}}  # fmt: skip
CLIP_PARTS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")
T5_ENCODER = {"sd3": "text_encoder_3", "flux1": "text_encoder_2"}
T5_LAYERS = tuple(
    f"encoder.block.{number}.layer.{part}"
    for number in range(24)
    for part in (*(f"0.SelfAttention.{x}" for x in "qkvo"), *(f"1.DenseReluDense.{x}" for x in ("wi_0", "wi_1", "wo")))
)
# Shapes of the largest member of a family, so that the names of the smaller ones are among them.
LARGEST = {"sd3": {"num_layers": 38, "dual_attention_layers": tuple(range(38))}}
# A base of a family whose blocks are laid out otherwise (mini's): the names of its layers are known too.
OTHER = {
    "sd15": {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (48, 96, 144), "norm_num_groups": 16,
    }
}  # fmt: skip


@dataclass(frozen=True)
class Original:
    """A layer's name in the original code; a fused one holds several of diffusers' layers as `slot` of `slots`."""

    name: str
    slot: int = 0
    slots: int = 1


@cache
def layers(family: str) -> dict[str, tuple[int, ...]]:
    """{path: weight's shape} of every linear layer and convolution of the full-size denoiser, built without memory."""
    import torch
    from torch import nn

    cls = lookup.load(lookup.FAMILIES, family).CLASS
    configs = [OTHER[family]] if family in OTHER else []
    found = {}
    for config in (*configs, LARGEST.get(family, {})):
        with torch.device("meta"):
            model = cls.DENOISER(**{**cls.CONFIG, **config})
        found |= {name: tuple(m.weight.shape) for name, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    return found


def denoiser_folder(family: str) -> str:
    return "unet" if family in ("sd15", "sdxl") else "transformer"


@cache
def text_layers(family: str) -> dict[str, str]:
    """{'text_encoder.text_model.encoder.layers.0.mlp.fc1': kohya's name} of the CLIP encoders. The paths are canonical:
    transformers 5 has dropped the level `text_model` from its modules, files keep it."""
    names = {}
    for encoder, count in CLIP_LAYERS[family].items():
        prefix = "lora_te" if family == "sd15" else "lora_te2" if encoder.endswith("_2") else "lora_te1"
        for number in range(count):
            for part in CLIP_PARTS:
                path = f"text_model.encoder.layers.{number}.{part}"
                names[f"{encoder}.{path}"] = f"{prefix}_{path.replace('.', '_')}"
    return names


@cache
def t5_layers(family: str) -> dict[str, str]:
    """{'text_encoder_2.encoder.block.0.layer.0.SelfAttention.q': kohya's name} of T5: `lora_te3` on both bases that have it."""
    encoder = T5_ENCODER.get(family)
    return {f"{encoder}.{layer}": f"lora_te3_{layer.replace('.', '_')}" for layer in T5_LAYERS} if encoder else {}


@cache
def originals(family: str) -> dict[str, Original]:
    """{diffusers path: original name} of every layer that has one."""
    find = {
        "sd15": lambda path: _sgm(path, with_attention=(1, 2, 3)),
        "sdxl": lambda path: _sgm(path, with_attention=(0, 1)),
        "sd3": mmdit,
        "flux1": bfl,
    }[family]
    found = {path: find(path) for path in layers(family)}
    return {path: original for path, original in found.items() if original}


def kohya_stem(family: str, path: str) -> str:
    """The name of a denoiser's layer in a kohya file: diffusers' own on SD1.x, the original one on every other base."""
    name = path if family == "sd15" else originals(family)[path].name
    return f"lora_unet_{name.replace('.', '_')}"


_RESNET = {"conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection"}
_OUTER = {"conv_in": "input_blocks.0.0", "conv_out": "out.2", "time_embedding.linear_1": "time_embed.0",
          "time_embedding.linear_2": "time_embed.2", "add_embedding.linear_1": "label_emb.0.0",
          "add_embedding.linear_2": "label_emb.0.2"}  # fmt: skip


def _sgm(path: str, with_attention: Sequence[int]) -> Original | None:
    """`with_attention`: the levels of the way up that have attention."""
    if path in _OUTER:
        return Original(_OUTER[path])
    if found := re.fullmatch(r"up_blocks\.(\d)\.upsamplers\.0\.conv", path):
        level = int(found[1])  # an upsampler is the last part of its block: after the resnet and the attention
        return Original(f"output_blocks.{3 * level + 2}.{1 + (level in with_attention)}.conv")
    block, rest = _sgm_block(path)
    return Original(f"{block}.{_RESNET.get(rest, rest)}") if block else None


def _sgm_block(path: str) -> tuple[str, str]:
    """('input_blocks.4.1', 'proj_in') of 'down_blocks.1.attentions.0.proj_in'. Blocks are numbered through: three a
    level, of which a resnet is part 0 and an attention part 1."""
    if found := re.fullmatch(r"down_blocks\.(\d)\.(resnets|attentions)\.(\d)\.(.+)", path):
        return f"input_blocks.{1 + 3 * int(found[1]) + int(found[3])}.{int(found[2] == 'attentions')}", found[4]
    if found := re.fullmatch(r"down_blocks\.(\d)\.downsamplers\.0\.conv", path):
        return f"input_blocks.{3 * (int(found[1]) + 1)}.0", "op"
    if found := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", path):
        return f"middle_block.{1 if found[1] == 'attentions' else 2 * int(found[2])}", found[3]
    if found := re.fullmatch(r"up_blocks\.(\d)\.(resnets|attentions)\.(\d)\.(.+)", path):
        return f"output_blocks.{3 * int(found[1]) + int(found[3])}.{int(found[2] == 'attentions')}", found[4]
    return "", ""


_QKV = {"q": 0, "k": 1, "v": 2}
_BFL = {"attn.to_out.0": "img_attn.proj", "attn.to_add_out": "txt_attn.proj", "ff.net.0.proj": "img_mlp.0", "ff.net.2": "img_mlp.2",
        "ff_context.net.0.proj": "txt_mlp.0", "ff_context.net.2": "txt_mlp.2", "norm1.linear": "img_mod.lin",
        "norm1_context.linear": "txt_mod.lin"}  # fmt: skip
_BFL_SINGLE = {"proj_out": "linear2", "norm.linear": "modulation.lin"}
_BFL_OUTER = {"x_embedder": "img_in", "context_embedder": "txt_in", "proj_out": "final_layer.linear"}


def bfl(path: str) -> Original | None:
    if path in _BFL_OUTER:
        return Original(_BFL_OUTER[path])
    if found := re.fullmatch(r"transformer_blocks\.(\d+)\.(.+)", path):
        block, part = f"double_blocks.{found[1]}", found[2]
        if fused := re.fullmatch(r"attn\.(?:to_([qkv])|add_([qkv])_proj)", part):
            return Original(f"{block}.{'img' if fused[1] else 'txt'}_attn.qkv", _QKV[fused[1] or fused[2]], 3)
        return Original(f"{block}.{_BFL[part]}") if part in _BFL else None
    if found := re.fullmatch(r"single_transformer_blocks\.(\d+)\.(.+)", path):
        block, part = f"single_blocks.{found[1]}", found[2]
        if part == "proj_mlp" or part.startswith("attn.to_"):
            return Original(f"{block}.linear1", 3 if part == "proj_mlp" else _QKV[part[-1]], 4)
        return Original(f"{block}.{_BFL_SINGLE[part]}") if part in _BFL_SINGLE else None
    return None


_MMDIT = {"attn.to_out.0": "x_block.attn.proj", "attn.to_add_out": "context_block.attn.proj", "attn2.to_out.0": "x_block.attn2.proj",
          "ff.net.0.proj": "x_block.mlp.fc1", "ff.net.2": "x_block.mlp.fc2", "ff_context.net.0.proj": "context_block.mlp.fc1",
          "ff_context.net.2": "context_block.mlp.fc2", "norm1.linear": "x_block.adaLN_modulation.1",
          "norm1_context.linear": "context_block.adaLN_modulation.1"}  # fmt: skip


def mmdit(path: str) -> Original | None:
    found = re.fullmatch(r"transformer_blocks\.(\d+)\.(.+)", path)
    if not found:
        return None
    block, part = f"joint_blocks.{found[1]}", found[2]
    if fused := re.fullmatch(r"(attn2?)\.(?:to_([qkv])|add_([qkv])_proj)", part):
        side = "x_block" if fused[2] else "context_block"
        return Original(f"{block}.{side}.{fused[1]}.qkv", _QKV[fused[2] or fused[3]], 3)
    return Original(f"{block}.{_MMDIT[part]}") if part in _MMDIT else None
