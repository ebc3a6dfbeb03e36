"""LoRA files between their formats: `kohya` (lora_down/lora_up/alpha under underscored names, fused where the original
code is) and `diffusers` (lora_A/lora_B under dotted paths). In between stands an `Adapter`, one `LoraLayer` a layer, or one
`LycorisLayer` where the layer has LoKr or LoHa, which stand in both formats under LyCORIS' names."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from safetensors.torch import save
from torch import Tensor

from lorakit.bases import families, layer_names
from lorakit.errors import LorakitError

FORMATS = ("kohya", "diffusers")
LOKR = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")
FACTORS = (*LOKR, *LOHA)


@dataclass(frozen=True)
class LoraLayer:
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

    def folded(self) -> LoraLayer:
        """The same change with alpha = rank, for formats that carry no alpha."""
        return replace(self, up=self.up * (self.alpha / self.rank), alpha=float(self.rank))

    def widened(self, rank: int) -> LoraLayer:
        """The same change at a larger rank: the rest of the factors is zero."""
        more = rank - self.rank
        if not more:
            return self
        return replace(self, down=_pad(self.down, 0, more), up=_pad(self.up, 1, more), alpha=self.alpha * rank / self.rank)

    def swapped(self) -> LoraLayer:
        """The two halves of the outputs in the other order."""
        halves = None if self.magnitude is None else self.magnitude.roll(len(self.magnitude) // 2)
        return replace(self, up=self.up.roll(self.up.shape[0] // 2, 0), magnitude=halves)


@dataclass(frozen=True)
class LycorisLayer:
    """What LoKr (arXiv:2309.14859) or LoHa (arXiv:2108.06098) adds to one layer, under LyCORIS' names of the factors.

    The scale alpha / rank is for factors that are themselves products. LoKr with two whole factors has the scale 1: every
    tool passes over its alpha."""

    tensors: Mapping[str, Tensor]  # {'lokr_w1': ..., 'lokr_w2_a': ...}
    alpha: float
    magnitude: Tensor | None = None  # [out], of DoRA

    @property
    def rank(self) -> int | None:
        """None where both factors are whole."""
        inner = next((self.tensors[name] for name in ("hada_w1_b", "lokr_w2_b", "lokr_w1_b") if name in self.tensors), None)
        return None if inner is None else inner.shape[0]

    @property
    def scale(self) -> float:
        return 1.0 if self.rank is None else self.alpha / self.rank

    def change(self) -> Tensor:
        """[out, in * height * width] in fp32."""
        if "hada_w1_a" in self.tensors:
            return self._product("hada_w1", "hada_t1").flatten(1) * self._product("hada_w2", "hada_t2").flatten(1) * self.scale
        first, second = self._product("lokr_w1"), self._product("lokr_w2", "lokr_t2")
        first = first.reshape(*first.shape, *([1] * (second.dim() - 2)))
        return torch.kron(first, second.contiguous()).flatten(1) * self.scale

    def _product(self, name: str, core: str = "") -> Tensor:
        """A factor, whole: as it is, or a @ b, or a and b on both sides of a core [rank, rank, height, width]."""
        if name in self.tensors:
            return self.tensors[name].float()
        left, right = self.tensors[f"{name}_a"].float(), self.tensors[f"{name}_b"].float()
        if core in self.tensors:
            return torch.einsum("ijkl,ip,jr->prkl", self.tensors[core].float(), left, right)
        return left @ right.flatten(1)


def _pad(tensor: Tensor, axis: int, more: int) -> Tensor:
    """The tensor with `more` zero entries at the end of an axis."""
    shape = list(tensor.shape)
    shape[axis] = more
    return torch.cat([tensor, tensor.new_zeros(shape)], dim=axis)


LayerAdapter = LoraLayer | LycorisLayer
Adapter = dict[str, LayerAdapter]  # 'unet.down_blocks...to_q', 'transformer...', 'text_encoder.text_model...' -> change


def from_adapter(adapter: Mapping[str, Tensor]) -> Adapter:
    """What `lora.read_lora` read, as a network relative to the untouched base."""
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in adapter.items():
        path, suffix = _split_key(key)
        layers.setdefault(path, {})[suffix] = tensor
    return {path: _change_of(tensors) for path, tensors in layers.items()}


def _split_key(key: str) -> tuple[str, str]:
    for suffix in (
        "start.lora_A.weight",
        "start.lora_B.weight",
        "lora_A.weight",
        "lora_B.weight",
        "lora_magnitude_vector",
        "alpha",
        "rank",
        *FACTORS,
    ):
        if key.endswith(f".{suffix}"):
            return key.removesuffix(f".{suffix}"), suffix
    raise ValueError(f"{key}: no tensor of an adapter is called so")


def _change_of(tensors: Mapping[str, Tensor]) -> LayerAdapter:
    alpha = float(tensors["alpha"])
    if "lora_A.weight" not in tensors:
        factors = LycorisLayer({name: tensor for name, tensor in tensors.items() if name in FACTORS}, alpha)
        if factors.rank is not None:
            return factors
        # peft scales whole factors too, and no tool does: the scale goes into the first
        first = factors.tensors["lokr_w1"] * (alpha / float(tensors["rank"]))
        return LycorisLayer({**factors.tensors, "lokr_w1": first}, alpha)
    magnitude = tensors.get("lora_magnitude_vector")
    delta = LoraLayer(tensors["lora_A.weight"], tensors["lora_B.weight"], alpha, None if magnitude is None else magnitude.flatten())
    if "start.lora_A.weight" not in tensors:
        return delta
    # Both products are large and their difference is small: it is taken in double and factored anew, so that the file's
    # precision is spent on the difference.
    down, up = torch.cat([delta.down, tensors["start.lora_A.weight"]]), torch.cat([delta.up, -tensors["start.lora_B.weight"]], dim=1)
    whole = LoraLayer(down, up, 2 * alpha)
    return whole if down.is_meta else nearest(whole, 2 * delta.rank)


def nearest(delta: LoraLayer, rank: int) -> LoraLayer:
    """The nearest change of that rank (by SVD of the product, taken through the small factors); alpha = rank."""
    down, up = delta.down.double().flatten(1), delta.up.double().flatten(1) * (delta.alpha / delta.rank)
    left, left_rest = torch.linalg.qr(up)
    right, right_rest = torch.linalg.qr(down.T)
    inner_left, values, inner_right = torch.linalg.svd(left_rest @ right_rest.T, full_matrices=False)
    kept = min(rank, len(values))
    root = values[:kept].sqrt()
    new_up, new_down = left @ inner_left[:, :kept] * root, (inner_right[:kept] * root[:, None]) @ right.T
    shape = delta.down.shape[1:]
    return LoraLayer(
        new_down.float().reshape(kept, *shape),
        new_up.float().reshape(*delta.up.shape[:1], kept, *delta.up.shape[2:]),
        float(kept),
        delta.magnitude,
    )


def write(network: Mapping[str, LayerAdapter], family: str, format: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors of a LoRA file."""
    tensors = _write_kohya(network, family) if format == "kohya" else _write_diffusers(network, family)
    return {key: value.detach().to(dtype).contiguous().clone() for key, value in tensors.items()}


