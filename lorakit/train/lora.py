"""The adapter: LoRA, DoRA, LoKr or LoHa, put by peft into the denoiser and the text encoders that learn, read out of them
and set again under names of lorakit's own, so that no version of peft can change what a checkpoint or a file says."""

from __future__ import annotations

import copy
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from lorakit.bases.families.base import Family
from lorakit.errors import LorakitError
from lorakit.lora_file.formats import FACTORS
from lorakit.settings import Train

NAME, START = "lorakit", "lorakit_start"  # what learns, and what is taken off again where it does not start at zero
TENSORS = ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector", *FACTORS)
TEXT_TARGETS = re.compile(  # what sd-scripts trains of CLIP ...
    r"""encoder\.(
          layers\.\d+\.        ( self_attn\.(q|k|v|out)_proj | mlp\.fc[12] )
        | block\.\d+\.layer\.\d\.( SelfAttention\.[qkvo] | DenseReluDense\.w[io](_[01])? )  # ... and of T5
    )$""",
    re.VERBOSE,
)


def add_lora(family: Family, settings: Train) -> list[nn.Parameter]:
    """Put an adapter into every target module of the denoiser, and of the text encoders where they learn; returns its
    parameters, in fp32 and alone in needing gradients.

    The start values depend on the seed alone: A Kaiming uniform, B zero, as in the paper (arXiv:2106.09685), or as
    `train.init` says. Raises `LorakitError` when a setting leaves no layer, or names none."""
    torch.manual_seed(settings.seed)
    configs = {folder: _config_of(folder, model, family, settings) for folder, model in models(family).items()}
    check_block_ranks(settings, [canonical_name(folder, path) for folder, (targets, _) in configs.items() for path in targets])
    for name in (NAME,) if settings.init == "kaiming" else (NAME, START):
        for folder, (_, config) in configs.items():
            with warnings.catch_warnings():  # that there is one adapter already: so it is meant
                warnings.simplefilter("ignore", UserWarning)
                models(family)[folder].add_adapter(copy.deepcopy(config), adapter_name=name)
    if settings.init != "kaiming":
        _start_at_the_weights(family, settings)
    parameters = [p for model in models(family).values() for p in model.parameters() if p.requires_grad]
    for parameter in parameters:  # on the card, where the block that it is in waits elsewhere too
        device = parameter.device if parameter.is_meta else family.device
        parameter.data = parameter.data.to(device, torch.float32)
    return parameters


def models(family: Family) -> dict[str, nn.Module]:
    """{'unet': ..., 'text_encoder': ...}: the parts of the base that learn, by sub-folder."""
    return {family.FOLDER: family.denoiser, **{name: family.encoder(name) for name in family.learning_encoders}}


def canonical_name(folder: str, path: str) -> str:
    """The canonical name of a module: transformers 5 has dropped the level `text_model`, files and settings keep it."""
    if not folder.startswith("text_encoder") or path.startswith("encoder.block."):  # T5 never had it
        return f"{folder}.{path}"
    return f"{folder}.{path}" if path.startswith("text_model.") else f"{folder}.text_model.{path}"


def _config_of(folder: str, model: nn.Module, family: Family, settings: Train) -> tuple[list[str], PeftConfig]:
    if folder == family.FOLDER:
        targets = find_targets(model, family.TARGETS, settings, family.NOT_TARGETS)
    else:
        targets = [name for name, _ in _text_layers(model)]
    return targets, make_config(targets, settings, folder)


def _text_layers(encoder: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Linear) and TEXT_TARGETS.search(name):
            yield name, module


def text_layers(encoder: nn.Module) -> list[nn.Linear]:
    """The layers of a text encoder that get an adapter."""
    return [layer for _, layer in _text_layers(encoder)]


