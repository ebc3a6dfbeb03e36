"""LoRA files between their formats: `kohya` (lora_down/lora_up/alpha under underscored names, fused where the original
code is) and `diffusers` (lora_A/lora_B under dotted paths). In between stands an `Adapter`, one `LoraLayer` a layer, or one
`LycorisLayer` where the layer has LoKr or LoHa, which stand in both formats under LyCORIS' names."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from safetensors.torch import save
from torch import Tensor

from lorakit.bases import families, layer_names
from lorakit.errors import LorakitError
from lorakit.lora_file import faults, names
from lorakit.lora_file.names import FACTORS

FORMATS = ("kohya", "diffusers")
# How far a layer's change in a file may be from the one it was written from, of its size. bf16 keeps 8 bits of each factor, which
# costs 2e-3.
ROUNDING = {torch.float32: 1e-3, torch.float16: 1e-3, torch.bfloat16: 4e-3}


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
        return self if self.alpha == self.rank else replace(self, up=self.up.float() * (self.alpha / self.rank), alpha=float(self.rank))

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
    rows: tuple[int, int] | None = None  # the outputs that are this layer's, where the factors are of several fused ones

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
        whole = self._whole_change()
        return whole if self.rows is None else whole[self.rows[0] : self.rows[1]]

    def _whole_change(self) -> Tensor:
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


def distance(found: LayerAdapter, wanted: LayerAdapter) -> tuple[float, float]:
    """(how far a change is from another, how large that one is), as Frobenius norms. Of LoRA layers taken through the small factors: the
    whole matrices of a large base would take minutes."""
    if isinstance(found, LoraLayer) and isinstance(wanted, LoraLayer):
        pairs = [(c.up.double().flatten(1) * (c.alpha / c.rank), c.down.double().flatten(1)) for c in (wanted, found)]
        (up, down), (other_up, other_down) = pairs
        return _norm(torch.cat([up, -other_up], dim=1), torch.cat([down, other_down])), _norm(up, down)
    whole = wanted.change()
    return float((found.change() - whole).norm()), float(whole.norm())


def _norm(up: Tensor, down: Tensor) -> float:
    """Of up @ down: the square root of the trace of (up' up)(down down')."""
    return float(((up.T @ up) * (down @ down.T)).sum().clamp(min=0).sqrt())


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


def read(tensors: Mapping[str, Tensor], family: str, header: Mapping[str, str] = {}) -> Adapter:  # noqa: B006
    """The network of a file, in any form that `names.layers_by_stem` has; `header` is its metadata, where peft may keep alphas.
    Raises `LorakitError` naming the first key that belongs to no layer, or the first layer with a fault."""
    known = names.layers_by_stem(family)
    grouped: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        stem, suffix = names.split_key(key)
        grouped.setdefault(stem, {})[suffix] = tensor
    strange = [key for key in tensors if names.split_key(key)[0] not in known]
    if strange:
        raise LorakitError(f"{strange[0]}: no layer of {family} is called so ({len(strange)} such keys); `lorakit verify` lists them")
    alphas, network = peft_alphas(header), {}
    for stem, own in grouped.items():
        if not any(tensor.is_meta for tensor in own.values()) and (fault := next(faults.faults_of(own), None)):
            raise LorakitError(f"{stem}: {fault}")
        held = known[stem]
        for path, change in zip(held.paths, _changes_of(stem, own, held, family, alphas), strict=True):
            if change is not None and path in network:
                raise LorakitError(f"{stem}: changes {path}, which another key of the file changes too")
            if change is not None:
                network[path] = change
    return network


def _changes_of(
    stem: str, tensors: dict[str, Tensor], held: names.Held, family: str, alphas: Callable[[str, int], float | None]
) -> Sequence[LayerAdapter | None]:
    """What the tensors that stand under one name add to each of the layers that it holds; None where that is nothing."""
    left = dict(tensors)
    alpha, lengths = left.pop("alpha", None), next((name for name in names.MAGNITUDES if name in left), "")
    magnitude = left.pop(lengths, None)
    found = {name: left.pop(name) for name in FACTORS if name in left}
    pair = next(((left.pop(down), left.pop(up)) for down, up in names.PAIRS if down in left), None)
    core = left.pop("lora_mid.weight", None)
    if left or (found and pair) or not (found or pair):
        raise LorakitError(
            f"{stem}: has {', '.join(left) or 'the factors of two kinds'}, which is more than a LoRA; lorakit does not convert it"
        )
    if pair is None:
        change: LayerAdapter = LycorisLayer(found, 1.0)
        change = replace(change, alpha=float(alpha) if alpha is not None else float(change.rank or 1))
        out = _outputs(change)
    else:
        down, up = pair
        if core is not None:  # LoCon's Tucker form: the core goes into the down
            down = torch.einsum("ijkl,jr->irkl", core.float(), down.float().flatten(1))
        out, rank = up.shape[0], down.shape[0]
        scale = float(alpha) if alpha is not None else alphas(held.paths[0], rank) or float(rank)
        change = LoraLayer(down, up, scale)
    if magnitude is not None:
        by_input = lengths == "dora_scale" and magnitude.dim() > 1 and magnitude.shape[0] == 1 < out
        if by_input or magnitude.numel() != out:
            raise LorakitError(
                f"{stem}: its DoRA lengths are those of the inputs, an older form, or of another layer; lorakit does not convert it"
            )
        change = replace(change, magnitude=magnitude.flatten())
    if out % sum(held.heights):
        raise LorakitError(f"{stem}: its {out} outputs are not those of {len(held.paths)} layers of {family}")
    if len(held.paths) == 1:
        return [change.swapped() if isinstance(change, LoraLayer) and is_swapped(held.paths[0], change) else change]
    return split(change, held.heights) if isinstance(change, LoraLayer) else split_factors(change, held.heights)


def _outputs(change: LycorisLayer) -> int:
    """How many outputs the factors have together."""
    shapes = {name: tuple(tensor.shape) for name, tensor in change.tensors.items()}
    if "hada_w1_a" in shapes:
        return shapes["hada_w1_a"][1 if "hada_t1" in shapes else 0]
    first = shapes.get("lokr_w1") or shapes["lokr_w1_a"]
    second = shapes.get("lokr_w2") or (shapes["lokr_w2_a"][1:] if "lokr_t2" in shapes else shapes["lokr_w2_a"])
    return first[0] * second[0]


def peft_alphas(header: Mapping[str, str]) -> Callable[[str, int], float | None]:
    """(path, rank) -> the alpha that the header which diffusers writes beside peft's keys has for a layer without one of its own."""
    try:
        about = json.loads(header.get("lora_adapter_metadata", "{}"))
    except json.JSONDecodeError:
        about = {}

    def alpha_of(path: str, rank: int) -> float | None:
        part, _, inner = path.partition(".")
        own = {key.removeprefix(f"{part}."): value for key, value in about.items() if key.startswith(f"{part}.")} or about
        single = (own.get("alpha_pattern") or {}).items()
        alpha = next((value for name, value in single if inner == name or inner.endswith(f".{name}")), own.get("lora_alpha"))
        if not isinstance(alpha, int | float):
            return None
        return float(alpha) * (rank**0.5 if own.get("use_rslora") else 1.0)

    return alpha_of


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
    return replace(change, up=change.up.float() * (change.alpha / alpha), alpha=alpha)


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
    shared: dict[str, dict[int, LycorisLayer]] = {}  # likewise, of factors that are of the fused layer as it is
    tensors: dict[str, Tensor] = {}
    for path, delta in network.items():
        stem, original = _kohya_name(path, family)
        if isinstance(delta, LycorisLayer) and delta.rows is not None:
            shared.setdefault(stem, {})[original.slot] = delta
            continue
        if isinstance(delta, LycorisLayer):
            inner = path.removeprefix(f"{layer_names.denoiser_folder(family)}.")
            own = layer_names.lycoris_stem(family, inner) if layer_names.is_fused(family) and inner != path else stem
            tensors |= {f"{own}.{name}": tensor for name, tensor in delta.tensors.items()} | _scales(own, delta, delta.change)
            continue
        fused.setdefault(stem, {})[original.slot] = delta.swapped() if is_swapped(path, delta) else delta
        heights[stem] = original.heights
    for stem, shares in shared.items():
        tensors |= _shared_factors(stem, shares)
    for stem, parts in fused.items():
        delta = parts[0] if len(heights[stem]) == 1 else fuse(parts, heights[stem])
        tensors |= {f"{stem}.lora_down.weight": delta.down, f"{stem}.lora_up.weight": delta.up}
        tensors |= _scales(stem, delta, lambda delta=delta: delta.down)
    return tensors


