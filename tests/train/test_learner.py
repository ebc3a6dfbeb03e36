"""Blocks that are compiled teach as others do, and where there is no compiler one line says that they are not."""

import pytest
import torch

from lorakit.settings import Train
from lorakit.train import lora
from lorakit.train.learner import compile_blocks
from lorakit.train.train import train
from tests.conftest import adapter

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def inductor(tmp_path, monkeypatch):
    """The compiler alone in this process, with nothing at hand that was compiled before."""
    import torch._inductor.config as config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    with config.patch(compile_threads=1, force_disable_caches=True):
        yield config
    torch.compiler.reset()


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


def test_without_a_compiler_the_training_goes_on_and_says_so(make_dataset, inductor, capsys):
    small = {"train.steps": 1, "train.rank": 2, "train.include": "mid_block", "select.count": 1, "select.everything": False}
    with inductor.patch({"cpp.cxx": ("/nowhere/c++",)}):
        plain, compiled = (adapter(train(make_dataset(f"compile{on}", **small, **{"train.compile": on}))) for on in (False, True))
    said = capsys.readouterr().err
    assert said.count("could not be compiled") == 1 and "goes on without" in said
    assert all(torch.equal(plain[key], compiled[key]) for key in plain)
