"""A finished training, looked up again: its run, its checkpoints, and the base with its LoRA in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from lorakit.bases.families.base import Family
from lorakit.bases.load import load_family
from lorakit.console import typed, warn
from lorakit.errors import LorakitError
from lorakit.project import Project, runs, stamps
from lorakit.project.runs import Run
from lorakit.train import checkpoint, lora, standing
from lorakit.train.picked import exported_step
from lorakit.train.tensor_file import Damaged


def begun_run(project: Project) -> Run:
    """The training of the present settings and dataset, finished or stopped. Raises `LorakitError` when there is none."""
    run = runs.find(project.folder, stamps.train(project)) if any(r.get("dataset") for r in project.manifest) else None
    if run is None or not checkpoint.all_steps(run):
        raise LorakitError(f"{project.folder}: nothing is trained yet with these settings; run `lorakit train {typed(project.folder)}`")
    return run


def trained_run(project: Project) -> Run:
    """The finished training that belongs to the project's present settings and dataset, with its last checkpoint whole: where
    that is damaged, it is trained again from the one before. Raises `LorakitError` when nothing is trained yet."""
    stamp = stamps.train(project)
    run = runs.find(project.folder, stamp)
    if run is None or not run.is_done("train", stamp):
        raise LorakitError(f"{project.folder}: nothing is trained yet with these settings; run `lorakit train {typed(project.folder)}`")
    steps = checkpoint.all_steps(run)
    try:
        checkpoint.load_adapter(run, steps[-1] if steps else run.facts["result"]["steps"])
    except Damaged as damage:
        warn(f"{run.folder.name}: the last checkpoint is damaged ({damage}); its steps are trained again")
        run.reopen()
        from lorakit.train.train import train  # which itself draws samples

        return train(project)
    return run


def trained_adapter(project: Project, run: Run, step: int | None = None) -> tuple[dict[str, Tensor], int]:
    """The tensors of a checkpoint and its step: of `step`, else of the one that was picked, else of the last.
    Raises `LorakitError` when it is not kept or damaged."""
    step, kept = exported_step(project, run) if step is None else step, checkpoint.all_steps(run)
    there = ", ".join(map(str, kept))
    if step not in kept:
        raise LorakitError(f"{run.folder.name}: no checkpoint of step {step} is kept; there are {there}")
    try:
        return checkpoint.load_adapter(run, step), step
    except Damaged as damage:
        others = ", ".join(str(other) for other in kept if other != step) or "none"
        raise LorakitError(f"{checkpoint.folder_of(run, step)}: {damage}; other checkpoints: {others}") from None


def load_trained(project: Project, run: Run, step: int | None = None, prepare: Callable[[Family], None] | None = None) -> Family:
    """The base, first changed by `prepare`, with the LoRA of a checkpoint in it, chosen as by `trained_adapter`."""
    return load_with(project, run, trained_adapter(project, run, step)[0], prepare)


def load_with(project: Project, run: Run, adapter: Mapping[str, Tensor], prepare: Callable[[Family], None] | None = None) -> Family:
    """The same with these tensors of it."""
    as_run = standing.as_run(project, run)
    family = load_family(as_run)
    if prepare:
        prepare(family)
    lora.add_lora(family, as_run.settings.train)
    family.swap_blocks(as_run.settings.train.swap_blocks)
    lora.set_lora(family, adapter)
    return family


def step_suffix(step: int | None) -> str:
    """What is added to the names of files that are made from one checkpoint: '-step000250'; nothing for the chosen one."""
    return "" if step is None else f"-step{step:06d}"
