"""On which rungs a training stands: chosen for the card before anything is loaded, one more where its memory runs out after all,
and kept in run.json, so that a resumed training stands where it stood. What a person has set is never touched."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from lorakit import device
from lorakit.console import say, warn
from lorakit.errors import LorakitError
from lorakit.project import Project, runs, stamps
from lorakit.project.runs import Run
from lorakit.settings import Train
from lorakit.train import checkpoint, crew, rungs
from lorakit.train.rungs import COSTS, Base, Fit
from lorakit.train.tensor_file import Damaged
from lorakit.weights import quiet_libraries

LEAST_RANK = 4


class Standing:
    """The rungs of one run. `project` is the one that was opened, with these settings in place of those left to the machine."""

    def __init__(self, project: Project, run: Run):
        self.opened, self.run = project, run
        if run.rungs is None and run.saved_steps:  # run.json is lost, or of a lorakit that chose none
            run.keep_rungs(_of_checkpoints(run))
        if run.rungs is None:
            run.keep_rungs(choose(project))
        elif run.rungs:
            say(f"memory    as this training began: {in_words(run.rungs)}")
        limit_card(project)

    @property
    def project(self) -> Project:
        return as_run(self.opened, self.run)

    def step_down(self, step: int, resumed: bool) -> None:
        """Turn on the next rung, and say so. Raises `LorakitError` where none is left."""
        rungs.release(where_of(self.opened))
        on = dict(self.run.rungs or {})
        found = next_rung(
            rungs.base_of(self.opened), self.opened.settings.train, on, rungs.free_settings(self.opened), where_of(self.opened)
        )
        if found is None:
            raise LorakitError(
                f"the memory is not enough at step {step + 1}, with all that may be turned on ({in_words(on) or 'nothing: all is set by hand'}); "
                "what is left: a lower train.rank, train.batch_size=1, train.targets=attention, a smaller train.resolution"
            )
        key, value = found
        self.run.keep_rungs({**on, key: value})
        goes_on = "goes on from the same step with the same numbers" if not resumed else "goes on from the last checkpoint"
        warn(f"the memory was not enough at step {step + 1}; turned on {key}={value} ({COSTS[key]}): the training {goes_on}")


def choose(project: Project) -> dict[str, Any]:
    """The rungs that the card of this project asks for, said in plain lines. Raises `LorakitError` where none are enough."""
    found = look(project)
    if found is None or found.budget is None:
        return {}
    for line in account(found, _name_of_card(project)):
        say(line)
    if not found.is_enough:
        raise LorakitError(too_large(rungs.base_of(project), project, found))
    return found.rungs


def check(project: Project) -> None:
    """Raises `LorakitError` where a training that has not begun could never fit the card."""
    run = runs.find(project.folder, stamps.train(project)) if any(r.get("dataset") for r in project.manifest) else None
    if run is not None:
        return
    found = look(project)
    if found is not None and not found.is_enough:
        raise LorakitError(too_large(rungs.base_of(project), project, found))


def look(project: Project) -> Fit | None:
    """What the card has and what is turned on for it; None where nobody asks for it (CPU), or it cannot be told."""
    budget = rungs.budget_of(where_of(project), project.vram)
    if budget is None:
        return None
    quiet_libraries()
    try:
        return rungs.fit(rungs.base_of(project), of_one_card(project), budget, rungs.free_settings(project))
    except RuntimeError as error:  # an operation that fake tensors do not know
        why = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        warn(f"what a step takes of the card could not be told beforehand ({why}); where it is not enough, more is turned on then")
        return None


def of_one_card(project: Project) -> Train:
    """The settings with the photos that one process has on its card at once for the batch."""
    return dataclasses.replace(project.settings.train, batch_size=crew.rows_at_once(project.settings.train))


def account(found: Fit, card: str) -> Iterator[str]:
    """The choice in lines."""
    need = found.need
    yield (
        f"memory    about {need.card:.1f} GB of {found.budget:.1f} on {card}, predicted: "
        f"({', '.join(f'{name} {value:.2f}' for name, value in need.parts.items())}) x {rungs.MARGIN:g}"
    )
    yield from (f"          turned on {key}={value}: {COSTS[key]}" for key, value in found.rungs.items())
    yield from (f"          not taken: {why}" for why in found.skipped)


def too_large(base: Base, project: Project, found: Fit) -> str:
    """One line for a training that fits with no rungs: what would."""
    fixed = [f"{key}={_value(project.settings.train, key)}" for key in COSTS if _is_fixed(project, key)]
    would = list(suggestions(base, found))
    hint = (
        f"what would fit, by the same count: {'; or '.join(would)}"
        if would
        else "no lower rank, targets or resolution would help: take a smaller base"
    )
    by_hand = f" (set by hand: {', '.join(fixed)})" if fixed else ""
    return (
        f"{project.card.title} wants about {found.need.card:.1f} GB of the card, and there are {found.budget:.1f}{by_hand}; {hint}. "
        f"--vram {found.need.card + rungs.CONTEXT + 0.05:.1f} tries it all the same"
    )


def suggestions(base: Base, found: Fit) -> Iterator[str]:
    """What changes the LoRA and so is never done unasked. Activations are not counted anew: fewer layers take no more, and fewer
    pixels about so much less."""
    settings, activations = found.settings, found.need.activations

    def fits(share: float = 1.0, **changes: Any) -> bool:
        tried = dataclasses.replace(settings, **changes)
        adapter = base.adapter(tried)
        need = dataclasses.replace(
            found.need,
            adapter=adapter,
            summed=adapter if found.need.summed else 0.0,
            optimizer=adapter * rungs.STATE.get(tried.optimizer, 2.0),
            activations=activations * share,
        )
        return found.budget is not None and need.card <= found.budget

    if settings.batch_size > 1 and fits(1 / settings.batch_size):  # of one card
        yield f"train.batch_size={1 if crew.whole_batches(settings, crew.count()) else crew.count()}"
    ranks = [rank for n in range(1, 6) if (rank := settings.rank >> n) >= LEAST_RANK]
    if rank := next((rank for rank in ranks if fits(rank=rank)), None):
        yield f"train.rank={rank}"
    if settings.targets != "attention" and fits(targets="attention"):
        yield "train.targets=attention"
    sides = [
        side for tenths in (9, 8, 7, 6, 5) if (side := settings.resolution * tenths // 10 // settings.bucket_step * settings.bucket_step)
    ]
    if side := next((side for side in sides if side < settings.resolution and fits((side / settings.resolution) ** 2)), None):
        yield f"train.resolution={side}"


def next_rung(base: Base, settings: Train, on: Mapping[str, Any], free: frozenset[str], where: str) -> tuple[str, Any] | None:
    """The first rung of the ladder above those that are on; of blocks to swap a quarter of all more at a time."""
    steps = [(key, value) for key, value, lacks in rungs.ladder(base, settings, free, where) if not lacks]
    reached = {key: steps.index((key, value)) for key, value in on.items() if (key, value) in steps}
    for at, (key, value) in enumerate(steps):
        if at <= reached.get(key, -1):
            continue
        if key == "train.swap_blocks":
            counts = [count for kind, count in steps if kind == key and count > on.get(key, 0)]
            quarter = max(1, max(counts) // 4)
            return key, next((count for count in counts if count >= on.get(key, 0) + quarter), counts[-1])
        return key, value
    return None


def as_run(project: Project, run: Run) -> Project:
    """The project with the settings that a run was given by the machine."""
    taken = {key: value for key, value in (run.rungs or {}).items() if not _is_fixed(project, key)}
    if not taken:
        return project
    return dataclasses.replace(
        project, settings=dataclasses.replace(project.settings, train=rungs.with_rungs(project.settings.train, taken))
    )


def _of_checkpoints(run: Run) -> dict[str, Any]:
    """The rungs that the newest whole checkpoint was written on."""
    for step in reversed(checkpoint.all_steps(run)):
        with contextlib.suppress(Damaged):
            return dict(checkpoint.load_state(run, step).get("rungs") or {})
    return {}


def in_words(on: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in on.items())


def where_of(project: Project) -> str:
    return project.device or device.available()[0]


def limit_card(project: Project) -> None:
    """Hold a training to the memory that `--vram` gives it."""
    device.limit(where_of(project), project.vram)


def _is_fixed(project: Project, key: str) -> bool:
    """Whether a person, a card or a kind has decided it."""
    return _value(project.settings.train, key) != "auto" and key not in rungs.free_settings(project)


def _value(settings: Train, key: str) -> Any:
    return getattr(settings, key.removeprefix("train."))


def _name_of_card(project: Project) -> str:
    if project.vram is not None:
        return f"a card of {project.vram:g} GB"
    where = where_of(project)
    return torch.cuda.get_device_name(where) if where.startswith("cuda") else where
