"""`lorakit doctor`: what this machine has, and what that allows."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil

import click

LIBRARIES = (
    "torch",
    "torchvision",
    "transformers",
    "diffusers",
    "peft",
    "accelerate",
    "datasets",
    "open_clip_torch",
    "pillow",
    "pillow-heif",
)


@click.command("doctor")
def command() -> None:
    """Check the installation, the device, memory and disk, and say which bases can be trained here."""
    from lorakit import __version__, device
    from lorakit.project import catalog

    click.echo(f"lorakit {__version__}, Python {platform.python_version()}, {platform.platform()}")
    for name in LIBRARIES:
        click.echo(f"  {name:<16} {_version(name)}")
    click.echo(f"devices: {', '.join(device.available())}")
    memory = _gpu_memory_gb()
    for line in _hardware(memory):
        click.echo(f"  {line}")
    click.echo("bases:")
    for card in catalog.cards():
        click.echo(f"  {card.name:<14} {_verdict(card, memory)}")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "MISSING: pip install " + name


def _gpu_memory_gb() -> float:
    """Memory of the first CUDA card, 0 without one."""
    import torch

    return torch.cuda.get_device_properties(0).total_memory / 2**30 if torch.cuda.is_available() else 0.0


def _hardware(memory: float) -> list[str]:
    import torch

    lines = [f"{os.cpu_count()} CPU cores; {shutil.disk_usage('.').free / 2**30:.0f} GB of disk free here"]
    if memory:
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        lines.insert(0, f"{torch.cuda.get_device_name(0)}, {memory:.1f} GB, bf16 {'yes' if has_bf16 else 'no'}")
    return lines


def _verdict(card, memory: float) -> str:
    if not card.is_built:
        return f"family {card.family} cannot be trained by this version yet"
    if card.builder or card.folder:
        return "ready, offline"
    wanted = (
        f"weights: {card.size_gb:g} GB to download, or --weights FOLDER" if card.hub else "weights: a .safetensors, with --weights FILE"
    )
    cached = "weights are in the hub's cache" if card.hub and _is_cached(card.hub) else wanted
    if memory and memory < card.min_vram_gb:
        return f"wants {card.min_vram_gb:g} GB of VRAM, this card has {memory:.1f}; {cached}"
    return ("" if memory else "slow without a CUDA card; ") + cached


def _is_cached(hub: str) -> bool:
    from lorakit.bases.tokens import cached_folder

    return cached_folder(hub) is not None
