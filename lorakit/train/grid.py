"""A grid of samples: one row a prompt, one column a strength of the LoRA, one seed a row. It shows at a glance what the
LoRA has learned, at which strength it speaks, and whether it leaks into prompts without the trigger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from lorakit.bases import families
from lorakit.console import progress
from lorakit.project import Project
from lorakit.text.placing import without_word
from lorakit.text.prompts import Prompt, read
from lorakit.text.words import count_word
from lorakit.train import lora
from lorakit.train.cache import keep_texts
from lorakit.train.prompts import sample_prompts, texts_of
from lorakit.train.sample import decode, draw_latents, save_picture
from lorakit.train.trained import begun_run, load_trained, step_suffix, trained_run

STRENGTHS = (0.0, 0.4, 0.7, 1.0)  # 0 is the base itself
CELL, MARGIN, LABEL = 192, 6, 190  # pixels: of a picture, between two, and for the prompt at the left


def grid(project: Project, prompts: Sequence[str] = (), strengths: Sequence[float] = STRENGTHS, step: int | None = None) -> Path:
    """Draw every prompt at every strength into `samples/grid.png` of the project's newest training, or of the checkpoint of
    `step` into `samples/grid-step000250.png`; returns its path.

    Without prompts, the project's sample prompts are drawn with the trigger and without it."""
    run = trained_run(project) if step is None else begun_run(project)
    step_size = families.load(project.card.family).PIXEL_STEP
    rows = read(prompts, project.folder, project.trigger, step_size) if prompts else with_and_without(project)
    keep_texts(project, texts_of(rows))
    family = load_trained(project, run, step)
    latents = []
    with progress("grid", len(rows) * len(strengths)) as shown:
        for strength in strengths:
            lora.set_strength(family, strength)
            for one in draw_latents(project, family, rows):
                latents.append(one)
                shown.advance()
        pictures = list(decode(family, latents))
    columns = [pictures[start : start + len(rows)] for start in range(0, len(pictures), len(rows))]
    path = run.samples / f"grid{step_suffix(step)}.png"
    save_picture(lay_out(columns, [row.text for row in rows], strengths), path)
    return path


def with_and_without(project: Project) -> list[Prompt]:
    """The sample prompts that hold the trigger, each followed by itself without it."""
    trigger = project.trigger
    if not trigger:
        return sample_prompts(project)
    named = [prompt for prompt in sample_prompts(project) if count_word(prompt.text, trigger)]
    both = [(prompt, replace(prompt, text=without_word(prompt.text, trigger))) for prompt in named]
    return [prompt for pair in both for prompt in pair if prompt.text]


def lay_out(columns: list[list[Image.Image]], prompts: Sequence[str], strengths: Sequence[float]) -> Image.Image:
    """The pictures in a table with the strengths above and the prompts at the left."""
    head, font = 28, ImageFont.load_default(14)
    width = LABEL + len(columns) * (CELL + MARGIN)
    sheet = Image.new("RGB", (width, head + len(prompts) * (CELL + MARGIN)), "white")
    pen = ImageDraw.Draw(sheet)
    for x, (strength, column) in enumerate(zip(strengths, columns)):
        left = LABEL + x * (CELL + MARGIN)
        pen.text((left + 4, 6), "base" if strength == 0 else f"strength {strength:g}", fill="black", font=font)
        for y, picture in enumerate(column):
            cell = ImageOps.pad(picture, (CELL, CELL), Image.Resampling.LANCZOS, color="white")
            sheet.paste(cell, (left, head + y * (CELL + MARGIN)))
    for y, prompt in enumerate(prompts):
        pen.multiline_text((6, head + y * (CELL + MARGIN) + 6), wrapped(prompt, font), fill="black", font=font, spacing=3)
    return sheet


def wrapped(text: str, font: ImageFont.FreeTypeFont) -> str:
    """The text broken into lines that fit the label column."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) > LABEL - 12 and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)
