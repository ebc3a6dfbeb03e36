"""LoRA files made of LoRA files: another format, another rank, or several merged into one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lorakit import files
from lorakit.errors import LorakitError
from lorakit.train import formats, verify
from lorakit.train.formats import Delta, Network

ABOUT_ONE_BASE = ("ss_base_model_version", "ss_sd_model_name", "modelspec.architecture", "modelspec.implementation")


def convert(sources: Sequence[Path], out: Path, format: str, rank: int | None = None, strengths: Sequence[float] = ()) -> str:
    """Write `out` in `format` from one LoRA file, or from several merged at their strengths (1 where none is given), and
    make it of another rank if one is given. Returns the base's family.

    The change to every layer stays the same to the last bits, but for what a lower rank cannot hold.
    Raises `LorakitError` when a file cannot be read, or the files are for different bases.
    """
    if out.exists():
        raise LorakitError(f"{out}: is there already; choose another name")
    strengths = list(strengths) or [1.0] * len(sources)
    if len(strengths) != len(sources):
        raise LorakitError(f"{len(strengths)} strengths for {len(sources)} files; give one each")
    opened = [open_network(path) for path in sources]
    families = {family for family, _, _, _ in opened}
    if len(families) > 1:
        raise LorakitError(f"files for different bases cannot be merged: {', '.join(sorted(families))}")
    family, network, metadata, dtype = opened[0]
    if len(opened) > 1 or strengths != [1.0]:
        network = merge([n for _, n, _, _ in opened], strengths)
    if rank:
        network = {path: resize(delta, rank) for path, delta in network.items()}
    tensors = formats.write(network, family, format, dtype)
    kept = metadata if len(opened) == 1 and not rank else {key: metadata[key] for key in ABOUT_ONE_BASE if key in metadata}
    files.write_whole(out, lambda part: save_file(tensors, part, metadata=kept))
    return family


def open_network(path: Path) -> tuple[str, Network, dict[str, str], torch.dtype]:
    """(family, network, metadata, precision) of a LoRA file."""
    try:
        with safe_open(path, "pt") as file:
            tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise LorakitError(f"{path}: cannot be read as .safetensors ({error})") from None
    family = verify.find_family({key: tuple(tensor.shape) for key, tensor in tensors.items()})
    if family is None:
        raise LorakitError(f"{path}: no layer in it is one of a base that lorakit knows; `lorakit verify` says more")
    dtype = next(tensor.dtype for tensor in tensors.values() if tensor.dim() > 1)
    return family, formats.read(tensors, family), metadata, dtype


def merge(networks: Sequence[Network], strengths: Sequence[float]) -> Network:
    """One network whose change is the sum of all, each at its strength: the factors side by side, so nothing is lost and
    the ranks add up. Raises `LorakitError` for DoRA, whose changes do not add."""
    merged: Network = {}
    for path in dict.fromkeys(path for network in networks for path in network):
        parts = [(network[path], strength) for network, strength in zip(networks, strengths, strict=True) if path in network]
        if any(delta.magnitude is not None for delta, _ in parts):
            raise LorakitError(f"{path}: DoRA sets lengths, which cannot be added or scaled; merge plain LoRAs")
        down = torch.cat([delta.down.float() for delta, _ in parts])
        up = torch.cat([delta.up.float() * (delta.alpha / delta.rank * strength) for delta, strength in parts], dim=1)
        merged[path] = Delta(down, up, float(len(down)))
    return merged


def resize(delta: Delta, rank: int) -> Delta:
    """The nearest change of that rank (by SVD of the product, taken through the small factors); alpha = rank."""
    down, up = delta.down.double().flatten(1), delta.up.double().flatten(1) * (delta.alpha / delta.rank)
    left, left_rest = torch.linalg.qr(up)
    right, right_rest = torch.linalg.qr(down.T)
    inner_left, values, inner_right = torch.linalg.svd(left_rest @ right_rest.T, full_matrices=False)
    kept = min(rank, len(values))
    root = values[:kept].sqrt()
    new_up, new_down = left @ inner_left[:, :kept] * root, (inner_right[:kept] * root[:, None]) @ right.T
    shape = delta.down.shape[1:]
    return Delta(
        new_down.float().reshape(kept, *shape),
        new_up.float().reshape(*delta.up.shape[:1], kept, *delta.up.shape[2:]),
        float(kept),
        delta.magnitude,
    )