def read(tensors: Mapping[str, Tensor], family: str) -> Adapter:
    """The network of a file in either format. Raises `LorakitError` naming the first key that belongs to no layer."""
    left = dict(tensors)
    network = _read_kohya(left, family) | _read_diffusers(left, family)
    if left:
        raise LorakitError(f"{next(iter(left))}: no layer of {family} is called so ({len(left)} such keys); `lorakit verify` lists them")
    return network


def with_uniform_alpha(network: Adapter) -> Adapter:
    """The same changes with one alpha for all LoRA layers of a part of the base, the one that most of them have: diffusers
    reads single alphas of a kohya file for none but the layers outside of attention, and never those of text encoders."""
    alphas: dict[str, Counter[float]] = {}
    for path, change in network.items():
        alphas.setdefault(path.partition(".")[0], Counter())[change.alpha] += isinstance(change, LoraLayer)
    usual = {part: counts.most_common(1)[0][0] for part, counts in alphas.items()}
    return {path: _with_alpha(change, usual[path.partition(".")[0]]) for path, change in network.items()}


def _with_alpha(change: LayerAdapter, alpha: float) -> LayerAdapter:
    if isinstance(change, LycorisLayer) or change.alpha == alpha:
        return change
    return replace(change, up=change.up * (change.alpha / alpha), alpha=alpha)


