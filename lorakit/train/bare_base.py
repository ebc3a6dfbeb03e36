"""A base's architecture without its weights, into which a LoRA file is loaded as a user of diffusers does: so that a converted file is
tried and not only judged by its keys."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lorakit.bases import families
from lorakit.bases.families.base import Family
from lorakit.errors import LorakitError
from lorakit.lora_file import verify
from lorakit.lora_file.formats import LayerAdapter, LoraLayer
from lorakit.project import catalog
from lorakit.settings import Train
from lorakit.train import export, lora, memory
from lorakit.weights import quiet_libraries

Shape = tuple[int, int]  # outputs, inputs


def try_in_diffusers(path: Path, network: Mapping[str, LayerAdapter], family: str) -> str:
    """Load the file at `path` and hold every layer against `network`. Returns what was done, in words; raises `LorakitError` where
    diffusers plays a layer otherwise."""
    if not all(isinstance(change, LoraLayer) for change in network.values()):
        return "judged by its keys only: diffusers loads no LoKr or LoHa"
    if not verify.judge_file(path, ("diffusers",), family)[1][0].is_whole:
        return "judged by its keys only: diffusers does not load all of it"
    quiet_libraries()
    wanted = {name: _shape_of(change) for name, change in network.items() if isinstance(change, LoraLayer)}
    found = next((base for _, base in _bases(family, wanted) if _fits(base, wanted)), None)
    if found is None:
        return "judged by its keys only: the configuration of its base is not at hand"
    try:
        export.load_in_diffusers(path, dict(network), found)
    except LorakitError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise LorakitError(f"{path.name}: diffusers does not load it ({' '.join(str(error).split())[:200]})") from None
    return f"loaded in a diffusers pipeline of {family}'s architecture: all {len(wanted)} layers as written"


def _shape_of(change: LoraLayer) -> Shape:
    return change.up.shape[0], change.down.flatten(1).shape[1]


def _bases(family: str, wanted: Mapping[str, Shape]) -> Iterator[tuple[str, Family]]:
    """The family's architectures, full-size ones and those of cards whose weights lie beside them."""
    cls = families.load(family)
    encoders = {name.partition(".")[0] for name in wanted} - {cls.FOLDER}
    for card in ("", *cls.MEMBERS):  # the usual base first
        yield family, _without_weights(cls, cls.config_of(card), encoders, cls.encoder_configs_of(card))
    for card in catalog.cards():
        if card.family == family and card.folder:
            folder = card.path.parent / card.folder
            config = cls.DENOISER.load_config(str(folder), subfolder=cls.FOLDER)
            configs = {name: json.loads((folder / name / "config.json").read_text(encoding="utf-8")) for name in encoders}
            yield card.name, _without_weights(cls, {k: v for k, v in config.items() if not k.startswith("_")}, encoders, configs)


def _without_weights(cls: type[Family], config: dict[str, Any], encoders: set[str], encoder_configs: memory.EncoderConfigs) -> Family:
    learns = Train(base_precision="bf16", text_encoder=bool(encoders), t5=bool(encoders & set(cls.t5_encoders())))
    family = memory.family_without_weights(cls, config, learns, torch.float32, encoder_configs)
    for model in lora.models(family).values():
        _take_no_memory(model)
    return family


def _take_no_memory(model: nn.Module) -> None:
    """Zeros of one number in place of the weights on the meta device, to which peft would move what it loads."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(torch.zeros(()).expand(parameter.shape), requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_meta:
                module._buffers[name] = torch.zeros((), dtype=buffer.dtype).expand(buffer.shape)


def _fits(family: Family, wanted: Mapping[str, Shape]) -> bool:
    shapes = {}
    for folder, model in lora.models(family).items():
        for path, module in model.named_modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                weight = module.weight.flatten(1).shape
                shapes[lora.canonical_name(folder, path)] = (weight[0], weight[1])
    return all(shapes.get(name) == shape for name, shape in wanted.items())
