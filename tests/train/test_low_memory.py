"""A base in few bits: the whole way from the cache to a checked LoRA file, and what is refused before anything starts."""

import importlib.util
import json

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from lorakit import pipeline, settings
from lorakit.bases import families, load, quantised
from lorakit.bases.block_swap import BlockSwap
from lorakit.cli import group
from lorakit.errors import LorakitError
from lorakit.project import catalog
from lorakit.settings import Train
from lorakit.train import crew, lora, rungs
from lorakit.train.grid import grid
from lorakit.train.plan import in_words
from lorakit.train.preflight import check_settings
from tests.conftest import adapter

SHORT = {"train.steps": 2, "sample.every": 1, "sample.count": 1, "select.count": 2, "select.everything": False}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "kind"), [("fp8", {"train.adapter": "dora"}), ("nf4", {"train.init": "pissa", "train.swap_blocks": 5})]
)
def test_a_training_on_a_base_in_few_bits_goes_the_whole_way(make_dataset, precision, kind):
    """The other adapters differ in their layers alone, see below."""
    project = make_dataset(**{**SHORT, "train.base_precision": precision, "train.learning_rate": 1e-2, **kind})
    pipeline.walk(project, first="cache")
    assert pipeline.is_run_done(project, "export")
    grid(project, strengths=(0.0, 1.0))
    run = pipeline.runs.all_runs(project.folder)[0]
    assert any(tensor.any() for key, tensor in adapter(run).items() if key.endswith("lora_B.weight"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "kind"),
    [("nf4", {"adapter": "lokr"}), ("fp8", {"adapter": "loha"}), ("fp8", {"init": "olora"}), ("nf4", {"adapter": "dora"})],
)
def test_every_adapter_learns_on_a_base_in_few_bits(load_tiny, precision, kind):
    settings = Train(rank=4, base_precision=precision, include="mid_block", **kind)
    family = load_tiny("sd15", settings)
    parameters = lora.add_lora(family, settings)
    held = [m for m in family.denoiser.modules() if isinstance(m, quantised.QuantisedLinear)]
    assert held and {m.precision for m in held} == {precision}
    text = {name: tensor[None] for name, tensor in family.encode_text("a mug").items()}
    loss = family.predict(torch.randn(1, 4, 8, 8), torch.tensor([400]), text, None).square().mean()
    loss.backward()
    learning = [p.grad for p in parameters if p.grad is not None]
    assert loss.isfinite() and learning and all(g.isfinite().all() for g in learning) and any(g.any() for g in learning)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "family",
    [
        "flux1",
        *(
            pytest.param(name, marks=SLOW)
            for name in ("sdxl", "sd3", "chroma1", "z_image", "flux2", "flux2_dev", "krea2", "qwen_image", "anima")
        ),
    ],
)
def test_swapped_blocks_give_the_same_gradients_in_every_family(load_tiny, family):
    whole, swapped = gradients_of(load_tiny(family), 0), gradients_of(load_tiny(family), 99)
    assert whole and all(torch.equal(one, other) for one, other in zip(whole, swapped, strict=True))


def gradients_of(family, swapped):
    settings = Train(rank=4, gradient_checkpointing="on")
    parameters = lora.add_lora(family, settings)
    with torch.no_grad():
        [p.add_(0.01) for p in parameters]
    family.denoiser.enable_gradient_checkpointing()
    family.denoiser.train()
    with NaNWhileAway():
        family.swap_blocks(swapped)
        torch.manual_seed(0)
        text = {name: tensor[None] for name, tensor in family.encode_text("a mug").items()}
        latents, sizes = torch.randn(1, family.latent_channels(), 8, 8), torch.tensor([[64, 64, 0, 0, 64, 64]])
        if swapped:
            assert len(family._swap.modules) == len(family.repeated_blocks()) > 2
            with torch.no_grad():
                family.predict(latents, torch.tensor([400]), text, sizes)
        family.predict(latents, torch.tensor([400]), text, sizes).square().mean().backward()
        family.settle_blocks()
        if swapped:
            assert all(any(p.isnan().all() for p in block.parameters()) for block in family._swap.modules)
    return [p.grad for p in parameters if p.grad is not None]


class NaNWhileAway(pytest.MonkeyPatch):
    """What is away holds NaN, as an empty tensor on the card would be an error."""

    def __enter__(self):
        self.setattr(BlockSwap, "_absent", lambda swap, home: torch.full_like(home, float("nan")))

    def __exit__(self, *_):
        self.undo()


def test_plan_says_what_will_be_and_writes_nothing(make_dataset, cli, monkeypatch):
    project = make_dataset()
    before = {path: path.read_bytes() for path in project.folder.rglob("*") if path.is_file()}
    out = cli("train", project.folder, "--plan", "--vram", "4")
    assert "6 in" in out and "mug, photo_0" in out and "repeat" in out and "predicted, not measured" in out and "of 3.40 GB" in out
    assert "zwx" in out and "time      not measured yet" in out
    found = json.loads(cli("train", project.folder, "--plan", "--json", "--set", "train.rank=8"))
    assert found["texts"]["longest"]["tokens"] < 20 and not found["texts"]["estimated"]
    assert found["photos"]["count"] == 6 and found["memory"]["budget"] is None and found["steps"]["steps"] == 6
    assert "processes" not in found and "gradient_sum" not in found["memory"]
    monkeypatch.setattr(crew, "_crew", crew._Crew(0, 2, members=[{"host": "a"}, {"host": "a"}]))
    shared = json.loads(cli("train", project.folder, "--plan", "--json", "--set", "train.rank=8", "--set", "train.batch_size=2"))
    assert shared["processes"] == {"count": 2, "machines": 1, "photos": 2, "each": [1, 1], "at_once": 1, "idle": 0}
    memory, alone = shared["memory"], found["memory"]
    assert memory["adapter"] == memory["gradient_sum"] == alone["adapter"] and shared["disk"] == found["disk"]
    out = "\n".join(in_words(shared))
    assert "processes 2 processes share the 2 photos of a step: each takes 1, 1 at a time; memory is that of one card" in out
    assert "gradient sum" in out
    assert {path: path.read_bytes() for path in project.folder.rglob("*") if path.is_file()} == before