def make_config(targets: list[str], settings: Train, folder: str = "") -> PeftConfig:
    """peft's configuration for these modules of a part of the base; ranks and alphas of single blocks stand in patterns,
    one a value, because peft tries every pattern on every module."""
    sizes = {path: size_of(canonical_name(folder, path), settings) for path in targets}
    usual = (settings.rank, alpha_of(settings))
    groups: dict[tuple[int, float], list[str]] = defaultdict(list)
    for path, size in sizes.items():
        if size != usual:
            groups[size].append(re.escape(path))
    patterns = {f"^(?:{'|'.join(paths)})": size for size, paths in groups.items()}
    ranks, alphas = ({pattern: size[part] for pattern, size in patterns.items()} for part in (0, 1))
    common = {"target_modules": targets, "rank_pattern": ranks, "alpha_pattern": alphas, "r": usual[0]}
    if settings.adapter == "lokr":
        return LoKrConfig(**common, alpha=usual[1], decompose_factor=settings.lokr_factor)
    if settings.adapter == "loha":
        return LoHaConfig(**common, alpha=usual[1])
    return LoraConfig(**common, lora_alpha=usual[1], use_rslora=settings.rank_stabilised, use_dora=settings.adapter == "dora")


def find_targets(denoiser: nn.Module, levels: Mapping[str, tuple[str, ...]], settings: Train, apart: str = "") -> list[str]:
    """Full names of the modules that get a LoRA; never those in which `apart` is found. Raises `LorakitError` when none is left."""
    upto = list(levels).index(settings.targets) + 1
    endings = [ending for level in list(levels)[:upto] for ending in levels[level]]
    found = [
        name
        for name, module in denoiser.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
        and is_target(name, endings)
        and not (apart and re.search(apart, name))
        and (not settings.include or re.search(settings.include, name))
        and not (settings.exclude and re.search(settings.exclude, name))
    ]
    if not found:
        raise LorakitError(f"no layer is left to train with train.targets={settings.targets}, train.include and train.exclude; widen them")
    return found


def is_target(name: str, endings: Iterable[str]) -> bool:
    """Whether a module's name ends in one of these, or is the one after a ^ (see `Family.TARGETS`)."""
    return any(name == ending[1:] if ending.startswith("^") else name.endswith(f".{ending}") for ending in endings)


def size_of(name: str, settings: Train) -> tuple[int, float]:
    """(rank, alpha) of a module: those of the last line of `train.block_ranks` whose expression its name has, else the
    usual ones. Where a line gives no alpha, the scale alpha / rank stays as it is elsewhere."""
    rank, alpha = settings.rank, alpha_of(settings)
    for expression, (own, given) in block_ranks(settings).items():
        if re.search(expression, name):
            stays = alpha if settings.rank_stabilised and settings.alpha is not None else own * alpha_of(settings) / settings.rank
            rank, alpha = own, stays if given is None else given
    return rank, alpha


def block_ranks(settings: Train) -> dict[str, tuple[int, float | None]]:
    """{expression: (rank, alpha)} of `train.block_ranks`. Raises `LorakitError` for a line that is no such thing."""
    table = {}
    for line in settings.block_ranks:
        expression, _, size = line.rpartition("=")
        rank, slash, alpha = size.partition("/")
        try:
            re.compile(expression)
            table[expression] = (int(rank), float(alpha) if slash else None)
            if not expression or table[expression][0] < 1 or (slash and float(alpha) <= 0):
                raise ValueError
        except (ValueError, re.error):
            raise LorakitError(
                f"train.block_ranks: {line!r} is not an expression with a rank; write it as mid_block: 16 or mid_block: 16/8"
            ) from None
    return table


def check_block_ranks(settings: Train, names: list[str]) -> None:
    """Raises `LorakitError` naming a line of `train.block_ranks` that no trained layer has."""
    for expression in block_ranks(settings):
        if not any(re.search(expression, name) for name in names):
            raise LorakitError(f"train.block_ranks: no trained layer is called {expression!r}; names are like {names[0]}")