def tensor_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the part of the file that follows the safetensors header, as `sshs_model_hash` is defined."""
    data = save(dict(tensors))
    start = 8 + int.from_bytes(data[:8], "little")
    return hashlib.sha256(data[start:]).hexdigest()


def file_size(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of a safetensors file with these tensors, which may be on the meta device, and no metadata: eight for the
    header's length, the header, padded to eight, and the tensors, those of wider elements first."""
    header, end = {}, 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):
        size = tensor.numel() * tensor.element_size()
        kind = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}[tensor.dtype]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [end, end + size]}
        end += size
    length = len(json.dumps(header, separators=(",", ":")).encode())
    return 8 + -(-length // 8) * 8 + end


def _write_kohya(network: Mapping[str, LayerAdapter], family: str) -> dict[str, Tensor]:
    """LoKr and LoHa cannot be fused: where the original code fuses layers they stand under LyCORIS' own prefix."""
    fused: dict[str, dict[int, LoraLayer]] = {}  # by kohya's stem and slot
    heights: dict[str, tuple[int, ...]] = {}
    tensors: dict[str, Tensor] = {}
    for path, delta in network.items():
        stem, original = _kohya_name(path, family)
        if isinstance(delta, LycorisLayer):
            inner = path.removeprefix(f"{layer_names.denoiser_folder(family)}.")
            own = layer_names.underscored("lycoris", inner) if layer_names.is_fused(family) and inner != path else stem
            tensors |= {f"{own}.{name}": tensor for name, tensor in delta.tensors.items()} | _scales(own, delta, delta.change)
            continue
        fused.setdefault(stem, {})[original.slot] = delta.swapped() if is_swapped(path, delta) else delta
        heights[stem] = original.heights
    for stem, parts in fused.items():
        delta = parts[0] if len(heights[stem]) == 1 else fuse(parts, heights[stem])
        tensors |= {f"{stem}.lora_down.weight": delta.down, f"{stem}.lora_up.weight": delta.up}
        tensors |= _scales(stem, delta, lambda delta=delta: delta.down)
    return tensors


def _kohya_name(path: str, family: str) -> tuple[str, layer_names.Original]:
    texts = layer_names.text_layers(family) | layer_names.t5_layers(family)
    if path in texts:
        return texts[path], layer_names.Original(path)
    inner = path.removeprefix(f"{layer_names.denoiser_folder(family)}.")
    return layer_names.kohya_stem(family, inner), layer_names.originals(family).get(inner) or layer_names.Original(inner)


def _scales(stem: str, delta: LayerAdapter, like) -> dict[str, Tensor]:
    """Alpha, and DoRA's lengths as [out, 1, ...] with as many axes as the layer's weight (`like()`)."""
    found = {f"{stem}.alpha": torch.tensor(delta.alpha)}
    if delta.magnitude is not None:
        found[f"{stem}.dora_scale"] = delta.magnitude.reshape(-1, *([1] * (like().dim() - 1)))
    return found


def is_swapped(path: str, delta: LoraLayer) -> bool:
    """Whether a layer of SD3 is the last block's norm of the text, which has one shift and one scale: the original code has
    the shift first, diffusers the scale. All other blocks have six or nine of them, in one order everywhere."""
    return path.endswith("norm1_context.linear") and delta.up.shape[0] == 2 * delta.down.shape[1]


def fuse(parts: Mapping[int, LoraLayer], heights: tuple[int, ...]) -> LoraLayer:
    """Several layers that the original code holds as one, by their slots: their downs above each other, their ups on the
    diagonal. Layers that were not trained stay zero. Nothing is lost; the rank is the sum. `heights` as in
    `layer_names.Original`."""
    first = next(iter(parts.values()))
    magnitude = None
    if any(delta.magnitude is not None for delta in parts.values()):
        lengths = [parts[slot].magnitude for slot in range(len(heights)) if slot in parts]
        magnitudes = [length for length in lengths if length is not None]
        if len(magnitudes) < len(heights):
            raise LorakitError(
                "DoRA cannot be written in kohya's fused layers of this base where only some of the fused ones were trained: "
                "the lengths of the others stand in no file; write it with export.format=diffusers"
            )
        magnitude = torch.cat(magnitudes)
    slot, some = min(parts.items(), key=lambda part: part[0])
    unit = some.up.shape[0] // heights[slot]
    rank = sum(delta.rank for delta in parts.values())
    up = first.up.new_zeros(sum(heights) * unit, rank)
    column = 0
    for slot, delta in sorted(parts.items()):
        row = sum(heights[:slot]) * unit
        # the whole has one alpha, so what is otherwise in one of them goes into its factor
        up[row : row + len(delta.up), column : column + delta.rank] = delta.up * (delta.alpha / delta.rank) / (first.alpha / first.rank)
        column += delta.rank
    return LoraLayer(torch.cat([parts[slot].down for slot in sorted(parts)]), up, first.alpha / first.rank * rank, magnitude)


def _write_diffusers(network: Mapping[str, LayerAdapter], family: str) -> dict[str, Tensor]:
    """Alpha is a tensor where diffusers takes it (FLUX). Everywhere else it refuses that key, so the scale goes into lora_B, and all
    layers of a part get one rank: without alphas diffusers, before #14409 of August 2026, scales all layers by one of the ranks."""
    takes_alpha = families.load(family).DIFFUSERS_READS_ALPHA
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for path, delta in network.items():
        if isinstance(delta, LoraLayer):
            ranks[path.partition(".")[0]] = max(delta.rank, ranks.get(path.partition(".")[0], 0))
    for layer, delta in network.items():
        path = layer_names.t5_layers(family).get(layer, layer)  # T5 is known by kohya's name alone
        if isinstance(delta, LycorisLayer):
            tensors |= {f"{path}.{name}": tensor for name, tensor in delta.tensors.items()} | _scales(path, delta, delta.change)
            continue
        if takes_alpha and path == layer:
            tensors[f"{path}.alpha"] = torch.tensor(delta.alpha)
        else:
            delta = delta.folded().widened(ranks[layer.partition(".")[0]])
        tensors |= {f"{path}.lora_A.weight": delta.down, f"{path}.lora_B.weight": delta.up}
        if delta.magnitude is not None:  # as peft holds it, whose convolutions want four axes
            tensors[f"{path}.lora_magnitude_vector"] = delta.magnitude.reshape(1, -1, 1, 1) if delta.down.dim() == 4 else delta.magnitude
    return tensors


def _read_kohya(left: dict[str, Tensor], family: str) -> Adapter:
    network: dict[str, LayerAdapter | None] = {}
    for stem, paths in kohya_index(family).items():
        if len(paths) == 1 and (factors := _pop_factors(left, stem)):
            network[paths[0]] = factors
        if f"{stem}.lora_down.weight" not in left:
            continue
        down, up = left.pop(f"{stem}.lora_down.weight"), left.pop(f"{stem}.lora_up.weight")
        if f"{stem}.lora_mid.weight" in left:  # LoCon's Tucker form: the core goes into the down
            down = torch.einsum("ijkl,jr->irkl", left.pop(f"{stem}.lora_mid.weight"), down.flatten(1))
        alpha = left.pop(f"{stem}.alpha", None)
        magnitude = left.pop(f"{stem}.dora_scale", None)
        delta = LoraLayer(down, up, float(down.shape[0] if alpha is None else alpha), None if magnitude is None else magnitude.flatten())
        heights = layer_names.originals(family)[paths[0].partition(".")[2]].heights if len(paths) > 1 else layer_names.SINGLE
        if len(paths) > 1:
            network |= dict(zip(paths, split(delta, heights), strict=True))
        else:
            network[paths[0]] = delta.swapped() if is_swapped(paths[0], delta) else delta
    return {path: delta for path, delta in network.items() if delta is not None}


def _pop_factors(left: dict[str, Tensor], stem: str) -> LycorisLayer | None:
    """The LoKr or LoHa of a layer, taken out of `left`; None where it has none."""
    tensors = {name: left.pop(f"{stem}.{name}") for name in FACTORS if f"{stem}.{name}" in left}
    if not tensors:
        return None
    alpha, magnitude = left.pop(f"{stem}.alpha", None), left.pop(f"{stem}.dora_scale", None)
    factors = LycorisLayer(tensors, 1.0, None if magnitude is None else magnitude.flatten())
    return replace(factors, alpha=float(alpha) if alpha is not None else float(factors.rank or 1))


def kohya_index(family: str) -> dict[str, list[str]]:
    """{kohya's stem: the paths that it holds, in the order of their slots}."""
    folder = layer_names.denoiser_folder(family)
    index = {stem: [f"{folder}.{path}" for path in paths] for stem, paths in layer_names.kohya_paths(family).items()}
    for path in layer_names.layers(family):  # LyCORIS' own prefix, on models of diffusers
        index.setdefault(layer_names.underscored("lycoris", path), [f"{folder}.{path}"])
    for texts in (layer_names.text_layers, layer_names.t5_layers, layer_names.t5_names_of_onetrainer):
        index |= {stem: [path] for path, stem in texts(family).items()}
    return index


def split(delta: LoraLayer, heights: tuple[int, ...]) -> list[LoraLayer | None]:
    """A fused layer as its single ones: with their own downs where `fuse` (or sd-scripts' split_qkv) made it, else each
    with all of it. A part that is zero was not trained and is None (with DoRA, whose lengths stand for all, it is kept).
    `heights` as in `layer_names.Original`."""
    unit = delta.up.shape[0] // sum(heights)
    rows = [height * unit for height in heights]
    lengths = [None] * len(rows) if delta.magnitude is None else delta.magnitude.split(rows)
    parts: list[LoraLayer | None] = []
    for up, magnitude in zip(delta.up.split(rows), lengths, strict=True):
        used = up.any(dim=0).nonzero().flatten()
        if not len(used) and magnitude is None:
            parts.append(None)
        else:
            used = used if len(used) else torch.arange(1)
            parts.append(LoraLayer(delta.down[used], up[:, used], delta.alpha / delta.rank * len(used), magnitude))
    return parts


def _read_diffusers(left: dict[str, Tensor], family: str) -> Adapter:
    folder = layer_names.denoiser_folder(family)
    network: Adapter = {}
    known = {path: path for path in (*(f"{folder}.{layer}" for layer in layer_names.layers(family)), *layer_names.text_layers(family))}
    for layer, path in (known | layer_names.t5_layers(family)).items():
        if factors := _pop_factors(left, path):
            network[layer] = factors
        if f"{path}.lora_A.weight" not in left:
            continue
        down, up = left.pop(f"{path}.lora_A.weight"), left.pop(f"{path}.lora_B.weight")
        alpha = left.pop(f"{path}.alpha", None)
        magnitude = left.pop(f"{path}.lora_magnitude_vector", None)
        lengths = None if magnitude is None else magnitude.flatten()
        network[layer] = LoraLayer(down, up, float(down.shape[0] if alpha is None else alpha), lengths)
    return network
