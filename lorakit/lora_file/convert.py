"""LoRA files made of LoRA files: another format, another rank, or several merged into one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from lorakit import files
from lorakit.bases import families as families_of_bases
from lorakit.bases import layer_names
from lorakit.console import warn
from lorakit.errors import LorakitError
from lorakit.lora_file import faults, formats, strangers, verify
from lorakit.lora_file.formats import Adapter, LayerAdapter, LoraLayer

ABOUT_ONE_BASE = ("ss_base_model_version", "ss_sd_model_name", "modelspec.architecture", "modelspec.implementation")


def convert(
    sources: Sequence[Path],
    out: Path,
    format: str,
    rank: int | None = None,
    strengths: Sequence[float] = (),
    metadata: bool = True,
    try_out: Callable[[Path, Mapping[str, LayerAdapter], str], None] | None = None,
) -> str:
    """Write `out` in `format` from one LoRA file, or from several merged at their strengths (1 where none is given), and
    make it of another rank if one is given. Returns the base's family.

    The change to every layer stays the same to the last bits, but for what a lower rank cannot hold. LoKr and LoHa are
    carried as they are; with a rank they become plain LoRA. The header stays true: what it says of rank, strength and hash
    is written anew, or left out where `metadata` is False. `try_out(file, network, family)` tries the written file before it gets its
    name, and raises where that fails.
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
    if format == "kohya":
        network = formats.with_uniform_alpha(dict(network))
    tensors = formats.write(network, family, format, dtype)
    kept = header if not merged and not rank else {key: header[key] for key in ABOUT_ONE_BASE if key in header}
    about = true_header(kept, tensors, out.stem) if metadata and header else None

    with files.until_whole(out) as part:
        part.write_bytes(save(tensors, about))  # not save_file, which hides the OSError of a full disk
        check(part, out, network, family, dtype)
        if try_out:
            try_out(part, network, family)
    return family


def check(part: Path, out: Path, network: Mapping[str, LayerAdapter], family: str, dtype: torch.dtype) -> None:
    """Hold the written file, not yet under its name, against what it was written from, and judge it as `lorakit verify` does: no tool may
    play a layer at a wrong strength. What a tool leaves out is said."""
    if fault := next(iter(faults.find_faults(part)), None):
        raise LorakitError(f"{out}: not written, {fault}: with the alpha multiplied in they do not fit {dtype}")
    found = formats.read(load_file(part), family)
    # of a fused layer a part that changes nothing is not told from one that was not trained
    if odd := sorted(path for path in found.keys() ^ network.keys() if path in found or network[path].change().any()):
        raise LorakitError(f"{out}: not written, {len(odd)} layers would not be as they were, the first {odd[0]}; please report this")
    off = {path: formats.distance(change, network[path]) for path, change in found.items()}
    typical = (sum(size**2 for _, size in off.values()) / max(len(off), 1)) ** 0.5
    for path, (distance, size) in off.items():
        # as on export: what is next to nothing beside the other layers may be rounded to nothing
        if distance > formats.ROUNDING[dtype] * max(size, typical) + 1e-7:
            raise LorakitError(
                f"{out}: not written, layer {path} would differ by {distance / size:.1e} of its size, for which {dtype} is too coarse"
            )
    for judgement in verify.judge_file(part, family=family)[1]:
        if judgement.wrong_scale:
            raise LorakitError(f"{out}: not written: {' '.join(line.strip() for line in verify.in_words(judgement))}")
        if judgement.tool in families_of_bases.load(family).TOOLS and judgement.skipped:
            warn(" ".join(line.strip() for line in verify.in_words(judgement)))


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
    family = verify.find_family(shapes, metadata)
    if family is None:
        other = strangers.looks_like(shapes)
        what = f"looks like {other}" if other else "is for no base that lorakit knows"
        raise LorakitError(f"{path}: {what}; lorakit does not convert it")
    odd = [form for form in families_of_bases.load(family).ODD_FORMS if form.whole and any(map(form.key.fullmatch, tensors))]
    if odd:
        raise LorakitError(f"{path}: is a {odd[0].title}, which changes more of the base than a LoRA does; lorakit does not convert it")
    try:
        network = formats.read(tensors, family, metadata)
    except LorakitError as error:
        raise LorakitError(f"{path}: {error}") from None
    precise = [tensor.dtype for tensor in tensors.values() if tensor.dim() > 1]
    return family, network, metadata, torch.float32 if torch.float64 in precise else max(precise, key=lambda dtype: torch.finfo(dtype).bits)


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
