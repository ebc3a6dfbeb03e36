"""How long a step takes here: measured in trainings, kept for this user, and told by the plan of the next one."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
from pathlib import Path
from typing import Any

import torch

from lorakit import files
from lorakit.project import Project
from lorakit.project.runs import Run
from lorakit.train import crew, rungs

LEAST = 20  # steps: fewer are mostly beginnings
COUNTS = (
    *rungs.COUNTED, "gradient_accumulation", "text_encoder", "t5", "optimizer", "precision", "base_precision", "gradient_checkpointing",
    "swap_blocks", "compile",
)  # fmt: skip


def keep(project: Project, run: Run) -> None:
    """Note the pace of a training that is done, `project` with the rungs that it stood on."""
    seconds = [entry["seconds"] for entry in run.read_metrics()]
    if len(seconds) < LEAST:
        return
    where = project.device or rungs.device.available()[0]
    path = _path(project, where)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(
        path, {"seconds": statistics.median(seconds), "steps": len(seconds), "device": name_of(where), "base": project.card.name}
    )


def known(project: Project, where: str) -> dict[str, Any] | None:
    """{"seconds" of a step, "steps" it was measured over, "device", "base"} for these settings on this device; None: not measured yet."""
    try:
        found = json.loads(_path(project, where).read_text(encoding="utf-8"))
        return found if float(found["seconds"]) > 0 else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def name_of(where: str) -> str:
    if where.startswith("cuda"):
        return torch.cuda.get_device_name(where)
    return f"{platform.processor() or platform.machine()} x {os.cpu_count()}" if where == "cpu" else where


def _path(project: Project, where: str) -> Path:
    train = project.settings.train
    facts = {key: value for key, value in dataclasses.asdict(train).items() if key in COUNTS} | {"checkpoints": train.checkpoints_gradients}
    together = (crew.count(),) if crew.count() > 1 else ()
    return rungs.user_cache() / "pace" / f"{files.short_hash('1', name_of(where), project.card.name, facts, *together)}.json"
