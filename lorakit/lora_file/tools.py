"""Which tensors of a LoRA file each tool loads: rules written from the formats that the tools read, and the names that each knows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property

from lorakit.bases import families, layer_names
from lorakit.bases.layer_names import OddForm, underscored
from lorakit.lora_file import faults, names
from lorakit.lora_file.names import ADAPTER, KOHYA, LOKR, LYCORIS, OLD, OLD_ATTENTION, OLD_TEXT, PEFT, old_stems, split_key

TOOLS = ("comfyui", "a1111", "forge", "diffusers")
REFUSED = "it takes no key of such a name"  # of diffusers, which then refuses the whole file

_FORGE = ("alpha", *KOHYA, *PEFT, *OLD, *OLD_TEXT, *OLD_ATTENTION, *LYCORIS)
SUFFIXES = {"comfyui": (*_FORGE, *ADAPTER), "forge": _FORGE, "a1111": ("alpha", *KOHYA, *LYCORIS)}

Shapes = Mapping[str, tuple[int, ...]]  # of a file's tensors


def reasons(tool: str, family: str, shapes: Shapes) -> dict[str, str]:
    """{key: why the tool will not load it}, empty where it will."""
    whole = next((form for form in families.load(family).ODD_FORMS if form.whole and any(map(form.key.fullmatch, shapes))), None)
    if whole:
        return dict.fromkeys(shapes, "" if tool in whole.tools else f"{tool} knows no {whole.title}s")
    rules = {"diffusers": _DIFFUSERS, "a1111": _A1111}.get(tool, _COMFYUI)
    is_kohya = any(".lora_down.weight" in key for key in shapes)
    found = {}
    for key in shapes:
        tensor = _Tensor(tool, family, key, shapes, is_kohya)
        reason = next(reason for is_so, reason in rules if is_so(tensor))
        found[key] = reason if isinstance(reason, str) else reason(tensor)
    return found


@dataclass(frozen=True)
class _Tensor:
    """One tensor of a file, as the rules ask about it."""

    tool: str
    family: str
    key: str
    shapes: Shapes
    is_kohya: bool  # whether the file is one

    @cached_property
    def parts(self) -> tuple[str, str]:
        return split_key(self.key)

    @property
    def stem(self) -> str:
        return self.parts[0]

    @property
    def suffix(self) -> str:
        return self.parts[1]

    @property
    def base(self) -> type[families.Family]:
        return families.load(self.family)

    @property
    def odd(self) -> OddForm | None:
        return next((form for form in self.base.ODD_FORMS if form.key.fullmatch(self.key)), None)

    def broken(self) -> str:
        """What its layer lacks, empty where that is whole."""
        own = {suffix: self.shapes[key] for suffix in names.SUFFIXES if (key := f"{self.stem}.{suffix}") in self.shapes}
        return faults.broken_pair(self.suffix, own) or faults.broken_factors(self.suffix, own)


# The first rule that holds tells why a tool leaves a tensor out; one that says nothing lets it load.
Rule = tuple[Callable[[_Tensor], bool], str | Callable[[_Tensor], str]]


def _unknown_suffix(tensor: _Tensor) -> str:
    what = "DoRA's lora_magnitude_vector" if tensor.suffix == "lora_magnitude_vector" else f"tensors called {tensor.suffix}"
    return f"{tensor.tool} does not know {what}"


def _converts(tensor: _Tensor) -> bool:
    """Whether diffusers takes the file through its converter of kohya's names."""
    own = tensor.base.DIFFUSERS_CONVERTS
    begins, ends = tuple(prefix for prefix in own if prefix), ".alpha" if "" in own else ()
    has_such = any(key.startswith(begins) or key.endswith(ends) for key in tensor.shapes)
    return tensor.base.DIFFUSERS_READS_KOHYA and (tensor.is_kohya or has_such)


def _is_convertible(tensor: _Tensor) -> bool:
    """Whether the converter knows what a tensor is called: kohya's way, under the family's own prefixes peft's too."""
    return tensor.suffix in ("alpha", *KOHYA) or tensor.suffix in PEFT and tensor.stem.startswith(tensor.base.DIFFUSERS_CONVERTS)


def _renames(tensor: _Tensor) -> bool:
    """Whether diffusers takes the file through its converter of original names, which knows peft's factors and nothing else."""
    prefixes = tensor.base.DIFFUSERS_CONVERTS_ORIGINAL
    return bool(prefixes) and any(key.startswith(prefixes) for key in tensor.shapes)


def _is_alpha_of_a_layer(tensor: _Tensor) -> bool:
    takes = not _converts(tensor) and tensor.base.DIFFUSERS_READS_ALPHA
    return takes and tensor.suffix == "alpha" and tensor.stem in dotted(tensor.family)


