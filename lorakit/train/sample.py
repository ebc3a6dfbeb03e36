"""Stage sample: pictures from fixed seeds, while training and, at its end, with and without the LoRA."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image

from lorakit import files
from lorakit.bases import families
from lorakit.bases.families.base import Family
from lorakit.console import progress, say
from lorakit.project import Project, stamps
from lorakit.project.runs import Run
from lorakit.text import prompts
from lorakit.text.placing import place_trigger, without_word
from lorakit.text.prompts import Prompt
from lorakit.train import lora
from lorakit.train.trained import begun_run, load_trained, step_suffix, trained_run


def sample(project: Project) -> Run:
    """Write `samples/final/<n>_base.png` and `<n>_lora.png` for every prompt of the project's newest training, the same
    seed for both. Raises `LorakitError` when nothing has been trained yet."""
    run = trained_run(project)
    stamp = stamps.sample(project)
    if run.is_done("sample", stamp):
        return run
    drawn = draw_pairs(project, load_trained(project, run), run.samples / "final")
    run.finish("sample", stamp, prompts=drawn)
    return run


def sample_step(project: Project, step: int) -> Path:
    """The same pictures from the checkpoint of `step`, in `samples/final-step000250`; returns that folder."""
    run = begun_run(project)
    folder = run.samples / f"final{step_suffix(step)}"
    draw_pairs(project, load_trained(project, run, step), folder)
    return folder


def draw_pairs(project: Project, family: Family, folder: Path) -> list[str]:
    """Draw every sample prompt without and with the LoRA; returns the prompts' texts."""
    wanted = sample_prompts(project)
    with progress("sample", 2 * len(wanted)) as shown:
        for name in ("base", "lora"):
            lora.set_strength(family, 0 if name == "base" else 1)
            for number, picture in enumerate(draw(project, family, wanted)):
                save_picture(picture, folder / f"{number}_{name}.png")
                shown.advance()
    return [prompt.text for prompt in wanted]


def sample_in_training(project: Project, run: Run, family: Family, step: int) -> None:
    """Write `samples/step_<step>/<n>.png`."""
    for number, picture in enumerate(draw(project, family, sample_prompts(project))):
        save_picture(picture, run.samples / f"step_{step:06d}" / f"{number}.png")


@torch.no_grad()  # no inference mode: what swapped blocks would fetch in it could not be trained with after
def draw(project: Project, family: Family, wanted: Sequence[Prompt]) -> Iterator[Image.Image]:
    """Yield one picture a prompt, with prompt n from seed + n where it names no seed of its own."""
    settings = project.settings.sample
    width, height = usual_size(project)
    family.denoiser.eval()
    pipeline = family.pipeline()
    pipeline.set_progress_bar_config(disable=True)
    for number, prompt in enumerate(wanted):
        seed = settings.seed + number if prompt.seed is None else prompt.seed
        negative = {"negative_prompt": prompt.negative} if prompt.negative and family.TAKES_NEGATIVE else {}
        drawn = pipeline(
            prompt.text,
            width=prompt.width or width,
            height=prompt.height or height,
            num_inference_steps=prompt.steps or settings.steps,
            guidance_scale=settings.guidance if prompt.guidance is None else prompt.guidance,
            generator=torch.Generator().manual_seed(seed),
            **negative,
            **family.sampling_options(),
        )
        yield drawn.images[0]


def usual_size(project: Project) -> tuple[int, int]:
    """(width, height) that most photos of the set are trained at; of two that are as common, the one nearer to a square."""
    sizes = Counter(tuple(r["crop"]["bucket"]) for r in project.manifest.selected if r.get("dataset") and r.get("crop"))
    if not sizes:
        return (project.settings.train.resolution,) * 2
    return max(sizes, key=lambda size: (sizes[size], -max(size) / min(size), size))


def check_prompts(project: Project) -> None:
    """Before anything starts: can the prompts be read? Raises `LorakitError` with the line of the first that cannot."""
    cls = families.load(project.card.family)
    given = prompts.read(project.settings.sample.prompts, project.folder, project.trigger, cls.PIXEL_STEP)
    if any(prompt.negative for prompt in given) and not cls.TAKES_NEGATIVE:
        say(f"sample    {project.card.title} is drawn without negative prompts; what stands after --n is left aside")


def sample_prompts(project: Project) -> list[Prompt]:
    """The user's prompts; or a plain one with the trigger, two captions of the set, and the plain one without the
    trigger, which shows how much the LoRA leaks into other prompts."""
    settings, trigger = project.settings.sample, project.settings.trigger
    if settings.prompts:
        return prompts.read(settings.prompts, project.folder, trigger.word, families.load(project.card.family).PIXEL_STEP)
    style = project.settings.caption.style
    thing = trigger.class_word or ("a house by a lake" if trigger.teaches == "style" else "subject")
    plain = thing if style == "tags" else f"a photo of a {thing}"
    with_trigger = place_trigger(plain, trigger.word, trigger.class_word, style, trigger.teaches)
    texts = [r["text"] for r in project.manifest.selected if r.get("dataset")]
    spread = [texts[0], texts[len(texts) // 2]] if len(texts) > 1 else texts
    without = without_word(with_trigger, trigger.word) if trigger.word else None
    made = dict.fromkeys(text for text in (with_trigger, *spread, without) if text)
    return [Prompt(text) for text in made][: settings.count]


def save_picture(picture: Image.Image, path: Path) -> None:
    files.write_whole(path, lambda part: picture.save(part, "PNG"))
