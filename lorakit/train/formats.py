"""LoRA files between their formats: `kohya` (lora_down/lora_up/alpha under underscored names, fused where the original
code is) and `diffusers` (lora_A/lora_B under dotted paths). In between stands a `Network`, one `Delta` a layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lorakit.errors import LorakitError
from lorakit.train import names

FORMATS = ("kohya", "diffusers")


@dataclass(frozen=True)
class Delta:
    """What a LoRA adds to one layer: up @ down * alpha / rank; DoRA also sets the length of each output."""

    down: Tensor  # [rank, in] or [rank, in, height, width]
    up: Tensor  # [out, rank] or [out, rank, 1, 1]
    alpha: float
    magnitude: Tensor | None = None  # [out], of DoRA

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def change(self) -> Tensor:
        """[out, in * height * width] in fp32."""
        return self.up.float().flatten(1) @ self.down.float().flatten(1) * (self.alpha / self.rank)

    def folded(self) -> Delta:
        """The same change with alpha = rank, for formats that carry no alpha."""
        return replace(self, up=self.up * (self.alpha / self.rank), alpha=float(self.rank))


Network = dict[str, Delta]  # 'unet.down_blocks...to_q', 'transformer...', 'text_encoder.text_model...' -> change


def from_peft(adapter: Mapping[str, Tensor], alpha: float, prefix: str) -> Network:
    """peft's `<path>.lora_A.weight`, `.lora_B.weight` and `.lora_magnitude_vector` as a network under `prefix`."""
    paths = sorted({key.rsplit(".lora_A", 1)[0] for key in adapter if ".lora_A" in key})
    return {
        f"{prefix}.{path}": Delta(
            adapter[f"{path}.lora_A.weight"], adapter[f"{path}.lora_B.weight"], alpha, adapter.get(f"{path}.lora_magnitude_vector")
        )
        for path in paths
    }


