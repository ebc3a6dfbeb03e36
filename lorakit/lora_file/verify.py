"""What each tool will load of a LoRA file, and how strong: rules written from the formats that the tools read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from lorakit.bases import families, layer_names
from lorakit.bases.layer_names import OddForm, underscored
from lorakit.errors import LorakitError, UnknownName
from lorakit.lora_file import faults, names, strangers
from lorakit.lora_file.names import ADAPTER, KOHYA, LOKR, LYCORIS, OLD, OLD_ATTENTION, OLD_TEXT, PAIRS, PEFT, old_stems, split_key

TOOLS = ("comfyui", "a1111", "forge", "diffusers")
FORGE_LIMIT = 12  # with more unknown keys than this Forge loads nothing of a file

_FORGE = ("alpha", *KOHYA, *PEFT, *OLD, *OLD_TEXT, *OLD_ATTENTION, *LYCORIS)
SUFFIXES = {"comfyui": (*_FORGE, *ADAPTER), "forge": _FORGE, "a1111": ("alpha", *KOHYA, *LYCORIS)}

_REFUSED = "it takes no key of such a name"

Shapes = Mapping[str, tuple[int, ...]]  # of a file's tensors


@dataclass(frozen=True)
class Judgement:
    """What one tool makes of a file."""

    tool: str
    loaded: tuple[str, ...]  # keys
    skipped: Mapping[str, str] = field(default_factory=dict)  # key -> why
    wrong_scale: Mapping[str, float] = field(default_factory=dict)  # layer -> strength it gets over the one it says
    is_known: bool = True  # whether the file's base is one that lorakit knows: of others it cannot judge

    @property
    def is_whole(self) -> bool:
        return self.is_known and not self.skipped and not self.wrong_scale


def judge_file(path: Path, tools: tuple[str, ...] = TOOLS, family: str | None = None) -> tuple[str | None, list[Judgement]]:
    """(the base's family, one judgement a tool) of a `.safetensors` LoRA file."""
    shapes, about, alphas = _read_header(path)
    return judge(shapes, tools, _peft_alpha(about), family or find_family(shapes, about), alphas)


def _read_header(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str], dict[str, float]]:
    """(shapes by key, the header's words, alphas by layer) of a file, none of whose factors is read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:  # numpy has no bf16
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
            single = [key for key, shape in shapes.items() if key.endswith(".alpha") and shape in ((), (1,))]
            return shapes, file.metadata() or {}, {key.removesuffix(".alpha"): float(file.get_tensor(key)) for key in single}
    except (OSError, SafetensorError) as error:
        raise LorakitError(f"{path}: cannot be read as .safetensors ({error})") from None


def read_shapes(path: Path) -> Shapes:
    """{key: shape} of a file. Raises `LorakitError` where it is no .safetensors."""
    return _read_header(path)[0]


def judge(
    shapes: Shapes,
    tools: tuple[str, ...] = TOOLS,
    peft_alpha: float | None = None,
    family: str | None = None,
    alphas: Mapping[str, float] | None = None,
) -> tuple[str | None, list[Judgement]]:
    """(the base's family, one judgement a tool) of a file's keys and shapes; `peft_alpha` is what its header says, and
    `alphas` what its layers' alpha tensors say (left out, their strength is not judged). The family is found where it is not given."""
    unknown = [tool for tool in tools if tool not in TOOLS]
    if unknown:
        raise UnknownName("tool", unknown[0], list(TOOLS))
    family = family or find_family(shapes)
    return family, [_judge_for(tool, family, shapes, peft_alpha, alphas or {}) for tool in tools]


def find_family(shapes: Shapes, about: Mapping[str, str] | None = None) -> str | None:
    """The family that most of a file's layers are of, by their names in any form and their widths; where several have as many (a part of
    FLUX.1's blocks are called as FLUX.2 klein's, and as wide), the one that its header is `about`. None where none has more than half
    of them: names alone do not tell, since other models call their layers alike."""
    for name in families.names():
        for form in families.load(name).ODD_FORMS:
            if any(form.key.fullmatch(key) for key in shapes):
                return name
    sizes = {stem: _size(stem, shapes) for stem in {split_key(key)[0] for key in shapes}}
    found = {name: _count_fits(name, sizes) for name in families.names()}

    said = _family_said(about or {})

    def rank(name: str) -> tuple[int, int, bool, int, int]:
        """CLIP's layers alone are the one's that most tools know; of names that several have it is the one of which ComfyUI knows them."""
        known = len(sizes.keys() & _comfyui_stems(name))
        return found[name].fit, found[name].exact, name == said, len(families.load(name).TOOLS), known

    best = max(families.names(), key=rank)
    return best if found[best].fit > found[best].misfit else None


def _family_said(about: Mapping[str, str]) -> str | None:
    """The family whose bases the header of a file names, as trainers do: flux2_klein_4b, flux-2-klein-4b/lora."""
    words = [re.sub(r"[^a-z0-9]", "", about.get(key, "").lower()) for key in ("ss_base_model_version", "modelspec.architecture")]
    begins = {name: families.load(name).IN_HEADERS for name in families.names()}
    said = [name for name, start in begins.items() if start and any(word.startswith(start) for word in words)]
    return max(said, key=lambda name: len(begins[name]), default=None)  # flux2dev is no flux2


@dataclass(frozen=True)
class _Fits:
    fit: int = 0  # layers that a family has, as wide as its bases or as a small one of the same build
    exact: int = 0  # those of them that are as wide as in one of its bases
    misfit: int = 0  # layers that it has not, or that are of another width


def _count_fits(family: str, sizes: Mapping[str, tuple[int, int] | None]) -> _Fits:
    known, fit, exact, misfit = names.layers_by_stem(family), 0, 0, 0
    for stem, size in sizes.items():
        if stem not in known:
            misfit += size is not None  # what is no layer at all does not count
            continue
        wanted = _sizes(family, known[stem].paths)
        if size in wanted:
            exact += 1
        # Of text encoders and of some forms the width is not known. Tiny bases are built as the real ones, but half as wide at most.
        if size in wanted or size is None or not wanted or any(2 * size[0] <= out and 2 * size[1] <= into for out, into in wanted):
            fit += 1
        else:
            misfit += 1
    return _Fits(fit, exact, misfit)


def _size(stem: str, shapes: Shapes) -> tuple[int, int] | None:
    """(outputs, inputs) of the layer that a file changes; None where its tensors do not tell."""
    of = {suffix: shapes[f"{stem}.{suffix}"] for suffix in names.SUFFIXES if len(shapes.get(f"{stem}.{suffix}", ())) > 1}
    for down, up in PAIRS:
        if down in of and up in of:
            return of[up][0], of[down][1]
    if "hada_w1_a" in of and "hada_w1_b" in of and "hada_t1" not in of:
        return of["hada_w1_a"][0], of["hada_w1_b"][1]
    first, second = (of.get(name) or _product(of.get(f"{name}_a"), of.get(f"{name}_b")) for name in ("lokr_w1", "lokr_w2"))
    return (first[0] * second[0], first[1] * second[1]) if first and second and "lokr_t2" not in of else None


def _product(left: tuple[int, ...] | None, right: tuple[int, ...] | None) -> tuple[int, int] | None:
    return (left[0], right[1]) if left and right else None


@cache
def _sizes(family: str, paths: tuple[str, ...]) -> frozenset[tuple[int, int]]:
    """(outputs, inputs) of these layers of the denoiser, one above the other, in each of the family's bases that has them; none of text encoders."""
    inner = [path.removeprefix(f"{layer_names.denoiser_folder(family)}.") for path in paths]
    having = [member for member in layer_names.members(family) if all(path in member for path in inner)]
    return frozenset((sum(member[path][0] for path in inner), member[inner[0]][1]) for member in having)


def base_in_words(family: str | None, shapes: Shapes) -> str:
    """'sd15 (Stable Diffusion 2)'; where no family is known, what else the file looks like."""
    if family is None:
        other = strangers.looks_like(shapes)
        return f"none that lorakit knows (looks like {other})" if other else "none that lorakit knows"
    title = layout_title(family, shapes)
    return f"{family} ({title})" if title else family


def layout_title(family: str, shapes: Shapes) -> str | None:
    """The title of the family's base that a file's layers are of, where its bases differ in the width of the text they read."""
    layouts = [layout for layout in families.load(family).LAYOUTS if layout.text_width]
    reads = {size[1] for key in shapes if "attn2" in key and "to_k" in key and (size := _size(split_key(key)[0], shapes))}
    return next((layout.title for layout in layouts if layout.text_width in reads), None) if len(layouts) > 1 else None


def _judge_for(tool: str, family: str | None, shapes: Shapes, peft_alpha: float | None, alphas: Mapping[str, float]) -> Judgement:
    if family is None:
        return Judgement(tool, (), {key: _why_unknown(key) for key in shapes}, is_known=False)
    if tool not in families.load(family).TOOLS:
        return Judgement(tool, (), dict.fromkeys(shapes, f"{tool} does not load LoRAs of {family}"))
    skipped = {key: why for key, why in _reasons(tool, family, shapes).items() if why}
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
    return "no base that lorakit knows has layers of such names and widths"


def _reasons(tool: str, family: str, shapes: Shapes) -> dict[str, str]:
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
    return takes and tensor.suffix == "alpha" and tensor.stem in _dotted(tensor.family)


def _is_read_by_diffusers(tensor: _Tensor) -> bool:
    if tensor.stem.endswith("_lora"):
        return tensor.suffix in OLD_ATTENTION
    old = OLD_TEXT if tensor.stem.startswith("text_encoder") else OLD
    return not _converts(tensor) and tensor.suffix in (*PEFT, *old, "lora_magnitude_vector")


def _why_no_lokr(tensor: _Tensor) -> str:
    """Why diffusers does not take a tensor of a LoKr file; empty where it does."""
    form = next((form for form in tensor.base.DIFFUSERS_LOKR if _is_of(form, tensor.shapes)), None)
    if form is None or tensor.suffix not in (*LOKR[:-1], *(["alpha"] if form.alphas else [])):
        return f"{_REFUSED} in a LoKr file"
    if tensor.stem not in _lokr_stems(tensor.family, form):
        return f"{_REFUSED} in a LoKr file"
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
        first, second = (own.get(name) or _product(own.get(f"{name}_a"), own.get(f"{name}_b")) for name in ("lokr_w1", "lokr_w2"))
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
    (lambda t: t.stem not in _comfyui_stems(t.family), lambda t: f"{t.tool} knows no layer of this name"),
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
    (lambda t: t.suffix.startswith(("lokr_", "hada_")), f"{_REFUSED}, LoKr's and LoHa's"),
    (lambda t: _renames(t) and (t.suffix not in PEFT or t.stem not in _renamed(t.family)), f"{_REFUSED} in a file of original names"),
    (_renames, _Tensor.broken),
    (lambda t: t.suffix in LYCORIS, "diffusers loads no LyCORIS layers of this base"),
    (lambda t: _converts(t) and t.stem not in _kohya_stems(t.family), f"{_REFUSED} in a kohya file"),
    (lambda t: _converts(t) and _is_convertible(t), _Tensor.broken),
    (_is_alpha_of_a_layer, ""),
    (lambda t: not _converts(t) and t.suffix == "alpha", f"{_REFUSED} of an alpha"),
    (lambda t: not _converts(t) and t.stem in _t5_stems(t.family), "diffusers loads no LoRA of T5"),
    (lambda t: not _converts(t) and t.stem not in _dotted(t.family) and t.stem.startswith("base_model."), _REFUSED),
    (lambda t: not _converts(t) and t.stem not in _dotted(t.family), "diffusers passes over layers of this name"),
    (lambda t: t.suffix == "lora_magnitude_vector" and t.stem.startswith("text_encoder"),
     "diffusers leaves DoRA's lengths in text encoders out, so these layers change in another way than they were trained to"),
    (_is_read_by_diffusers, _Tensor.broken),
    (lambda t: True, lambda t: f"diffusers does not know {t.suffix}"),
)  # fmt: skip


