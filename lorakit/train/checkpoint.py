"""Checkpoints: all that a training needs to go on as if it had never stopped. A checkpoint is a folder that appears
with all its files or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Container
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lorakit import files
from lorakit.project.runs import Run

ADAPTER, STATE = "adapter.safetensors", "optimizer.pt"


def save_checkpoint(run: Run, step: int, adapter: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Keep the adapter (fp32), as it is to be used, and the `state` that a resumed training goes on from, after `step` steps."""

    def fill(folder: Path) -> None:
        save_file(adapter, folder / ADAPTER, metadata={"step": str(step)})
        torch.save(state, folder / STATE)

    files.write_folder(run.checkpoints / f"step_{step:06d}", fill)


def all_steps(run: Run) -> list[int]:
    """Steps at which there are checkpoints, rising."""
    return run.saved_steps


def load_adapter(run: Run, step: int) -> dict[str, Tensor]:
    return load_file(run.checkpoints / f"step_{step:06d}" / ADAPTER)


def load_state(run: Run, step: int) -> dict:
    """{"optimizer", "scaler", "live", "ema"}; read without unpickling code."""
    return torch.load(run.checkpoints / f"step_{step:06d}" / STATE, map_location="cpu", weights_only=True)


def remove_old(run: Run, keep: int, spared: Container[int] = ()) -> None:
    """Remove all but the newest `keep` checkpoints and the `spared` steps; 0 keeps all."""
    for step in all_steps(run)[:-keep] if keep else []:
        if step not in spared:
            shutil.rmtree(run.checkpoints / f"step_{step:06d}")
