"""A converted file is loaded in diffusers before it has its name, where the architecture of its base is at hand; else that is said."""

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from lorakit.bases import layer_names
from lorakit.cli import group
from lorakit.errors import LorakitError
from lorakit.lora_file import formats
from lorakit.train.bare_base import try_in_diffusers


def network(width):
    """A LoRA of the attention of SD1.5's first block, whose layers have this width."""
    generator = torch.Generator().manual_seed(0)
    paths = [f"unet.{path}" for path in layer_names.layers("sd15") if path.startswith("down_blocks.0.attentions.0") and "attn1" in path]
    return {
        path: formats.LoraLayer(torch.randn(2, width, generator=generator), torch.randn(width, 2, generator=generator), 2.0)
        for path in paths
    }


@pytest.mark.parametrize(("width", "words"), [(320, "architecture: all 4 layers as written"), (32, "judged by its keys only")])
def test_convert_says_how_its_file_was_judged(tmp_path, width, words):
    save_file(formats.write(network(width), "sd15", "diffusers", torch.float32), tmp_path / "a.safetensors")
    words_of_command = ["convert", str(tmp_path / "a.safetensors"), "-o", str(tmp_path / "b.safetensors"), "--to", "kohya"]
    done = CliRunner().invoke(group, words_of_command)
    assert done.exit_code == 0 and words in done.output
    assert {path.name for path in tmp_path.iterdir()} == {"a.safetensors", "b.safetensors"}


def test_what_diffusers_plays_otherwise_is_refused(tmp_path):
    wanted = network(320)
    path = tmp_path / "a.safetensors"
    save_file(formats.write(wanted, "sd15", "kohya", torch.float32), path)
    tensors = load_file(path)
    key = next(key for key in tensors if key.endswith("lora_up.weight"))
    save_file({**tensors, key: tensors[key] * 2}, path)
    with pytest.raises(LorakitError, match="differs from the trained one"):
        try_in_diffusers(path, wanted, "sd15")
