"""What each tool will load of a LoRA file, and how strong; and of which base the file is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from lorakit.bases import families, layer_names
from lorakit.errors import LorakitError, UnknownName
from lorakit.lora_file import names, strangers
from lorakit.lora_file.names import PAIRS, split_key
from lorakit.lora_file.tools import REFUSED, TOOLS, Shapes, comfyui_stems, product, reasons

FORGE_LIMIT = 12  # with more unknown keys than this Forge loads nothing of a file


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
        known = len(sizes.keys() & comfyui_stems(name))
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
    first, second = (of.get(name) or product(of.get(f"{name}_a"), of.get(f"{name}_b")) for name in ("lokr_w1", "lokr_w2"))
    return (first[0] * second[0], first[1] * second[1]) if first and second and "lokr_t2" not in of else None


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
    skipped = {key: why for key, why in reasons(tool, family, shapes).items() if why}
    if tool == "forge" and len(skipped) > FORGE_LIMIT:
        whole = f"forge throws a file away that has more than {FORGE_LIMIT} unknown keys"
        return Judgement(tool, (), {**dict.fromkeys(shapes, whole), **skipped})
    if tool == "diffusers" and (unknown := next((why for why in skipped.values() if why.startswith(REFUSED)), None)):
        return Judgement(tool, (), {**dict.fromkeys(shapes, f"diffusers refuses the whole file: {unknown}"), **skipped})
    loaded = tuple(key for key in shapes if key not in skipped)
    wrong = _uneven_alphas(family, loaded, alphas) if tool == "diffusers" else _wrong_scales(tool, loaded, shapes, peft_alpha)
    return Judgement(tool, loaded, skipped, wrong)


def _why_unknown(key: str) -> str:
    if re.match(r"lora_(unet|te\d?)_(unet|te\d?|text_encoder)_", key):
        return "the prefix stands twice, which no tool reads"
    return "no base that lorakit knows has layers of such names and widths"


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
