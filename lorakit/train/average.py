"""The weights that a training gives: the live ones, or a mean over the steps, where the optimizer is schedule-free or an
EMA is kept. The live ones are what is trained on, and what a resumed training goes on from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from lorakit.train import optimizer as optim


class Average:
    """`with average.averaged_weights():` the parameters hold the mean; after it they are the live ones again, bit for bit."""

    def __init__(self, parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer, decay: float):
        """`decay` of the EMA, 0 for none: mean = decay x mean + (1 - decay) x live, with (1 + n) / (10 + n) for its first
        steps n, so that it does not hang on to where the training began (diffusers' `EMAModel`)."""
        self._parameters, self._optimizer = parameters, optimizer
        self._ema = EMAModel(parameters, decay=decay) if decay else None

    @property
    def is_live(self) -> bool:
        """Whether the weights that are trained on are also those that are given out."""
        return self._ema is None and not optim.has_modes(self._optimizer)

    def update(self) -> None:
        """Take in the weights after an optimizer step."""
        if self._ema:
            self._ema.step(self._parameters)

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        if self.is_live:
            yield
            return
        live = [parameter.detach().clone() for parameter in self._parameters]
        with torch.no_grad():
            if self._ema:
                self._ema.copy_to(self._parameters)
            else:
                self._optimizer.eval()
        try:
            yield
        finally:
            if not self._ema:
                self._optimizer.train()
            with torch.no_grad():  # going there and back again by arithmetic would change the last bits
                for parameter, kept in zip(self._parameters, live, strict=True):
                    parameter.copy_(kept)

    def state(self) -> dict[str, Any]:
        """{"live": tensors in the order of the parameters, or None, "ema"}: what goes into a checkpoint beside the mean."""
        live: list[Tensor] | None = None if self.is_live else [p.detach().cpu().clone() for p in self._parameters]
        return {"live": live, "ema": self._ema.state_dict() if self._ema else None}

    @torch.no_grad()
    def load_state(self, state: dict[str, Any]) -> None:
        """Put back what `state` gave; the parameters become the live ones."""
        if state.get("live"):
            for parameter, kept in zip(self._parameters, state["live"], strict=True):
                parameter.copy_(kept)
        if self._ema and state.get("ema"):
            self._ema.load_state_dict(state["ema"])
            self._ema.to(self._parameters[0].device)