@pytest.fixture
def cli(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))

    def run(*words):
        done = CliRunner().invoke(group, [str(word) for word in words])
        assert done.exit_code == 0, (done.output, done.exception)
        return done.stdout

    return run


def test_a_plan_turns_on_the_rungs_of_the_ladder_in_order(tiny_weights):
    card, cls = catalog.card("tiny-random"), families.load("sd15")
    config = {k: v for k, v in cls.DENOISER.load_config(tiny_weights, subfolder="unet").items() if not k.startswith("_")}
    base, free = rungs.Base(card, config), frozenset({"train.optimizer", "train.swap_blocks"})
    small = {"train.rank": 4, "train.resolution": 64}
    asked = settings.resolve([("card", card.settings), ("test", small)]).train
    whole = rungs.fit(base, asked, None)
    assert not whole.rungs and whole.is_enough
    assert not rungs.fit(base, asked, 1e3, free).rungs
    least = rungs.fit(base, asked, 1e-6, free)
    assert list(least.rungs) == ["train.gradient_checkpointing", "train.base_precision", "train.optimizer", "train.swap_blocks"]
    assert least.settings.base_precision == "nf4" and least.settings.optimizer == "adamw8bit" and not least.is_enough
    assert 0 < least.need.peak < whole.need.peak
    fixed = settings.resolve([("t", {**small, "train.gradient_checkpointing": "off", "train.base_precision": "bf16"})]).train
    assert not rungs.fit(base, fixed, 1e-6).rungs


@pytest.mark.parametrize("text_encoder", [False, True])
def test_text_encoders_that_learn_are_counted(text_encoder):
    base = rungs.Base(catalog.card("sdxl"), {})
    clips = base.encoder_weights(Train(text_encoder=text_encoder))
    assert clips == pytest.approx(0.8184e9 * 4 / rungs.GB if text_encoder else 0, rel=0.01)  # as published: CLIP-L and CLIP-G


@pytest.mark.parametrize(("name", "width"), [("sd15", 768), ("sd21", 1024)])
def test_text_encoders_that_learn_are_those_of_the_base(name, width):
    """Not the family's usual ones."""
    base = rungs.Base(catalog.card(name), families.load("sd15").config_of(name))
    assert base.encoders(Train(text_encoder=True))["text_encoder"].config.hidden_size == base.config["cross_attention_dim"] == width


def test_a_step_with_a_text_encoder_that_learns_and_the_base_preserved_is_counted(cli, tmp_path):
    """As the demo has it: mini's encoder is a quarter as wide as Stable Diffusion's and reads fewer words."""
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (300, 300)).save(tmp_path / "photos/a.png")
    named = ("--base", "mini", "--kind", "object", "--trigger", "zwx", "--class-word", "mug", "--set", "train.preservation=1")
    found = json.loads(cli("train", tmp_path / "photos", "-o", tmp_path / "out", *named, "--plan", "--vram", "4", "--json"))
    assert found["memory"]["activations"] > 0.05 and found["memory"]["is_enough"]


def test_swapped_blocks_without_checkpointing_are_refused(make_project):
    project = make_project(**{"train.swap_blocks": 2, "train.gradient_checkpointing": "off"})
    with pytest.raises(LorakitError, match="swap_blocks = 2 wants train.gradient_checkpointing=on"):
        check_settings(project)


@pytest.mark.parametrize(("given", "meant"), [(True, "on"), (False, "off"), ("auto", "auto"), ("on", "on")])
def test_booleans_of_former_projects_are_read(given, meant):
    assert settings.resolve([("x", {"train.gradient_checkpointing": given})]).train.gradient_checkpointing == meant


def test_the_words_for_checkpointing_move_no_stamp():
    auto, off, on = (settings.resolve([("x", {"train.gradient_checkpointing": word})]) for word in ("auto", "off", "on"))
    key = "train.gradient_checkpointing"
    assert [s.flat_for_stamp()[key] for s in (auto, off, on)] == [False, False, True]


def test_nf4_without_bitsandbytes_is_refused_before_anything_starts(make_dataset, monkeypatch):
    project = make_dataset(**{"train.base_precision": "nf4"})
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "bitsandbytes" else find(name, *rest))
    with pytest.raises(LorakitError, match="needs bitsandbytes: pip install"):
        pipeline.walk(project)
    assert not (project.folder / "runs").exists()


def test_a_card_without_bf16_is_told_from_one_that_emulates_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert load.compute_dtype("auto", "cuda") == torch.float16
    with pytest.raises(LorakitError, match="FLUX.1 dev gives no numbers in fp16"):
        load.check_numbers(families.load("flux1"), "FLUX.1 dev", torch.float16)
    load.check_numbers(families.load("sdxl"), "SDXL", torch.float16)


def test_apples_gpus_hold_no_base_in_few_bits():
    with pytest.raises(LorakitError, match="not on Apple's GPUs"):
        load.check_base_precision("fp8", "mps")
    load.check_base_precision("auto", "mps")