def _is_read_by_diffusers(tensor: _Tensor) -> bool:
    if tensor.stem.endswith("_lora"):
        return tensor.suffix in OLD_ATTENTION
    old = OLD_TEXT if tensor.stem.startswith("text_encoder") else OLD
    return not _converts(tensor) and tensor.suffix in (*PEFT, *old, "lora_magnitude_vector")


def _why_no_lokr(tensor: _Tensor) -> str:
    """Why diffusers does not take a tensor of a LoKr file; empty where it does."""
    form = next((form for form in tensor.base.DIFFUSERS_LOKR if _is_of(form, tensor.shapes)), None)
    if form is None or tensor.suffix not in (*LOKR[:-1], *(["alpha"] if form.alphas else [])):
        return f"{REFUSED} in a LoKr file"
    if tensor.stem not in _lokr_stems(tensor.family, form):
        return f"{REFUSED} in a LoKr file"
    if not _has_one_factor(tuple(sorted(_lokr_sides(tensor.shapes)))):
        return "diffusers finds no one factor that takes all of the file's layers apart"
    return tensor.broken()


def _is_of(form: layer_names.LokrForm, shapes: Shapes) -> bool:
    if form.by_alphas:
        return any(key.endswith(".alpha") for key in shapes)
    return any(key.startswith(form.prefix) for key in shapes)


@cache
def _lokr_stems(family: str, form: layer_names.LokrForm) -> frozenset[str]:
    if form.names == "original":
        return frozenset(form.prefix + name for name in _original_names(family))
    paths = layer_names.layers(family)
    if form.names == "blocks":
        return frozenset(form.prefix + path.replace(".", "_") for path in paths if _in_blocks(family, path))
    return frozenset(form.prefix + path for path in paths)


def _in_blocks(family: str, path: str) -> bool:
    return re.search(rf"({'|'.join(families.load(family).BLOCKS)})\.\d+\.", path) is not None


def _lokr_sides(shapes: Shapes) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """((outputs of w1, of w2), (inputs of w1, of w2)) of each layer that has both."""
    for stem in {split_key(key)[0] for key in shapes if ".lokr_" in key}:
        own = {name: shapes[f"{stem}.{name}"] for name in LOKR if len(shapes.get(f"{stem}.{name}", ())) > 1}
        first, second = (own.get(name) or product(own.get(f"{name}_a"), own.get(f"{name}_b")) for name in ("lokr_w1", "lokr_w2"))
        if first and second:
            yield (first[0], second[0]), (first[1], second[1])


@cache
def _has_one_factor(sides: tuple[tuple[tuple[int, int], tuple[int, int]], ...]) -> bool:
    """Whether peft, which diffusers leaves the layers to, takes all of them apart as the file does, by one factor (`_create_lokr_config`)."""
    from peft.tuners.lokr.layer import factorization

    candidates = {out for (out, _), _ in sides} | {-1}
    return any(all(factorization(a * b, factor) == (a, b) for pair in sides for a, b in pair) for factor in candidates)


_COMFYUI: tuple[Rule, ...] = (  # Forge took ComfyUI's loader over
    (lambda t: t.suffix not in SUFFIXES[t.tool], _unknown_suffix),
    (lambda t: t.stem not in comfyui_stems(t.family), lambda t: f"{t.tool} knows no layer of this name"),
    (lambda t: True, _Tensor.broken),
)
_A1111: tuple[Rule, ...] = (
    (lambda t: t.suffix not in SUFFIXES["a1111"], _unknown_suffix),
    (lambda t: t.stem not in _a1111_stems(t.family), lambda t: f"{t.tool} knows no layer of this name"),
    (lambda t: True, _Tensor.broken),
)
_DIFFUSERS: tuple[Rule, ...] = (
    (lambda t: t.odd is not None and t.tool in t.odd.tools, ""),
    (lambda t: t.suffix == "dora_scale", "diffusers leaves DoRA's dora_scale out, so the layer changes in another way than it was trained to"),
    (lambda t: bool(t.base.DIFFUSERS_LOKR) and not t.is_kohya and any(".lokr_" in key for key in t.shapes), lambda t: _why_no_lokr(t)),
    (lambda t: t.suffix.startswith(("lokr_", "hada_")), f"{REFUSED}, LoKr's and LoHa's"),
    (lambda t: _renames(t) and (t.suffix not in PEFT or t.stem not in _renamed(t.family)), f"{REFUSED} in a file of original names"),
    (_renames, _Tensor.broken),
    (lambda t: t.suffix in LYCORIS, "diffusers loads no LyCORIS layers of this base"),
    (lambda t: _converts(t) and t.stem not in _kohya_stems(t.family), f"{REFUSED} in a kohya file"),
    (lambda t: _converts(t) and _is_convertible(t), _Tensor.broken),
    (_is_alpha_of_a_layer, ""),
    (lambda t: not _converts(t) and t.suffix == "alpha", f"{REFUSED} of an alpha"),
    (lambda t: not _converts(t) and t.stem in _t5_stems(t.family), "diffusers loads no LoRA of T5"),
    (lambda t: not _converts(t) and t.stem not in dotted(t.family) and t.stem.startswith("base_model."), REFUSED),
    (lambda t: not _converts(t) and t.stem not in dotted(t.family), "diffusers passes over layers of this name"),
    (lambda t: t.suffix == "lora_magnitude_vector" and t.stem.startswith("text_encoder"),
     "diffusers leaves DoRA's lengths in text encoders out, so these layers change in another way than they were trained to"),
    (_is_read_by_diffusers, _Tensor.broken),
    (lambda t: True, lambda t: f"diffusers does not know {t.suffix}"),
)  # fmt: skip


