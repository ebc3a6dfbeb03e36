"""`lorakit verify` and `lorakit convert` on a file that the trainer made."""

import shutil

import pytest
from click.testing import CliRunner

from lorakit.cli import group
from lorakit.project import runs, stamps


@pytest.fixture
def lora(trained, tmp_path):
    return shutil.copy(runs.find(trained.folder, stamps.train(trained)).lora, tmp_path / "mug.safetensors")


def run(*words):
    return CliRunner().invoke(group, list(map(str, words)))


def test_verify_counts_what_each_tool_loads(lora):
    done = run("verify", lora)
    assert done.exit_code == 0
    for tool in ("comfyui", "a1111", "forge", "diffusers"):
        assert f"{tool:<10} loads 576 of 576 keys" in done.output


def test_verify_leaves_with_1_when_a_tool_that_is_asked_for_leaves_keys_out(lora, tmp_path):
    assert run("convert", lora, "-o", tmp_path / "d.safetensors", "--to", "diffusers").exit_code == 0
    assert run("verify", tmp_path / "d.safetensors", "--for", "diffusers").exit_code == 0
    done = run("verify", tmp_path / "d.safetensors", "--for", "diffusers,comfyui")
    assert done.exit_code == 1 and "comfyui    loads 128 of 384 keys" in done.output
