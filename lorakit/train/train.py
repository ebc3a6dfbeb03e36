"""Stage train: the training loop, one page for all families, to be read from top to bottom."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, field

import torch
from torch import nn

from lorakit import files
from lorakit.bases.families.base import Family
from lorakit.bases.load import load_family
from lorakit.console import progress, say, warn
from lorakit.errors import LorakitError
from lorakit.project import Project, runs, stamps
from lorakit.project.runs import Run
from lorakit.settings import Train
from lorakit.train import checkpoint, from_lora, going_on, lora
from lorakit.train import optimizer as optim
from lorakit.train.adapter_size import say_size
from lorakit.train.average import Average
from lorakit.train.batches import BatchSampler
from lorakit.train.cache import cache
from lorakit.train.loss import BatchLoss
from lorakit.train.picked import picked_steps
from lorakit.train.preflight import say_plan
from lorakit.train.regularisation import Interleaved, regularisation_photos
from lorakit.train.resolutions import at_every_resolution
from lorakit.train.sample import sample_in_training, sample_prompts
from lorakit.train.stopping import Stop
from lorakit.train.tensor_file import Damaged


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
    steps, begun = going_on.steps_of(project, run, len(photos)), run.continues.get("step", 0)
    photos = at_every_resolution(project, photos)
    say_plan(project, photos, steps, reg_photos)
    say_size(project)
    going_on.say_where_it_begins(project, run)
    write_settings(project, run)
    sampled = project.settings.sample
    run.plan(steps=steps, prompts=[prompt.text for prompt in sample_prompts(project)], seed=sampled.seed, sample_every=sampled.every)
    stop = Stop(run)

    family = load_family(project)
    family.release_encoders()
    parameters = lora.add_lora(family, settings)
    from_lora.put_in(family, settings, needed=not run.saved_steps)
    optimizer = optim.make_optimizer(family.denoiser, settings, [family.encoder(name) for name in family.learning_encoders])
    scaler = torch.amp.GradScaler(family.device.split(":")[0], enabled=family.dtype == torch.float16)
    if settings.checkpoints_gradients:
        family.denoiser.enable_gradient_checkpointing()
    family.swap_blocks(settings.swap_blocks)
    family.denoiser.train()
    sampler = BatchSampler(photos, settings.batch_size, settings.seed)
    if reg_photos:
        sampler = Interleaved(sampler, BatchSampler(reg_photos, settings.batch_size, settings.seed), settings.regularisation_share)
    batch_loss = BatchLoss(project, family)
    average = Average(parameters, optimizer, settings.ema)
    first = resume(run, family, optimizer, scaler, average)

    with stop.at_ctrl_c(), open(run.metrics, "a", encoding="utf-8") as metrics, progress("train", steps, start=first) as shown:
        for step in range(first, steps):
            rate = optim.lr_at(step, steps, settings, begun)
            measured = train_step(step, rate, sampler, batch_loss, parameters, optimizer, scaler, settings)
            if not math.isfinite(measured.loss):
                raise LorakitError(not_a_number(measured, run))
            average.update()

            metrics.write(measured.as_json() + "\n")
            metrics.flush()
            shown.advance(note=f"loss {measured.loss:.4f}")
            is_last = stop.is_asked() and step + 1 < steps
            if is_last or is_due(step + 1, settings.checkpoint_every, steps):
                state = {"optimizer": optimizer.state_dict(), "scaler": scaler.state_dict(), **average.state()}
                with average.averaged_weights():
                    checkpoint.save_checkpoint(run, step + 1, lora.read_lora(family), state)
                checkpoint.remove_old(run, settings.keep_checkpoints, spared=picked_steps(project, run))
            if is_due(step + 1, project.settings.sample.every, steps, at_end=False):
                with average.averaged_weights():
                    sample_in_training(project, run, family, step + 1)
                family.release_encoders()
                family.denoiser.train()
            if is_last:
                stop.leave(step + 1, steps)

    run.finish("train", stamp, steps=steps, photos=len([record for record in photos if not record.get("view")]), visits=count_visits(run))
    say(f"train     done: {steps} steps, loss {mean_loss(run):.4f} over the last tenth")
    return run


@dataclass(frozen=True)
class StepMetrics:
    """What was measured in one optimizer step: one line of metrics.jsonl, its names the keys."""

    step: int  # counted from 1
    epoch: float  # of the photos, behind this step
    loss: float  # mean over the step's batches
    rate: float  # learning rate
    grad_norm: float  # before it is clipped
    seconds: float
    photos: list[str]
    regularisation: list[str] = field(default_factory=list)  # left out of the line where there are none

    def as_json(self) -> str:
        facts = {key: value for key, value in asdict(self).items() if key != "regularisation" or value}
        digits = {"epoch": 4, "loss": 6, "grad_norm": 6, "seconds": 4}
        return json.dumps({key: round(value, digits[key]) if key in digits else value for key, value in facts.items()})


def train_step(
    step: int,
    rate: float,
    sampler: BatchSampler | Interleaved,
    batch_loss: BatchLoss,
    parameters: list[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    settings: Train,
) -> StepMetrics:
    """One optimizer step (counted from 0) over `gradient_accumulation` batches. Where the loss is no number, the weights stay as they were."""
    began, losses, photos, regularisation = time.perf_counter(), [], [], []
    optim.set_lr(optimizer, rate)
    for number in range(step * settings.gradient_accumulation, (step + 1) * settings.gradient_accumulation):
        batch = sampler[number]
        loss = batch_loss.loss(batch, number)
        scaler.scale(loss / settings.gradient_accumulation).backward()
        batch_loss.family.settle_blocks()
        losses.append(loss.detach())
        (regularisation if batch[0].get("regularisation") else photos).extend(record["file"] for record in batch)
    scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm or math.inf)
    loss = torch.stack(losses).mean().item()
    if math.isfinite(loss):
        scaler.step(optimizer)
        scaler.update()
    optimizer.zero_grad(set_to_none=True)
    epoch, seconds = (number + 1) / sampler.per_epoch, time.perf_counter() - began
    return StepMetrics(step + 1, epoch, loss, rate, float(norm), seconds, photos, regularisation)


def resume(run: Run, family: Family, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, average: Average) -> int:
    """Put back the newest checkpoint that is whole, if there is one, and cut the metrics to it. Returns the step to begin at."""
    last = 0
    for step in reversed(checkpoint.all_steps(run)):
        try:
            adapter, state = checkpoint.load_adapter(run, step), checkpoint.load_state(run, step)
        except Damaged as damage:
            aside = checkpoint.set_aside(run, step)
            warn(f"the checkpoint of step {step} is damaged: {damage}; it is set aside as {aside.name}, and an earlier one is taken")
            continue
        lora.set_lora(family, adapter)
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
        average.load_state(state)
        say(f"train     goes on after step {step}")
        last = step
        break
    lines = [json.dumps(entry) + "\n" for entry in run.read_metrics() if entry["step"] <= last]
    if len(lines) < last:
        warn(f"{run.metrics.name}: {last - len(lines)} of {last} lines are lost; the curve lacks these steps, the training does not")
    files.write_text(run.metrics, "".join(lines))
    return last


def write_settings(project: Project, run: Run) -> None:
    """The resolved settings and the layer that each came from, as settings.yaml in the run folder."""
    origin = project.settings.origin
    head = f"# as resolved for this run; base {project.card.name}, kind {project.kind.name}\n"
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}  # {origin[key]}\n" for key, value in project.settings.flat().items()]
    files.write_text(run.folder / "settings.yaml", head + "".join(lines))


def is_due(step: int, every: int, steps: int, at_end: bool = True) -> bool:
    return (step == steps and at_end) or (every > 0 and step % every == 0 and step < steps)


def not_a_number(measured: StepMetrics, run: Run) -> str:
    saved = checkpoint.all_steps(run)
    last = f"the checkpoint of step {saved[-1]} is kept" if saved else "no checkpoint had been written"
    return (
        f"the loss is no longer a number at step {measured.step} (photos: {', '.join(measured.photos + measured.regularisation)}); {last}. "
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
