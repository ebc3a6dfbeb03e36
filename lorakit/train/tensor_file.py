"""Safetensors files that carry a checksum in their header: a flipped byte or a torn end is found when the file is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lorakit import files

SUM = "lorakit_sum"


class Damaged(Exception):
    """A file that is not what was once written: torn, flipped, empty or gone. Says which, in a few words."""


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write the tensors whole or not at all, with the checksum in the header. Raises `OSError`, as when the disk is full."""
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    about = {**(metadata or {}), SUM: checksum(tensors)}
    files.write_whole(path, lambda part: part.write_bytes(save(tensors, about)))  # safetensors' own writer hides the OSError


def read(path: Path) -> dict[str, Tensor]:
    """The tensors, on the CPU. A file without a checksum, of lorakit 0.1.0, is taken as it is.

    Raises `Damaged` where the file is gone, cannot be read as safetensors, or its checksum is another."""
    try:  # from memory: safetensors maps files, and a map of a file that is cut short kills the process
        data = path.read_bytes()
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        expected = header.get("__metadata__", {}).get(SUM)
    except FileNotFoundError:
        raise Damaged(f"{path.name} is gone") from None
    except (SafetensorError, ValueError) as error:
        raise Damaged(f"{path.name} cannot be read ({' '.join(str(error).split())})") from None
    if expected not in (None, checksum(tensors)):
        raise Damaged(f"{path.name} has changed since it was written (its checksum is another)")
    return tensors


def is_whole(path: Path) -> bool:
    try:
        read(path)
    except Damaged:
        return False
    return True


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """BLAKE2b over names, types, shapes and bytes, 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
