"""Sample images: the same for the same seed, prompts that show what was learned and what leaks."""

import numpy as np
from PIL import Image

from lorakit import open_project
from lorakit.project import runs, stamps
from lorakit.train.sample import sample, sample_prompts


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
    plain, first, second, leak = sample_prompts(project)
    assert plain == "zwx mug" and leak == "mug"
    assert {first, second} <= {r["text"] for r in project.manifest.selected} and first != second


def test_prompts_that_are_given_are_used_as_they_are(make_dataset):
    assert sample_prompts(make_dataset(**{"sample.prompts": ["one", "two"]})) == ["one", "two"]
