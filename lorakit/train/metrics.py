"""metrics.jsonl: one line a step. Losses and norms stay on the card until several are read at once, since asking a card for a
number makes everything wait until it has worked off all that it was told to do."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, TextIO

import torch
from torch import Tensor

from lorakit.train.clock import PARTS, Clock

UNREAD = 20  # steps, at most, after which a card is asked for its numbers


@dataclass(frozen=True)
class StepMetrics:
    """What was measured in one optimizer step: one line of metrics.jsonl, its names the keys."""

    step: int  # counted from 1
    epoch: float  # of the photos, behind this step
    loss: float  # mean over the step's batches
    rate: float  # learning rate
    grad_norm: float  # before it is clipped
    seconds: float  # of a step; where several are read at once, their mean
    photos: list[str]
    regularisation: list[str] = field(default_factory=list)  # left out of the line where there are none, as is all below
    validation: float | None = None  # behind this step: see train/validation.py
    leak: float | None = None
    drift: float | None = None
    split: dict[str, float] = field(default_factory=dict)  # seconds of its parts, as train/clock.py names them
    memory: float | None = None  # GB that torch has held of the card at most
    mfu: float | None = None  # the model's FLOPs a second as a share of what the card can do, where that is known

    def as_json(self) -> str:
        facts = {key: value for key, value in asdict(self).items() if key == "photos" or value not in (None, [], {})}
        digits = {"epoch": 4, "loss": 6, "grad_norm": 6, "seconds": 4, "validation": 6, "leak": 4, "drift": 4, "memory": 3, "mfu": 3}
        if self.split:
            facts["split"] = {part: round(seconds, 4) for part, seconds in self.split.items()}
        return json.dumps({key: round(value, digits[key]) if key in digits else value for key, value in facts.items()})


@dataclass(frozen=True)
class Step:
    """One optimizer step as it was told to the card: what is known of it, and what the card will know."""

    number: int  # counted from 1
    epoch: float
    rate: float
    photos: list[str]
    regularisation: list[str]
    loss: Tensor  # scalar
    norm: Tensor  # scalar
    watched: dict[str, float] = field(default_factory=dict)  # {"validation", "leak", "drift"}, on the steps where they are measured
    clock: Clock | None = None
    card_seconds: float | None = None  # that its FLOPs would take where the card did all it can


class Metrics:
    """Writes the lines of a run, in the order of the steps. `report` is given every line that was written; `stop` is what to
    raise for a step whose loss, or gradient where `gradient_counts`, is no number."""

    def __init__(
        self,
        file: TextIO,
        device: str,
        stop: Callable[[StepMetrics], Exception],
        gradient_counts: bool = True,
        report: Callable[[StepMetrics], None] = lambda line: None,
    ):
        self.file, self.stop, self.gradient_counts, self.report = file, stop, gradient_counts, report
        self.device, self.most = device, 1 if device.startswith("cpu") else UNREAD
        self.unread: list[Step] = []
        self._began = 0.0

    def begin(self) -> None:
        """To be called before a step."""
        if not self.unread:
            self._began = time.perf_counter()

    def add(self, step: Step) -> list[StepMetrics]:
        """Take in a step; returns the lines that were written, none most of the time."""
        self.unread.append(step)
        return self.read() if len(self.unread) >= self.most else []

    def read(self) -> list[StepMetrics]:
        """Write the lines of all steps so far: before a checkpoint, so that none is kept of numbers that are none."""
        if not self.unread:
            return []
        values = torch.stack([tensor.detach().float() for step in self.unread for tensor in (step.loss, step.norm)]).tolist()
        seconds = (time.perf_counter() - self._began) / len(self.unread)
        steps, self.unread = self.unread, []
        memory, written = card_gb(self.device), []
        for step, loss, norm in zip(steps, values[::2], values[1::2], strict=True):
            line = StepMetrics(
                step.number, step.epoch, loss, step.rate, norm, seconds, step.photos, step.regularisation, **step.watched,
                memory=memory, **_times(step),
            )  # fmt: skip
            if not math.isfinite(loss) or (self.gradient_counts and not math.isfinite(norm)):
                raise self.stop(line)
            self.file.write(line.as_json() + "\n")
            written.append(line)
        self.file.flush()
        for line in written:
            self.report(line)
        return written


def _times(step: Step) -> dict[str, Any]:
    """{"split", "mfu"} of a step that the card is known to be done with."""
    if step.clock is None:
        return {}
    seconds = step.clock.read()
    split, whole = {part: seconds.get(part, 0.0) for part in PARTS}, sum(seconds.values())
    return {"split": split, "mfu": step.card_seconds / whole if step.card_seconds and whole else None}


def card_gb(device: str) -> float | None:
    """The most memory that torch has held of a CUDA card so far, in GB; None elsewhere. It waits for no step."""
    return torch.cuda.max_memory_reserved(device) / 2**30 if device.startswith("cuda") else None
