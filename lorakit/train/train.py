"""Stage train: the training loop, one page for all families, to be read from top to bottom."""

from __future__ import annotations

import json
import math
import time

import torch

from lorakit import files
from lorakit.bases.families.base import Family
from lorakit.bases.load import load_family
from lorakit.console import progress, say
from lorakit.errors import LorakitError
from lorakit.project import Project, runs, stamps
from lorakit.project.runs import Run
from lorakit.train import batches, checkpoint, lora
from lorakit.train import optimizer as optim
from lorakit.train.adapter_size import say_size
from lorakit.train.average import Average
from lorakit.train.cache import cache
from lorakit.train.loss import BatchLoss
from lorakit.train.picked import picked_steps
from lorakit.train.preflight import say_plan
from lorakit.train.regularisation import Interleaved, regularisation_photos
from lorakit.train.resolutions import at_every_resolution
from lorakit.train.sample import sample_in_training, sample_prompts
from lorakit.train.stopping import Stop


def train(project: Project) -> Run:
    """Train the LoRA of the project's dataset. A finished run is found again, a killed one goes on at its last
    checkpoint and ends with the same tensors as one that was never stopped.

    Raises `LorakitError` when the loss is no longer a number (naming the photos of that step), and `Stopped` when somebody
    has asked for that, after the checkpoint of that step.
    """
    photos = cache(project)
    stamp = stamps.train(project)
    run = runs.find(project.folder, stamp) or runs.start(project.folder, stamp)
    if run.is_done("train", stamp):
        return run
    settings, others = project.settings.train, regularisation_photos(project)
    steps = planned_steps(project, len(photos))
    photos = at_every_resolution(project, photos)
    say_plan(project, photos, steps, others)
    say_size(project)
    write_settings(project, run)
    sampled = project.settings.sample
    run.plan(steps=steps, prompts=sample_prompts(project), seed=sampled.seed, sample_every=sampled.every)
    stop = Stop(run)

    family = load_family(project)
    family.release_encoders()
    parameters = lora.add_lora(family, settings)
    optimizer = optim.make_optimizer(family.denoiser, settings, [family.encoder(name) for name in family.learning_encoders])
    scaler = torch.amp.GradScaler(family.device.split(":")[0], enabled=family.dtype == torch.float16)
    if settings.gradient_checkpointing:
        family.denoiser.enable_gradient_checkpointing()
    family.denoiser.train()
    order = batches.BatchSampler(photos, settings.batch_size, settings.seed)
    if others:
        order = Interleaved(order, batches.BatchSampler(others, settings.batch_size, settings.seed), settings.regularisation_share)
    visit = BatchLoss(project, family)
    average = Average(parameters, optimizer, settings.ema)
    first = resume(run, family, optimizer, scaler, average)

    with stop.at_ctrl_c(), open(run.metrics, "a", encoding="utf-8") as metrics, progress("train", steps, start=first) as shown:
        for step in range(first, steps):
            began = time.perf_counter()
            rate = optim.lr_at(step, steps, settings)
            optim.set_lr(optimizer, rate)
            losses, seen, beside = [], [], []
            for part in range(settings.gradient_accumulation):
                number = step * settings.gradient_accumulation + part
                batch = order[number]
                loss = visit.loss(batch, number)
                scaler.scale(loss / settings.gradient_accumulation).backward()
                losses.append(loss.detach())
                (beside if batch[0].get("regularisation") else seen).extend(record["file"] for record in batch)
            scaler.unscale_(optimizer)
            norm = torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm or math.inf)
            loss = torch.stack(losses).mean().item()
            if not math.isfinite(loss):
                raise LorakitError(not_a_number(step, seen + beside, run))
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            average.update()

            entry = {"step": step + 1, "epoch": round((number + 1) / order.per_epoch, 4), "loss": round(loss, 6), "rate": rate}
            seconds = round(time.perf_counter() - began, 4)
            names = {"photos": seen, **({"regularisation": beside} if beside else {})}
            metrics.write(json.dumps({**entry, "grad_norm": round(float(norm), 6), "seconds": seconds, **names}) + "\n")
            metrics.flush()
            shown.advance(note=f"loss {loss:.4f}")
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


def planned_steps(project: Project, photos: int) -> int:
    """`train.steps`, or steps_per_photo x photos within min_steps..max_steps, and those of the regularisation photos besides."""
    return project.settings.train.planned_steps(photos)


def resume(run: Run, family: Family, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, average: Average) -> int:
    """Put back the newest checkpoint, if there is one, and cut the metrics to it. Returns the step to begin at."""
    steps = checkpoint.all_steps(run)
    last = steps[-1] if steps else 0
    if steps:
        lora.set_lora(family, checkpoint.load_adapter(run, last))
        state = checkpoint.load_state(run, last)
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
        average.load_state(state)
        say(f"train     goes on after step {last}")
    kept = [json.dumps(entry) + "\n" for entry in run.read_metrics() if entry["step"] <= last]
    files.write_text(run.metrics, "".join(kept))
    return last


def write_settings(project: Project, run: Run) -> None:
    """The resolved settings and the layer that each came from, as settings.yaml in the run folder."""
    origin = project.settings.origin
    head = f"# as resolved for this run; base {project.card.name}, kind {project.kind.name}\n"
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}  # {origin[key]}\n" for key, value in project.settings.flat().items()]
    files.write_text(run.folder / "settings.yaml", head + "".join(lines))


def is_due(step: int, every: int, steps: int, at_end: bool = True) -> bool:
    return (step == steps and at_end) or (every > 0 and step % every == 0 and step < steps)


def not_a_number(step: int, seen: list[str], run: Run) -> str:
    kept = checkpoint.all_steps(run)
    last = f"the checkpoint of step {kept[-1]} is kept" if kept else "no checkpoint had been written"
    return (
        f"the loss is no longer a number at step {step + 1} (photos: {', '.join(seen)}); {last}. "
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
    losses = [entry["loss"] for entry in run.read_metrics()]
    last = losses[-max(1, len(losses) // 10) :]
    return sum(last) / len(last)
