"""What a training needs of a card's memory, and the rungs that bring it down to what is there: checkpointing, fewer bits for
the base, 8-bit Adam, swapped blocks. Rank, targets and resolution change what is learned, and are only suggested."""

from __future__ import annotations

import dataclasses
import gc
import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from torch import nn

from lorakit import device, files
from lorakit.bases import families, quantised, single_file
from lorakit.bases.block_swap import repeated_blocks
from lorakit.bases.families.base import Family
from lorakit.bases.folder import read_config
from lorakit.console import say
from lorakit.project import Project
from lorakit.project.catalog import Card
from lorakit.settings import Train
from lorakit.train import crew, lora, memory
from lorakit.weights import Source, hub_errors_in_words

GB = 2**30
MARGIN = 1.1  # of the prediction: gaps of the allocator, workspaces of the libraries; a guess until it is measured
CONTEXT = device.CONTEXT
STATE = {"adamw": 2.0, "adamw8bit": 2 * (1 + 4 / 256) / 4, "lion": 1.0, "prodigy": 4.0, "schedulefree": 2.0, "adafactor": 0.1}
COSTS = {
    "train.gradient_checkpointing": "1.4 to 1.8 times the time of a step",
    "train.base_precision": "a little of the base's exactness; time not measured",
    "train.optimizer": "moments in 8 bits; time not measured",
    "train.swap_blocks": "weights travel to the card twice a step; time not measured",
}  # the first from others' H100 rows, see docs/memory.md


@dataclass(frozen=True)
class Need:
    """GB of live tensors of one step, by what they are."""

    weights: float
    adapter: float
    optimizer: float
    activations: float
    away: float = 0.0  # of the weights, in the machine's memory
    summed: float = 0.0  # of several processes: the tensor in which they add their gradients up

    @property
    def parts(self) -> dict[str, float]:
        """What lies on the card, as it is shown."""
        shown = {"weights": self.weights - self.away, "adapter": self.adapter, "optimizer": self.optimizer, "activations": self.activations}
        return shown | ({"gradient_sum": self.summed} if self.summed else {})

    @property
    def peak(self) -> float:
        return sum(self.parts.values())

    @property
    def card(self) -> float:
        """What the card must have free for it, beside CUDA's own."""
        return MARGIN * self.peak


@dataclass(frozen=True)
class Fit:
    """Settings with the rungs turned on that a budget asks for."""

    settings: Train
    rungs: dict[str, Any]  # {"train.base_precision": "nf4", ...} in the order in which they were turned on
    need: Need
    budget: float | None  # GB; None: not asked for
    skipped: tuple[str, ...] = ()  # why a rung could not be turned on

    @property
    def is_enough(self) -> bool:
        return self.budget is None or self.need.card <= self.budget


