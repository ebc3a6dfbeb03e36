"""Transformers in the layout of their original code, as single files hold them: taken apart into diffusers' tensors and put
together again, by what the family says of where each one lies."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lorakit.bases.layer_names import SINGLE

Shapes = Mapping[str, tuple[int, ...]]
PlaceOf = Callable[[str, tuple[int, ...]], "Place | None"]  # as `Family.place`


@dataclass(frozen=True)
class Place:
    """Where a tensor of diffusers lies in a file: a fused tensor holds several one above the other."""

    key: str
    slot: int = 0
    heights: tuple[int, ...] = SINGLE  # of the slots, as in `layer_names.Original`
    swapped: bool = False  # shift and scale stand the other way round
    in_a_row: bool = False  # the file has all of its numbers on one axis

    def take(self, tensor: Tensor, height: int) -> Tensor:
        """[height, ...] of the file's tensor."""
        if self.swapped:
            return tensor.view(torch.uint8).roll(height // 2, 0).view(tensor.dtype) if tensor.itemsize == 1 else tensor.roll(height // 2, 0)
        if tensor.shape[:1] == (height,):
            return tensor
        start = height // self.heights[self.slot] * sum(self.heights[: self.slot])
        return tensor[start : start + height]


def outer_place(outer: Mapping[str, str], key: str) -> Place | None:
    """The place of a tensor outside of the blocks; `outer` names layers, or single tensors. The last norm of the original
    code has its shift first, diffusers' its scale."""
    path, _, kind = key.rpartition(".")
    if key in outer:
        return Place(outer[key])
    return Place(f"{outer[path]}.{kind}", swapped=path == "norm_out.linear") if path in outer else None


def converted(
    place: PlaceOf, tensors: Mapping[str, Tensor], wanted: Shapes, scales: Mapping[str, Tensor] | None = None
) -> Iterator[tuple[str, Tensor, Tensor | None]]:
    """The tensors of a file under diffusers' names, one by one, as far as the file has them, each with its scale where the
    file's fp8 has one; `place` is the family's. A tensor that is not as high as its parts together is given whole, for
    whoever compares shapes to name it."""
    scales = scales or {}
    # of a bias the weight tells whether it is the last norm's, with its halves swapped
    places = {key: place(key, wanted.get(f"{key.removesuffix('.bias')}.weight", shape)) for key, shape in wanted.items()}
    heights: Counter[str] = Counter()
    for key, at in places.items():
        if at:
            heights[at.key] += wanted[key][0]
    order = {key: number for number, key in enumerate(tensors)}
    for key, at in sorted(((key, at) for key, at in places.items() if at and at.key in order), key=lambda item: order[item[1].key]):
        tensor, scale = tensors[at.key], scales.get(at.key)
        if at.in_a_row and tensor.numel() == math.prod(wanted[key]):
            tensor = tensor.reshape(wanted[key])
        elif tensor.shape[:1] == (heights[at.key],):
            height = wanted[key][0]
            tensor = at.take(tensor, height)
            scale = at.take(scale, height) if scale is not None and scale.shape[:1] == (heights[at.key],) else scale
        yield key, tensor, scale


def as_original(place: PlaceOf, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The other way: diffusers' tensors in the file's layout."""
    fused: dict[str, dict[int, Tensor]] = {}
    for key, tensor in state.items():
        weight = state.get(f"{key.removesuffix('.bias')}.weight", tensor)
        at = place(key, tuple(weight.shape))
        if at is None:
            raise ValueError(f"{key}: has no name in the original code")
        fused.setdefault(at.key, {})[at.slot] = (
            tensor.roll(tensor.shape[0] // 2, 0) if at.swapped else tensor.flatten() if at.in_a_row else tensor
        )
    return {key: torch.cat([parts[slot] for slot in sorted(parts)]) for key, parts in fused.items()}


def count_blocks(blocks: str, keys: Iterable[str]) -> int:
    """How many blocks of a name there are: 'double_blocks.18.x' is of the nineteenth. Raises `KeyError` where there is none."""
    numbers = [int(found[1]) for key in keys if (found := re.match(rf"{blocks}\.(\d+)\.", key))]
    if not numbers:
        raise KeyError(f"{blocks}.0".replace("\\", ""))
    return 1 + max(numbers)
