"""On a card: the whole way with tiny bases, and that what is held in few bits, swapped or read tensor by tensor is there what it is on
the CPU. Without a card only the whole way is gone, in bf16 on the CPU; LORAKIT_TEST_DEVICE=cpu runs the rest there too."""

import os

import pytest
import torch

from lorakit import device as devices
from lorakit import open_project, pipeline
from lorakit.bases import load, quantised
from lorakit.project import runs
from lorakit.settings import Train
from lorakit.train import lora
from tests.conftest import adapter

CARD = os.environ.get("LORAKIT_TEST_DEVICE") or ("cuda" if torch.cuda.is_available() else None)
DEVICE = CARD or "cpu"
pytestmark = pytest.mark.slow
wants_card = pytest.mark.skipif(CARD is None, reason="no card here")
CARDS = {
    "sd15": "tiny-random",
    "sdxl": "sdxl",
    "sd3": "sd35-medium",
    "flux1": "flux1-dev",
    "z_image": "z-image",
    "flux2": "flux2-klein-4b",
    "krea2": "krea2",
    "qwen_image": "qwen-image",
}
SHORT = {"train.steps": 2, "train.checkpoint_every": 1, "sample.every": 1, "sample.count": 1, "select.count": 2, "select.everything": False,
         "check.size.min_side": 64, "train.bucket_step": 16, "train.learning_rate": 1e-3}  # fmt: skip


@pytest.fixture
def on_card(make_dataset, tiny_base):
    """on_card('flux1', **settings) is a project with its dataset, opened on the card."""

    def make(name, **settings):
        project = make_dataset(name, base=CARDS[name], **{**SHORT, "train.weights": str(tiny_base(name)), **settings})
        return open_project(project.folder, device=DEVICE)

    return make


@pytest.mark.parametrize("name", CARDS)
def test_a_base_goes_the_whole_way_in_bf16(on_card, name):
    project = on_card(name, **{"train.precision": "bf16"})
    pipeline.walk(project, first="cache", last="export")
    run = runs.all_runs(project.folder)[0]
    assert pipeline.is_run_done(project, "export")
    learned = adapter(run)
    assert all(torch.isfinite(tensor).all() for tensor in learned.values())
    assert all(tensor.dtype == torch.float32 for key, tensor in learned.items() if "lora_" in key)
    assert sum(bool(tensor.any()) for key, tensor in learned.items() if "lora_B" in key) > 4
    losses = [line["loss"] for line in run.read_metrics()]
    assert len(losses) == 2 and max(losses) < 20
    assert [path.parent.name for path in run.samples.glob("step_*/*.png")] == ["step_000001"]
    assert load.load_family(project).denoiser.dtype == torch.bfloat16


@wants_card
@pytest.mark.parametrize(
    "settings",
    [{"base_precision": "fp8"}, {"base_precision": "nf4"}, {"optimizer": "adamw8bit"}, {"gradient_checkpointing": "on", "swap_blocks": 3},
     {"text_encoder": True}, {"adapter": "dora"}, {"adapter": "lokr"}, {"init": "pissa"}, {"ema": 0.9}, {"precision": "fp32"}, {"preservation": 0.5}],
    ids=str,
)  # fmt: skip
def test_options_that_change_the_step_go_the_whole_way(on_card, settings):
    project = on_card("sdxl", **{f"train.{key}": value for key, value in settings.items()})
    pipeline.walk(project, first="cache", last="export")
    assert pipeline.is_run_done(project, "export")


@wants_card
@pytest.mark.parametrize("precision", ["fp8", "int8", "nf4"])
def test_layers_in_few_bits_hold_there_what_they_hold_here(precision):
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(0)).bfloat16()
    layers = [quantised.QuantisedLinear(128, 64, False, precision, torch.bfloat16, "meta") for _ in range(2)]
    layers[0].fill(weight)
    layers[1].fill(weight.to(DEVICE))
    here, there = (layer.weight.float().cpu() for layer in layers)
    assert (here - there).abs().max() <= 0.02 * here.abs().max()
    x = torch.randn(3, 128, device=DEVICE, dtype=torch.bfloat16, requires_grad=True)
    layers[1](x).sum().backward()
    assert torch.isfinite(x.grad).all()


@wants_card
@pytest.mark.parametrize("name", CARDS)
def test_swapped_blocks_give_the_same_gradients(load_tiny, name):
    """To the bit where the card's kernels are the same each time."""

    def gradients(count):
        family = load_tiny(name, Train(rank=4, gradient_checkpointing="on"))
        family.device = DEVICE
        parameters = lora.add_lora(family, family.settings)
        with torch.no_grad():
            [p.add_(0.01) for p in parameters]
        family.denoiser.enable_gradient_checkpointing()
        family.denoiser.train()
        family.swap_blocks(count)
        generator = torch.Generator().manual_seed(0)
        text = {name: torch.randn(1, *shape, generator=generator).to(DEVICE) for name, shape in family.text_shapes().items()}
        if name == "sdxl":
            text["pooled"] = torch.randn(1, 24, generator=generator).to(DEVICE)
        latents = torch.randn(1, family.latent_channels(), 8, 8, generator=generator).to(DEVICE)
        sizes = torch.tensor([[64, 64, 0, 0, 64, 64]], device=DEVICE)
        for _ in range(2):
            family.predict(latents, torch.tensor([400], device=DEVICE), text, sizes).square().mean().backward()
            family.settle_blocks()
        return [p.grad.cpu() for p in parameters if p.grad is not None]

    whole, swapped = gradients(0), gradients(3)
    assert whole and all(torch.allclose(one, other, rtol=1e-3, atol=1e-6) for one, other in zip(whole, swapped, strict=True))


@wants_card
def test_a_stopped_training_ends_as_one_that_was_not(on_card):
    from lorakit.train.train import train
    from tests.conftest import stop_after

    project = on_card("sdxl", **{"sample.every": 0, "train.steps": 3})
    run = train(project)
    wanted = adapter(run)
    stop_after(run, step=1)
    found = adapter(train(open_project(project.folder, device=DEVICE)))
    assert all(torch.allclose(wanted[key].float(), found[key].float(), rtol=1e-2, atol=1e-5) for key in wanted)


@wants_card
def test_t5_and_the_vae_make_do_with_little(on_card, monkeypatch):
    project = on_card("flux1")
    monkeypatch.setattr(devices, "free_gb", lambda where: 0.001)
    family = load.load_family(project)
    assert torch.isfinite(family.encode_text("a mug")["states"].float()).all()
    latents = torch.randn(1, 16, 40, 40)
    assert family.decode(latents).size == (320, 320) and family.vae.use_tiling
