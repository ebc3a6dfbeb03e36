"""The adapter: the right modules, a start that changes nothing, and what is read can be set again."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from lorakit.settings import Train
from lorakit.train import lora
from lorakit.train.families.sd15 import SD15


@pytest.fixture
def unet(tiny_weights):
    return UNet2DConditionModel.from_pretrained(tiny_weights, subfolder="unet").requires_grad_(False)


def predict(unet):
    noise, states = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) for shape in ((1, 4, 8, 8), (1, 7, 32)))
    with torch.no_grad():
        return unet(noise, torch.tensor([500]), encoder_hidden_states=states).sample


def test_fresh_adapter_has_192_modules_and_changes_nothing(unet):
    before = predict(unet)
    parameters = lora.add_lora(unet, SD15.TARGETS, Train(rank=4))
    assert len(lora.read_lora(unet)) == len(parameters) == 2 * 192
    assert torch.equal(predict(unet), before)


def test_start_depends_on_the_seed_alone(tiny_weights):
    read = []
    for seed in (1, 1, 2):
        unet = UNet2DConditionModel.from_pretrained(tiny_weights, subfolder="unet")
        torch.rand(seed)  # whatever was drawn before
        lora.add_lora(unet, SD15.TARGETS, Train(rank=2, seed=seed))
        read.append(lora.read_lora(unet))
    first, again, other = read
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_what_is_read_can_be_set_again(unet, tiny_weights):
    parameters = lora.add_lora(unet, SD15.TARGETS, Train(rank=4))
    with torch.no_grad():
        for parameter in parameters:
            parameter.normal_(std=0.1)
    wanted = predict(unet)
    fresh = UNet2DConditionModel.from_pretrained(tiny_weights, subfolder="unet")
    lora.add_lora(fresh, SD15.TARGETS, Train(rank=4))
    lora.set_lora(fresh, lora.read_lora(unet))
    assert torch.equal(predict(fresh), wanted)


def test_an_adapter_of_other_modules_is_refused(unet):
    lora.add_lora(unet, SD15.TARGETS, Train(rank=4))
    tensors = lora.read_lora(unet)
    key = next(iter(tensors))
    with pytest.raises(ValueError, match="does not fit"):
        lora.set_lora(unet, {**tensors, key.replace("lora_A", "lora_C"): tensors[key]})
