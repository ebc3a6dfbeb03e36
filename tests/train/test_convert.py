"""Converted files change the layers as the first ones did."""

import hashlib

import pytest
import torch
from safetensors.torch import save_file

from lorakit.errors import LorakitError
from lorakit.train import formats
from lorakit.train.convert import convert, open_network
from lorakit.train.formats import Delta, nearest

LAYERS = {
    "sd15": ("unet.down_blocks.0.attentions.0.proj_in", "unet.up_blocks.1.resnets.0.conv1", "text_encoder.text_model.encoder.layers.0.mlp.fc1"),
    "sdxl": ("unet.down_blocks.2.attentions.0.transformer_blocks.9.attn1.to_q", "text_encoder_2.text_model.encoder.layers.31.mlp.fc1"),
    "flux1": ("transformer.transformer_blocks.0.attn.to_q", "transformer.transformer_blocks.0.attn.to_v",
              "transformer.single_transformer_blocks.1.proj_mlp", "transformer.single_transformer_blocks.1.attn.to_k"),
}  # fmt: skip


def make_delta(path, seed, rank=4, alpha=3.0):
    chance = torch.Generator().manual_seed(seed)
    kernel = (3, 3) if "conv" in path else ()
    out = 128 if path.endswith("proj_mlp") else 32
    up = torch.randn(out, rank, *([1] * len(kernel)), generator=chance)
    return Delta(torch.randn(rank, 32, *kernel, generator=chance), up, alpha)


def write_lora(path, family, format, seed=0, layers=None, **options):
    network = {name: make_delta(name, seed + n, **options) for n, name in enumerate(layers or LAYERS[family])}
    save_file(formats.write(network, family, format, torch.float32), path, metadata={"ss_output_name": "x"})
    return network


def assert_same(path, wanted, tolerance=1e-5):
    _, found, _, _ = open_network(path)
    assert found.keys() == wanted.keys()
    for name, change in wanted.items():
        assert torch.allclose(found[name].change(), change, atol=tolerance * float(change.abs().max())), name


@pytest.mark.parametrize("family", LAYERS)
def test_to_the_other_format_and_back_changes_nothing(tmp_path, family):
    network = write_lora(tmp_path / "a.safetensors", family, "kohya")
    wanted = {name: delta.change() for name, delta in network.items()}
    assert convert([tmp_path / "a.safetensors"], tmp_path / "b.safetensors", "diffusers") == family
    assert_same(tmp_path / "b.safetensors", wanted)
    convert([tmp_path / "b.safetensors"], tmp_path / "c.safetensors", "kohya")
    assert_same(tmp_path / "c.safetensors", wanted)
    header = open_network(tmp_path / "c.safetensors")[2]
    data = (tmp_path / "c.safetensors").read_bytes()
    assert header["ss_output_name"] == "x"
    assert header["sshs_model_hash"] == hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()


def test_merged_file_is_the_sum_at_the_strengths(tmp_path):
    first, second = LAYERS["sd15"][:2], LAYERS["sd15"][1:]
    a = write_lora(tmp_path / "a.safetensors", "sd15", "kohya", 1, first)
    b = write_lora(tmp_path / "b.safetensors", "sd15", "diffusers", 7, second, rank=2, alpha=1.0)
    convert([tmp_path / "a.safetensors", tmp_path / "b.safetensors"], tmp_path / "c.safetensors", "kohya", strengths=(0.7, 0.5))
    wanted = {first[0]: 0.7 * a[first[0]].change(), second[1]: 0.5 * b[second[1]].change()}
    wanted[first[1]] = 0.7 * a[first[1]].change() + 0.5 * b[first[1]].change()
    assert_same(tmp_path / "c.safetensors", wanted)


def test_resized_is_the_nearest_change_of_that_rank():
    delta = make_delta("x", 3, rank=8, alpha=2.0)
    left, values, right = torch.linalg.svd(delta.change().double())
    wanted = left[:, :3] * values[:3] @ right[:3]
    small = nearest(delta, 3)
    assert small.rank == 3 and torch.allclose(small.change().double(), wanted, atol=1e-5)
    assert torch.allclose(nearest(delta, 64).change(), delta.change(), atol=1e-4)
    assert nearest(make_delta("conv", 1), 2).down.shape == (2, 32, 3, 3)


def test_what_cannot_be_merged_or_written_is_refused(tmp_path):
    write_lora(tmp_path / "a.safetensors", "sd15", "kohya")
    write_lora(tmp_path / "b.safetensors", "flux1", "kohya")
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    with pytest.raises(LorakitError, match="different bases cannot be merged: flux1, sd15"):
        convert(paths, tmp_path / "c.safetensors", "kohya")
    with pytest.raises(LorakitError, match="is there already"):
        convert(paths[:1], paths[1], "kohya")
    with pytest.raises(LorakitError, match="1 strengths for 2 files"):
        convert(paths, tmp_path / "c.safetensors", "kohya", strengths=(1.0,))
