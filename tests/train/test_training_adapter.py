"""A training adapter acts while training, as if it were merged, and neither in samples nor in the LoRA."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorakit import weights
from lorakit.bases.families.base import stack_texts
from lorakit.errors import LorakitError
from lorakit.project import stamps
from lorakit.settings import Train
from lorakit.train import lora
from lorakit.train.training_adapter import add_training_adapter, as_it_is_used
from tests.conftest import write_training_adapter

LAYERS = ("layers.0.attention.to_q", "layers.2.feed_forward.w2", "noise_refiner.0.attention.to_out.0")


@pytest.fixture
def path(load_tiny, tmp_path):
    return write_training_adapter(load_tiny("z_image").denoiser, LAYERS, tmp_path / "adapter.safetensors")


@pytest.fixture
def predict():
    generator = torch.Generator().manual_seed(1)
    noisy, states = torch.randn(2, 16, 8, 8, generator=generator), [torch.randn(rows, 64, generator=generator) for rows in (9, 40)]
    text = stack_texts([{"states": one} for one in states])
    return lambda family: family.predict(noisy, torch.tensor([300.0, 800.0]), text, torch.zeros(2, 6))


def test_it_acts_as_if_it_were_merged_while_training_alone(load_tiny, path, predict):
    settings = Train(rank=4)
    plain, merged, family = (load_tiny("z_image", settings) for _ in range(3))
    add_training_adapter(family, path)
    factors = load_file(path)
    with torch.no_grad():
        for stem in LAYERS:
            down, up = (factors[f"diffusion_model.{stem}.lora_{part}.weight"] for part in "AB")
            merged.denoiser.get_submodule(stem).weight += up @ down
    parameters = [lora.add_lora(one, settings) for one in (plain, merged, family)]
    generator = torch.Generator().manual_seed(2)
    for trained in zip(*parameters, strict=True):
        value = torch.randn(trained[0].shape, generator=generator) * 0.1
        for parameter in trained:
            parameter.data = value.clone()
    found, wanted, base = predict(family), predict(merged), predict(plain)
    assert torch.allclose(found, wanted, atol=1e-5) and (found - base).norm() > 1e-2 * base.norm()
    found.square().mean().backward()
    wanted.square().mean().backward()
    assert all(torch.allclose(ours.grad, theirs.grad, atol=1e-5) for ours, theirs in zip(parameters[2], parameters[1], strict=True))
    with as_it_is_used(family):
        assert torch.equal(predict(family), base)
    with lora.switched_off(family), lora.switched_off(merged):  # the base that teaches, of `preservation`, has it
        assert torch.allclose(predict(family), predict(merged), atol=1e-5)
    assert lora.read_lora(family).keys() == lora.read_lora(plain).keys()


def test_a_training_is_known_by_its_adapter_s_content(make_project, load_tiny, path, tmp_path):
    def stamp(of):
        weights._folder_identity.cache_clear()
        project = make_project(of.stem, **{"train.training_adapter": str(of)})
        return stamps.train(project)

    other = write_training_adapter(load_tiny("z_image").denoiser, LAYERS[:2], tmp_path / "other.safetensors")
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(path.read_bytes())
    assert stamp(path) == stamp(moved) != stamp(other)


def test_a_file_that_is_none_of_this_base_is_one_line(load_tiny, path, tmp_path):
    with pytest.raises(LorakitError, match=r"train\.training_adapter: no file"):
        add_training_adapter(load_tiny("z_image"), tmp_path / "absent.safetensors")
    with pytest.raises(LorakitError, match="no layer of flux1 is called so"):
        add_training_adapter(load_tiny("flux1"), path)
    stem = "diffusion_model.layers.0.attention.to_q"
    save_file({f"{stem}.lora_A.weight": torch.ones(2, 32), f"{stem}.lora_B.weight": torch.ones(32, 2)}, tmp_path / "small.safetensors")
    with pytest.raises(LorakitError, match=r"small\.safetensors changes transformer\.layers\.0\.attention\.to_q, which this base has not"):
        add_training_adapter(load_tiny("z_image"), tmp_path / "small.safetensors")
