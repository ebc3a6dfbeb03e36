"""A training that starts from a LoRA file, `train.from_lora`: what of the settings the file decides, whether it fits, and its change put
into the adapter before the first step."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorakit.bases import families
from lorakit.bases.families.base import Family
from lorakit.bases.load import base_source
from lorakit.errors import LorakitError
from lorakit.lora_file.convert import open_network
from lorakit.lora_file.formats import Adapter, LayerAdapter, LoraLayer, LycorisLayer
from lorakit.project import Project, stamps
from lorakit.settings import TARGETS, Train
from lorakit.train import adapter_size, lora

FACTORS = (-1, *(2**power for power in range(10)))  # of LoKr, that are tried


def settings_of(path: Path, family: str) -> dict[str, Any]:
    """The settings that a LoRA file decides: {"train.adapter", "train.rank", "train.alpha", "train.targets", "train.text_encoder", ...}.
    Raises `LorakitError` for a file of another family, or one that lorakit cannot train on."""
    network = read(path, family)
    adapter = kind_of(network, path)
    rank, alpha = _size_of(network)
    targets, encoders = _targets_of(network, family, path), {name.partition(".")[0] for name in network}
    cls = families.load(family)
    found = {"train.from_lora": str(path.expanduser().absolute()), "train.adapter": adapter, "train.rank": rank, "train.targets": targets}
    found["train.alpha"] = None if alpha == rank else alpha
    found["train.text_encoder"] = bool(encoders & set(cls.ENCODERS))
    found["train.t5"] = bool(encoders & set(cls.t5_encoders()))
    if adapter == "lokr":
        found["train.lokr_factor"] = _factor_of(network, path)
    return found


def in_words(path: Path, decided: Mapping[str, Any]) -> str:
    """'rank 16, alpha 8, attention': what the file decides."""
    alpha = decided["train.alpha"]
    learns = decided["train.targets"] + (" and text encoders" if decided["train.text_encoder"] else "")
    return (
        f"{path.name}: {decided['train.adapter']} of rank {decided['train.rank']}{'' if alpha is None else f', alpha {alpha:g}'}, {learns}"
    )


def read(path: Path, family: str) -> Adapter:
    """The network of a file. Raises `LorakitError` when it cannot be read, or is for another family."""
    if not path.is_file():
        raise LorakitError(f"train.from_lora: {path}: no such file; give the LoRA's .safetensors")
    found, network, _, _ = open_network(path)
    if found != family:
        raise LorakitError(f"train.from_lora: {path} is for {found}, and the base is of {family}; choose a base that it is for")
    return network


def kind_of(network: Adapter, path: Path) -> str:
    """`train.adapter` of a network."""
    kinds = Counter(_kind(change) for change in network.values())
    if len(kinds) != 1:
        raise LorakitError(f"train.from_lora: {path.name} is {' and '.join(sorted(kinds))} at once, which cannot be trained as one")
    (kind,) = kinds
    if kind not in ("lora", "dora", "lokr", "loha"):
        raise LorakitError(
            f"train.from_lora: {path.name} is {kind}, which lorakit does not train; `lorakit convert --rank N` makes a plain LoRA"
        )
    return kind


def _kind(change: LayerAdapter) -> str:
    if isinstance(change, LoraLayer):
        return "lora" if change.magnitude is None else "dora"
    kind = "loha" if "hada_w1_a" in change.tensors else "lokr"
    return kind if change.magnitude is None and change.rows is None else f"{kind} of fused layers" if change.rows else f"{kind} with DoRA"


def _size_of(network: Adapter) -> tuple[int, float]:
    """(rank, alpha): the largest rank, and the alpha that gives the scale that most layers have."""
    sized = [change for change in network.values() if change.rank]
    if not sized:  # LoKr of whole factors: from this rank on they are whole
        return max(max(change.tensors["lokr_w2"].shape) for change in network.values() if isinstance(change, LycorisLayer)), 1.0
    rank = max(change.rank or 1 for change in sized)
    (scale, _), *_ = Counter(change.alpha / (change.rank or 1) for change in sized).most_common(1)
    return rank, scale * rank


def _targets_of(network: Adapter, family: str, path: Path) -> str:
    """The least level of `train.targets` that has every layer of the denoiser which the file changes."""
    cls, needed, beyond = families.load(family), 0, []
    for name in network:
        part, _, inner = name.partition(".")
        if part != cls.FOLDER:
            if not lora.TEXT_TARGETS.search(name):
                beyond.append(name)
            continue
        level = next((n for n, endings in enumerate(cls.TARGETS.values()) if lora.is_target(inner, endings)), None)
        if level is None or (cls.NOT_TARGETS and re.search(cls.NOT_TARGETS, inner)):
            beyond.append(name)
        else:
            needed = max(needed, level)
    if beyond:
        raise LorakitError(
            f"train.from_lora: {path.name} changes {len(beyond)} layers that lorakit does not train, as {beyond[0]}; they would be lost"
        )
    return list(cls.TARGETS)[needed] if needed < len(cls.TARGETS) else TARGETS[-1]


def _factor_of(network: Adapter, path: Path) -> int:
    """`train.lokr_factor`: by which the first Kronecker factors have the sizes that they have."""
    from peft.tuners.lokr.layer import factorization

    def splits(change: LycorisLayer) -> list[tuple[int, int]]:
        """(rows of w1, of w2) and the same of their columns."""
        shapes = {name: tuple(tensor.shape) for name, tensor in change.tensors.items()}
        first = shapes.get("lokr_w1") or (shapes["lokr_w1_a"][0], shapes["lokr_w1_b"][1])
        kernel = shapes["lokr_t2"][2:] if "lokr_t2" in shapes else ()
        second = shapes.get("lokr_w2") or (shapes["lokr_w2_a"][1 if kernel else 0], shapes["lokr_w2_b"][1])
        return [(first[0], second[0]), (first[1], second[1])]

    pairs = {pair for change in network.values() if isinstance(change, LycorisLayer) for pair in splits(change)[:1]}
    for factor in FACTORS:
        if all(factorization(one * other, factor) == (one, other) for one, other in pairs):
            return factor
    raise LorakitError(f"train.from_lora: {path.name} has Kronecker factors of sizes that no train.lokr_factor gives")


def check(project: Project) -> None:
    """Before anything starts: does the file fit the base and the settings? Reads the base's configurations, none of its weights."""
    settings = project.settings.train
    if not settings.from_lora:
        return
    cls = families.load(project.card.family)
    network = read(Path(settings.from_lora).expanduser(), cls.NAME)
    skeleton = adapter_size.skeleton_of(cls, base_source(project), settings)
    with torch.device("meta"):
        lora.add_lora(skeleton, settings)
    fill(skeleton, network, settings)


