"""Batches drawn ahead teach the same. Blocks that are compiled teach as others do, and where there is no compiler one line says that they
are not."""

import pytest
import torch

from lorakit.settings import Train
from lorakit.train import lora
from lorakit.train.batches import BatchSampler
from lorakit.train.cache import cache
from lorakit.train.clock import PARTS
from lorakit.train.learner import Learner, compile_blocks
from lorakit.train.train import train
from tests.conftest import adapter


@pytest.mark.slow
def test_batches_drawn_ahead_are_the_same_ones(make_dataset):
    """Also after a step back, as when the memory has run out: the thread has drawn another then."""
    project = make_dataset(**{"train.gradient_accumulation": 2, "train.caption_dropout": 0.5, "train.preservation": 0.1})
    photos = cache(project)
    found = []
    for ahead in (False, True):
        learner, sampler = Learner(project), BatchSampler(photos, 1, 0)
        learner.is_drawn_ahead = ahead
        start = learner.keep()
        steps = [learner.learn(1e-3, sampler) for _ in range(2)]
        learner.take(start)
        steps.append(learner.learn(1e-3, sampler))
        assert steps[0].clock.read().keys() == set(PARTS) and steps[0].card_seconds is None
        found.append(([step.photos for step in steps], [step.loss.item() for step in steps], learner.keep().adapter))
    (names, losses, one), (other_names, other_losses, other) = found
    assert names == other_names and losses == other_losses and losses[0] == losses[2]
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    "settings",
    [{}, {"train.gradient_checkpointing": "on", "train.base_precision": "fp8", "train.swap_blocks": 3}],
    ids=["plain", "on a small card"],
)
def test_on_a_card_that_is_known_the_flops_of_each_shape_are_counted_once(make_dataset, monkeypatch, settings):
    project = make_dataset(**settings)
    monkeypatch.setattr("lorakit.train.learner.card_flops", lambda device: 1e9)
    photos = cache(project)[:1]
    learner, sampler = Learner(project), BatchSampler(photos, 1, 0)
    one, other = (learner.learn(1e-3, sampler) for _ in range(2))
    monkeypatch.undo()
    uncounted = Learner(project).learn(1e-3, sampler)
    assert uncounted.card_seconds is None and torch.equal(uncounted.loss, one.loss) and torch.equal(uncounted.norm, one.norm)
    assert len(learner._flops) == 1 and one.card_seconds == other.card_seconds > 1e-3
    assert one.card_seconds == 2 * learner._flops.popitem()[1] / 1e9


@pytest.fixture
def inductor(tmp_path, monkeypatch):
    """The compiler alone in this process, with nothing at hand that was compiled before."""
    import torch._inductor.config as config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    with config.patch(compile_threads=1, force_disable_caches=True):
        yield config
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.usefixtures("inductor")
def test_compiled_blocks_give_the_same_gradients(load_tiny):
    found = []
    for compiled in (False, True):
        family = load_tiny("flux1")
        parameters = lora.add_lora(family, Train(rank=4))
        with torch.no_grad():
            [p.add_(0.01) for p in parameters]
        family.denoiser.enable_gradient_checkpointing()
        family.denoiser.train()
        if compiled:
            compile_blocks(family.repeated_blocks()[-1:])
        torch.manual_seed(0)
        text = {name: tensor[None] for name, tensor in family.encode_text("a mug").items()}
        noisy, sizes = torch.randn(1, family.latent_channels(), 8, 8), torch.tensor([[64, 64, 0, 0, 64, 64]])
        family.predict(noisy, torch.tensor([400.0]), text, sizes).square().mean().backward()
        found.append([p.grad for p in parameters if p.grad is not None])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert len(found[0]) == len(found[1]) and all(torch.allclose(a, b, rtol=1e-3, atol=1e-6) for a, b in zip(*found, strict=True))


@pytest.mark.slow
def test_without_a_compiler_the_training_goes_on_and_says_so(make_dataset, inductor, capsys):
    small = {"train.steps": 1, "train.rank": 2, "train.include": "mid_block", "select.count": 1, "select.everything": False}
    with inductor.patch({"cpp.cxx": ("/nowhere/c++",)}):
        plain, compiled = (adapter(train(make_dataset(f"compile{on}", **small, **{"train.compile": on}))) for on in (False, True))
    said = capsys.readouterr().err
    assert said.count("could not be compiled") == 1 and "goes on without" in said
    assert all(torch.equal(plain[key], compiled[key]) for key in plain)