def conflicts(train: Train, format: str) -> Iterator[tuple[bool, str]]:
    """(whether it is so, the line that says it) of settings of the adapter that fight each other."""
    block_ranks(train)  # that every line can be read
    lycoris = train.adapter in ("lokr", "loha")
    kind = f"train.adapter={train.adapter}"
    yield lycoris and train.rank_stabilised, f"train.rank_stabilised is for LoRA and DoRA; take it out, or {kind}"
    yield lycoris and train.lora_plus_ratio != 1, f"train.lora_plus_ratio is about LoRA's B, which {kind} has not; take it out"
    yield train.adapter != "lokr" and train.lokr_factor != -1, "train.lokr_factor is for train.adapter=lokr; take it out"
    yield train.lokr_factor == 0, "train.lokr_factor = 0: a factor has at least one row; write 1 or more, or -1"
    yield lycoris and format == "diffusers", f"{kind} cannot be loaded by diffusers; use export.format=auto"
    yield train.adapter != "lora" and train.init != "kaiming", f"train.init={train.init} is for train.adapter=lora; take one of them out"
    starts = train.from_lora is not None and train.init != "kaiming"
    yield starts, f"train.init={train.init}: train.from_lora starts at the file's change, not at the base's weights; take one of them out"
    yield train.t5 and not train.text_encoder, "train.t5 has no effect without train.text_encoder=true"
    yield (
        train.text_encoder_rate is not None and not train.text_encoder,
        "train.text_encoder_rate has no effect without train.text_encoder=true; leave it empty: --set train.text_encoder_rate=",
    )
    prodigy = "prodigy" in train.optimizer.lower() and train.text_encoder_rate is not None
    yield prodigy, "train.text_encoder_rate: prodigy finds one rate for all; take it out"


def alpha_of(settings: Train) -> float:
    """Alpha, which is the rank (scale 1) where none is set."""
    return float(settings.rank if settings.alpha is None else settings.alpha)


def file_alpha(settings: Train) -> float:
    """The alpha that a file must say so that alpha / rank is the scale that was trained with."""
    return alpha_of(settings) * (settings.rank**0.5 if settings.rank_stabilised else 1.0)


def _start_at_the_weights(family: Family, settings: Train) -> None:
    """PiSSA and OLoRA start at a part of the weights themselves. peft takes that part off the base, whose weights then are
    no longer the base's and are rounded anew; here a second, frozen adapter takes it off, so that switching both off
    leaves the base as it was, and what a file must hold is their difference."""
    for _, layer in adapted(family):
        own, start = tensors_of(layer, NAME), tensors_of(layer, START)
        if not layer.get_base_layer().weight.is_meta:
            weight = layer.get_base_layer().weight.detach().float().flatten(1)
            down, up = principal(weight, layer.r[NAME], layer.scaling[NAME], settings.init)
            for tensors in (own, start):
                _fill(tensors["lora_A.weight"], down, rows=True)
                _fill(tensors["lora_B.weight"], up, rows=False)
    set_strength(family, 1.0)


def principal(weight: Tensor, rank: int, scale: float, init: str) -> tuple[Tensor, Tensor]:
    """(down [k, in], up [out, k]) of a weight [out, in], k = min(rank, in, out): its strongest directions by randomised SVD,
    as peft's `pissa_niter_16` (PiSSA, arXiv:2404.02948), or its first by QR (OLoRA, arXiv:2406.01775)."""
    kept = min(rank, *weight.shape)
    if init == "olora":
        orthogonal, rest = torch.linalg.qr(weight)
        return rest[:kept], orthogonal[:, :kept]
    left, values, right = torch.svd_lowrank(weight, min(2 * kept + 8, *weight.shape), niter=16)  # more are sought than kept: exacter
    root = (values[:kept] / scale).sqrt()
    return root[:, None] * right[:, :kept].T, left[:, :kept] * root


def _fill(parameter: nn.Parameter, values: Tensor, rows: bool) -> None:
    """Where the rank is above the weight's own, the rest of A and of B is zero."""
    flat = torch.zeros(parameter.flatten(1).shape, device=values.device)
    flat[: len(values)] = values if rows else 0
    if not rows:
        flat[:, : values.shape[1]] = values
    parameter.data = flat.reshape(parameter.shape).to(parameter.device)


