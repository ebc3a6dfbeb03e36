"""One visit of a batch: what is drawn by chance, and the loss that comes of it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lorakit.bases.families.base import Family, Text, send_text, stack_texts
from lorakit.files import short_hash
from lorakit.project import Project
from lorakit.record import Record
from lorakit.train import batches, lora
from lorakit.train.cache import has_mask, load_latents, load_mask, load_text, preserved_texts, text_variants
from lorakit.train.noise import draw_noise

HUBER_WIDTH = 0.1  # errors below this are squared, above it they count by their size (sd-scripts' default)


@dataclass(frozen=True)
class Drawn:
    """All that a visit of a batch is made of, on the CPU."""

    number: int  # of the batch, counted over the whole training from 0
    latents: Tensor  # [B, C, h, w], as are the next two
    noise: Tensor
    input_noise: Tensor
    timesteps: Tensor  # [B]
    text: Text
    sizes: Tensor  # [B, 6]
    mask: Tensor | None  # [B, 1, h, w]
    preserved: Text | None  # the texts without the trigger, where the base's behaviour is to be kept
    is_regularisation: bool


@dataclass(frozen=True)
class Chance:
    """What is drawn for some photos."""

    latents: Tensor  # [B, C, h, w], as are the next two
    noise: Tensor
    input_noise: Tensor
    timesteps: Tensor  # [B]
    texts: list[Text]
    of_text: list[float]  # 0 to 1: below `caption_dropout` a text is left out


class BatchLoss:
    """One visit of a batch: latents, noise, timesteps and texts in; the loss out. All chance comes from the seed, the batch's number and
    the photo's row in it, drawn on the CPU, so that it is the same on every device, after every resume, and whichever process takes it."""

    def __init__(self, project: Project, family: Family, by_photo: bool = True):
        """`by_photo` is False for a training that was begun when a whole batch was drawn from one generator."""
        self.project, self.family, self.by_photo = project, family, by_photo
        self.settings = project.settings.train
        self.empty = load_text(project, "")

    def loss(self, batch: batches.Batch, number: int) -> Tensor:
        """The error of the denoiser's prediction, a scalar in fp32."""
        return self.loss_of(self.draw(batch, number))

    def draw(self, batch: batches.Batch, number: int, rows: Sequence[int] | None = None) -> Drawn:
        """Latents and texts from the cache, and all that is left to chance, of a batch or of some of its rows. It reads files and touches
        no card, so a thread may do it while the step before is at work."""
        rows = range(len(batch)) if rows is None else rows
        chance = self._draw_by_photo(batch, number, rows) if self.by_photo else self._draw_by_batch(batch, number, rows)
        mine = [batch[row] for row in rows]
        sizes = torch.tensor([picture_sizes(record) for record in mine])
        preserved, is_regularisation = None, bool(batch[0].get("regularisation"))
        if self._preserves(batch):
            preserved = stack_texts([self._preserved(record, at) for record, at in zip(mine, chance.of_text, strict=True)])
        text, mask = stack_texts(chance.texts), self._draw_masks(mine)
        return Drawn(
            number, chance.latents, chance.noise, chance.input_noise, chance.timesteps, text, sizes, mask, preserved, is_regularisation
        )

    def _draw_by_photo(self, batch: batches.Batch, number: int, rows: Sequence[int]) -> Chance:
        """Each row from a generator of its own."""
        seed = self.settings.seed
        each = [self._draw_chance([batch[row]], torch.Generator().manual_seed(row_seed(seed, number, row))) for row in rows]
        latents, noise, input_noise, timesteps = (
            torch.cat([getattr(one, name) for one in each]) for name in ("latents", "noise", "input_noise", "timesteps")
        )
        texts, of_text = ([word for one in each for word in getattr(one, name)] for name in ("texts", "of_text"))
        return Chance(latents, noise, input_noise, timesteps, texts, of_text)

    def _draw_by_batch(self, batch: batches.Batch, number: int, rows: Sequence[int]) -> Chance:
        whole = self._draw_chance(batch, torch.Generator().manual_seed(self.settings.seed * 1_000_003 + number))
        at = list(rows)
        texts, of_text = ([one[row] for row in at] for one in (whole.texts, whole.of_text))
        return Chance(whole.latents[at], whole.noise[at], whole.input_noise[at], whole.timesteps[at], texts, of_text)

    def _draw_chance(self, photos: batches.Batch, generator: torch.Generator) -> Chance:
        settings = self.settings
        latents = self._draw_latents(photos, generator)
        noise = draw_noise(latents.shape, settings, generator)
        timesteps = self.family.process.draw_timesteps(latents.shape, generator)
        texts, of_text = self._draw_texts(photos, generator)
        input_noise = (
            settings.input_perturbation * torch.randn(latents.shape, generator=generator) if settings.input_perturbation else 0 * noise
        )
        return Chance(latents, noise, input_noise, timesteps, texts, of_text)

    def loss_of(self, drawn: Drawn) -> Tensor:
        """The same of what was drawn: the card's part of it."""
        family, settings = self.family, self.settings
        latents, noise, timesteps, input_noise, sizes = map(
            self._send, (drawn.latents, drawn.noise, drawn.timesteps, drawn.input_noise, drawn.sizes)
        )
        mask = None if drawn.mask is None else self._send(drawn.mask)
        with self.autocast():
            text = family.embedded(send_text(drawn.text, self._send))
            loss = step_loss(family, latents, noise, timesteps, text, sizes, input_noise, mask)
            if drawn.is_regularisation:
                return settings.regularisation_weight * loss
            if drawn.preserved is None:
                return loss
            noisy, preserved = family.process.add(latents, noise, timesteps), send_text(drawn.preserved, self._send)
            return loss + settings.preservation * preservation_loss(family, noisy, timesteps, preserved, sizes)

    def _send(self, tensor: Tensor) -> Tensor:
        """Onto the device, without waiting until it has done what it was told before: from pinned memory, where it is a card."""
        if not self.family.device.startswith("cuda"):
            return tensor.to(self.family.device)
        return tensor.pin_memory().to(self.family.device, non_blocking=True)

    def _draw_latents(self, batch: batches.Batch, generator: torch.Generator) -> Tensor:
        moments = [load_latents(self.project, record) for record in batch]
        mean, std = (torch.stack([m[name] for m in moments]) for name in ("mean", "std"))
        return mean + std * torch.randn(mean.shape, generator=generator)

    def masks(self, batch: batches.Batch) -> Tensor | None:
        """[B, 1, h, w] on the device: 1 inside the masks, `mask_outside` outside; None where they are not looked at."""
        masks = self._draw_masks(batch)
        return None if masks is None else self._send(masks)

    def _draw_masks(self, batch: batches.Batch) -> Tensor | None:
        if not has_mask(self.project, batch[0]):
            return None
        masks = torch.stack([load_mask(self.project, record) for record in batch])
        return masks + self.settings.mask_outside * (1 - masks)

    def _preserves(self, batch: batches.Batch) -> bool:
        return bool(self.settings.preservation) and not batch[0].get("regularisation")

    def _draw_texts(self, batch: batches.Batch, generator: torch.Generator) -> tuple[list[Text], list[float]]:
        """The texts, and the chances that they were dropped by. With `preservation` all are kept here: the empty text is one of those that
        stay the base's, see `_preserved`."""
        chances = torch.rand(len(batch), generator=generator)
        dropped = (chances < (0 if self._preserves(batch) else self.settings.caption_dropout)).tolist()  # on the CPU: nothing waits
        texts = [self.empty if drop else self._draw_text(record, generator) for record, drop in zip(batch, dropped, strict=True)]
        return texts, chances.tolist()

    def _preserved(self, record: Record, chance: float) -> Text:
        """A text without the trigger: the empty one, or the photo's own, or as often that of another thing. The empty one, since guidance
        pushes away from what it brings: a subject that it brought would be pushed out of every picture."""
        dropout = self.settings.caption_dropout
        if chance < dropout:
            return self.empty
        own, *others = preserved_texts(self.project, record)
        at = (chance - dropout) / (1 - dropout)  # from 0 to 1
        return load_text(self.project, own if at < 0.5 or not others else others[int((2 * at - 1) * len(others))])

    def _draw_text(self, record: Record, generator: torch.Generator) -> Text:
        choices = text_variants(self.project, record)
        number = int(torch.randint(len(choices), (), generator=generator)) if len(choices) > 1 else 0
        return load_text(self.project, choices[number])

    def autocast(self):
        if self.family.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.family.device.split(":")[0], dtype=self.family.dtype)


