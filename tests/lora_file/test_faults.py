"""Faults of files that others wrote are one line that names the layer, in verify and in convert."""

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from lorakit.cli.verify import command as verify_command
from lorakit.errors import LorakitError
from lorakit.lora_file import faults
from lorakit.lora_file.convert import convert
from lorakit.lora_file.verify import judge_file

STEM = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
GOOD = {"lora_down.weight": torch.ones(2, 32), "lora_up.weight": torch.ones(32, 2), "alpha": torch.tensor(1.0)}


def with_numbers(value):
    tensor = torch.ones(32, 2)
    tensor[3, 1] = value
    return tensor


FAULTS = {
    "NaN": ({"lora_up.weight": with_numbers(float("nan"))}, "1 of 64 numbers of its lora_up.weight are NaN or infinite"),
    "infinite": ({"lora_up.weight": with_numbers(float("-inf"))}, "NaN or infinite"),
    "alpha is NaN": ({"alpha": torch.tensor(float("nan"))}, "numbers of its alpha are NaN"),
    "half a layer": ({"lora_up.weight": None}, "its lora_up.weight is missing"),
    "the other half": ({"lora_down.weight": None}, "its lora_down.weight is missing"),
    "alpha alone": ({"lora_down.weight": None, "lora_up.weight": None}, "an alpha and no factors"),
    "fp8": ({"lora_down.weight": torch.ones(2, 32).to(torch.float8_e4m3fn)}, "its lora_down.weight is in fp8"),
    "whole numbers": ({"lora_down.weight": torch.ones(2, 32, dtype=torch.int8)}, "its lora_down.weight is in whole numbers"),
    "ranks": ({"lora_up.weight": torch.ones(32, 3)}, r"the ranks of lora_down.weight \(2\) and lora_up.weight \(3\) differ"),
    "no matrix": ({"lora_up.weight": torch.ones(32)}, "its lora_up.weight is no matrix"),
    "empty": ({"lora_down.weight": torch.ones(0, 32), "lora_up.weight": torch.ones(32, 0)}, "its lora_down.weight is empty"),
    "two alphas": ({"alpha": torch.ones(2)}, "its alpha is no single number"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_that_names_the_layer(tmp_path, fault):
    changes, words = FAULTS[fault]
    broken = {f"{STEM}.{key}": tensor for key, tensor in (GOOD | changes).items() if tensor is not None}
    whole = {f"{STEM.replace('attn1', 'attn2')}.{key}": tensor.clone() for key, tensor in GOOD.items()}
    path = tmp_path / "lora.safetensors"
    save_file(broken | whole, path)
    with pytest.raises(LorakitError, match=f"{STEM}: .*{words}"):
        convert([path], tmp_path / "out.safetensors", "kohya")
    assert not (tmp_path / "out.safetensors").exists()
    shown = CliRunner().invoke(verify_command, [str(path)])
    assert shown.exit_code == 1 and f"fault      {STEM}: " in shown.output


def test_a_good_file_has_none(tmp_path):
    save_file({f"{STEM}.{key}": tensor for key, tensor in GOOD.items()}, tmp_path / "lora.safetensors")
    assert faults.find_faults(tmp_path / "lora.safetensors") == []


def test_factors_of_another_rank_are_named():
    tensors = {"lokr_w1": torch.ones(4, 4), "lokr_w2_a": torch.ones(8, 2), "lokr_w2_b": torch.ones(3, 8)}
    assert "the ranks of lokr_w2_a (2) and lokr_w2_b (3) differ" in next(faults.faults_of(tensors))
    core = {"hada_w1_a": torch.ones(2, 32), "hada_w1_b": torch.ones(2, 32), "hada_t1": torch.ones(2, 2, 3, 3)}
    core |= {key.replace("1", "2"): tensor for key, tensor in core.items() if key == "hada_t1"}
    core |= {"hada_w2_a": torch.ones(2, 32), "hada_w2_b": torch.ones(2, 32)}
    assert next(faults.faults_of(core), None) is None


@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_alphas_are_read_in_every_precision_and_shape(tmp_path, dtype, shape):
    other, tensors = STEM.replace("attn1", "attn2"), {}
    for stem, alpha in ((STEM, 1.0), (other, 2.0), ("lora_unet_mid_block_attentions_0_proj_in", 2.0)):
        tensors |= {f"{stem}.lora_down.weight": torch.ones(2, 32, dtype=dtype), f"{stem}.lora_up.weight": torch.ones(32, 2, dtype=dtype)}
        tensors[f"{stem}.alpha"] = torch.full(shape, alpha, dtype=dtype)
    path = tmp_path / "lora.safetensors"
    save_file(tensors, path)
    assert judge_file(path, ("diffusers",))[1][0].wrong_scale == {STEM: 2.0}
    convert([path], tmp_path / "even.safetensors", "kohya")
    assert judge_file(tmp_path / "even.safetensors", ("diffusers",))[1][0].is_whole