# The names that each tool knows


def _all_underscored(prefix: str, paths: Iterable[str]) -> set[str]:
    return {underscored(prefix, path) for path in paths}


@cache
def _clip_stems(family: str) -> frozenset[str]:
    """Of CLIP's layers: diffusers' paths and kohya's names."""
    return frozenset({*layer_names.text_layers(family), *layer_names.text_layers(family).values()})


@cache
def _t5_stems(family: str) -> frozenset[str]:
    """sd-scripts' names of T5's layers and OneTrainer's."""
    return frozenset({*layer_names.t5_layers(family).values(), *layer_names.t5_names_of_onetrainer(family).values()})


def _original_names(family: str) -> list[str]:
    return [original.name for original in layer_names.originals(family).values()]


@cache
def comfyui_stems(family: str) -> frozenset[str]:
    paths, originals = tuple(layer_names.layers(family)), _original_names(family)
    stems = _all_underscored("lora_unet", originals) | {f"diffusion_model.{name}" for name in originals}
    if layer_names.denoiser_folder(family) == "unet":
        stems |= (
            _all_underscored("lora_unet", paths) | _all_underscored("lycoris", paths) | {stem for path in paths for stem in old_stems(path)}
        )
    else:
        cls = families.load(family)
        paths = tuple(path for path in paths if not (cls.COMFYUI_LACKS and re.search(cls.COMFYUI_LACKS, path)))
        stems |= {f"{prefix}.{path}".removeprefix(".") for path in paths for prefix in ("transformer", *cls.COMFYUI_PREFIXES)}
        stems |= {stem for prefix in cls.COMFYUI_UNDERSCORED for stem in _all_underscored(prefix, paths)}
    return frozenset(stems | _t5_stems(family) | _clip_stems(family))


@cache
def _a1111_stems(family: str) -> frozenset[str]:
    stems = _all_underscored("lora_unet", layer_names.layers(family)) | _all_underscored("lora_unet", _original_names(family))
    return frozenset(stems | set(layer_names.text_layers(family).values()))


@cache
def _kohya_stems(family: str) -> frozenset[str]:
    """What diffusers' converters of kohya files know: the usual names, of transformers those of blocks alone, and OneTrainer's
    of their attention."""
    text = set(layer_names.text_layers(family).values())
    stems = layer_names.kohya_paths(family)
    if layer_names.denoiser_folder(family) == "unet":
        return frozenset(text | set(stems))
    layers = layer_names.layers(family)
    attention = [path for path in layers if ".attn." in path]
    in_blocks = {stem for stem, paths in stems.items() if _in_blocks(family, paths[0])}
    own = {f"{prefix}{path}" for prefix in families.load(family).DIFFUSERS_CONVERTS for path in layers}
    of_onetrainer = (
        _all_underscored("lora_transformer", attention) if "lora_transformer" in families.load(family).COMFYUI_UNDERSCORED else set()
    )
    return frozenset(text | in_blocks | own | of_onetrainer)


@cache
def _renamed(family: str) -> frozenset[str]:
    """Original names before the prefixes under which diffusers converts them, and its own paths that it takes there."""
    cls = families.load(family)
    own = [path for path in layer_names.layers(family) if cls.DIFFUSERS_CONVERTS_PATHS and re.search(cls.DIFFUSERS_CONVERTS_PATHS, path)]
    return frozenset(f"{prefix}{name}" for prefix in cls.DIFFUSERS_CONVERTS_ORIGINAL for name in (*_original_names(family), *own))


@cache
def dotted(family: str) -> frozenset[str]:
    """diffusers' own paths: of U-Nets also attention's as its old processors had them."""
    folder, paths = layer_names.denoiser_folder(family), layer_names.layers(family)
    old = {stem for path in paths if ".to_" in path for stem in old_stems(path) if stem.startswith("unet.") and stem.endswith("_lora")}
    return frozenset({f"{folder}.{path}" for path in paths} | (old if folder == "unet" else set()) | set(layer_names.text_layers(family)))


def product(left: tuple[int, ...] | None, right: tuple[int, ...] | None) -> tuple[int, int] | None:
    """The shape of two factors' product, where both are there."""
    return (left[0], right[1]) if left and right else None
