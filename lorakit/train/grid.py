"""A grid of samples: one row a prompt, one column a strength of the LoRA, one seed a row. It shows at a glance what the
LoRA has learned, at which strength it speaks, and whether it leaks into prompts without the trigger."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from lorakit.console import progress
from lorakit.project import Project
from lorakit.text.placing import without_word
from lorakit.text.words import count_word
from lorakit.train import lora
from lorakit.train.cache import keep_texts
from lorakit.train.prompts import sample_prompts
from lorakit.train.sample import decode, draw_latents, save_picture
from lorakit.train.trained import begun_run, load_trained, step_suffix, trained_run

STRENGTHS = (0.0, 0.4, 0.7, 1.0)  # 0 is the base itself
CELL, MARGIN, LABEL = 192, 6, 190  # pixels: of a picture, between two, and for the prompt at the left


def grid(project: Project, prompts: Sequence[str] = (), strengths: Sequence[float] = STRENGTHS, step: int | None = None) -> Path:
    """Draw every prompt at every strength into `samples/grid.png` of the project's newest training, or of the checkpoint of
    `step` into `samples/grid-step000250.png`; returns its path.

    Without prompts, the project's sample prompts are drawn with the trigger and without it."""
    run = trained_run(project) if step is None else begun_run(project)
    prompts = list(prompts) or with_and_without(project)
    keep_texts(project, ("", *prompts))
    family = load_trained(project, run, step)
    latents = []
    with progress("grid", len(prompts) * len(strengths)) as shown:
        for strength in strengths:
            lora.set_strength(family, strength)
            for one in draw_latents(project, family, prompts):
                latents.append(one)
                shown.advance()
        pictures = list(decode(family, latents))
    columns = [pictures[start : start + len(prompts)] for start in range(0, len(pictures), len(prompts))]
    path = run.samples / f"grid{step_suffix(step)}.png"
    save_picture(lay_out(columns, prompts, strengths), path)
    return path


def with_and_without(project: Project) -> list[str]:
    """The sample prompts that hold the trigger, each followed by itself without it."""
    trigger = project.trigger
    if not trigger:
        return sample_prompts(project)
    named = [prompt for prompt in sample_prompts(project) if count_word(prompt, trigger)]
    return [prompt for name in named for prompt in (name, without_word(name, trigger)) if prompt]


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
            sheet.paste(picture.resize((CELL, CELL), Image.Resampling.LANCZOS), (left, head + y * (CELL + MARGIN)))
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
