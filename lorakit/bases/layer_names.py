"""What the layers of a base are called: diffusers' dotted paths, which lorakit trains under, and the names of the original
code (sgm, BFL, mmdit), where query, key and value are often one fused layer. The tables are the families' own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from lorakit.bases import families

CLIP_PARTS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")
T5_PARTS = (*(f"0.SelfAttention.{part}" for part in "qkvo"), *(f"1.DenseReluDense.{part}" for part in ("wi_0", "wi_1", "wo")))
SINGLE, QKV = (1,), (1, 1, 1)
SLOTS = {"q": 0, "k": 1, "v": 2}  # of a fused layer
JOINT_ATTENTION = (  # of picture and text, as diffusers calls it in all of its transformers that have it
    "attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out",
)  # fmt: skip

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Original:
    """A layer's name in the original code. A fused one holds several of diffusers' layers one above the other: this is the
    one at `slot`, and `heights` says how high each of them is, measured by the first: (1, 1, 1, 4) are query, key, value and
    an MLP that is four times as high."""

    name: str
    slot: int = 0
    heights: tuple[int, ...] = SINGLE


@dataclass(frozen=True)
class OddForm:
    """Keys of a LoRA file that name no layer, and which tools load them."""

    title: str  # 'control LoRA'
    key: re.Pattern[str]
    tools: tuple[str, ...]
    whole: bool = False  # one such key tells what the whole file is


@dataclass(frozen=True)
class LokrForm:
    """A form of LoKr files that diffusers loads: what its layers are called after `prefix`. `names` are "paths", diffusers' own; "blocks", the
    same of blocks with `_` for dots; or "original"."""

    prefix: str
    names: str
    alphas: bool = True  # whether it takes alphas beside
    by_alphas: bool = False  # whether it is these that tell the form


@cache
def members(family: str) -> tuple[dict[str, Shape], ...]:
    """{path: weight's shape} of every linear layer and convolution of the full-size denoiser, one table for each of the
    bases that the family has, its usual one first; built without memory."""
    from torch import nn

    from lorakit.bases.streaming import without_memory

    cls = families.load(family)
    found = []
    for changes in ({}, *cls.MEMBERS.values()):
        with without_memory():
            model = cls.DENOISER(**{**cls.CONFIG, **changes})
        found.append({name: tuple(m.weight.shape) for name, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))})
    return tuple(found)


@cache
def layers(family: str) -> dict[str, Shape]:
    """{path: weight's shape} of the layers of all members; the shape is that of the first that has the layer."""
    found: dict[str, Shape] = {}
    for member in members(family):
        found |= {path: shape for path, shape in member.items() if path not in found}
    return found


def denoiser_folder(family: str) -> str:
    return families.load(family).FOLDER


@cache
def text_layers(family: str) -> dict[str, str]:
    """{'text_encoder.text_model.encoder.layers.0.mlp.fc1': kohya's name} of the CLIP encoders. The paths are canonical:
    transformers 5 has dropped the level `text_model` from its modules, files keep it."""
    cls, names = families.load(family), {}
    for encoder in cls.clip_encoders():
        for number in range(cls.encoder_layers(encoder)):
            for part in CLIP_PARTS:
                path = f"text_model.encoder.layers.{number}.{part}"
                names[f"{encoder}.{path}"] = underscored(cls.kohya_text(encoder), path)
    return names


@cache
def t5_layers(family: str) -> dict[str, str]:
    """{'text_encoder_2.encoder.block.0.layer.0.SelfAttention.q': kohya's name} of T5."""
    cls = families.load(family)
    return {f"{encoder}.{layer}": underscored(cls.kohya_text(encoder), layer) for encoder, layer in _t5_paths(cls)}


@cache
def t5_names_of_onetrainer(family: str) -> dict[str, str]:
    """The same by OneTrainer's names, which number the encoders as the base has them."""
    cls = families.load(family)
    numbers = {encoder: number for number, encoder in enumerate(cls.ENCODERS, start=1)}
    return {f"{encoder}.{layer}": underscored(f"lora_te{numbers[encoder]}", layer) for encoder, layer in _t5_paths(cls)}


def _t5_paths(cls: type[families.Family]) -> Iterator[tuple[str, str]]:
    for encoder in cls.t5_encoders():
        for number in range(cls.encoder_layers(encoder)):
            yield from ((encoder, f"encoder.block.{number}.layer.{part}") for part in T5_PARTS)


@cache
def originals(family: str) -> dict[str, Original]:
    """{diffusers path: original name} of every layer that has one."""
    find = families.load(family).original_name
    return {path: original for path in layers(family) if (original := find(path))}


@cache
def is_fused(family: str) -> bool:
    """Whether the original code of this family holds several of diffusers' layers as one."""
    return any(len(original.heights) > 1 for original in originals(family).values())


def kohya_stem(family: str, path: str) -> str:
    """The name of a denoiser's layer in the kohya files that are written for the family."""
    by_original = families.load(family).KOHYA_NAMES[0] == "original"
    return underscored("lora_unet", originals(family)[path].name if by_original else path)


def lycoris_stem(family: str, path: str) -> str:
    """The name of a denoiser's layer with LoKr or LoHa, in a family whose original code fuses layers."""
    prefix = families.load(family).LYCORIS_PREFIX
    return prefix + (path if prefix.endswith(".") else path.replace(".", "_"))


def kohya_paths(family: str) -> dict[str, list[str]]:
    """{kohya's name: the denoiser's layers that it holds, in the order of their slots}, in all names that are read."""
    found: dict[str, list[str]] = {}
    by_slot = sorted(originals(family).items(), key=lambda item: item[1].slot)
    for names in families.load(family).KOHYA_NAMES:
        if names == "original":
            for path, original in by_slot:
                found.setdefault(underscored("lora_unet", original.name), []).append(path)
        else:
            for path in layers(family):
                found.setdefault(underscored("lora_unet", path), [path])
    return found


def underscored(prefix: str, path: str) -> str:
    return f"{prefix}_{path.replace('.', '_')}"
