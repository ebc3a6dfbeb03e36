"""What a step's time goes into, and how much of what the card can do is done in it. A card is asked for its times late: asking for
them at once would make it wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

PARTS = ("data", "forward", "backward", "optimizer")
BF16_TFLOPS = {  # dense, fp32 sums, as NVIDIA gives them; of a part of the card's name, the longer names first
    "H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "RTX 5090": 209, "RTX 4090": 165, "RTX 4080": 97, "RTX 3090": 71, "L40S": 362,
    "A6000": 155, "L4": 121, "A10": 125,
}  # fmt: skip
OF_A_STEP = 2  # forwards in FLOPs: a frozen base's backward has the gradients of its activations and none of its weights


class Clock:
    """When the parts of one or several steps begin, on the card's own clock where there is one."""

    def __init__(self, device: str):
        self.is_asynchronous = device.startswith("cuda")
        self.marks: list[tuple[str, Any]] = []

    def mark(self, part: str) -> None:
        """Here `part` begins, and what was before it ends."""
        if self.is_asynchronous:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append((part, event))
        else:
            self.marks.append((part, time.perf_counter()))

    def read(self) -> dict[str, float]:
        """{part: seconds} up to the last mark, for which this waits. On a card `data` is how long it had nothing to do."""
        if self.is_asynchronous and self.marks:
            self.marks[-1][1].synchronize()
        sums: dict[str, float] = {}
        for (part, begin), (_, end) in zip(self.marks, self.marks[1:], strict=False):
            sums[part] = sums.get(part, 0.0) + (begin.elapsed_time(end) / 1000 if self.is_asynchronous else end - begin)
        return sums


def on_paper(card: str) -> float | None:
    """FLOPs a second of a card by its name, in bf16; None where they are not known."""
    return next((rate * 1e12 for name, rate in BF16_TFLOPS.items() if name in card), None)


def card_flops(device: str) -> float | None:
    """The same of the card that is there."""
    return on_paper(torch.cuda.get_device_name(device)) if device.startswith("cuda") else None


def counted(forward: Callable[[], Tensor]) -> tuple[Tensor, int]:
    """(what `forward` returns, its FLOPs: of matrix products, convolutions and attention)."""
    with FlopCounterMode(display=False) as counter:
        found = forward()
    return found, counter.get_total_flops()