def facts_of(project: Project) -> dict[str, Any]:
    """What run.json tells of the file: {"from_lora": {"file", "identity", "hash": SHA-256}}; nothing where there is none."""
    given = project.settings.train.from_lora
    if not given or not (path := Path(given).expanduser()).is_file():
        return {}
    hash = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"from_lora": {"file": path.name, "identity": stamps.started_from(project), "hash": hash}}


def put_in(family: Family, settings: Train) -> str | None:
    """Give the adapter the change of the file `train.from_lora`; returns that in words, None where no file is named or it is gone, which
    a training that has checkpoints may not need any more."""
    if not settings.from_lora or not (path := Path(settings.from_lora).expanduser()).is_file():
        return None
    missing = fill(family, network := read(path, family.NAME), settings)
    others = f"; {missing} layers that it has not start at zero" if missing else ""
    return f"starts from {path.name}, {len(network)} layers{others}"


@torch.no_grad()
def fill(family: Any, network: Adapter, settings: Train) -> int:
    """Put a network into the adapter of a family (or of its skeleton, which only tells whether it fits); returns how many layers of the
    adapter the network has not. Raises `LorakitError` for the first layer that does not fit."""
    path = Path(settings.from_lora or "")
    if (kind := kind_of(network, path)) != settings.adapter:
        raise LorakitError(f"train.from_lora: {path.name} is {kind} and train.adapter = {settings.adapter}; --set train.adapter={kind}")
    left, missing = dict(network), 0
    for name, layer in lora.adapted(family):
        change = left.pop(name, None)
        if change is None:
            missing += 1
            continue
        own, scale = lora.tensors_of(layer), layer.scaling[lora.NAME]
        values = _factors(change, own, scale, name) if isinstance(change, LoraLayer) else _lycoris(change, own, scale, name)
        for suffix, value in values.items():
            if not own[suffix].is_meta:
                own[suffix].copy_(value.reshape(own[suffix].shape))
    if left:
        first = next(iter(left))
        raise LorakitError(
            f"train.from_lora: {path.name} changes {len(left)} layers that are not trained with train.targets = {settings.targets}, "
            f"train.text_encoder = {str(settings.text_encoder).lower()}, include and exclude, as {first}; --from-lora sets them as the file wants"
        )
    return missing


def _factors(change: LoraLayer, own: Mapping[str, Tensor], scale: float, name: str) -> dict[str, Tensor]:
    """What LoRA's matrices, and DoRA's lengths, are to be. Rows of A beyond the file's rank keep their start values, those of B are
    zero: the change is the file's, and the rest of the rank can learn."""
    down, up = change.down.float().flatten(1), change.up.float().flatten(1)
    wide, high, rank = own["lora_A.weight"].flatten(1).shape[1], own["lora_B.weight"].shape[0], own["lora_A.weight"].shape[0]
    if (down.shape[1], up.shape[0]) != (wide, high):
        raise LorakitError(f"train.from_lora: layer {name} is {down.shape[1]} x {up.shape[0]} in the file and {wide} x {high} in this base")
    if change.rank > rank:
        raise LorakitError(
            f"train.from_lora: layer {name} has rank {change.rank} in the file and {rank} here; --set train.rank={change.rank}, or "
            f"`lorakit convert --rank {rank}` first"
        )
    if own["lora_A.weight"].is_meta:
        return {}
    whole_down, whole_up = own["lora_A.weight"].detach().float().cpu().flatten(1).clone(), torch.zeros(high, rank)
    whole_down[: change.rank] = down
    whole_up[:, : change.rank] = up * (change.alpha / change.rank / scale)
    lengths = {} if change.magnitude is None else {"lora_magnitude_vector": change.magnitude.float()}
    return {"lora_A.weight": whole_down, "lora_B.weight": whole_up} | lengths


def _lycoris(change: LycorisLayer, own: Mapping[str, Tensor], scale: float, name: str) -> dict[str, Tensor]:
    """The factors of LoKr or LoHa; what the file's scale is more than the trained one goes into the first."""
    there = {suffix: tuple(tensor.shape) for suffix, tensor in own.items()}
    given = {suffix: tuple(tensor.shape) for suffix, tensor in change.tensors.items()}
    if there.keys() != given.keys() or any(own[s].numel() != change.tensors[s].numel() for s in given):
        raise LorakitError(f"train.from_lora: layer {name} has factors {given} in the file and {there} with these settings")
    first = next(suffix for suffix in ("hada_w1_a", "lokr_w1", "lokr_w1_a") if suffix in given)
    return {suffix: tensor.float() * (change.scale / scale if suffix == first else 1.0) for suffix, tensor in change.tensors.items()}
