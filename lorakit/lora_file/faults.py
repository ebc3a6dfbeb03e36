"""What is wrong with the tensors of a LoRA file that somebody else wrote: half layers, numbers that are none, forms that are no factors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lorakit.errors import LorakitError
from lorakit.lora_file import names

Shape = tuple[int, ...]
PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def find_faults(path: Path) -> list[str]:
    """One line for each layer of the file with a fault, which it names; read layer by layer. Raises `LorakitError` where the file is no
    .safetensors."""
    try:
        with safe_open(path, "pt") as file:
            keys: dict[str, dict[str, str]] = {}
            for key in file.keys():
                stem, suffix = names.split_key(key)
                keys.setdefault(stem, {})[suffix] = key
            layers = ((stem, {suffix: file.get_tensor(key) for suffix, key in own.items()}) for stem, own in keys.items())
            return [f"{stem}: {fault}" for stem, tensors in layers if (fault := next(faults_of(tensors), None))]
    except (OSError, SafetensorError) as error:
        raise LorakitError(f"{path}: cannot be read as .safetensors ({error})") from None


def faults_of(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """The faults of one layer, whose tensors these are by their suffixes."""
    for suffix, tensor in tensors.items():
        if tensor.dtype not in PRECISIONS:
            kind = str(tensor.dtype).removeprefix("torch.")
            what = "fp8" if kind.startswith("float8") else "whole numbers" if not tensor.is_floating_point() else kind
            yield f"its {suffix} is in {what} ({kind}); LoRAs are in fp16, bf16 or fp32"
            return
        if not tensor.numel():
            yield f"its {suffix} is empty ({list(tensor.shape)})"
        elif not torch.isfinite(tensor).all():
            wrong = int((~torch.isfinite(tensor)).sum())
            yield f"{wrong} of {tensor.numel()} numbers of its {suffix} are NaN or infinite"
    yield from _odd_shapes({suffix: tuple(tensor.shape) for suffix, tensor in tensors.items()})


def _odd_shapes(shapes: Mapping[str, Shape]) -> Iterator[str]:
    for suffix, shape in shapes.items():
        if fault := broken_pair(suffix, shapes) or broken_factors(suffix, shapes):
            yield fault
        if suffix == "alpha" and shape not in ((), (1,)):
            yield f"its alpha is no single number ({list(shape)})"
    if "alpha" in shapes and len(shapes) == 1:
        yield "it has an alpha and no factors"


def broken_pair(suffix: str, shapes: Mapping[str, Shape]) -> str:
    """What a layer's pair lacks of which `suffix` is one: a down without its up (or the other way round), or two of different rank.
    Empty where it is whole; `shapes` are the layer's, by suffix."""
    for down, up in names.PAIRS:
        if suffix not in (down, up):
            continue
        first, second = shapes.get(down), shapes.get(up)
        if first is None or second is None:
            return f"its {up if suffix == down else down} is missing"
        if len(first) < 2 or len(second) < 2:
            return f"its {down if len(first) < 2 else up} is no matrix ({list(first if len(first) < 2 else second)})"
        if first[0] != second[1]:
            return f"the ranks of {down} ({first[0]}) and {up} ({second[1]}) differ"
    return ""


def broken_factors(suffix: str, shapes: Mapping[str, Shape]) -> str:
    """LoKr without one of its factors (whole, or as a and b), or LoHa without one of its four, or two of different rank."""
    if suffix.startswith("hada_"):
        missing = [name for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b") if name not in shapes]
        return f"its {missing[0]} is missing" if missing else _odd_products(shapes, ("hada_w1", "hada_t1"), ("hada_w2", "hada_t2"))
    if suffix.startswith("lokr_"):
        for name in ("lokr_w1", "lokr_w2"):
            if name not in shapes and not all(f"{name}_{part}" in shapes for part in "ab"):
                return f"its {name} is missing"
        return _odd_products(shapes, ("lokr_w1", ""), ("lokr_w2", "lokr_t2"))
    return ""


def _odd_products(shapes: Mapping[str, Shape], *factors: tuple[str, str]) -> str:
    """Two halves of a factor whose ranks differ; with a core both stand otherwise, and the core says their ranks."""
    for name, core in factors:
        left, right = shapes.get(f"{name}_a"), shapes.get(f"{name}_b")
        if name in shapes or left is None or right is None:
            continue
        if len(left) < 2 or len(right) < 2:
            return f"its {name}_{'a' if len(left) < 2 else 'b'} is no matrix"
        ranks = (left[0], right[0]) if core in shapes else (left[1], right[0])
        wanted = shapes[core][:2] if core in shapes else (right[0], right[0])
        if ranks != (wanted[0], wanted[1]):
            return (
                f"the ranks of {name}_a ({ranks[0]}) and {name}_b ({ranks[1]}) differ"
                if core not in shapes
                else f"{core} is of another rank"
            )
    return ""