def adapted(family: Family) -> Iterator[tuple[str, BaseTunerLayer]]:
    """('unet.down_blocks.0...to_q', peft's layer) of every layer with an adapter, under canonical names."""
    for folder, model in models(family).items():
        for path, module in model.named_modules():
            if isinstance(module, BaseTunerLayer):
                yield canonical_name(folder, path), module


def tensors_of(layer: BaseTunerLayer, name: str = NAME) -> dict[str, nn.Parameter]:
    """{'lora_A.weight': parameter, ...} of the adapter `name` in a layer."""
    found = {}
    for suffix in TENSORS:
        holder = getattr(layer, suffix.removesuffix(".weight"), None)
        if holder is not None and name in holder:
            found[suffix] = holder[name] if isinstance(holder[name], nn.Parameter) else holder[name].weight
    return found


def read_lora(family: Family) -> dict[str, Tensor]:
    """{'<part>.<module>.lora_A.weight': tensor, ...} of the adapter, on the CPU; beside each module its `alpha` and `rank`,
    whose ratio scales the change, and where it did not start at zero its start values as `start.lora_A.weight`."""
    return {key: tensor.cpu() if not tensor.is_meta else tensor for key, tensor in _read(family).items()}


def _read(family: Family) -> dict[str, Tensor]:
    found = {}
    for path, layer in adapted(family):
        for name, prefix in ((NAME, ""), (START, "start.")):
            found |= {f"{path}.{prefix}{suffix}": p.detach().contiguous() for suffix, p in tensors_of(layer, name).items()}
        facts = {"alpha": float(layer.scaling[NAME] * layer.r[NAME]), "rank": layer.r[NAME]}
        found |= {f"{path}.{fact}": torch.tensor(value, device="cpu") for fact, value in facts.items()}
    return found


@torch.no_grad()
def set_lora(family: Family, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `read_lora` read. Raises `ValueError` when a tensor is missing, left over or of another shape."""
    wanted = {}
    for path, layer in adapted(family):
        for name, prefix in ((NAME, ""), (START, "start.")):
            wanted |= {f"{path}.{prefix}{suffix}": parameter for suffix, parameter in tensors_of(layer, name).items()}
    given = {key: tensor for key, tensor in tensors.items() if not key.endswith((".alpha", ".rank"))}
    faults = {
        "missing": sorted(wanted.keys() - given.keys()),
        "left over": sorted(given.keys() - wanted.keys()),
        "of another shape": sorted(key for key in wanted.keys() & given.keys() if wanted[key].shape != given[key].shape),
    }
    if any(faults.values()):
        lines = [f"{len(keys)} {what}, as {keys[0]}" for what, keys in faults.items() if keys]
        raise ValueError(f"adapter does not fit the model: {'; '.join(lines)}")
    for key, parameter in wanted.items():
        parameter.copy_(given[key])


def leave_inputs(family: Family) -> None:
    """Let peft hand on what goes into an adapter as it is, where it would bring it to the adapter's fp32: autocast rounds that copy
    back at once, to the same numbers."""
    for _, layer in adapted(family):
        layer.cast_input_dtype_enabled = False


@contextmanager
def inputs_cast(family: Family):
    """What needs to be so outside autocast."""
    layers = [layer for _, layer in adapted(family)]
    before = [layer.cast_input_dtype_enabled for layer in layers]
    for layer in layers:
        layer.cast_input_dtype_enabled = True
    try:
        yield
    finally:
        for layer, enabled in zip(layers, before, strict=True):
            layer.cast_input_dtype_enabled = enabled


def set_strength(family: Family, strength: float) -> None:
    """Scale the adapter; at 0 it is switched off, so that the base is untouched to the last bit."""
    for _, layer in adapted(family):
        layer.enable_adapters(strength != 0)
        if strength == 0:
            continue
        starts = START in layer.scaling
        if starts:
            layer.set_adapter([NAME, START])
            layer.set_scale(START, -strength)
            for parameter in tensors_of(layer, START).values():
                parameter.requires_grad_(False)
        layer.set_scale(NAME, strength)


@contextmanager
def switched_off(family: Family):
    """The base alone, its text encoders too."""
    set_strength(family, 0)
    try:
        yield
    finally:
        set_strength(family, 1)
