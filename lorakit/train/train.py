"""Stage train: the training loop, one page for all families, to be read from top to bottom."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from lorakit import files
from lorakit.console import progress, say, warn
from lorakit.device import is_out_of_memory
from lorakit.errors import LorakitError
from lorakit.project import Project, runs, stamps
from lorakit.project.runs import Run
from lorakit.quality.curve import best_step
from lorakit.quality.judge import judge
from lorakit.record import Record
from lorakit.settings import Train
from lorakit.train import checkpoint, crew, going_on, live, lora, pace
from lorakit.train import optimizer as optim
from lorakit.train.adapter_size import say_size
from lorakit.train.batches import BatchSampler
from lorakit.train.cache import cache
from lorakit.train.learner import Kept, Learner
from lorakit.train.metrics import Metrics, StepMetrics
from lorakit.train.picked import picked_steps
from lorakit.train.preflight import say_plan
from lorakit.train.prompts import sample_prompts
from lorakit.train.regularisation import Interleaved, regularisation_photos
from lorakit.train.resolutions import at_every_resolution
from lorakit.train.sample import latents_in_training, sample_in_training
from lorakit.train.standing import Standing, where_of
from lorakit.train.stopping import Stop
from lorakit.train.tensor_file import Damaged
from lorakit.train.trackers import Trackers, listening
from lorakit.train.validation import Validation, held_out, is_worn_out, validate_every

Result = TypeVar("Result")


def train(project: Project) -> Run:
    """Train the LoRA of the project's dataset. A finished run is found again, a killed one goes on at its last
    checkpoint and ends with the same tensors as one that was never stopped.

    Raises `LorakitError` when the loss is no longer a number (naming the photos of that step), and `Stopped` when somebody
    has asked for that, after the checkpoint of that step.
    """
    photos = cache(project)
    stamp = stamps.train(project)
    run = runs.find(project.folder, stamp, from_step_1=project.new_run) or going_on.start(project, stamp, photos)
    if run.is_done("train", stamp):
        return run
    settings, reg_photos = project.settings.train, regularisation_photos(project)
    steps = going_on.steps_of(project, run, len(photos))
    watched = held_out(project, run, photos)
    trained = [record for record in photos if record not in watched]
    photos = at_every_resolution(project, trained)
    say_plan(project, photos, steps, reg_photos)
    say_size(project)
    crew.say_shares(settings)
    going_on.say_where_it_begins(project, run)
    write_settings(project, run)
    sampled = project.settings.sample
    apart = {"held_out": [record["file"] for record in watched]} if watched else {}
    drawn = [prompt.text for prompt in sample_prompts(project)]
    run.plan(steps=steps, prompts=drawn, seed=sampled.seed, sample_every=sampled.every, **apart)
    say_watched(project, watched, steps)
    stop, standing = Stop(run), Standing(project, run)
    sampler = BatchSampler(photos, settings.batch_size, settings.seed)
    if reg_photos:
        sampler = Interleaved(sampler, BatchSampler(reg_photos, settings.batch_size, settings.seed), settings.regularisation_share)

    views = Views(trained, watched)
    kept = None  # what was learned when the memory ran out; None: what the newest checkpoint has
    with stop.at_ctrl_c(), listening(project, run) as trackers:
        while (out := learn(standing.project, run, sampler, views, steps, stop, trackers, kept)) is not None:
            kept = out.kept
            standing.step_down(out.step, resumed=kept is None)

    steps = run.read_metrics()[-1]["step"] if settings.stop_early else steps
    run.finish("train", stamp, steps=steps, photos=len(trained), visits=count_visits(run), not_a_number=None, **views.found)
    say(f"train     done: {steps} steps, loss {mean_loss(run):.4f} over the last tenth")
    say_judgement(run)
    pace.keep(standing.project, run)
    return run


@dataclass(frozen=True)
class OutOfMemory:
    """Where a training was when no memory was left."""

    step: int  # how many were behind
    kept: Kept | None  # None where the newest checkpoint is to be taken


@dataclass
class Views:
    """The photos that a training sees, those that only watch it, and what was found of them at its end."""

    trained: list[Record]
    watched: list[Record]
    found: dict[str, Any] = field(default_factory=dict)


def learn(
    project: Project,
    run: Run,
    sampler: BatchSampler | Interleaved,
    views: Views,
    steps: int,
    stop: Stop,
    trackers: Trackers,
    kept: Kept | None,
) -> OutOfMemory | None:
    """Put together what learns and take it to the last step; None when it is there."""
    learner, by_photo = None, going_on.draws_by_photo(run)
    chosen = replace(project, manifest=project.manifest.chosen(), device=where_of(project))
    try:
        with crew.called(help_learn, chosen, sampler, views, steps, by_photo):
            learner, validation = crew.together(lambda: put_together(project, views, steps, by_photo))
            if kept is None:
                resume(run, learner)
            else:
                learner.take(kept)
            if crew.size() > 1:
                crew.tell("take", learner.keep_on_cpu())
                crew.together(lambda: None)
            learn_steps(project, run, learner, sampler, validation, steps, stop, trackers)
            if validation:
                crew.tell("look back")
                views.found.update(look_back(learner, validation, views))
        return None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # past the handler, whose traceback holds all that the step had made
    if learner is None:
        return OutOfMemory(kept.step if kept else 0, kept)
    return OutOfMemory(learner.step, learner.rescue())


def put_together(project: Project, views: Views, steps: int, by_photo: bool) -> tuple[Learner, Validation | None]:
    """What learns, and what watches it where it is watched."""
    learner = Learner(project, by_photo)
    if not validate_every(project, steps):
        return learner, None
    return learner, Validation(project, learner.batch_loss, views.watched or views.trained, bool(views.watched))


def help_learn(project: Project, sampler: BatchSampler | Interleaved, views: Views, steps: int, by_photo: bool) -> None:
    """What the other processes do while the first one is in `learn`: the same, without the disk and without a word."""
    learner, validation = crew.together(lambda: put_together(project, views, steps, by_photo))
    for what, *given in crew.orders():
        if what == "take":
            crew.together(lambda kept=given[0]: learner.take(kept))
        elif what == "learn":
            learner.learn(given[0], sampler)
        elif what == "watch":
            watch(learner, validation)
        elif what == "draw":
            drawn(learner, lambda prompts=given[0]: latents_in_training(project, learner.family, prompts))
        elif what == "look back":
            look_back(learner, validation, views)


def learn_steps(
    project: Project,
    run: Run,
    learner: Learner,
    sampler: BatchSampler | Interleaved,
    validation: Validation | None,
    steps: int,
    stop: Stop,
    trackers: Trackers,
) -> None:
    """The loop. Raises `LorakitError` where a loss is no number, `Stopped` where somebody has asked for it."""
    settings, family = project.settings.train, learner.family
    every, ends_early = validate_every(project, steps), False
    with (
        files.naming(run.metrics),
        open(run.metrics, "a", encoding="utf-8") as file,
        progress("train", steps, learner.step, "step") as shown,
    ):
        note = live.Note(family.device)

        def report(line: StepMetrics) -> None:
            shown.advance(note=note.of(line))
            trackers.line(line)

        metrics = Metrics(
            file,
            device=family.device,
            stop=lambda line: LorakitError(not_a_number(line, run)),
            gradient_counts=not learner.scaler.is_enabled(),
            report=report,
        )
        taken = None  # a step that is behind and not yet among the metrics
        try:
            while learner.step < steps and not ends_early:
                metrics.begin()
                rate = optim.lr_at(learner.step, steps, settings, run.continues.get("step", 0))
                crew.tell("learn", rate)
                taken = learner.learn(rate, sampler)
                step = learner.step
                if validation and (step == 1 or is_due(step, every, steps)):
                    crew.tell("watch")
                    taken = replace(taken, watched=watch(learner, validation))
                is_watched = bool(taken.watched)
                metrics.add(taken)
                taken = None
                if is_watched and settings.stop_early:
                    metrics.read()
                    ends_early = is_worn_out(run.read_metrics(), steps)
                is_last = stop.is_asked() and step < steps
                is_saved = is_last or ends_early or is_due(step, settings.checkpoint_every, steps)
                is_drawn = is_due(step, project.settings.sample.every, steps, at_end=False)
                if is_saved or is_drawn:
                    metrics.read()
                if is_saved:
                    save(run, learner)
                    checkpoint.remove_old(
                        run, settings.keep_checkpoints, spared=picked_steps(project, run) | best_checkpoints(run, settings)
                    )
                if is_drawn:
                    draw_samples(project, run, learner, step, trackers)
                if is_last:
                    stop.leave(step, steps)
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                if taken is not None:
                    metrics.add(taken)
                metrics.read()
            raise
        except crew.Lost as lost:  # a step is made by all or by none: what is behind is whole
            if taken is not None:
                metrics.add(taken)
            metrics.read()
            if learner.step not in (0, *checkpoint.all_steps(run)):
                save(run, learner)
            kept = f"all up to step {learner.step} is kept, and t" if learner.step else "t"
            raise crew.Lost(f"{lost}; {kept}he same command goes on from there") from None


def save(run: Run, learner: Learner) -> None:
    kept = learner.keep()
    checkpoint.save_checkpoint(run, learner.step, kept.adapter, {**kept.state, "rungs": run.rungs})


def look_back(learner: Learner, validation: Validation, views: Views) -> dict[str, Any]:
    """What is found of the photos at the end."""

    def look() -> dict[str, Any]:
        with learner.given_out():
            return validation.look_back(views.trained)

    return crew.together(look)


def watch(learner: Learner, validation: Validation) -> dict[str, float]:
    """What the validation measures; nothing where it finds no memory, and the training goes on."""

    def measure() -> dict[str, float]:
        with learner.given_out():
            return validation.measure()

    try:
        return crew.together(measure)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        warn(f"the memory was not enough to validate at step {learner.step}; the training goes on")
    learner.family.settle_blocks()
    return {}


def draw_samples(project: Project, run: Run, learner: Learner, step: int, trackers: Trackers) -> None:
    """Pictures in the middle, shown to those who listen."""
    prompts = sample_prompts(project)
    crew.tell("draw", prompts)
    folder = drawn(learner, lambda: sample_in_training(project, run, learner.family, step, prompts))
    if folder is not None:
        trackers.samples(folder, step)


def drawn(learner: Learner, draw: Callable[[], Result]) -> Result | None:
    """What `draw` makes with the weights as they are used. Where it finds no memory there is nothing, and the training goes on."""
    found = None

    def work() -> Result:
        with learner.given_out(), lora.inputs_cast(learner.family):
            return draw()

    try:
        found = crew.together(work)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        warn(f"the memory was not enough to draw samples at step {learner.step}; there are none of it, and the training goes on")
    learner.family.settle_blocks()
    learner.family.release_encoders()
    learner.family.denoiser.train()
    return found


def say_watched(project: Project, watched: list[Record], steps: int) -> None:
    """How the training is watched, in a line."""
    every = validate_every(project, steps)
    if watched:
        names = ", ".join(record["file"] for record in watched[:4]) + (", ..." if len(watched) > 4 else "")
        say(f"          {len(watched)} photos are held out and watched every {every} steps ({names}); train.hold_out=false learns all")
    elif every:
        say(f"          nothing is held out: watched every {every} steps on photos that are learned, at noise that is not")


def best_checkpoints(run: Run, settings: Train) -> set[int]:
    """The checkpoint of the best validation so far."""
    saved = checkpoint.all_steps(run)
    metrics = (
        [entry for entry in run.read_metrics() if entry.get("validation") is not None] if settings.keep_best and len(saved) > 1 else []
    )
    best = best_step(metrics, saved) if len(metrics) >= 2 else None
    return set() if best is None else {best}


def say_judgement(run: Run) -> None:
    """What the curve says, in the words of `lorakit judge`."""
    judged = judge(run.read_metrics(), run.read_settings(), run.saved_steps, run.facts.get("result"))
    if judged.verdict != "too_short":
        say(f"          {judged.verdict}: {judged.findings[0].words}; {judged.advice}")


def resume(run: Run, learner: Learner) -> None:
    """Put back the newest checkpoint that is whole, if there is one, and cut the metrics to it."""
    for step in reversed(checkpoint.all_steps(run)):
        try:
            adapter, state = checkpoint.load_adapter(run, step), checkpoint.load_state(run, step)
        except Damaged as damage:
            aside = checkpoint.set_aside(run, step)
            warn(f"the checkpoint of step {step} is damaged: {damage}; it is set aside as {aside.name}, and an earlier one is taken")
            continue
        learner.take(Kept(step, adapter, state))
        say(f"train     goes on after step {step}")
        break
    last = learner.step
    if not last and learner.settings.from_lora:
        say(f"train     {learner.start_in_words()}")
    lines = [json.dumps(entry) + "\n" for entry in run.read_metrics() if entry["step"] <= last]
    if len(lines) < last:
        warn(f"{run.metrics.name}: {last - len(lines)} of {last} lines are lost; the curve lacks these steps, the training does not")
    files.write_text(run.metrics, "".join(lines))


def write_settings(project: Project, run: Run) -> None:
    """The resolved settings and the layer that each came from, as settings.yaml in the run folder."""
    origin = project.settings.origin
    head = f"# as resolved for this run; base {project.card.name}, kind {project.kind.name}\n"
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}  # {origin[key]}\n" for key, value in project.settings.flat().items()]
    files.write_text(run.folder / "settings.yaml", head + "".join(lines))


def is_due(step: int, every: int, steps: int, at_end: bool = True) -> bool:
    return (step == steps and at_end) or (every > 0 and step % every == 0 and step < steps)


def not_a_number(line: StepMetrics, run: Run) -> str:
    run.note(not_a_number=line.step)
    saved = checkpoint.all_steps(run)
    last = f"the checkpoint of step {saved[-1]} is kept" if saved else "no checkpoint had been written"
    what = "gradient" if math.isfinite(line.loss) else "loss"
    return (
        f"the {what} is no longer a number at step {line.step} (photos: {', '.join(line.photos + line.regularisation)}); {last}. "
        "Look at these photos, or lower train.learning_rate"
    )


def count_visits(run: Run) -> dict[str, int]:
    """{photo: how often it was trained on}."""
    counts: dict[str, int] = {}
    for entry in run.read_metrics():
        for name in entry["photos"]:
            counts[name] = counts.get(name, 0) + 1
    return counts


def mean_loss(run: Run) -> float:
    """Over the last tenth of the steps; not a number where their lines are lost."""
    losses = [entry["loss"] for entry in run.read_metrics()]
    last = losses[-max(1, len(losses) // 10) :]
    return sum(last) / len(last) if last else math.nan
