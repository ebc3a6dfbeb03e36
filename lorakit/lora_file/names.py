"""What layers and their tensors are called in LoRA files, in every form that is found in the wild."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from lorakit.bases import families, layer_names
from lorakit.bases.layer_names import SINGLE, underscored

# The two factors of a layer, in each way that they are called: the one on its inputs, the one on its outputs.
KOHYA = ("lora_down.weight", "lora_up.weight")
PEFT = ("lora_A.weight", "lora_B.weight")
ADAPTER = ("lora_A.default.weight", "lora_B.default.weight")  # peft's with the adapter's name left in, which diffusers leaves empty
OLD = ("lora.down.weight", "lora.up.weight")  # diffusers' before peft ...
OLD_TEXT = ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight")  # ... of text encoders ...
OLD_ATTENTION = ("down.weight", "up.weight")  # ... and of attention, after `processor.to_q_lora`
PAIRS = (KOHYA, PEFT, ADAPTER, OLD, OLD_TEXT, OLD_ATTENTION)
LOKR = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")
FACTORS = (*LOKR, *LOHA)
LYCORIS = ("dora_scale", "lora_mid.weight", *FACTORS, "diff", "diff_b")
MAGNITUDES = ("dora_scale", "lora_magnitude_vector", "lora_magnitude_vector.weight", "lora_magnitude_vector.default.weight")  # of DoRA
SUFFIXES = ("alpha", *(suffix for pair in PAIRS for suffix in pair), *LYCORIS, *MAGNITUDES[1:], "lora_B.bias")


@dataclass(frozen=True)
class Held:
    """The layers that stand under one name, in the order of their slots: of a fused one there are several."""

    paths: tuple[str, ...]  # 'unet.down_blocks...to_q', 'text_encoder.text_model...'
    heights: tuple[int, ...] = SINGLE  # as in `layer_names.Original`


def split_key(key: str) -> tuple[str, str]:
    """('lora_unet_..._to_q', 'lora_up.weight'): the layer's name and what the tensor is."""
    suffix = max((suffix for suffix in SUFFIXES if key.endswith(f".{suffix}")), key=len, default="")
    return (key[: -len(suffix) - 1], suffix) if suffix else (key.rpartition(".")[0], key.rpartition(".")[2])


@cache
def layers_by_stem(family: str) -> dict[str, Held]:
    """{a layer's name in a file: what it holds}, in every form."""
    cls, folder = families.load(family), layer_names.denoiser_folder(family)
    found: dict[str, Held] = {stem: Held((path,)) for stem, path in _text_stems(family)}
    for name, held in _by_original_name(family).items():
        dotted = (f"{prefix}{name}" for prefix in {"diffusion_model.", *cls.DIFFUSERS_CONVERTS_ORIGINAL})
        found |= dict.fromkeys((underscored("lora_unet", name), *dotted), held)
    for path in layer_names.layers(family):
        stems = [f"{folder}.{path}", f"base_model.model.{path}", underscored("lycoris", path), underscored("lora_transformer", path)]
        if "diffusers" in cls.KOHYA_NAMES:
            stems.append(underscored("lora_unet", path))
        stems += [f"{prefix}.{path}".removeprefix(".") for prefix in cls.COMFYUI_PREFIXES]
        stems += [f"{form.prefix}{path}" for form in cls.DIFFUSERS_LOKR if form.names == "paths"]
        if cls.DIFFUSERS_CONVERTS_PATHS and re.search(cls.DIFFUSERS_CONVERTS_PATHS, path):
            stems += [f"{prefix}{path}" for prefix in cls.DIFFUSERS_CONVERTS_ORIGINAL]
        found |= dict.fromkeys((*stems, *((path, *old_stems(path)) if folder == "unet" else ())), Held((f"{folder}.{path}",)))
    for stem, held in _other_stems(family):
        found.setdefault(stem, held)
    return found


def _by_original_name(family: str) -> dict[str, Held]:
    folder, fused = layer_names.denoiser_folder(family), {}
    for path, original in layer_names.originals(family).items():
        fused.setdefault(original.name, {})[original.slot] = (f"{folder}.{path}", original.heights)
    found = {}
    for name, slots in fused.items():
        heights = next(iter(slots.values()))[1]
        if len(slots) == len(heights):
            found[name] = Held(tuple(path for _, (path, _) in sorted(slots.items())), heights)
    return found


def _text_stems(family: str) -> Iterator[tuple[str, str]]:
    """(name, path) of the layers of text encoders: by diffusers' paths, kohya's names, OneTrainer's and OMI's."""
    for table in (layer_names.text_layers(family), layer_names.t5_layers(family), layer_names.t5_names_of_onetrainer(family)):
        for path, stem in table.items():
            yield path, path
            yield stem, path
    cls = families.load(family)
    omi = dict(zip(cls.clip_encoders(), ("clip_l", "clip_g"), strict=False)) | dict.fromkeys(cls.t5_encoders(), "t5")
    for path in (*layer_names.text_layers(family), *layer_names.t5_layers(family)):
        encoder, _, rest = path.partition(".")
        if encoder in omi:
            yield f"{omi[encoder]}.{rest}", path


def _other_stems(family: str) -> Iterator[tuple[str, Held]]:
    """OMI's names, which are the original ones with the slot after what is fused, and those that only this family has."""
    cls, folder = families.load(family), layer_names.denoiser_folder(family)
    others: dict[tuple[str, tuple[int, ...]], dict[int, str]] = {}
    for path, original in layer_names.originals(family).items():
        slot = f".{original.slot}" if len(original.heights) > 1 else ""
        yield f"{folder}.{original.name}{slot}", Held((f"{folder}.{path}",))
        if other := cls.other_name(path):
            others.setdefault((other.name, other.heights), {})[other.slot] = f"{folder}.{path}"
    for (name, heights), slots in others.items():
        held = Held(tuple(path for _, path in sorted(slots.items())), heights)
        yield name, held
        yield f"diffusion_model.{name}", held


def old_stems(path: str) -> Iterator[str]:
    """diffusers' own names before peft, of attention as its old processors had them: with `attn1.to_q` ComfyUI knows no layer."""
    old = path.replace(".to_", ".processor.to_").removesuffix(".0" if path.endswith("to_out.0") else "")
    return (f"{prefix}{old}{end}" for prefix in ("", "unet.") for end in ("", "_lora"))