def write(network: Network, family: str, format: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors of a LoRA file."""
    tensors = _write_kohya(network, family) if format == "kohya" else _write_diffusers(network, family)
    return {key: value.detach().to(dtype).contiguous().clone() for key, value in tensors.items()}


def read(tensors: Mapping[str, Tensor], family: str) -> Network:
    """The network of a file in either format. Raises `LorakitError` naming the first key that belongs to no layer."""
    left = dict(tensors)
    network = _read_kohya(left, family) | _read_diffusers(left, family)
    if left:
        raise LorakitError(f"{next(iter(left))}: no layer of {family} is called so ({len(left)} such keys); `lorakit verify` lists them")
    return network


def _write_kohya(network: Network, family: str) -> dict[str, Tensor]:
    folder, texts = names.denoiser_folder(family), names.text_layers(family)
    stems: dict[str, dict[int, Delta]] = {}
    slots: dict[str, int] = {}
    for path, delta in network.items():
        if path in texts:
            stems[texts[path]] = {0: delta}
            continue
        inner = path.removeprefix(f"{folder}.")
        stem = names.kohya_stem(family, inner)
        original = names.originals(family)[inner] if family in ("sd3", "flux1") else names.Original(inner)
        stems.setdefault(stem, {})[original.slot] = delta
        slots[stem] = original.slots
    tensors: dict[str, Tensor] = {}
    for stem, parts in stems.items():
        delta = parts[0] if slots.get(stem, 1) == 1 else fuse(parts, slots[stem])
        tensors |= {f"{stem}.lora_down.weight": delta.down, f"{stem}.lora_up.weight": delta.up, f"{stem}.alpha": torch.tensor(delta.alpha)}
        if delta.magnitude is not None:
            tensors[f"{stem}.dora_scale"] = delta.magnitude.reshape(-1, *([1] * (delta.down.dim() - 1)))
    return tensors


def fuse(parts: Mapping[int, Delta], slots: int) -> Delta:
    """Several layers that the original code holds as one: their downs above each other, their ups on the diagonal. Layers
    that were not trained stay zero. Nothing is lost; the rank is the sum."""
    first = next(iter(parts.values()))
    if first.magnitude is not None:
        raise LorakitError("DoRA cannot be written in kohya's fused layers of this base; write it with export.format=diffusers")
    hidden = next((d.up.shape[0] for slot, d in parts.items() if slot < 3), first.up.shape[0] // 4)
    heights = [parts[slot].up.shape[0] if slot in parts else hidden * (4 if slot == 3 else 1) for slot in range(slots)]
    rank = sum(delta.rank for delta in parts.values())
    up = first.up.new_zeros(sum(heights), rank)
    row = column = 0
    for slot, height in enumerate(heights):
        if slot in parts:
            delta = parts[slot]
            up[row : row + height, column : column + delta.rank] = delta.up * (delta.alpha / delta.rank) / (first.alpha / first.rank)
            column += delta.rank
        row += height
    return Delta(torch.cat([parts[slot].down for slot in sorted(parts)]), up, first.alpha / first.rank * rank)


def _write_diffusers(network: Network, family: str) -> dict[str, Tensor]:
    """FLUX carries alpha as a float tensor; everywhere else diffusers refuses that key, so the scale goes into lora_B."""
    tensors: dict[str, Tensor] = {}
    for path, delta in network.items():
        if family == "flux1":
            tensors[f"{path}.alpha"] = torch.tensor(delta.alpha)
        else:
            delta = delta.folded()
        tensors |= {f"{path}.lora_A.weight": delta.down, f"{path}.lora_B.weight": delta.up}
        if delta.magnitude is not None:
            tensors[f"{path}.lora_magnitude_vector"] = delta.magnitude
    return tensors


def _read_kohya(left: dict[str, Tensor], family: str) -> Network:
    network: Network = {}
    for stem, paths in kohya_index(family).items():
        if f"{stem}.lora_down.weight" not in left:
            continue
        down, up = left.pop(f"{stem}.lora_down.weight"), left.pop(f"{stem}.lora_up.weight")
        alpha = left.pop(f"{stem}.alpha", None)
        magnitude = left.pop(f"{stem}.dora_scale", None)
        delta = Delta(down, up, float(down.shape[0] if alpha is None else alpha), None if magnitude is None else magnitude.flatten())
        network |= dict(zip(paths, split(delta, len(paths)), strict=True)) if len(paths) > 1 else {paths[0]: delta}
    return {path: delta for path, delta in network.items() if delta is not None}


def kohya_index(family: str) -> dict[str, list[str]]:
    """{kohya's stem: the paths that it holds, in the order of their slots}; SDXL's also under diffusers' names."""
    folder = names.denoiser_folder(family)
    index: dict[str, list[str]] = {}
    known = names.layers(family) if family == "sd15" else names.originals(family)
    ordered = sorted(known, key=lambda path: names.originals(family)[path].slot if family in ("sd3", "flux1") else 0)
    for path in ordered:
        index.setdefault(names.kohya_stem(family, path), []).append(f"{folder}.{path}")
        if family == "sdxl":
            index.setdefault(f"lora_unet_{path.replace('.', '_')}", [f"{folder}.{path}"])
    return index | {stem: [path] for path, stem in names.text_layers(family).items()}


def split(delta: Delta, slots: int) -> list[Delta | None]:
    """A fused layer as its single ones: with their own downs where `fuse` (or sd-scripts' split_qkv) made it, else each
    with all of it. A part that is zero was not trained and is None."""
    hidden = delta.up.shape[0] // (slots if slots == 3 else 7)
    ups = delta.up.split([hidden] * 3 + [4 * hidden] * (slots - 3))
    parts: list[Delta | None] = []
    for up in ups:
        used = up.any(dim=0).nonzero().flatten()
        if not len(used):
            parts.append(None)
        else:
            parts.append(Delta(delta.down[used], up[:, used], delta.alpha / delta.rank * len(used)))
    return parts


def _read_diffusers(left: dict[str, Tensor], family: str) -> Network:
    folder = names.denoiser_folder(family)
    network: Network = {}
    for path in (*(f"{folder}.{layer}" for layer in names.layers(family)), *names.text_layers(family)):
        if f"{path}.lora_A.weight" not in left:
            continue
        down, up = left.pop(f"{path}.lora_A.weight"), left.pop(f"{path}.lora_B.weight")
        alpha = left.pop(f"{path}.alpha", None)
        magnitude = left.pop(f"{path}.lora_magnitude_vector", None)
        network[path] = Delta(down, up, float(down.shape[0] if alpha is None else alpha), magnitude)
    return network
