"""Every family the whole way on its tiny base: cache, train, resume, export, and the same picture in diffusers."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import (
    AnimaAutoBlocks,
    ClassifierFreeGuidance,
    Flux2KleinPipeline,
    Flux2Pipeline,
    FluxPipeline,
    Krea2Pipeline,
    QwenImagePipeline,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    ZImagePipeline,
)
from PIL import Image

from lorakit import pipeline
from lorakit.project import runs, stamps
from tests.bases.test_chroma1 import Hiding
from tests.conftest import write_training_adapter

BASES = {
    "sdxl": ("sdxl", StableDiffusionXLPipeline),
    "sd3": ("sd35-medium", StableDiffusion3Pipeline),
    "flux1": ("flux1-dev", FluxPipeline),
    "chroma1": ("chroma", Hiding),
    "z_image": ("z-image", ZImagePipeline),
    "flux2": ("flux2-klein-4b", Flux2KleinPipeline),
    "flux2_dev": ("flux2-dev", Flux2Pipeline),
    "krea2": ("krea2", Krea2Pipeline),
    "qwen_image": ("qwen-image", QwenImagePipeline),
    "anima": ("anima", None),
}


class AnimaBlocks:
    """diffusers' blocks for Anima, called as a pipeline is."""

    def __init__(self, folder):
        self.blocks = AnimaAutoBlocks().init_pipeline(str(folder))
        self.blocks.load_components()
        self.load_lora_weights = self.blocks.load_lora_weights

    def __call__(self, *, guidance_scale, **options):
        self.blocks.update_components(scheduler=self.scheduler, guider=ClassifierFreeGuidance(guidance_scale=guidance_scale))
        return SimpleNamespace(images=self.blocks(**options, output="images"))


@pytest.mark.slow
@pytest.mark.parametrize("family", BASES)
def test_diffusers_draws_lorakit_s_own_sample_with_the_exported_file(make_dataset, tiny_base, load_tiny, tmp_path, family):
    card, cls = BASES[family]
    settings = {"train.steps": 2, "train.learning_rate": 1e-2, "train.weights": str(tiny_base(family)), "sample.guidance": 3.0,
                "check.size.min_side": 64, "sample.count": 1, "export.precision": "fp32", "train.alpha": 2, "train.bucket_step": 16,
                "train.batch_size": 2, "train.caption_dropout": 0.5, "train.seed": 3}  # fmt: skip
    if family == "z_image":
        settings["train.training_adapter"] = str(
            write_training_adapter(load_tiny(family).denoiser, ["layers.0.attention.to_q"], tmp_path / "adapter.safetensors")
        )
    project = make_dataset(base=card, **settings)
    pipeline.walk(project)  # to the report
    run = runs.find(project.folder, stamps.train(project))
    assert run.facts["result"]["loaded"]["comfyui"] == run.facts["result"]["loaded"]["diffusers"] > 0

    drawer = cls.from_pretrained(tiny_base(family)) if cls else AnimaBlocks(tiny_base(family))
    drawer.scheduler = project_scheduler(project)
    options = {"max_sequence_length": 512} if family == "flux1" else {}
    guided = {"true_cfg_scale": 3.0, "negative_prompt": ""} if family == "qwen_image" else {"guidance_scale": 3.0}
    for name in ("base", "lora"):
        if name == "lora":
            drawer.load_lora_weights(run.lora.parent, weight_name=run.lora.name)
        generator = torch.Generator().manual_seed(1234)
        prompt = run.facts["result"]["prompts"][0]
        found = drawer(
            prompt=prompt, width=64, height=64, num_inference_steps=2, generator=generator, output_type="np", **guided, **options
        )
        ours = np.asarray(Image.open(run.samples / "final" / f"0_{name}.png"), dtype=np.float32) / 255
        assert np.abs(found.images[0] - ours).max() <= 0.5 / 255 + 1e-3


def project_scheduler(project):
    from lorakit.bases.load import load_family

    return load_family(project).pipeline().scheduler
