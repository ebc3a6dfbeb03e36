"""Master weights: an adapter that learns in fp32, and stands in a base of bf16 or fp16 as copies of that type. Autocast makes the same
copies of every weight in every pass, and brings every gradient back by itself; here it is a few calls a step, to the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from lorakit.bases.families.base import Family
from lorakit.settings import Train
from lorakit.train import lora

AT_ONCE = 64  # gradients that are there in both types for a moment


class MasterWeights:
    """The fp32 weights of an adapter's layers (the masters, which the optimizer has), and the copies in `dtype` that the layers hold in
    their place."""

    def __init__(self, layers: list[nn.Module], dtype: torch.dtype):
        self._layers = layers
        self._masters = [layer.weight for layer in layers]
        self._copies = [nn.Parameter(weight.detach().to(dtype), weight.requires_grad) for weight in self._masters]
        _place(self._layers, self._copies)

    def collect_gradients(self) -> None:
        """After a backward: what has come to the copies is added to the gradients of the masters."""
        came = [(master, copy) for master, copy in zip(self._masters, self._copies, strict=True) if copy.grad is not None]
        for begin in range(0, len(came), AT_ONCE):
            some = came[begin : begin + AT_ONCE]
            gradients = [torch.empty_like(master) for master, _ in some]
            torch._foreach_copy_(gradients, [copy.grad for _, copy in some])
            before = [(new, master.grad) for (master, _), new in zip(some, gradients, strict=True) if master.grad is not None]
            if before:
                torch._foreach_add_(*map(list, zip(*before, strict=True)))
            for (master, copy), new in zip(some, gradients, strict=True):
                master.grad, copy.grad = new, None

    def drop_gradients(self) -> None:
        """Of a backward that came to no end."""
        for copy in self._copies:
            copy.grad = None

    @torch.no_grad()
    def round(self) -> None:
        """After the masters have changed: the copies are made anew."""
        if self._copies:
            torch._foreach_copy_(self._copies, self._masters)

    @contextmanager
    def in_the_model(self) -> Iterator[None]:
        """The model holds the masters themselves: to read or to set them, and to draw pictures without autocast."""
        _place(self._layers, self._masters)
        try:
            yield
        finally:
            _place(self._layers, self._copies)
            self.round()


def _place(layers: list[nn.Module], weights: list[nn.Parameter]) -> None:
    for layer, weight in zip(layers, weights, strict=True):
        layer.weight = weight


def of_adapter(family: Family, settings: Train) -> MasterWeights:
    """Of no layer where the base is in fp32, and where the adapter reckons with its weights otherwise than by the products that autocast
    rounds (DoRA, LoKr, LoHa)."""
    if family.dtype == torch.float32 or settings.adapter != "lora":
        return MasterWeights([], family.dtype)
    parts = [part for _, layer in lora.adapted(family) for part in (layer.lora_A, layer.lora_B)]
    return MasterWeights([part[name] for part in parts for name in (lora.NAME, lora.START) if name in part], family.dtype)
