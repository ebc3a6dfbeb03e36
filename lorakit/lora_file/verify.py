"""What each tool will load of a LoRA file, and how strong: rules written from the formats that the tools read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from lorakit.bases import layer_names
from lorakit.errors import LorakitError, UnknownName

TOOLS = ("comfyui", "a1111", "forge", "diffusers")
FORGE_LIMIT = 12  # with more unknown keys than this Forge loads nothing of a file

_UP_DOWN = ("lora_up.weight", "lora_down.weight")
_A_B = ("lora_A.weight", "lora_B.weight")
_MORE = ("dora_scale", "lora_mid.weight", "lokr_w1", "lokr_w2", "lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b", "lokr_t2",
         "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2", "diff", "diff_b")  # fmt: skip
SUFFIXES = {
    "comfyui": ("alpha", *_UP_DOWN, *_A_B, "lora.up.weight", "lora.down.weight", "up.weight", "down.weight", *_MORE),
    "a1111": ("alpha", *_UP_DOWN, *_MORE),
}
ALL_SUFFIXES = (*SUFFIXES["comfyui"], "lora_magnitude_vector", "lora_B.bias")
SUPPORTED = {"a1111": ("sd15", "sdxl"), "forge": ("sd15", "sdxl", "flux1")}  # the other tools know all four


_REFUSED = "it takes no key of such a name"
_XLABS = re.compile(r"(double|single)_blocks\.\d+\.processor\.(qkv|proj)_lora[12]?\.(up|down)\.weight")


@dataclass(frozen=True)
class Judgement:
    """What one tool makes of a file."""

    tool: str
    loaded: tuple[str, ...]  # keys
    skipped: Mapping[str, str] = field(default_factory=dict)  # key -> why
    wrong_scale: Mapping[str, float] = field(default_factory=dict)  # layer -> strength it gets over the one it says

    @property
    def is_whole(self) -> bool:
        return not self.skipped and not self.wrong_scale


def judge_file(path: Path, tools: tuple[str, ...] = TOOLS, family: str | None = None) -> tuple[str | None, list[Judgement]]:
    """(the base's family, one judgement a tool) of a `.safetensors` LoRA file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
            alpha = _peft_alpha(file.metadata() or {})
            alphas = {
                key.removesuffix(".alpha"): float(file.get_tensor(key))
                for key, shape in shapes.items()
                if key.endswith(".alpha") and not shape
            }
    except (OSError, SafetensorError) as error:
        raise LorakitError(f"{path}: cannot be read as .safetensors ({error})") from None
    return judge(shapes, tools, alpha, family, alphas)


def judge(
    shapes: Mapping[str, tuple[int, ...]],
    tools: tuple[str, ...] = TOOLS,
    peft_alpha: float | None = None,
    family: str | None = None,
    alphas: Mapping[str, float] | None = None,
) -> tuple[str | None, list[Judgement]]:
    """(the base's family, one judgement a tool) of a file's keys and shapes; `peft_alpha` is what its header says, and
    `alphas` what its layers' alpha tensors say (left out, their strength is not judged). The family is found by the names where it is not given."""
    unknown = [tool for tool in tools if tool not in TOOLS]
    if unknown:
        raise UnknownName("tool", unknown[0], list(TOOLS))
    family = family or find_family(shapes)
    return family, [_judge_for(tool, family, shapes, peft_alpha, alphas or {}) for tool in tools]


def find_family(keys: Mapping[str, tuple[int, ...]]) -> str | None:
    """The family whose layer names (in any form) most of the keys have, None when none has any."""
    if _is_control(keys) or any(_XLABS.fullmatch(key) for key in keys):
        return "flux1"
    stems = {split_key(key)[0] for key in keys}
    counts = {family: len(stems & _known_anywhere(family)) for family in layer_names.FAMILIES}
    widths = [shape[1] for key, shape in keys.items() if key.endswith((".lora_down.weight", ".lora_A.weight")) and len(shape) > 1]

    def fit(family: str) -> tuple[int, int]:  # where names fit two families the widths of the layers decide
        known = {shape[1] for shape in layer_names.layers(family).values()}
        return counts[family], sum(width in known for width in widths)

    best = max(layer_names.FAMILIES, key=fit)
    return best if counts[best] else None


def split_key(key: str) -> tuple[str, str]:
    """('lora_unet_..._to_q', 'lora_up.weight'): the layer's name and what the tensor is."""
    for suffix in ALL_SUFFIXES:
        if key.endswith(f".{suffix}"):
            return key[: -len(suffix) - 1], suffix
    stem, _, suffix = key.rpartition(".")
    return stem, suffix


def _judge_for(
    tool: str, family: str | None, shapes: Mapping[str, tuple[int, ...]], peft_alpha: float | None, alphas: Mapping[str, float]
) -> Judgement:
    if family is None:
        return Judgement(tool, (), {key: _why_unknown(key) for key in shapes})
    if family not in SUPPORTED.get(tool, layer_names.FAMILIES):
        return Judgement(tool, (), dict.fromkeys(shapes, f"{tool} does not load LoRAs of {family}"))
    skipped = {key: why for key in shapes if (why := _why_not(tool, family, key, shapes))}
    if tool == "forge" and len(skipped) > FORGE_LIMIT:
        whole = f"forge throws a file away that has more than {FORGE_LIMIT} unknown keys"
        return Judgement(tool, (), {**dict.fromkeys(shapes, whole), **skipped})
    if tool == "diffusers" and (unknown := next((why for why in skipped.values() if why.startswith(_REFUSED)), None)):
        return Judgement(tool, (), {**dict.fromkeys(shapes, f"diffusers refuses the whole file: {unknown}"), **skipped})
    loaded = tuple(key for key in shapes if key not in skipped)
    wrong = _uneven_alphas(family, loaded, alphas) if tool == "diffusers" else _wrong_scales(tool, loaded, shapes, peft_alpha)
    return Judgement(tool, loaded, skipped, wrong)


def _why_unknown(key: str) -> str:
    if re.match(r"lora_(unet|te\d?)_(unet|te\d?|text_encoder)_", key):
        return "the prefix stands twice, which no tool reads"
    return "no layer of a base that lorakit knows is called so"


def _is_control(keys: Mapping[str, tuple[int, ...]]) -> bool:
    """A FLUX control LoRA (depth, canny), which also brings the norms of the attention."""
    return any(key.endswith(".norm.query_norm.scale") for key in keys)


def _why_not(tool: str, family: str, key: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Why a tool will not load a key; empty when it will."""
    if _is_control(shapes):
        return "" if tool in ("comfyui", "diffusers") else f"{tool} knows no control LoRAs"
    if tool == "diffusers":
        return _why_not_diffusers(family, key, shapes)
    stem, suffix = split_key(key)
    if suffix not in SUFFIXES["a1111" if tool == "a1111" else "comfyui"]:
        what = "DoRA's lora_magnitude_vector" if suffix == "lora_magnitude_vector" else f"tensors called {suffix}"
        return f"{tool} does not know {what}"
    if stem not in (_a1111_stems(family) if tool == "a1111" else _comfyui_stems(family)):
        return f"{tool} knows no layer of this name"
    return _broken_pair(stem, suffix, shapes) or _broken_factors(stem, suffix, shapes)


def _broken_pair(stem: str, suffix: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """A down without its up (or the other way round), or two of different rank."""
    for down, up in (("lora_down.weight", "lora_up.weight"), ("lora_A.weight", "lora_B.weight")):
        if suffix not in (down, up):
            continue
        first, second = shapes.get(f"{stem}.{down}"), shapes.get(f"{stem}.{up}")
        if first is None or second is None:
            return f"its {up if suffix == down else down} is missing"
        if first[0] != second[1]:
            return f"the ranks of {down} ({first[0]}) and {up} ({second[1]}) differ"
    return ""


def _broken_factors(stem: str, suffix: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """LoKr without one of its factors (whole, or as a and b), or LoHa without one of its four."""
    if suffix.startswith("hada_"):
        missing = [name for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b") if f"{stem}.{name}" not in shapes]
        return f"its {missing[0]} is missing" if missing else ""
    if suffix.startswith("lokr_"):
        for name in ("lokr_w1", "lokr_w2"):
            if f"{stem}.{name}" not in shapes and not all(f"{stem}.{name}_{part}" in shapes for part in "ab"):
                return f"its {name} is missing"
    return ""


def _why_not_diffusers(family: str, key: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    stem, suffix = split_key(key)
    if _XLABS.fullmatch(key):
        return ""
    if suffix == "dora_scale":
        return "diffusers leaves DoRA's dora_scale out, so the layer changes in another way than it was trained to"
    if suffix.startswith(("lokr_", "hada_")):
        return f"{_REFUSED}, LoKr's and LoHa's"
    if suffix in _MORE:
        return "diffusers loads no LyCORIS layers of this base"
    is_kohya = any(".lora_down.weight" in other for other in shapes)
    if is_kohya and family != "sd3":
        if stem not in _kohya_stems(family):
            return f"{_REFUSED} in a kohya file"
        return _broken_pair(stem, suffix, shapes) if suffix in ("alpha", *_UP_DOWN) else f"diffusers does not know {suffix}"
    if suffix == "alpha":
        return "" if family == "flux1" and stem in _dotted(family) else f"{_REFUSED} of an alpha"
    if stem in _t5_stems(family):
        return "diffusers loads no LoRA of T5"
    if stem not in _dotted(family):
        return f"{_REFUSED}" if stem.startswith("base_model.") else "diffusers passes over layers of this name"
    if suffix == "lora_magnitude_vector" and stem.startswith("text_encoder"):
        return "diffusers leaves DoRA's lengths in text encoders out, so these layers change in another way than they were trained to"
    return _broken_pair(stem, suffix, shapes) if suffix in (*_A_B, "lora_magnitude_vector") else f"diffusers does not know {suffix}"


def _wrong_scales(tool: str, loaded: tuple[str, ...], shapes: Mapping[str, tuple[int, ...]], peft_alpha: float | None) -> dict[str, float]:
    """Layers whose alpha stands only in peft's header, which no tool but diffusers reads: their strength is off by rank / alpha."""
    if peft_alpha is None:
        return {}
    wrong = {}
    for key in loaded:
        stem, suffix = split_key(key)
        if suffix == "lora_A.weight" and f"{stem}.alpha" not in shapes and peft_alpha != shapes[key][0]:
            wrong[stem] = shapes[key][0] / peft_alpha
    return wrong


def _uneven_alphas(family: str, loaded: tuple[str, ...], alphas: Mapping[str, float]) -> dict[str, float]:
    """Layers that diffusers gives the alpha that most layers of their part have: where a kohya file of a U-Net has several,
    it looks attention's up under a name that they do not have (`get_peft_kwargs`)."""
    if family not in ("sd15", "sdxl"):
        return {}
    stems = {key.removesuffix(".lora_down.weight") for key in loaded if key.endswith(".lora_down.weight")}
    wrong = {}
    for part in ("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_"):
        own = {stem: alphas[stem] for stem in stems if stem.startswith(part) and stem in alphas}
        if len(set(own.values())) > 1:
            usual = Counter(own.values()).most_common(1)[0][0]
            wrong |= {stem: usual / alpha for stem, alpha in own.items() if alpha != usual and ("_attn1_" in stem or "_attn2_" in stem)}
    return wrong


def _peft_alpha(metadata: Mapping[str, str]) -> float | None:
    """The alpha of `lora_adapter_metadata`, the header that diffusers writes beside peft keys."""
    import json

    try:
        found = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except json.JSONDecodeError:
        return None
    return next((float(value) for key, value in found.items() if key.endswith("lora_alpha")), None)


def _underscored(prefix: str, paths: Iterable[str]) -> set[str]:
    return {f"{prefix}_{path.replace('.', '_')}" for path in paths}


@cache
def _comfyui_stems(family: str) -> frozenset[str]:
    folder, paths = layer_names.denoiser_folder(family), tuple(layer_names.layers(family))
    originals = [original.name for original in layer_names.originals(family).values()]
    stems = _underscored("lora_unet", originals) | {f"diffusion_model.{name}" for name in originals}
    if folder == "unet":
        stems |= _underscored("lora_unet", paths) | _underscored("lycoris", paths)
        # diffusers' dotted names, of attention only as its old processors had them: with `attn1.to_q` it knows no layer
        dotted = [path.replace(".to_", ".processor.to_").removesuffix(".0" if path.endswith("to_out.0") else "") for path in paths]
        stems |= {f"{prefix}{path}{end}" for path in dotted for prefix in ("", "unet.") for end in ("", "_lora")}
    else:
        stems |= {f"transformer.{path}" for path in paths} | _underscored("lycoris", paths) | _underscored("lora_transformer", paths)
        stems |= {f"base_model.model.{path}" for path in paths if family == "sd3"}
    stems |= _t5_stems(family)
    return frozenset(stems | set(layer_names.text_layers(family)) | set(layer_names.text_layers(family).values()))


@cache
def _t5_stems(family: str) -> frozenset[str]:
    """sd-scripts' names of T5's layers, and on FLUX OneTrainer's, which numbers the encoders that the base has."""
    stems = set(layer_names.t5_layers(family).values())
    return frozenset(stems | ({stem.replace("lora_te3", "lora_te2") for stem in stems} if family == "flux1" else set()))


@cache
def _a1111_stems(family: str) -> frozenset[str]:
    stems = _underscored("lora_unet", layer_names.layers(family)) | _underscored(
        "lora_unet", [o.name for o in layer_names.originals(family).values()]
    )
    return frozenset(stems | set(layer_names.text_layers(family).values()))


@cache
def _kohya_stems(family: str) -> frozenset[str]:
    """What diffusers' converter of kohya files knows: original and diffusers names on U-Nets, original ones on FLUX."""
    if family == "flux1":
        fused = _underscored("lora_unet", [o.name for path, o in layer_names.originals(family).items() if "blocks" in path])
        return frozenset(fused | set(layer_names.text_layers(family).values()))
    return _a1111_stems(family)


@cache
def _dotted(family: str) -> frozenset[str]:
    return frozenset(
        {f"{layer_names.denoiser_folder(family)}.{path}" for path in layer_names.layers(family)} | set(layer_names.text_layers(family))
    )


@cache
def _known_anywhere(family: str) -> frozenset[str]:
    stems = _comfyui_stems(family) | _dotted(family) | (_kohya_stems(family) if family != "sd3" else frozenset())
    return stems | {f"base_model.model.{path}" for path in layer_names.layers(family)}


def in_words(judgement: Judgement) -> Iterator[str]:
    """The judgement in lines: the counts, then each reason with how many keys it holds for and the first of them."""
    total = len(judgement.loaded) + len(judgement.skipped)
    yield f"{judgement.tool:<10} loads {len(judgement.loaded)} of {total} keys"
    for reason, count in Counter(judgement.skipped.values()).most_common():
        first = next(key for key, why in judgement.skipped.items() if why == reason)
        yield f"{'':<10} {count} not loaded: {reason}, as {first}"
    if judgement.wrong_scale:
        layer, factor = next(iter(judgement.wrong_scale.items()))
        yield f"{'':<10} {len(judgement.wrong_scale)} layers at the wrong strength: {factor:g} times what was trained, as {layer}"
