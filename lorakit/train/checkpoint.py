"""Checkpoints: all that a training needs to go on as if it had never stopped. A checkpoint is a folder that appears
with all its files or not at all; `sums.json` has the checksums of the others, by which a damaged one is found."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Container
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from lorakit import files
from lorakit.project.runs import Run
from lorakit.train import tensor_file
from lorakit.train.tensor_file import Damaged

ADAPTER, STATE, SUMS = "adapter.safetensors", "optimizer.pt", "sums.json"
SET_ASIDE = "damaged_"


def save_checkpoint(run: Run, step: int, adapter: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Keep the adapter (fp32), as it is to be used, and the `state` that a resumed training goes on from, after `step` steps."""

    def fill(folder: Path) -> None:
        (folder / ADAPTER).write_bytes(save(adapter, {"step": str(step)}))
        with open(folder / STATE, "wb") as file:
            torch.save(state, file)
        sums = {name: files.file_hash(folder / name) for name in (ADAPTER, STATE)}
        (folder / SUMS).write_text(json.dumps(sums) + "\n", encoding="utf-8")

    files.write_folder(folder_of(run, step), fill)


def folder_of(run: Run, step: int) -> Path:
    return run.checkpoints / f"step_{step:06d}"


def all_steps(run: Run) -> list[int]:
    """Steps at which there are checkpoints, rising."""
    return run.saved_steps


def load_adapter(run: Run, step: int) -> dict[str, Tensor]:
    """Raises `Damaged` where the file is not as it was written."""
    path = folder_of(run, step) / ADAPTER
    check_sum(path)
    return tensor_file.read(path)


def load_state(run: Run, step: int) -> dict[str, Any]:
    """{"optimizer", "scaler", "live", "ema"}; read without unpickling code. Raises `Damaged` as `load_adapter` does."""
    path = folder_of(run, step) / STATE
    check_sum(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise Damaged(f"{path.name} is gone") from None
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        raise Damaged(f"{path.name} cannot be read ({type(error).__name__})") from None  # what torch says of it fills a screen
    if not isinstance(state, dict) or not {"optimizer", "scaler"} <= state.keys():
        raise Damaged(f"{path.name} is no training's state")
    return state


def check_sum(path: Path) -> None:
    """Raises `Damaged` where a checkpoint's file is not what its sums.json says. Those of lorakit 0.1.0 have no sums."""
    try:
        expected = json.loads((path.parent / SUMS).read_text(encoding="utf-8"))[path.name]
        found = files.file_hash(path)
    except FileNotFoundError:
        return  # without sums it is taken as it is; where the file itself is gone, reading it says so
    except (ValueError, KeyError, TypeError):
        raise Damaged(f"{SUMS} cannot be read") from None
    if found != expected:
        raise Damaged(f"{path.name} has changed since it was written (its checksum is another)")


def set_aside(run: Run, step: int) -> Path:
    """Rename a damaged checkpoint, so that it counts no more. Returns its new place."""
    aside = run.checkpoints / f"{SET_ASIDE}step_{step:06d}"
    shutil.rmtree(aside, ignore_errors=True)
    return folder_of(run, step).rename(aside)


def remove_old(run: Run, keep: int, spared: Container[int] = ()) -> None:
    """Remove all but the newest `keep` checkpoints and the `spared` steps; 0 keeps all."""
    for step in all_steps(run)[:-keep] if keep else []:
        if step not in spared:
            shutil.rmtree(folder_of(run, step))