def _shared_factors(stem: str, parts: Mapping[int, LycorisLayer]) -> dict[str, Tensor]:
    """The factors of a fused layer, once, as they were read."""
    whole = replace(parts[0], rows=None)
    if whole.magnitude is not None:
        whole = replace(whole, magnitude=torch.cat([part.magnitude for _, part in sorted(parts.items()) if part.magnitude is not None]))
    return {f"{stem}.{name}": tensor for name, tensor in whole.tensors.items()} | _scales(stem, whole, whole.change)


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
        path = _peft_name(layer, family)
        if isinstance(delta, LycorisLayer) and delta.rows is not None:
            raise LorakitError(
                f"{layer}: its LoKr is that of a fused layer and cannot be cut exactly; write kohya's form, or give --rank and it becomes plain LoRA"
            )
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


def _peft_name(layer: str, family: str) -> str:
    """diffusers' path; of T5, which is known by it alone, kohya's name, and the original one where the family says so."""
    cls, inner = families.load(family), layer.removeprefix(f"{layer_names.denoiser_folder(family)}.")
    if cls.PEFT_ORIGINAL and inner in layer_names.originals(family):
        return f"{cls.PEFT_ORIGINAL}{layer_names.originals(family)[inner].name}"
    return layer_names.t5_layers(family).get(layer, layer)


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


def split_factors(change: LycorisLayer, heights: tuple[int, ...]) -> list[LycorisLayer]:
    """LoKr or LoHa of a fused layer as those of the single ones. LoHa's outputs are the rows of its factors, LoKr's those of w1, where
    its rows come out even; where they do not, each has the whole factors and says which rows are its own."""
    out = _outputs(change)
    unit = out // sum(heights)
    ends = [0]
    for height in heights:
        ends.append(ends[-1] + height * unit)
    first = next(name for name in ("hada_w1_a", "lokr_w1", "lokr_w1_a") if name in change.tensors)
    cut = (first, "hada_w2_a") if first == "hada_w1_a" else (first,)
    height = change.tensors[first].shape[0]
    even = height % sum(heights) == 0 and "hada_t1" not in change.tensors
    found = []
    for start, end in pairwise(ends):
        lengths = None if change.magnitude is None else change.magnitude[start:end]
        if even:
            rows = slice(start * height // out, end * height // out)
            found.append(replace(change, tensors={n: t[rows] if n in cut else t for n, t in change.tensors.items()}, magnitude=lengths))
        else:
            found.append(replace(change, magnitude=lengths, rows=(start, end)))
    return found
