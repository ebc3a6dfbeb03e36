"""What is checked and said before any weights are loaded."""

from __future__ import annotations

from collections import Counter

from lorakit.catalog import check_family
from lorakit.console import say, warn
from lorakit.errors import LorakitError
from lorakit.manifest import Record
from lorakit.project import Project
from lorakit.train import batches
from lorakit.wording import count_word


def preflight(project: Project) -> list[Record]:
    """The records of the dataset, after all that can be known beforehand has been checked: the family, every picture
    and text on the disk, the trigger in every text. Raises `LorakitError` at the first thing that is wrong."""
    check_family(project.card)
    photos = [r for r in project.manifest.selected if r.get("dataset")]
    if not photos:
        raise LorakitError(f"{project.folder}: no dataset to train on; run `lorakit curate` and `lorakit caption` first")
    for record in photos:
        picture = project.dataset_folder / record["dataset"]["file"]
        if not picture.is_file():
            raise LorakitError(f"{picture}: gone from the dataset; `lorakit run` writes it again")
        if not record["text"].strip():
            raise LorakitError(f"{record['file']}: has no words; give it a caption or a --trigger")
        if project.trigger and count_word(record["text"], project.trigger) != 1:
            raise LorakitError(f"{record['file']}: the trigger {project.trigger!r} does not stand once in its text: {record['text']!r}")
    if not project.trigger:
        warn("no --trigger: the LoRA will act on every prompt")
    return photos


def say_plan(project: Project, photos: list[Record], steps: int) -> None:
    """The sizes of the training in a few lines: steps, what to know of the base, and photos per bucket."""
    settings = project.settings.train
    visits = sum(r.get("repeats", 1) for r in photos)
    an_epoch = len(batches.epoch(photos, settings.batch_size, settings.seed, 0))
    epochs = steps * settings.gradient_accumulation / an_epoch
    per_step = settings.batch_size * settings.gradient_accumulation
    say(
        f"train     {len(photos)} photos, {visits} visits an epoch, {per_step} a step: {steps} steps = {epochs:.1f} epochs; "
        f"rank {settings.rank}, {project.card.title}"
    )
    if project.card.note:
        say(f"          {project.card.note}")
    sizes = Counter(tuple(r["crop"]["bucket"]) for r in photos)
    say("          buckets " + ", ".join(f"{w}x{h}: {count}" for (w, h), count in sorted(sizes.items())))