def _wrong_scales(tool: str, loaded: tuple[str, ...], shapes: Shapes, peft_alpha: float | None) -> dict[str, float]:
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
    if layer_names.denoiser_folder(family) != "unet":
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
def _comfyui_stems(family: str) -> frozenset[str]:
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
def _dotted(family: str) -> frozenset[str]:
    """diffusers' own paths: of U-Nets also attention's as its old processors had them."""
    folder, paths = layer_names.denoiser_folder(family), layer_names.layers(family)
    old = {stem for path in paths if ".to_" in path for stem in old_stems(path) if stem.startswith("unet.") and stem.endswith("_lora")}
    return frozenset({f"{folder}.{path}" for path in paths} | (old if folder == "unet" else set()) | set(layer_names.text_layers(family)))


def in_words(judgement: Judgement) -> Iterator[str]:
    """The judgement in lines: the counts, then each reason with how many keys it holds for and the first of them."""
    total = len(judgement.loaded) + len(judgement.skipped)
    if not judgement.is_known:
        reason, count = Counter(judgement.skipped.values()).most_common(1)[0] if total else ("the file is empty", 0)
        yield f"{judgement.tool:<10} not judged: {reason} ({count} of {total} keys)"
        return
    yield f"{judgement.tool:<10} loads {len(judgement.loaded)} of {total} keys"
    for reason, count in Counter(judgement.skipped.values()).most_common():
        first = next(key for key, why in judgement.skipped.items() if why == reason)
        yield f"{'':<10} {count} not loaded: {reason}, as {first}"
    if judgement.wrong_scale:
        layer, factor = next(iter(judgement.wrong_scale.items()))
        yield f"{'':<10} {len(judgement.wrong_scale)} layers at the wrong strength: {factor:g} times what was trained, as {layer}"
