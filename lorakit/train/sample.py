"""Stage sample: pictures from fixed seeds, while training and, at its end, with and without the LoRA."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from lorakit import files
from lorakit.bases.families.base import Family, Text
from lorakit.console import progress
from lorakit.project import Project, stamps
from lorakit.project.runs import Run
from lorakit.text.prompts import Prompt
from lorakit.train import crew, lora, memorised, standing
from lorakit.train.cache import keep_texts, load_text
from lorakit.train.prompts import sample_prompts, texts_of, usual_size
from lorakit.train.trained import begun_run, load_with, step_suffix, trained_adapter, trained_run
from lorakit.train.training_adapter import as_it_is_used


def sample(project: Project) -> Run:
    """Write `samples/final/<n>_base.png` and `<n>_lora.png` for every prompt of the project's newest training, the same
    seed for both. Raises `LorakitError` when nothing has been trained yet."""
    run = trained_run(project)
    stamp = stamps.sample(project)
    if run.is_done("sample", stamp):
        return run
    prompts = draw_pairs(project, run, None, run.samples / "final")
    run.finish("sample", stamp, prompts=prompts, **memorised.look(project, run.samples / "final"))
    return run


def sample_step(project: Project, step: int) -> Path:
    """The same pictures from the checkpoint of `step`, in `samples/final-step000250`; returns that folder."""
    run = begun_run(project)
    folder = run.samples / f"final{step_suffix(step)}"
    draw_pairs(project, run, step, folder)
    return folder


def draw_pairs(project: Project, run: Run, step: int | None, folder: Path) -> list[str]:
    """Draw every sample prompt without and with the LoRA; returns the prompts' texts."""
    prompts = sample_prompts(project)
    keep_texts(project, texts_of(prompts))
    adapter, _ = trained_adapter(project, run, step)
    chosen = replace(project, manifest=project.manifest.chosen(), device=standing.where_of(project))
    with crew.called(latents_of_pairs, chosen, run, adapter, prompts):
        family, latents = latents_of_pairs(chosen, run, adapter, prompts)
    for name, picture in zip(latents, decode(family, latents.values()), strict=True):
        save_picture(picture, folder / f"{name}.png")
    return [prompt.text for prompt in prompts]


def latents_of_pairs(
    project: Project, run: Run, adapter: Mapping[str, Tensor], prompts: Sequence[Prompt]
) -> tuple[Family, dict[str, Tensor]]:
    """(the base with the LoRA in it, {"<n>_base", "<n>_lora": latents}), each drawn by one process."""
    family = crew.together(lambda: load_with(project, run, adapter))
    latents = {}
    with progress("sample", 2 * len(crew.own(len(prompts)))) as shown:

        def draw(own: range) -> list[Tensor]:
            found = []
            for one in draw_latents(project, family, prompts, own):
                found.append(one)
                shown.advance()
            return found

        for name in ("base", "lora"):
            lora.set_strength(family, 0 if name == "base" else 1)
            latents |= {f"{number}_{name}": one for number, one in enumerate(crew.share(draw, len(prompts)))}
    return family, latents


def sample_in_training(project: Project, run: Run, family: Family, step: int, prompts: Sequence[Prompt]) -> Path:
    """Write `samples/step_<step>/<n>.png`, and return that folder: by the denoiser that is there and the texts of the cache. The VAE
    alone is loaded, when all is drawn, and released."""
    keep_texts(project, texts_of(prompts))  # nothing to do, unless somebody has emptied the cache meanwhile
    folder = run.samples / f"step_{step:06d}"
    latents = latents_in_training(project, family, prompts)
    for number, picture in enumerate(decode(family, latents)):
        save_picture(picture, folder / f"{number}.png")
    return folder


def latents_in_training(project: Project, family: Family, prompts: Sequence[Prompt]) -> list[Tensor]:
    """Each drawn by one process."""
    with as_it_is_used(family):
        return crew.share(lambda own: list(draw_latents(project, family, prompts, own)), len(prompts))


@torch.no_grad()  # no inference mode: what swapped blocks would fetch in it could not be trained with after
def draw_latents(project: Project, family: Family, prompts: Sequence[Prompt], numbers: Iterable[int] | None = None) -> Iterator[Tensor]:
    """Yield the latents [1, C, h, w] of one picture a prompt, or of these `numbers` of them, on the CPU; prompt n from seed + n where it
    names no seed of its own. The texts are in the cache."""
    settings, usual = project.settings.sample, usual_size(project)
    family.denoiser.eval()
    pipeline = family.pipeline()
    pipeline.vae_scale_factor = family.latent_side  # which it would have asked the VAE
    pipeline.set_progress_bar_config(disable=True)
    empty = _embedded(project, family, "")
    for number in range(len(prompts)) if numbers is None else numbers:
        prompt = prompts[number]
        width, height = prompt.width or usual[0], prompt.height or usual[1]
        negative = _embedded(project, family, prompt.negative) if prompt.negative and family.TAKES_NEGATIVE else None
        drawn = pipeline(
            **family.prompt_options(_embedded(project, family, prompt.text), empty, negative),
            width=width,
            height=height,
            num_inference_steps=prompt.steps or settings.steps,
            **{family.GUIDANCE: settings.guidance if prompt.guidance is None else prompt.guidance},
            generator=torch.Generator().manual_seed(settings.seed + number if prompt.seed is None else prompt.seed),
            output_type="latent",
        )
        yield family.latents_of(drawn.images, height, width).cpu()


def _embedded(project: Project, family: Family, text: str) -> Text:
    """A batch of one, as the denoiser takes it."""
    cached = {name: tensor[None].to(family.device) for name, tensor in load_text(project, text).items()}
    return {name: tensor.to(family.dtype) for name, tensor in family.embedded(cached).items()}


def decode(family: Family, latents: Iterable[Tensor]) -> Iterator[Image.Image]:
    """The picture of each; the VAE is loaded for it and released after."""
    for one in latents:
        yield family.decode(one)
    family.release("vae")


def save_picture(picture: Image.Image, path: Path) -> None:
    files.write_whole(path, lambda part: picture.save(part, "PNG"))
