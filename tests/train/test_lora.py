"""The adapter: the right modules, a start that changes nothing, and what is read can be set again."""

import pytest
import torch

from lorakit.errors import LorakitError
from lorakit.settings import Train
from lorakit.train import lora


def predict(family):
    noise, states = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) for shape in ((1, 4, 8, 8), (1, 7, 32)))
    with torch.no_grad():
        return family.predict(noise, torch.tensor([500]), {"states": states}, None)


def make_random(parameters):
    with torch.no_grad():
        for parameter in parameters:
            parameter.normal_(std=0.1)


def test_fresh_adapter_has_192_modules_and_changes_nothing(load_tiny):
    family = load_tiny("sd15")
    before = predict(family)
    parameters = lora.add_lora(family, Train(rank=4))
    assert len(parameters) == 2 * 192 and len(lora.read_lora(family)) == 4 * 192  # beside each its alpha and rank
    assert torch.equal(predict(family), before)


def test_start_depends_on_the_seed_alone(load_tiny):
    read = []
    for seed in (1, 1, 2):
        family = load_tiny("sd15")
        torch.rand(len(read) + 1)  # whatever was drawn before
        lora.add_lora(family, Train(rank=2, seed=seed))
        read.append(lora.read_lora(family))
    first, again, other = read
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("adapter", ["lora", "dora"])
def test_what_is_read_can_be_set_again(load_tiny, adapter):
    settings = Train(rank=4, adapter=adapter)
    family, fresh = load_tiny("sd15"), load_tiny("sd15")
    make_random(lora.add_lora(family, settings))
    lora.add_lora(fresh, settings)
    lora.set_lora(fresh, lora.read_lora(family))
    assert torch.equal(predict(fresh), predict(family))


def test_an_adapter_of_other_modules_is_refused(load_tiny):
    family = load_tiny("sd15")
    lora.add_lora(family, Train(rank=4))
    tensors = lora.read_lora(family)
    key = next(iter(tensors))
    with pytest.raises(ValueError, match="does not fit"):
        lora.set_lora(family, {**tensors, key.replace("lora_A", "lora_C"): tensors[key]})


def test_rank_stabilised_scales_by_the_root_of_the_rank(load_tiny):
    plain, stable = load_tiny("sd15"), load_tiny("sd15")
    make_random(lora.add_lora(plain, Train(rank=4, alpha=2 * 4**0.5)))
    lora.add_lora(stable, Train(rank=4, alpha=2, rank_stabilised=True))
    lora.set_lora(stable, lora.read_lora(plain))
    assert torch.allclose(predict(stable), predict(plain), atol=1e-5)
    assert lora.file_alpha(Train(rank=4, alpha=2, rank_stabilised=True)) == 4


def test_levels_add_layers_and_expressions_choose_among_them(load_tiny):
    unet, levels = load_tiny("sd15").denoiser, load_tiny("sd15").TARGETS
    counts = [len(lora.find_targets(unet, levels, Train(targets=level))) for level in levels]
    assert counts == [128, 160, 192, 277]
    some = lora.find_targets(unet, levels, Train(include=r"^up_blocks\.1", exclude="attn1"))
    assert some and all(name.startswith("up_blocks.1") and "attn1" not in name for name in some)
    with pytest.raises(LorakitError, match="no layer is left to train"):
        lora.find_targets(unet, levels, Train(include="nothing"))


def test_under_autocast_an_adapter_takes_its_input_as_it_is_and_gives_the_same(load_tiny):
    family = load_tiny("flux1")
    family.denoiser.to(torch.bfloat16)
    family.dtype = torch.bfloat16
    parameters = lora.add_lora(family, Train(rank=4))
    torch.manual_seed(0)
    with torch.no_grad():
        [p.add_(torch.randn_like(p) * 0.05) for p in parameters]
    text = {name: tensor[None] for name, tensor in family.encode_text("a mug").items()}
    noisy, sizes = torch.randn(1, family.latent_channels(), 8, 8), torch.tensor([[64, 64, 0, 0, 64, 64]])

    def gradients():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            family.predict(noisy, torch.tensor([400.0]), text, sizes).float().square().mean().backward()
        found = [p.grad.clone() for p in parameters if p.grad is not None]
        family.denoiser.zero_grad(set_to_none=True)
        return found

    wanted = gradients()
    lora.leave_inputs(family)
    found = gradients()
    assert found and all(torch.equal(one, other) for one, other in zip(wanted, found, strict=True))
    with torch.no_grad(), lora.inputs_cast(family):  # as samples are drawn
        assert family.predict(noisy, torch.tensor([400.0]), text, sizes).isfinite().all()
    with torch.no_grad(), pytest.raises(RuntimeError, match="dtype"):
        family.predict(noisy, torch.tensor([400.0]), text, sizes)
