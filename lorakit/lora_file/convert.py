"""LoRA files made of LoRA files: another format, another rank, or several merged into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lorakit import files
from lorakit.bases import layer_names
from lorakit.errors import LorakitError
from lorakit.lora_file import formats, verify
from lorakit.lora_file.formats import Adapter, LayerAdapter, LoraLayer

ABOUT_ONE_BASE = ("ss_base_model_version", "ss_sd_model_name", "modelspec.architecture", "modelspec.implementation")


def convert(
    sources: Sequence[Path], out: Path, format: str, rank: int | None = None, strengths: Sequence[float] = (), metadata: bool = True
) -> str:
    """Write `out` in `format` from one LoRA file, or from several merged at their strengths (1 where none is given), and
    make it of another rank if one is given. Returns the base's family.

    The change to every layer stays the same to the last bits, but for what a lower rank cannot hold. LoKr and LoHa are
    carried as they are; with a rank they become plain LoRA. The header stays true: what it says of rank, strength and hash
    is written anew, or left out where `metadata` is False.
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
    family, first, header, dtype = opened[0]
    network: Mapping[str, LayerAdapter] = first
    networks = [network for _, network, _, _ in opened]
    merged = len(opened) > 1 or strengths != [1.0]
    if rank:
        loras = [{path: as_lora(path, change, family) for path, change in network.items()} for network in networks]
        whole = merge(loras, strengths) if merged else loras[0]
        network = {path: formats.nearest(layer, rank) for path, layer in whole.items()}
    elif merged:
        network = merge(networks, strengths)
    tensors = formats.write(network, family, format, dtype)
    kept = header if not merged and not rank else {key: header[key] for key in ABOUT_ONE_BASE if key in header}
    about = true_header(kept, tensors, out.stem) if metadata and header else None
    files.write_whole(out, lambda part: save_file(tensors, part, metadata=about))
    return family


def true_header(kept: dict[str, str], tensors: dict[str, Tensor], name: str) -> dict[str, str]:
    """The header with its hashes made true of the new file, and a name where it lost its own; peft's part, which speaks of
    other keys, is left out."""
    hash = formats.tensor_hash(tensors)
    hashes = {"sshs_model_hash": hash, "sshs_legacy_hash": hash[:8], "modelspec.hash_sha256": f"0x{hash}"}
    names = {"ss_output_name": name, "modelspec.title": name}
    return names | {key: value for key, value in kept.items() if key != "lora_adapter_metadata"} | hashes


def open_network(path: Path) -> tuple[str, Adapter, dict[str, str], torch.dtype]:
    """(family, network, metadata, precision) of a LoRA file."""
    try:
        with safe_open(path, "pt") as file:
            tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise LorakitError(f"{path}: cannot be read as .safetensors ({error})") from None
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    family = verify.find_family(shapes)
    if family is None:
        raise LorakitError(f"{path}: its base is {verify.base_in_words(None, shapes)}; `lorakit verify` says more")
    dtype = next(tensor.dtype for tensor in tensors.values() if tensor.dim() > 1)
    return family, formats.read(tensors, family), metadata, dtype


def merge(networks: Sequence[Mapping[str, LayerAdapter]], strengths: Sequence[float]) -> dict[str, LoraLayer]:
    """One network whose change is the sum of all, each at its strength: the factors side by side, so nothing is lost and
    the ranks add up. Raises `LorakitError` for DoRA, whose changes do not add, and for LoKr and LoHa, whose factors do not."""
    merged: dict[str, LoraLayer] = {}
    for path in dict.fromkeys(path for network in networks for path in network):
        parts = [(network[path], strength) for network, strength in zip(networks, strengths, strict=True) if path in network]
        if any(delta.magnitude is not None for delta, _ in parts):
            raise LorakitError(f"{path}: DoRA sets lengths, which cannot be added or scaled; merge plain LoRAs")
        loras = [(delta, strength) for delta, strength in parts if isinstance(delta, LoraLayer)]
        if len(loras) < len(parts):
            raise LorakitError(
                f"{path}: the factors of LoKr and LoHa cannot be added; give --rank, and their sum is made a plain LoRA of it"
            )
        if len({(delta.up.shape[0], delta.down.shape[1]) for delta, _ in loras}) > 1:
            raise LorakitError(f"{path}: is of different widths in these files; LoRAs of different bases cannot be merged")
        shape = max((delta.down.shape[1:] for delta, _ in loras), key=len)  # a 1x1 convolution may be written as a linear layer
        down = torch.cat([delta.down.float().reshape(-1, *shape) for delta, _ in loras])
        ups = [delta.up.float() * (delta.alpha / delta.rank * strength) for delta, strength in loras]
        up = torch.cat([up.reshape(*up.shape[:2], *(1 for _ in shape[1:])) for up in ups], dim=1)
        merged[path] = LoraLayer(down, up, float(len(down)))
    return merged


def as_lora(path: str, change: LayerAdapter, family: str) -> LoraLayer:
    """LoKr or LoHa as a plain LoRA of full rank, the same to the last bits."""
    if isinstance(change, LoraLayer):
        return change
    if change.magnitude is not None:
        raise LorakitError(f"{path}: DoRA on LoKr or LoHa cannot be made a plain LoRA; leave --rank out")
    whole = change.change()
    rank = min(whole.shape)
    tall = whole.shape[0] > whole.shape[1]
    down, up = (torch.eye(rank), whole) if tall else (whole, torch.eye(rank))
    kernel = layer_names.layers(family).get(path.partition(".")[2], ())[2:]  # height and width, where the layer is a convolution
    return LoraLayer(down.reshape(rank, -1, *kernel), up.reshape(-1, rank, *(1 for _ in kernel)), float(rank))
