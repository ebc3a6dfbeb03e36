"""A training that goes on from another of the project: the same base and settings, with more steps or more photos. It is a run of its own,
which begins with a copy of the other's last checkpoint, so that nothing of that one is lost."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lorakit.console import say, warn
from lorakit.project import Project, runs, stamps
from lorakit.project.runs import Run
from lorakit.record import Record
from lorakit.train import checkpoint, from_lora, optimizer
from lorakit.train.tensor_file import Damaged

SHOWN = 3  # names of photos in a line
BY_PHOTO = "by photo"  # how what is left to chance is drawn in a new run; runs of former versions have no such word, and draw it by batch


def start(project: Project, stamp: str, photos: Sequence[Record]) -> Run:
    """A new run folder: with the last checkpoint of the newest run that this training can go on from, else empty."""
    taught = stamps.taught(project)
    facts: dict[str, Any] = {"taught": taught, "chance": BY_PHOTO} | from_lora.facts_of(project)
    found = None if project.new_run else find(project, taught, len(photos))
    if found is None:
        return runs.start(project.folder, stamp, facts)
    run, step, steps = found

    def copy(folder: Path) -> None:
        source = checkpoint.folder_of(run, step)
        shutil.copytree(source, folder / "checkpoints" / source.name)
        if run.metrics.is_file():
            shutil.copy(run.metrics, folder / "metrics.jsonl")

    continues = {"run": run.folder.name, "step": step, "steps": steps}
    watched = (run.facts.get("planned") or {}).get("held_out")  # what that one has not learned is still watched, and no other photo is
    kept = {key: run.facts[key] for key in ("from_lora",) if key in run.facts} | {"planned": {"held_out": watched} if watched else {}}
    return runs.start(project.folder, stamp, facts | kept | {"continues": continues}, copy)


def draws_by_photo(run: Run) -> bool:
    """Whether each photo's chance is drawn by itself. A training that was begun otherwise goes on otherwise, and ends as it would have."""
    return run.facts.get("chance") == BY_PHOTO


def find(project: Project, taught: dict[str, Any], photos: int) -> tuple[Run, int, int] | None:
    """(run, the step of its last whole checkpoint, all steps of the training that goes on from there) of the newest run that had the same
    base and settings, no photo or text that is another now, and fewer steps or photos."""
    planned = project.settings.train.planned_steps(photos)
    for run in reversed(runs.all_runs(project.folder)):
        before = _taught_by(project, run)
        if not before or before["by"] != taught["by"] or Counter(before["photos"]) - Counter(taught["photos"]):
            continue
        step = _last_whole(run)
        added = photos - len(before["photos"])
        if step and (planned > step or added > 0):
            # Where no steps are left for photos that came later, they get as many as each of the others had.
            return run, step, planned if planned > step else step + math.ceil(step * added / len(before["photos"]))
    return None


def _taught_by(project: Project, run: Run) -> dict[str, Any] | None:
    """`stamps.taught` of a run. lorakit 0.1.0 did not note it: there only the steps can be told to be others."""
    found = run.facts.get("taught")
    if isinstance(found, dict):
        return found if isinstance(found.get("by"), str) and isinstance(found.get("photos"), list) and found["photos"] else None
    then = {key: value for key, value in run.read_settings().items() if key.removeprefix("train.") in stamps.STEP_RULE}
    if not then:
        return None
    train = dataclasses.replace(project.settings.train, **{key.removeprefix("train."): value for key, value in then.items()})
    as_then = dataclasses.replace(project, settings=dataclasses.replace(project.settings, train=train))
    return stamps.taught(project) if stamps.train(as_then) == run.facts["stamp"] else None


def _last_whole(run: Run) -> int | None:
    for step in reversed(run.saved_steps):
        try:
            checkpoint.load_adapter(run, step)
            checkpoint.load_state(run, step)
        except Damaged as damage:
            warn(f"{run.folder.name}: its checkpoint of step {step} is damaged ({damage}); an earlier one is taken")
            continue
        return step
    return None


def steps_of(project: Project, run: Run, photos: int) -> int:
    """How many steps a run has in all."""
    return run.continues.get("steps") or project.settings.train.planned_steps(photos)


def say_where_it_begins(project: Project, run: Run) -> None:
    """What a run that is not finished goes on from, or, where there are trainings already, why it begins at step 1."""
    earlier = [other for other in runs.all_runs(project.folder) if other.folder != run.folder]
    if run.continues:
        _say_what_continues(project, run)
    elif earlier and not run.saved_steps:
        why = "as --new asks" if project.new_run else _why_new(project, earlier[-1])
        say(f"train     a new run from step 1, since {earlier[-1].folder.name} ({why}); that one and its checkpoints stay")
        if earlier[-1].lora and not project.settings.train.from_lora:
            say(f"          to begin with what that one learned: --from-lora {_shown(earlier[-1].lora)}")


def _say_what_continues(project: Project, run: Run) -> None:
    since, settings = run.continues, project.settings.train
    more = since["steps"] - since["step"]
    say(
        f"train     goes on from step {since['step']} of {since['run']}: its adapter, optimizer and curve; {more} more steps, to {since['steps']}"
    )
    if new := _added(project, run):
        names = ", ".join(new[:SHOWN]) + (", ..." if len(new) > SHOWN else "")
        beyond = (
            "" if settings.planned_steps(_count(project)) == since["steps"] else "; no steps were left, so they get as many as the others"
        )
        say(f"          {len(new)} photos are new ({names}){beyond}")
    if optimizer.is_schedule_free(settings) or (settings.lr_schedule == "constant" and not settings.warmup_steps):
        rate = f"the learning rate stays {settings.learning_rate:g}"
    else:
        warm = f" and its {settings.warmup_steps} steps of warm-up" if settings.warmup_steps else ""
        rate = f"the {settings.lr_schedule} schedule{warm} begins anew for these steps, from {settings.learning_rate:g}"
    say(f"          {rate}. That run and its files stay; --new begins at step 1 instead")


def _count(project: Project) -> int:
    return sum(1 for r in project.manifest.selected if r.get("dataset"))


def _added(project: Project, run: Run) -> list[str]:
    """The photos that the run before had not."""
    before = next((other for other in runs.all_runs(project.folder) if other.folder.name == run.continues["run"]), None)
    had = Counter((before.facts.get("taught") or {}).get("photos") or ()) if before else Counter()
    if not had:
        return []
    chosen = [r for r in project.manifest.selected if r.get("dataset")]
    return [r["file"] for r, mark in zip(chosen, stamps.taught(project)["photos"], strict=True) if not had[mark]]


def _why_new(project: Project, earlier: Run) -> str:
    """What is another than in the run before."""
    before, now = earlier.read_settings(), project.settings.flat()
    changed = [
        f"{key} {before[key]} -> {json.loads(json.dumps(value))}"
        for key, value in now.items()
        if key.startswith("train.") and key in before and before[key] != json.loads(json.dumps(value))
    ]
    photos, had = Counter(stamps.taught(project)["photos"]), Counter((earlier.facts.get("taught") or {}).get("photos") or ())
    if had and (lost := sum((had - photos).values())):
        changed.append(f"{lost} photos are gone or have other texts")
    elif had and (new := sum((photos - had).values())):
        changed.append(f"{new} photos are new")
    return ", ".join(changed) or "photos, texts or the base are others"


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