class Base:
    """What arithmetic needs to know of a base: its denoiser and its text encoders without weights; these as published, where
    `encoder_configs` does not say."""

    def __init__(self, card: Card, config: dict[str, Any], usual: str = "bf16", encoder_configs: memory.EncoderConfigs | None = None):
        self.card, self.config, self.usual = card, config, usual
        self.cls: type[Family] = families.load(card.family)
        self.encoder_configs = {**self.cls.encoder_configs_of(card.name), **(encoder_configs or {})}
        self._blocks: dict[tuple[str, int], list[float]] = {}

    def held(self, settings: Train) -> str:
        """How the base is held: `auto` leaves a single file in fp8 as it is."""
        return self.usual if settings.base_precision == "auto" else settings.base_precision

    @cached_property
    def model(self) -> nn.Module:
        plain = Train(base_precision="bf16")
        return memory.family_without_weights(self.cls, self.config, plain, torch.bfloat16).denoiser

    @cached_property
    def few(self) -> set[str]:
        return {f"{name}.weight" for name in quantised.quantised_layers(self.model)}

    def bytes_of(self, part: nn.Module, prefix: str, held: str, width: int = 2) -> int:
        """What the tensors of a part of the denoiser take, its layers held in bf16, fp8 or nf4, all else in numbers of `width` bytes."""
        total = 0
        for name, parameter in part.named_parameters():
            if held in quantised.PRECISIONS and prefix + name in self.few:
                packed, scale = quantised.packed_shapes(*parameter.shape, held)
                total += torch.Size(packed).numel() + torch.Size(scale).numel() * quantised.SCALE_DTYPES[held].itemsize
            else:
                total += parameter.numel() * width
        return total + sum(buffer.numel() * width for buffer in part.buffers())

    def blocks(self, held: str, width: int = 2) -> list[float]:
        """GB of every block that can be swapped, in the order of their calls."""
        if (held, width) not in self._blocks:
            names = {module: name for name, module in self.model.named_modules()}
            sizes = [self.bytes_of(block, f"{names[block]}.", held, width) / GB for block in repeated_blocks(self.model, self.cls.BLOCKS)]
            self._blocks[held, width] = sizes
        return self._blocks[held, width]

    def adapter(self, settings: Train) -> float:
        """GB of the adapter in fp32, that of text encoders that learn in it."""
        family = memory.family_without_weights(self.cls, self.config, Train(base_precision="bf16"), torch.bfloat16)
        with torch.device("meta"):
            size = sum(p.numel() * 4 for p in lora.add_lora(family, dataclasses.replace(settings, text_encoder=False)))
        layers = [layer for encoder in self.encoders(settings).values() for layer in lora.text_layers(encoder)]
        return (size + sum(4 * settings.rank * (layer.in_features + layer.out_features) for layer in layers)) / GB

    def encoders(self, settings: Train) -> dict[str, nn.Module]:
        """The text encoders that learn, without weights. Where lorakit knows nothing of them: none."""
        with torch.device("meta"):
            return {
                name: memory.encoder_without_weights(self.cls, name, self.encoder_configs)
                for name in self.cls.ENCODERS
                if name in self.cls.encoders_that_learn(settings) and name in self.encoder_configs
            }

    def encoder_weights(self, settings: Train) -> float:
        """GB of these: CLIP's in fp32, T5's in the base's precision."""
        widths = {name: width_of(settings) if name in self.cls.t5_encoders() else 4 for name in self.cls.ENCODERS}
        return sum(p.numel() * widths[name] for name, encoder in self.encoders(settings).items() for p in encoder.parameters()) / GB


def need(base: Base, settings: Train, adapter: float | None = None) -> Need:
    """Of a step at the largest bucket. Activations are the card's rows where these have the settings, else counted on fake
    tensors, which takes seconds to minutes once and is kept for this user."""
    adapter = base.adapter(settings) if adapter is None else adapter
    held, width = base.held(settings), width_of(settings)
    weights = base.bytes_of(base.model, "", held, width) / GB + base.encoder_weights(settings)
    away = 0.0
    if settings.swap_blocks:
        swapped = base.blocks(held, width)[-settings.swap_blocks :]
        away = max(0.0, sum(swapped) - 2 * max(swapped))  # two of them are on the card at once
    activations = activations_of(base, settings)
    return Need(weights, adapter, adapter * STATE.get(settings.optimizer, 2.0), activations, away, adapter if crew.count() > 1 else 0.0)


def width_of(settings: Train) -> int:
    """Bytes of a number of the base that is not held in few bits."""
    return 4 if settings.precision == "fp32" else 2


def activations_of(base: Base, settings: Train) -> float:
    """GB; where text encoders learn, with theirs, if lorakit knows what the base's are."""
    learns = bool(base.encoders(settings))
    usual = base.card.settings.get("train.targets", "linear")
    plain = (
        settings.batch_size == 1 and settings.targets == usual and settings.adapter == "lora" and not settings.preservation and not learns
    )
    for row in base.card.memory if plain and width_of(settings) == 2 else ():
        if (row["resolution"], row["checkpointing"]) == (settings.resolution, settings.checkpoints_gradients):
            return row["activations"]
    facts = {key: value for key, value in dataclasses.asdict(settings).items() if key in COUNTED}
    checkpointing = settings.checkpoints_gradients
    path = (
        user_cache()
        / "memory"
        / f"{files.short_hash('3', base.cls.NAME, dict(base.config), facts, learns and settings.t5, learns and base.encoder_configs, width_of(settings), checkpointing, torch.__version__)}.json"
    )
    if not path.is_file():
        plain = dataclasses.replace(
            settings, base_precision="bf16", optimizer="adamw", text_encoder=learns, gradient_checkpointing="on" if checkpointing else "off"
        )
        say("memory    counts what a step takes, on tensors without values: once for these settings, in up to a minute")
        dtype = torch.float32 if width_of(settings) == 4 else torch.bfloat16
        shape = memory.Shape(settings.batch_size, settings.resolution, settings.resolution, dtype)
        found = memory.predict_step(base.cls, dict(base.config), plain, shape, base.encoder_configs)
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path, {"activations": found.activations / GB})
    return json.loads(path.read_text(encoding="utf-8"))["activations"]


