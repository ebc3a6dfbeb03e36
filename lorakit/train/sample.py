"""Stage sample: pictures from fixed seeds, while training and, at its end, with and without the LoRA."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from lorakit import files
from lorakit.bases.families.base import Family
from lorakit.console import progress
from lorakit.project import Project, stamps
from lorakit.project.runs import Run
from lorakit.text.placing import place_trigger, without_word
from lorakit.train import lora, memorised
from lorakit.train.trained import begun_run, load_trained, step_suffix, trained_run


def sample(project: Project) -> Run:
    """Write `samples/final/<n>_base.png` and `<n>_lora.png` for every prompt of the project's newest training, the same
    seed for both. Raises `LorakitError` when nothing has been trained yet."""
    run = trained_run(project)
    stamp = stamps.sample(project)
    if run.is_done("sample", stamp):
        return run
    prompts = draw_pairs(project, load_trained(project, run), run.samples / "final")
    run.finish("sample", stamp, prompts=prompts, **memorised.look(project, run.samples / "final"))
    return run


def sample_step(project: Project, step: int) -> Path:
    """The same pictures from the checkpoint of `step`, in `samples/final-step000250`; returns that folder."""
    run = begun_run(project)
    folder = run.samples / f"final{step_suffix(step)}"
    draw_pairs(project, load_trained(project, run, step), folder)
    return folder


def draw_pairs(project: Project, family: Family, folder: Path) -> list[str]:
    """Draw every sample prompt without and with the LoRA; returns the prompts."""
    prompts = sample_prompts(project)
    with progress("sample", 2 * len(prompts)) as shown:
        for name in ("base", "lora"):
            lora.set_strength(family, 0 if name == "base" else 1)
            for number, picture in enumerate(draw(project, family, prompts)):
                save_picture(picture, folder / f"{number}_{name}.png")
                shown.advance()
    return prompts


def sample_in_training(project: Project, run: Run, family: Family, step: int) -> None:
    """Write `samples/step_<step>/<n>.png`."""
    prompts = sample_prompts(project)
    for number, picture in enumerate(draw(project, family, prompts)):
        save_picture(picture, run.samples / f"step_{step:06d}" / f"{number}.png")


@torch.no_grad()  # no inference mode: what swapped blocks would fetch in it could not be trained with after
def draw(project: Project, family: Family, prompts: list[str]):
    """Yield one picture a prompt, with prompt n from seed + n."""
    settings, side = project.settings.sample, project.settings.train.resolution
    family.denoiser.eval()
    pipeline = family.pipeline()
    pipeline.set_progress_bar_config(disable=True)
    for number, prompt in enumerate(prompts):
        generator = torch.Generator().manual_seed(settings.seed + number)
        drawn = pipeline(
            prompt,
            width=side,
            height=side,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            generator=generator,
            **family.sampling_options(),
        )
        yield drawn.images[0]


def sample_prompts(project: Project) -> list[str]:
    """The user's prompts; or a plain one with the trigger, two captions of the set, and the plain one without the
    trigger, which shows how much the LoRA leaks into other prompts."""
    settings, trigger = project.settings.sample, project.settings.trigger
    if settings.prompts:
        return list(settings.prompts)
    style = project.settings.caption.style
    thing = trigger.class_word or ("a house by a lake" if trigger.teaches == "style" else "subject")
    plain = thing if style == "tags" else f"a photo of a {thing}"
    with_trigger = place_trigger(plain, trigger.word, trigger.class_word, style, trigger.teaches)
    texts = [r["text"] for r in project.manifest.selected if r.get("dataset")]
    spread = [texts[0], texts[len(texts) // 2]] if len(texts) > 1 else texts
    without = without_word(with_trigger, trigger.word) if trigger.word else None
    prompts = [p for p in (with_trigger, *spread, without) if p]
    return list(dict.fromkeys(prompts))[: settings.count]


def save_picture(picture: Image.Image, path: Path) -> None:
    files.write_whole(path, lambda part: picture.save(part, "PNG"))
