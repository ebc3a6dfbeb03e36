"""Stage train: the training loop, one page for all families, to be read from top to bottom."""

from __future__ import annotations

import contextlib
import json
import math
import time

import torch
from torch import Tensor

from lorakit import files, runs, stamps
from lorakit.console import progress, say
from lorakit.errors import LorakitError
from lorakit.manifest import Record
from lorakit.project import Project
from lorakit.runs import Run
from lorakit.train import batches, checkpoint, lora, optimizer as optim
from lorakit.train.cache import cache, load_latents, load_text, readings
from lorakit.train.families.base import Family, Text, stack_texts
from lorakit.train.load import load_family
from lorakit.train.noise import draw_noise, weighted_loss
from lorakit.train.preflight import say_plan
from lorakit.train.sample import sample_in_training


def train(project: Project) -> Run:
    """Train the LoRA of the project's dataset. A finished run is found again, a killed one goes on at its last
    checkpoint and ends with the same tensors as one that was never stopped.

    Raises `LorakitError` when the loss is no longer a number (naming the photos of that step).
    """
    photos = cache(project)
    stamp = stamps.train(project)
    run = runs.find(project.folder, stamp) or runs.start(project.folder, stamp)
    if run.is_done("train", stamp):
        return run
    settings, steps = project.settings.train, planned_steps(project, len(photos))
    say_plan(project, photos, steps)
    write_settings(project, run)

    family = load_family(project)
    family.release_encoders()
    parameters = lora.add_lora(family, settings)
    optimizer = optim.make_optimizer(family.denoiser, settings)
    scaler = torch.amp.GradScaler(family.device, enabled=family.dtype == torch.float16)
    if settings.gradient_checkpointing:
        family.denoiser.enable_gradient_checkpointing()
    family.denoiser.train()
    order = batches.Order(photos, settings.batch_size, settings.seed)
    visit = Visit(project, family)
    first = resume(run, family, optimizer, scaler)

    with open(run.metrics, "a", encoding="utf-8") as metrics, progress("train", steps, start=first) as shown:
        for step in range(first, steps):
            began = time.perf_counter()
            rate = optim.rate_at(step, steps, settings)
            optim.set_rate(optimizer, rate)
            losses, seen = [], []
            for part in range(settings.gradient_accumulation):
                number = step * settings.gradient_accumulation + part
                batch = order[number]
                loss = visit.loss(batch, number)
                scaler.scale(loss / settings.gradient_accumulation).backward()
                losses.append(loss.detach())
                seen += [record["file"] for record in batch]
            scaler.unscale_(optimizer)
            norm = torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm or math.inf)
            loss = torch.stack(losses).mean().item()
            if not math.isfinite(loss):
                raise LorakitError(not_a_number(step, seen, run))
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)

            entry = {"step": step + 1, "epoch": round((number + 1) / order.per_epoch, 4), "loss": round(loss, 6), "rate": rate}
            seconds = round(time.perf_counter() - began, 4)
            metrics.write(json.dumps({**entry, "grad_norm": round(float(norm), 6), "seconds": seconds, "photos": seen}) + "\n")
            metrics.flush()
            shown.advance(note=f"loss {loss:.4f}")
            if is_due(step + 1, settings.checkpoint_every, steps):
                checkpoint.save_checkpoint(run, step + 1, lora.read_lora(family.denoiser), optimizer, scaler)
                checkpoint.remove_old(run, settings.keep_checkpoints)
            if is_due(step + 1, project.settings.sample.every, steps, at_end=False):
                sample_in_training(project, run, family, step + 1)
                family.release_encoders()
                family.denoiser.train()

    run.finish("train", stamp, steps=steps, photos=len(photos), visits=count_visits(run))
    say(f"train     done: {steps} steps, loss {mean_loss(run):.4f} over the last tenth")
    return run


