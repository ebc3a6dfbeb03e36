"""What is said of a training while it goes on: one note behind the progress, the same on a terminal and in a pipe."""

from __future__ import annotations

from lorakit.train.metrics import StepMetrics, card_gb

KEEP = 0.95  # of the smoothed loss from step to step: the single ones jump with their timestep


class Note:
    """'loss 0.1234, validation 0.1200, rate 1.0e-04, card 3.1 GB': the loss is smoothed, the validation the last that was measured."""

    def __init__(self, device: str):
        self.device = device
        self._sum = self._weight = 0.0
        self._validation: float | None = None

    def of(self, line: StepMetrics) -> str:
        """Take in the next line, and say all that is known."""
        self._sum = KEEP * self._sum + (1 - KEEP) * line.loss
        self._weight = KEEP * self._weight + (1 - KEEP)
        self._validation = self._validation if line.validation is None else line.validation
        words = [f"loss {self._sum / self._weight:.4f}"]
        words += [f"validation {self._validation:.4f}"] if self._validation is not None else []
        words += [f"rate {line.rate:.1e}"]
        words += [f"card {most:.1f} GB"] if (most := card_gb(self.device)) is not None else []
        return ", ".join(words)
