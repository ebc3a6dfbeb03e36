"""A grid of samples: one row a prompt, one column a strength of the LoRA, one seed a row, below some of the photos that it learned
from. It shows at a glance what the LoRA has learned, at which strength it speaks, and whether it leaks into prompts without the trigger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps

from lorakit import files
from lorakit.bases import families
from lorakit.console import progress, warn
from lorakit.errors import LorakitError
from lorakit.project import Project
from lorakit.project.runs import Run
from lorakit.text.placing import without_word
from lorakit.text.prompts import Prompt, read
from lorakit.text.words import count_word
from lorakit.train import lora
from lorakit.train.cache import keep_texts
from lorakit.train.picked import exported_step
from lorakit.train.picture_scores import load_photos, score_pictures
from lorakit.train.prompts import prompt_of_other, sample_prompts, texts_of
from lorakit.train.sample import decode, draw_latents, save_picture
from lorakit.train.stacked import open_others
from lorakit.train.trained import begun_run, load_trained, step_suffix, trained_run

STRENGTHS = (0.0, 0.4, 0.7, 1.0)  # 0 is the base itself
CELL, MARGIN, LABEL = 256, 6, 190  # pixels: of a picture, between two, and for the prompt at the left


def grid(
    project: Project,
    prompts: Sequence[str] = (),
    strengths: Sequence[float] = STRENGTHS,
    step: int | None = None,
    others: Sequence[tuple[Path, float]] = (),
) -> Path:
    """Draw every prompt at every strength into `samples/grid.png` of the project's newest training, of the checkpoint of `step` into
    `samples/grid-step000250.png`, and with `others`, LoRA files and their strengths, beside it into `samples/grid-with-NAME.png`;
    returns its path. Each picture lies in a folder of the sheet's name too, `<row>_<column>.png`, and a `.json` says of which prompt and
    strength it is: for the report. What can be said of the pictures in numbers is noted in run.json.

    Without prompts, the project's sample prompts are drawn with the trigger and without it, and a prompt for something else."""
    run = trained_run(project) if step is None else begun_run(project)
    step_size = families.load(project.card.family).PIXEL_STEP
    rows = read(prompts, project.folder, project.trigger, step_size) if prompts else with_and_without(project)
    keep_texts(project, texts_of(rows))
    family = load_trained(project, run, step, open_others(others, project.card.family) if others else None)
    latents = []
    with progress("grid", len(rows) * len(strengths)) as shown:
        for strength in strengths:
            lora.set_strength(family, strength)
            for one in draw_latents(project, family, rows):
                latents.append(one)
                shown.advance()
        pictures = list(decode(family, latents))
    columns = [pictures[start : start + len(rows)] for start in range(0, len(pictures), len(rows))]
    texts = [row.text for row in rows]
    beside = "".join(f"-with-{path.stem}" for path, _ in others)
    path = run.samples / f"{files.short_name(f'grid{step_suffix(step)}{beside}', 100)}.png"
    words = ["without" if others and strength == 0 else "base" if strength == 0 else f"{strength:g}" for strength in strengths]
    told = {"prompts": texts, "strengths": list(strengths), "columns": words, "step": step, "with": {p.name: s for p, s in others}}
    keep_cells(columns, told, path)
    heads = [word if word.isalpha() else f"strength {word}" for word in words]
    save_picture(lay_out(load_photos(project, len(columns)), columns, texts, heads), path)
    if not others:  # behind what is drawn, which must not be lost to weights that cannot be had
        note_scores(project, run, columns, rows, told, path)
    return path


def note_scores(project: Project, run: Run, columns: list[list[Image.Image]], rows: list[Prompt], told: dict[str, Any], path: Path) -> None:
    """Note in run.json, by checkpoint, and in the `.json` of the sheet what can be said of its pictures in numbers."""
    try:
        scores = score_pictures(project, columns, rows, told["strengths"])
    except LorakitError as error:
        warn(f"the pictures are drawn, and not scored: {error}")
        return
    if scores is None:
        return
    drawn = run.facts.get("result", {}).get("pictures") or {}
    run.note(pictures={**drawn, str(exported_step(project, run) if told["step"] is None else told["step"]): scores})
    files.write_json(path.with_suffix(".json"), {**told, "scores": scores})


def keep_cells(columns: list[list[Image.Image]], told: dict[str, Any], path: Path) -> None:
    """The pictures one by one, and what each is, beside the sheet at `path`."""

    def fill(part: Path) -> None:
        for x, column in enumerate(columns):
            for y, picture in enumerate(column):
                picture.save(part / f"{y}_{x}.png")

    files.write_folder(path.with_suffix(""), fill)
    files.write_json(path.with_suffix(".json"), told)


def with_and_without(project: Project) -> list[Prompt]:
    """The sample prompts that hold the trigger, each followed by itself without it; and one for something else."""
    trigger = project.trigger
    if not trigger:
        return sample_prompts(project)
    named = [prompt for prompt in sample_prompts(project) if count_word(prompt.text, trigger)]
    both = [(prompt, replace(prompt, text=without_word(prompt.text, trigger))) for prompt in named]
    return [*(prompt for pair in both for prompt in pair if prompt.text), Prompt(prompt_of_other(project))]


def lay_out(photos: Sequence[Image.Image], columns: list[list[Image.Image]], prompts: Sequence[str], heads: Sequence[str]) -> Image.Image:
    """A row of photos, if there are any; below it the pictures in a table with their heads above and the prompts at the left."""
    head, font = 28, ImageFont.load_default(14)
    top = (CELL + MARGIN if photos else 0) + head  # of the first prompt
    sheet = Image.new("RGB", (LABEL + len(columns) * (CELL + MARGIN), top + len(prompts) * (CELL + MARGIN)), "white")
    pen = ImageDraw.Draw(sheet)

    def put(picture: Image.Image, column: int, above: int) -> None:
        cell = ImageOps.pad(picture, (CELL, CELL), Image.Resampling.LANCZOS, color="white")
        sheet.paste(cell, (LABEL + column * (CELL + MARGIN), above))

    def label(words: str, above: int) -> None:
        pen.multiline_text((6, above + 6), wrapped(words, font), fill="black", font=font, spacing=3)

    for x, photo in enumerate(photos):
        put(photo, x, 0)
    if photos:
        label("photos that it learned from", 0)
    for x, (head_words, column) in enumerate(zip(heads, columns)):
        pen.text((LABEL + x * (CELL + MARGIN) + 4, top - head + 6), head_words, fill="black", font=font)
        for y, picture in enumerate(column):
            put(picture, x, top + y * (CELL + MARGIN))
    for y, prompt in enumerate(prompts):
        label(prompt, top + y * (CELL + MARGIN))
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
