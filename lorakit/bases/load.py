"""Loading a project's base: its family, its weights, the device and the precision."""

from __future__ import annotations

import importlib
from pathlib import Path

import torch

from lorakit import device
from lorakit.bases import families, quantised, single_file
from lorakit.bases.families.base import Family
from lorakit.errors import LorakitError
from lorakit.project import Project
from lorakit.project.catalog import check_family
from lorakit.weights import Source


def load_family(project: Project) -> Family:
    """The project's base, ready to encode, train and sample; weights that are built on this machine are built first."""
    source = base_source(project)
    where = device.choose(project.device)
    device.limit(where, project.vram)
    settings = project.settings.train
    check_base_precision(settings.base_precision, where)
    return families.load(project.card.family)(source, where, compute_dtype(settings.precision, where), settings)


def base_source(project: Project) -> Source:
    """Where the base's weights are, built if it is one that is built here."""
    check_family(project.card)
    source = project.base_source
    if project.card.builder and not project.settings.train.weights and not (Path(source.location) / "model_index.json").is_file():
        importlib.import_module(f"lorakit.bases.{project.card.builder}").build(Path(source.location))
    return source


def write_configs(project: Project) -> None:
    """All that loading a base writes to the disk: what is built here, and the configurations of a single file."""
    source = base_source(project)
    if source.configs:
        cls = families.load(project.card.family)
        single_file.configs_of(cls, source, single_file.open_source(source, cls.NAME))


def check_base_precision(wanted: str, where: str) -> None:
    """Raises `LorakitError` where the base cannot be held like this: a package is missing, or Apple's GPUs know no such numbers."""
    if wanted in quantised.PRECISIONS:
        quantised.check_available(wanted)
        if where.startswith("mps"):
            raise LorakitError(f"train.base_precision = {wanted}: not on Apple's GPUs; take bf16, or --device cpu")


def check_numbers(family: type[Family], title: str, dtype: torch.dtype) -> None:
    """Raises `LorakitError` for a base that overflows in this precision."""
    if dtype == torch.float16 and not family.FP16:
        raise LorakitError(
            f"{title} gives no numbers in fp16, and bf16 is beyond cards before NVIDIA's 30xx: on this one take another base, or "
            "train.precision=fp32 where the memory is enough; on a newer one train.precision=bf16"
        )


def compute_dtype(precision: str, where: str) -> torch.dtype:
    """'auto': bf16 where the GPU has it, else fp16; fp32 on a CPU and on Apple's GPUs."""
    if precision == "auto":
        if not where.startswith("cuda"):
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if precision == "fp16" and where == "cpu":
        raise LorakitError("train.precision = fp16 needs a GPU; on a CPU use fp32 or bf16")
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
