"""Tensor by tensor: the layers hold what a whole reading would give, and faults of a file are named."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorakit import lookup
from lorakit.bases import quantised, streaming
from lorakit.bases.block_swap import last_blocks, repeated_blocks
from lorakit.errors import LorakitError


@pytest.fixture
def folder(tiny_base):
    return tiny_base("flux1") / "transformer"


def streamed(folder, precision, dtype=torch.bfloat16, name="flux1"):
    cls = lookup.load(lookup.FAMILIES, name).CLASS
    model = streaming.build(lambda: cls.DENOISER.from_config(cls.DENOISER.load_config(folder)), precision, dtype)
    exact = tuple(cls.DENOISER._keep_in_fp32_modules or ())
    return streaming.fill(model, streaming.read_folder(folder), dtype, "cpu", str(folder), exact)


@pytest.mark.parametrize("precision", [None, *quantised.PRECISIONS])
@pytest.mark.parametrize("name", lookup.names(lookup.FAMILIES))
def test_layers_hold_what_a_whole_reading_gives(tiny_base, name, precision):
    cls = lookup.load(lookup.FAMILIES, name).CLASS
    folder = tiny_base(name) / cls.FOLDER
    whole = cls.DENOISER.from_pretrained(folder, torch_dtype=torch.bfloat16)
    if precision:
        quantised.replace_layers(whole, precision, torch.bfloat16)
    wanted, found = whole.state_dict(), streamed(folder, precision, name=name).state_dict()
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[key], found[key]) for key in wanted)


@pytest.mark.parametrize("name", ["flux1", "z_image"])
def test_blocks_that_will_be_swapped_never_come_to_the_card(tiny_base, name):
    """A device without values stands for the card. (What is to be held in few bits is packed there, and so cannot be tried like this.)"""
    cls, folder = lookup.load(lookup.FAMILIES, name).CLASS, tiny_base(name) / "transformer"
    model = streaming.build(lambda: cls.DENOISER.from_config(cls.DENOISER.load_config(folder)), None, torch.bfloat16)
    at_home, blocks = last_blocks(model, cls.BLOCKS, 3), repeated_blocks(model, cls.BLOCKS)
    streaming.fill(model, streaming.read_folder(folder), torch.bfloat16, "meta", str(folder), at_home=at_home)
    wait = {block: number >= len(blocks) - 3 for number, block in enumerate(blocks)}
    assert sum(wait.values()) == 3 and len(wait) == {"flux1": 4, "z_image": 5}[name]
    for block, waits in wait.items():
        assert {tensor.device.type for tensor in block.state_dict().values()} == {"cpu" if waits else "meta"}
    assert next(param for key, param in model.named_parameters() if "x_embedder" in key).is_meta


def test_scaled_fp8_of_comfyui_goes_straight_into_layers_in_fp8(folder, tmp_path):
    tensors = load_file(next(folder.glob("*.safetensors")))
    layers = [key for key in tensors if key.endswith("to_q.weight")]
    scaled = {key: tensor.to(torch.float8_e4m3fn) if key in layers else tensor for key, tensor in tensors.items()}
    scaled |= {key.replace(".weight", ".scale_weight"): torch.tensor(0.5) for key in layers} | {"scaled_fp8": torch.zeros(0)}
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    save_file(scaled, tmp_path / "diffusion_pytorch_model.safetensors")
    for precision in ("fp8", None):
        model = streamed(tmp_path, precision, torch.float32)
        for key in layers:
            assert torch.equal(model.get_submodule(key.removesuffix(".weight")).weight, scaled[key].float() * 0.5)


@pytest.mark.parametrize(
    ("change", "said"), [(lambda t: t.popitem(), "lacks 1 weights, the first"), (None, "these weights are another base's")]
)
def test_faults_are_named(folder, tmp_path, change, said):
    tensors = load_file(next(folder.glob("*.safetensors")))
    if change:
        change(tensors)
    else:
        tensors[sorted(tensors)[0]] = torch.zeros(3)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    save_file(tensors, tmp_path / "diffusion_pytorch_model.safetensors")
    with pytest.raises(LorakitError, match=said):
        streamed(tmp_path, "fp8")


MEASURE = """
import re, sys, torch
from pathlib import Path
from torch import nn
from lorakit.bases import streaming
streaming.READ_AT_ONCE = 16 << 20
def read(folder, count, side):
    make = lambda: nn.ModuleDict({"blocks": nn.ModuleList(nn.Linear(side, side, bias=False) for _ in range(count))})
    model = streaming.build(make, "fp8", torch.bfloat16)
    return streaming.fill(model, streaming.read_folder(Path(folder)), torch.bfloat16, "cpu", "it")
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) >> 10
read(sys.argv[2], 1, 64)  # what is imported late
before = peak()
model = read(sys.argv[1], 64, 1024)
print(peak() - before)
"""


@pytest.mark.slow
def test_the_whole_never_lies_in_memory(tmp_path):
    """64 layers of 4 MB in fp32, of which 1 MB each stays: far below the 256 MB of the file."""
    folders = [tmp_path / "large", tmp_path / "small"]
    for folder, count, side in zip(folders, (64, 1), (1024, 64), strict=True):
        folder.mkdir()
        save_file({f"blocks.{n}.weight": torch.full((side, side), float(n)) for n in range(count)}, folder / "model.safetensors")
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed goes back at once, so that it is not counted
    done = subprocess.run([sys.executable, "-c", MEASURE, *map(str, folders)], capture_output=True, text=True, check=True, env=env)
    assert 60 < int(done.stdout) < 150
