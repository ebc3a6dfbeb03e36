"""metrics.jsonl: one line a step. Losses and norms stay on the card until several are read at once, since asking a card for a
number makes everything wait until it has worked off all that it was told to do."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TextIO

import torch
from torch import Tensor

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
    regularisation: list[str] = field(default_factory=list)  # left out of the line where there are none, as are the next two
    validation: float | None = None  # behind this step: see train/validation.py
    leak: float | None = None

    def as_json(self) -> str:
        facts = {key: value for key, value in asdict(self).items() if key == "photos" or value not in (None, [])}
        digits = {"epoch": 4, "loss": 6, "grad_norm": 6, "seconds": 4, "validation": 6, "leak": 4}
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
    watched: dict[str, float] = field(default_factory=dict)  # {"validation", "leak"}, on the steps where they are measured


class Metrics:
    """Writes the lines of a run, in the order of the steps. `report` is given every line that was written; `stop` is what to
    raise for a step whose loss, or gradient where `gradient_counts`, is no number."""

    def __init__(
        self,
        file: TextIO,
        on_card: bool,
        stop: Callable[[StepMetrics], Exception],
        gradient_counts: bool = True,
        report: Callable[[StepMetrics], None] = lambda line: None,
    ):
        self.file, self.stop, self.gradient_counts, self.report = file, stop, gradient_counts, report
        self.most = UNREAD if on_card else 1
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
        written = []
        for step, loss, norm in zip(steps, values[::2], values[1::2], strict=True):
            line = StepMetrics(step.number, step.epoch, loss, step.rate, norm, seconds, step.photos, step.regularisation, **step.watched)
            if not math.isfinite(loss) or (self.gradient_counts and not math.isfinite(norm)):
                raise self.stop(line)
            self.file.write(line.as_json() + "\n")
            written.append(line)
        self.file.flush()
        for line in written:
            self.report(line)
        return written