COUNTED = (
    "batch_size",
    "resolution",
    "targets",
    "adapter",
    "rank",
    "include",
    "exclude",
    "block_ranks",
    "preservation",
    "lokr_factor",
    "loss",
)


def user_cache() -> Path:
    """Where lorakit keeps what is true of this machine, whatever the project."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lorakit"


def fit(base: Base, settings: Train, budget: float | None, free: frozenset[str] = frozenset()) -> Fit:
    """Turn on one rung after another until the need is within the budget; only those that the settings leave to the machine:
    `auto`, and the names of settings in `free`, which nobody has set."""
    adapter = base.adapter(settings)
    rungs: dict[str, Any] = {}
    skipped: list[str] = []
    now = need(base, settings, adapter)
    for key, value, lacks in ladder(base, settings, free):
        if budget is None or now.card <= budget:
            break
        if lacks:
            skipped.append(lacks)
            continue
        settings, rungs[key] = with_rungs(settings, {key: value}), value
        now = need(base, settings, adapter)
    return Fit(settings, rungs, now, budget, tuple(skipped))


def with_rungs(settings: Train, rungs: Mapping[str, Any]) -> Train:
    return dataclasses.replace(settings, **{key.removeprefix("train."): value for key, value in rungs.items()})


def ladder(base: Base, settings: Train, free: frozenset[str], where: str = "cuda") -> Iterator[tuple[str, Any, str | None]]:
    """(setting, value, what it lacks here) of all rungs that the settings leave to the machine, in the order of what they cost."""
    bits = importlib.util.find_spec("bitsandbytes") is not None
    checkpoints = settings.checkpoints_gradients
    if settings.gradient_checkpointing == "auto" and not checkpoints:
        checkpoints = True
        yield "train.gradient_checkpointing", "on", None
    if settings.base_precision == "auto" and not where.startswith("mps"):
        if base.usual != "fp8":
            yield "train.base_precision", "fp8", None
        yield "train.base_precision", "nf4", None if bits else 'nf4 wants bitsandbytes: pip install "lorakit[4bit]"'
    if settings.optimizer == "adamw" and "train.optimizer" in free:
        yield "train.optimizer", "adamw8bit", None if bits else '8-bit Adam wants bitsandbytes: pip install "lorakit[8bit]"'
    if checkpoints and "train.swap_blocks" in free and not settings.compile:
        for count in range(3, len(repeated_blocks(base.model, base.cls.BLOCKS)) + 1):
            yield "train.swap_blocks", count, None


def free_settings(project: Project) -> frozenset[str]:
    """Settings that nobody has set, of those that have no `auto`."""
    return frozenset(key for key in ("train.optimizer", "train.swap_blocks") if project.settings.origin[key] == "default")


def budget_of(where: str, vram: float | None = None) -> float | None:
    """GB that a training may take: of a card of `vram` GB, else of what is free on `where`; None where memory is the machine's."""
    release(where)
    free = device.free_gb(where) if vram is None else vram
    return None if free is None else free - CONTEXT


def release(where: str) -> None:
    """Let go of what nobody holds any more: else it counts as taken."""
    gc.collect()
    if where.startswith("cuda"):
        torch.cuda.empty_cache()


def base_of(project: Project) -> Base:
    """Of a project, by its base's configurations; where these lie on the hub and not here, by the card's as published."""
    cls, source = families.load(project.card.family), project.base_source
    if source.configs:
        file = single_file.open_source(source, cls.NAME)
        return Base(project.card, single_file.denoiser_config(cls, file), "fp8" if file.is_fp8 else "bf16", file.layout.encoder_configs)
    if project.card.builder and not (Path(source.location) / "model_index.json").is_file():
        from lorakit.bases.load import base_source

        source = base_source(project)
    if source.is_local:
        with hub_errors_in_words(source):
            config = cls.DENOISER.load_config(source.location, subfolder=cls.FOLDER)
    else:
        config = _read_config(source, cls.FOLDER) or cls.config_of(project.card.name)
    encoders = {name: own for name in cls.ENCODERS if (own := _read_config(source, name))}
    return Base(project.card, {key: value for key, value in dict(config).items() if not key.startswith("_")}, encoder_configs=encoders)


def _read_config(source: Source, part: str) -> Mapping[str, Any]:
    """A part's configuration, from the folder or from what was once loaded from the hub; empty where it is in neither."""
    if source.is_local:
        return read_config(Path(source.location) / part)
    found = source.location and try_to_load_from_cache(source.location, f"{part}/config.json")
    return read_config(Path(found).parent) if isinstance(found, str) and found else {}
