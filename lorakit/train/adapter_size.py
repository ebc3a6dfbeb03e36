"""How large an adapter will be, known before any weights are loaded: the base's layers on the meta device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from lorakit.bases import families, single_file
from lorakit.bases.families.base import Family
from lorakit.bases.load import base_source
from lorakit.bases.streaming import without_memory
from lorakit.console import say
from lorakit.lora_file import formats
from lorakit.project import Project
from lorakit.settings import Train
from lorakit.train import export, lora
from lorakit.weights import Source, hub_errors_in_words


@dataclass
class Skeleton:
    """The parts of a base that learn, without memory: all that `lora` asks of a family."""

    FOLDER: str
    TARGETS: Mapping[str, tuple[str, ...]]
    NOT_TARGETS: str
    denoiser: nn.Module
    encoders: Mapping[str, nn.Module] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    @property
    def learning_encoders(self) -> tuple[str, ...]:
        return tuple(self.encoders)

    def encoder(self, name: str) -> nn.Module:
        return self.encoders[name]


@dataclass(frozen=True)
class Size:
    modules: int
    parameters: int  # that learn
    bytes: int  # of the file, without its metadata


def say_size(project: Project) -> None:
    """One line: layers, parameters and the file's size."""
    size = predict_size(project)
    say(f"          {size.modules} modules, {size.parameters / 1e6:.2f} M parameters; the file will have {size.bytes / 2**20:.1f} MB")


def predict_size(project: Project) -> Size:
    """The size of a project's adapter and of its file. Reads the base's configurations and no weights."""
    cls, settings = families.load(project.card.family), project.settings
    skeleton = skeleton_of(cls, base_source(project), settings.train)
    return size_of(skeleton, cls.NAME, settings.train, export.file_format(project, cls), export.DTYPES[settings.export.precision])


def skeleton_of(cls: type[Family], source: Source, settings: Train) -> Skeleton:
    names = cls.encoders_that_learn(settings)
    file = single_file.open_source(source, cls.NAME) if source.configs else None
    with hub_errors_in_words(source):
        if file:
            config = single_file.denoiser_config(cls, file)
            encoders = {name: single_file.encoder_config(cls, file, name) for name in names}
        else:
            config = cls.DENOISER.load_config(source.location, subfolder=cls.FOLDER)
            encoders = {name: cls.ENCODERS[name].config_class.from_pretrained(source.location, subfolder=name) for name in names}
    with without_memory():
        return Skeleton(
            cls.FOLDER, cls.TARGETS, cls.NOT_TARGETS, cls.DENOISER.from_config(config).requires_grad_(False),
            {name: cls.ENCODERS[name](encoder).requires_grad_(False) for name, encoder in encoders.items()},
        )  # fmt: skip


def size_of(skeleton: Skeleton, family: str, settings: Train, format: str, dtype: torch.dtype) -> Size:
    """The adapter is put in for good, on the meta device, and written to a file that holds nothing."""
    with without_memory():
        parameters = lora.add_lora(skeleton, settings)
    network = formats.from_adapter(lora.read_lora(skeleton))
    tensors = formats.write(network, family, format, dtype)
    return Size(len(network), sum(p.numel() for p in parameters), formats.file_size(tensors))