def row_seed(seed: int, number: int, row: int) -> int:
    """For the chance of one photo. A hash, since torch's generator on the CPU looks at 32 bits alone."""
    return int(short_hash(seed, number, row)[:8], 16)


def step_loss(
    family: Family,
    latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    text: Text,
    sizes: Tensor,
    input_noise: Tensor | float = 0.0,
    mask: Tensor | None = None,
) -> Tensor:
    """The error of the denoiser's prediction, a scalar in fp32; `input_noise` is in the input only, not in the target, and
    `mask` [B, 1, h, w] is what each latent pixel counts."""
    prediction = family.predict(family.process.add(latents, noise + input_noise, timesteps), timesteps, text, sizes)
    target = family.process.target(latents, noise, timesteps)
    return weighted_loss(prediction, target, family.process.weight(timesteps), family.settings.loss, mask)


def preservation_loss(family: Family, noisy: Tensor, timesteps: Tensor, text: Text, sizes: Tensor) -> Tensor:
    """How far the LoRA moves the base's prediction for a text without the trigger, where it should not: the base itself is
    the teacher, so no regularisation photos are needed."""
    with torch.no_grad(), lora.switched_off(family):
        of_base = family.predict(noisy, timesteps, family.embedded(text), sizes)
    of_lora = family.predict(noisy, timesteps, family.embedded(text), sizes)
    return torch.nn.functional.mse_loss(of_lora.float(), of_base.float())


def picture_sizes(record: Record) -> tuple[int, ...]:
    """What SDXL is told of a picture: (height, width) of the photo, (top, left) of the crop in pixels of the picture that
    is trained on, (height, width) of that picture."""
    size, (left, top, right, _), (width, height) = record["measures"]["size"], record["crop"]["box"], record["crop"]["bucket"]
    scale = width / (right - left)
    return size["height"], size["width"], round(top * scale), round(left * scale), height, width


def weighted_loss(prediction: Tensor, target: Tensor, weight: Tensor, kind: str, mask: Tensor | None = None) -> Tensor:
    """The mean over pictures of `weight` [B] times a picture's mean error, a scalar in fp32. With `mask` [B, 1, h, w] that
    is the mean weighted by it, sum(mask x error) / sum(mask): what is masked small counts as much as what is large."""
    difference = prediction.float() - target.float()
    if kind == "huber":  # pseudo-Huber, scaled to be the squared error where it is small
        errors = 2 * HUBER_WIDTH * (torch.sqrt(difference**2 + HUBER_WIDTH**2) - HUBER_WIDTH)
    else:
        errors = difference**2
    if mask is None:
        return (errors.flatten(1).mean(1) * weight).mean()
    mask = mask.float().expand_as(errors)
    return ((errors * mask).flatten(1).sum(1) / mask.flatten(1).sum(1) * weight).mean()