class Visit:
    """One visit of a batch: latents, noise, timesteps and texts in; the loss out. All chance comes from the seed and the
    batch's number, drawn on the CPU, so that it is the same on every device and after every resume."""

    def __init__(self, project: Project, family: Family):
        self.project, self.family = project, family
        self.settings = project.settings.train
        self.empty = load_text(project, "")

    def loss(self, batch: batches.Batch, number: int) -> Tensor:
        """The error of the denoiser's prediction, a scalar in fp32."""
        family, settings = self.family, self.settings
        chance = torch.Generator().manual_seed(settings.seed * 1_000_003 + number)
        latents = self._draw_latents(batch, chance)
        noise = draw_noise(latents.shape, settings, chance)
        timesteps = family.noise.draw_timesteps(latents.shape, chance)
        text = self._draw_texts(batch, chance)
        extra = settings.input_perturbation * torch.randn(latents.shape, generator=chance) if settings.input_perturbation else 0 * noise
        latents, noise, timesteps, extra = (tensor.to(family.device) for tensor in (latents, noise, timesteps, extra))
        sizes = torch.tensor([picture_sizes(record) for record in batch], device=family.device)
        with self._autocast():
            return step_loss(family, latents, noise, timesteps, text, sizes, extra)

    def _draw_latents(self, batch: batches.Batch, chance: torch.Generator) -> Tensor:
        moments = [load_latents(self.project, record) for record in batch]
        mean, std = (torch.stack([m[name] for m in moments]) for name in ("mean", "std"))
        return mean + std * torch.randn(mean.shape, generator=chance)

    def _draw_texts(self, batch: batches.Batch, chance: torch.Generator) -> Text:
        dropped = torch.rand(len(batch), generator=chance) < self.settings.caption_dropout
        texts = [self.empty if drop else self._draw_text(record, chance) for record, drop in zip(batch, dropped.tolist())]
        return {name: tensor.to(self.family.device) for name, tensor in stack_texts(texts).items()}

    def _draw_text(self, record: Record, chance: torch.Generator) -> Text:
        choices = readings(self.project, record)
        number = int(torch.randint(len(choices), (), generator=chance)) if len(choices) > 1 else 0
        return load_text(self.project, choices[number])

    def _autocast(self):
        if self.family.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.family.device.split(":")[0], dtype=self.family.dtype)


def step_loss(
    family: Family, latents: Tensor, noise: Tensor, timesteps: Tensor, text: Text, sizes: Tensor, extra: Tensor | float = 0.0
) -> Tensor:
    """The error of the denoiser's prediction, a scalar in fp32; `extra` noise is in the input only, not in the target."""
    prediction = family.predict(family.noise.add(latents, noise + extra, timesteps), timesteps, text, sizes)
    target = family.noise.target(latents, noise, timesteps)
    return weighted_loss(prediction, target, family.noise.weight(timesteps), family.settings.loss)


def picture_sizes(record: Record) -> tuple[int, ...]:
    """What SDXL is told of a picture: (height, width) of the photo, (top, left) of the crop in pixels of the picture that
    is trained on, (height, width) of that picture."""
    size, (left, top, right, _), (width, height) = record["measures"]["size"], record["crop"]["box"], record["crop"]["bucket"]
    scale = width / (right - left)
    return size["height"], size["width"], round(top * scale), round(left * scale), height, width


def planned_steps(project: Project, photos: int) -> int:
    """`train.steps`, or steps_per_photo x photos within min_steps..max_steps."""
    settings = project.settings.train
    return settings.steps or min(max(settings.steps_per_photo * photos, settings.min_steps), settings.max_steps)


def resume(run: Run, family: Family, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> int:
    """Put back the newest checkpoint, if there is one, and cut the metrics to it. Returns the step to begin at."""
    steps = checkpoint.all_steps(run)
    last = steps[-1] if steps else 0
    if steps:
        lora.set_lora(family.denoiser, checkpoint.load_adapter(run, last))
        state = checkpoint.load_state(run, last)
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
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
