"""Watching a training without touching it: the loss on photos held out, how far the class word alone is moved, and the photos that never
fit. Everything is drawn by chance of its own, the same at every step, so that only the training changes what is measured."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from lorakit.bases.families.base import Text, stack_texts
from lorakit.project import Project
from lorakit.project.runs import Run
from lorakit.quality.judge import NONE_HELD_OUT
from lorakit.record import Record
from lorakit.train import crew, lora
from lorakit.train.cache import load_latents, load_text, text_variants, watched_texts
from lorakit.train.loss import BatchLoss, picture_sizes, step_loss
from lorakit.train.noise import draw_noise

SHARE, LEAST, MOST = 10, 2, 16  # one photo in SHARE is held out, LEAST to MOST of them
LOOKS = 16  # predictions a validation is made of, about the price of five steps
TIMES, TOO_SHORT = 20, 60  # validations over a training, and steps below which there are none
POOL = 512  # timesteps drawn, of which evenly spread ones are taken
SEED = 7_919
FIT_LOOKS, FIT_MOST = 4, 128  # timesteps for each photo at the end, and photos that are looked at
STRENGTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2)
PATIENCE = 0.25  # share of the planned steps without a better validation after which a training may stop early


def held_out(project: Project, run: Run, photos: list[Record]) -> list[Record]:
    """The photos that are watched and not trained on: about a tenth, drawn by the seed. What a run has begun with it goes on with."""
    if (planned := run.facts.get("planned")) is not None:
        names = set(planned.get("held_out", ()))
        return [record for record in photos if record["file"] in names]
    settings = project.settings.train
    if not settings.hold_out or len(photos) < NONE_HELD_OUT or validate_every(project, settings.planned_steps(len(photos))) == 0:
        return []
    count = min(MOST, max(LEAST, round(len(photos) / SHARE)))
    drawn = set(random.Random(f"{settings.seed}: held out").sample(sorted(record["file"] for record in photos), count))
    return [record for record in photos if record["file"] in drawn]


def validate_every(project: Project, steps: int) -> int:
    """Steps between validations; 0 = none."""
    every = project.settings.train.validate_every
    return every if every is not None else 0 if steps < TOO_SHORT else max(1, steps // TIMES)


class Validation:
    """Measures a training from outside. Where nothing is held out, the photos themselves are looked at, at timesteps and with noise that
    the training does not draw."""

    def __init__(self, project: Project, batch_loss: BatchLoss, photos: Sequence[Record], are_held_out: bool):
        self.project, self.family, self._loss = project, batch_loss.family, batch_loss
        spread = sorted(photos, key=lambda record: record["file"])
        self.photos = spread if are_held_out else random.Random(f"{SEED}").sample(spread, min(LEAST, len(spread)))
        self._watched = {name: load_text(project, text) for name, text in watched_texts(project).items()}

    def measure(self) -> dict[str, float]:
        """{"validation": the mean loss, "leak", "drift": see `_moved`}, of the weights as they are now."""
        found = {"validation": self._loss_of_all()}
        return found | self._moved(self.photos[0])

    def _loss_of_all(self) -> float:
        looks = max(1, LOOKS // len(self.photos))
        return sum(self._losses_of(self.photos, looks)) / len(self.photos)

    def _losses_of(self, photos: Sequence[Record], looks: int) -> list[float]:
        """Of each photo, worked out by one process."""
        return crew.share(lambda own: [self.loss_of(photos[number], looks) for number in own], len(photos))

    @torch.no_grad()
    def loss_of(self, record: Record, looks: int) -> float:
        """The mean loss of a photo over `looks` timesteps spread evenly over those that are trained on, its own text, no dropout."""
        latents, noise, timesteps = self._draw(record, looks)
        text, sizes = self._texts(load_text(self.project, text_variants(self.project, record)[0]), record, looks)
        mask = self._loss.masks([record])
        total = 0.0
        for part in self._parts(looks):
            weighed = mask.expand(part.stop - part.start, -1, -1, -1) if mask is not None else None
            with self._loss.autocast():
                said = {name: tensor[part] for name, tensor in text.items()}
                loss = step_loss(
                    self.family, latents[part], noise[part], timesteps[part], self.family.embedded(said), sizes[part], mask=weighed
                )
            self.family.settle_blocks()
            total += float(loss) * (part.stop - part.start)
        return total / looks

    @torch.no_grad()
    def _moved(self, record: Record) -> dict[str, float]:
        """How far the LoRA moves the base's prediction for the class word alone ("leak"), and for something else altogether ("drift"), as
        shares of how far it moves it for the photo's own text: 0 = not at all, 1 = as if the trigger stood there. In root mean squares over
        LOOKS / 4 timesteps."""
        if not self._watched:
            return {}
        texts = {**self._watched, "own": load_text(self.project, text_variants(self.project, record)[0])}
        names = list(texts)
        distances = crew.share(lambda own: [self._distance(record, texts[names[number]]) for number in own], len(names))
        moved = dict(zip(names, distances, strict=True))
        whole = moved.pop("own")
        return {name: distance / whole if whole else 0.0 for name, distance in moved.items()}

    def _distance(self, record: Record, words: Text) -> float:
        """How far the LoRA moves the base's prediction for a text, in root mean squares."""
        looks = max(1, LOOKS // 4)
        latents, noise, timesteps = self._draw(record, looks)
        text, sizes = self._texts(words, record, looks)
        squares = 0.0
        for part in self._parts(looks):
            with self._loss.autocast():
                said = {name: tensor[part] for name, tensor in text.items()}
                noisy = self.family.process.add(latents[part], noise[part], timesteps[part])
                with lora.switched_off(self.family):
                    before = self.family.predict(noisy, timesteps[part], self.family.embedded(said), sizes[part])
                after = self.family.predict(noisy, timesteps[part], self.family.embedded(said), sizes[part])
            self.family.settle_blocks()
            squares += float(((after.float() - before.float()) ** 2).mean()) * (part.stop - part.start)
        return (squares / looks) ** 0.5

    def look_back(self, photos: Sequence[Record]) -> dict[str, dict[str, float]]:
        """At the end: {"fit": see `fit`, "strengths": the validation at each strength of the LoRA}."""
        strengths = {}
        try:
            for strength in STRENGTHS:
                lora.set_strength(self.family, strength)
                strengths[f"{strength:g}"] = round(self._loss_of_all(), 6)
        finally:
            lora.set_strength(self.family, 1)
        return {"fit": self.fit(photos), "strengths": strengths}

    def fit(self, photos: Sequence[Record]) -> dict[str, float]:
        """{photo: its loss over the median photo's, at the same timesteps}: what stays far above 1 has not been learned."""
        looked = sorted(photos, key=lambda record: record["file"])
        if len(looked) > FIT_MOST:
            looked = random.Random(f"{SEED}").sample(looked, FIT_MOST)
        losses = dict(zip((record["file"] for record in looked), self._losses_of(looked, FIT_LOOKS), strict=True))
        middle = sorted(losses.values())[len(losses) // 2] if losses else 0.0
        return {name: round(loss / middle, 3) for name, loss in losses.items()} if middle else {}

    def _draw(self, record: Record, looks: int) -> tuple[Tensor, Tensor, Tensor]:
        """Latents and noise [looks, C, h, w], timesteps [looks]: the same for a photo at every step, drawn on the CPU."""
        generator = torch.Generator().manual_seed(SEED + self.project.settings.train.seed)
        moments = load_latents(self.project, record)
        latents = moments["mean"][None].expand(looks, -1, -1, -1)
        noise = draw_noise(latents.shape, self.project.settings.train, generator)
        pool = self.family.process.draw_timesteps(torch.Size((POOL, *latents.shape[1:])), generator).sort().values
        timesteps = pool[[int((n + 0.5) * POOL / looks) for n in range(looks)]]
        return latents.to(self.family.device), noise.to(self.family.device), timesteps.to(self.family.device)

    def _texts(self, text: Text, record: Record, looks: int) -> tuple[Text, Tensor]:
        texts = {name: tensor.to(self.family.device) for name, tensor in stack_texts([text] * looks).items()}
        return texts, torch.tensor([picture_sizes(record)] * looks, device=self.family.device)

    def _parts(self, looks: int) -> list[slice]:
        """No larger than a batch of the training, which is what the card was found to hold."""
        size = crew.rows_at_once(self.project.settings.train)
        return [slice(first, min(first + size, looks)) for first in range(0, looks, size)]


def is_worn_out(metrics: Sequence[dict], steps: int) -> bool:
    """Whether the validation has not been better for a quarter of the training, and is plainly worse than it was."""
    measured = [(entry["step"], entry["validation"]) for entry in metrics if entry.get("validation") is not None]
    if len(measured) < 5:
        return False
    best_step, best = min(measured, key=lambda pair: pair[1])
    return measured[-1][0] - best_step >= PATIENCE * steps and min(value for _, value in measured[-3:]) > 1.02 * best
