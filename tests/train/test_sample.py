"""Sample images: the same for the same seed, prompts that show what was learned and what leaks."""

from collections import Counter

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline, StableDiffusion3Pipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from PIL import Image

from lorakit import open_project, pipeline
from lorakit.bases.load import load_family
from lorakit.errors import LorakitError
from lorakit.project import runs, stamps
from lorakit.text.prompts import Prompt
from lorakit.train.cache import keep_texts
from lorakit.train.prompts import sample_prompts, texts_of, usual_size
from lorakit.train.sample import decode, draw_latents, sample


def pixels(path):
    return np.asarray(Image.open(path), dtype=np.float32) / 255


def final(project):
    return runs.find(project.folder, stamps.train(project)).samples / "final"


def test_lora_and_base_are_drawn_from_the_same_seed_and_differ(trained):
    base, lora = (pixels(final(trained) / f"0_{name}.png") for name in ("base", "lora"))
    assert base.shape == lora.shape == (64, 64, 3)
    assert np.abs(base - lora).max() > 1e-2


def test_sampling_again_draws_the_same_pictures(copy_of_trained):
    before = {path.name: path.read_bytes() for path in final(copy_of_trained).glob("*.png")}
    again = open_project(copy_of_trained.folder, device="cpu")
    run = sample(again)  # already done: only finds its run
    run.finish("sample", "forgotten")
    for path in final(again).glob("*.png"):
        path.unlink()
    sample(again)
    assert {path.name: path.read_bytes() for path in final(again).glob("*.png")} == before


def test_prompts_show_the_trigger_two_captions_and_the_leak_without_it(make_dataset):
    project = make_dataset(**{"sample.count": 4})
    plain, first, second, leak = (prompt.text for prompt in sample_prompts(project))
    assert plain == "zwx mug" and leak == "mug"
    assert {first, second} <= {r["text"] for r in project.manifest.selected} and first != second


def test_a_file_of_prompts_is_drawn_with_its_options(copy_of_trained, tmp_path):
    (tmp_path / "prompts.txt").write_text("[trigger] mug --w 32 --h 48\n[trigger] mug --d 5\n[trigger] mug --d 5 --n mug\n")
    project = open_project(copy_of_trained.folder, settings={"sample.prompts": str(tmp_path / "prompts.txt")}, device="cpu")
    assert pipeline.walk(project, "sample", "sample") == ["sample"]
    narrow, plain, other = (pixels(final(project) / f"{number}_lora.png") for number in range(3))
    assert narrow.shape == (48, 32, 3) and plain.shape == other.shape == (64, 64, 3)
    assert np.abs(plain - other).max() > 0, "the negative prompt counts"
    assert runs.find(project.folder, stamps.train(project)).facts["result"]["prompts"] == ["zwx mug"] * 3
    assert pipeline.walk(project, "sample", "sample") == []
    (tmp_path / "prompts.txt").write_text("a mug --w 50\n")
    with pytest.raises(LorakitError, match="prompts.txt, line 1: --w 50"):
        pipeline.walk(project, "sample", "sample")
    assert not pipeline.is_run_done(project, "sample"), "what the file says belongs to what was drawn"


def test_the_usual_size_is_the_commonest_bucket(make_dataset):
    project = make_dataset()
    sizes = Counter(tuple(r["crop"]["bucket"]) for r in project.manifest.selected)
    assert len(sizes) == 3 and set(sizes.values()) == {2}
    assert usual_size(project) == (64, 64), "of those that are as common, the one nearest to a square"
    square = next(r for r in project.manifest.selected if r["crop"]["bucket"] == [64, 64])
    wide = next(r for r in project.manifest.selected if r["crop"]["bucket"][0] > 64)
    project.manifest.keep({**square, "crop": wide["crop"]})
    assert usual_size(project) == tuple(wide["crop"]["bucket"])


SLOW = pytest.mark.slow
WHOLE = {  # the card, and diffusers' pipeline
    "sd15": ("tiny-random", StableDiffusionPipeline), "sdxl": ("sdxl", StableDiffusionXLPipeline),
    "sd3": ("sd35-medium", StableDiffusion3Pipeline), "flux1": ("flux1-dev", FluxPipeline),
}  # fmt: skip


@pytest.mark.parametrize("name", ["flux1", "sdxl", *(pytest.param(name, marks=SLOW) for name in ("sd15", "sd3"))])
def test_part_by_part_it_is_the_picture_of_diffusers_whole_pipeline_bit_for_bit(make_project, tiny_base, name):
    card, cls = WHOLE[name]
    project = make_project(base=card, **{"train.weights": str(tiny_base(name)), "sample.guidance": 3.0, "sample.steps": 2})
    prompts = ["zwx mug", "a house by a lake"]
    keep_texts(project, texts_of(map(Prompt, prompts)))
    family = load_family(project)
    pictures = list(decode(family, list(draw_latents(project, family, [Prompt(text) for text in prompts]))))
    whole = cls.from_pretrained(tiny_base(name))
    whole.scheduler = family.pipeline().scheduler
    whole.set_progress_bar_config(disable=True)
    side = project.settings.train.resolution
    for number, prompt in enumerate(prompts):
        generator = torch.Generator().manual_seed(project.settings.sample.seed + number)
        wanted = whole(prompt, width=side, height=side, num_inference_steps=2, guidance_scale=3.0, generator=generator).images[0]
        assert np.array_equal(np.asarray(wanted), np.asarray(pictures[number]))
