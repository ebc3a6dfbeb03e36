"""Anima beside diffusers' own blocks on a tiny checkpoint: texts, samples, its single files, and what of its denoiser is trained."""

import pytest
import torch
from diffusers import AnimaAutoBlocks
from diffusers.loaders.single_file_utils import convert_cosmos_transformer_checkpoint_to_diffusers
from diffusers.modular_pipelines.anima.encoders import AnimaTextEncoderStep
from safetensors.torch import save_file

from lorakit.bases import families, original_layout, quantised
from lorakit.bases.families.anima import Anima
from lorakit.bases.families.base import stack_texts
from lorakit.project import catalog
from lorakit.settings import Train
from lorakit.train import lora, memory
from lorakit.weights import Source, local_base

TEXTS = ["zwx mug on a table", "", "a mug " * 120]  # the last is cut at 512 tokens


@pytest.fixture(scope="module")
def blocks(tiny_base):
    found = AnimaAutoBlocks().init_pipeline(str(tiny_base("anima")))
    found.load_components()
    return found


@torch.no_grad()
def conditioned(blocks, text):
    said = AnimaTextEncoderStep.encode_prompt(blocks, text, prepare_unconditional_embeds=False)
    return blocks.text_conditioner(
        source_hidden_states=said["qwen_prompt_embeds"], target_input_ids=said["t5_input_ids"],
        target_attention_mask=said["t5_attention_mask"], source_attention_mask=said["qwen_attention_mask"],
    )  # fmt: skip


def test_texts_are_those_of_the_blocks_without_the_zeros_behind(load_tiny, blocks):
    found = [text["states"] for text in load_tiny("anima").encode_texts(TEXTS)]
    lengths = [len(states) for states in found]
    assert lengths[1] == 1 < lengths[0] < lengths[2] == 512
    for text, states in zip(TEXTS, found, strict=True):
        wanted = conditioned(blocks, text)[0]
        assert torch.allclose(states, wanted[: len(states)], atol=1e-5) and not wanted[len(states) :].any()


def test_texts_in_a_batch_are_as_alone(load_tiny):
    family, generator = load_tiny("anima"), torch.Generator().manual_seed(0)
    noisy, states = torch.randn(2, 16, 8, 8, generator=generator), [torch.randn(rows, 32, generator=generator) for rows in (9, 40)]
    times = torch.tensor([120.5, 871.0])
    together = family.predict(noisy, times, stack_texts([{"states": one} for one in states]), torch.zeros(2, 6))
    alone = [family.predict(noisy[n : n + 1], times[n : n + 1], {"states": states[n][None]}, torch.zeros(1, 6)) for n in range(2)]
    assert torch.allclose(torch.cat(alone), together, atol=1e-5)


def test_what_reads_the_encoder_goes_with_it(load_tiny):
    family = load_tiny("anima")
    assert len(list(family.encode_texts(["a mug"]))) == 1
    assert not {"text_encoder", "text_conditioner"} & family._parts.keys()


def test_in_8_bits_its_texts_are_nearly_the_same(load_tiny):
    states, nearly = (load_tiny("anima", Train(encoder_precision=held)).encode_text(TEXTS[0])["states"] for held in ("bf16", "int8"))
    assert 0 < (nearly - states).norm() < 0.05 * states.norm()


def test_the_full_size_denoiser_and_what_of_it_is_trained_swapped_and_held_in_few_bits():
    cls = families.load("anima")
    family = memory.family_without_weights(cls, dict(cls.CONFIG), Train(base_precision="bf16"), torch.bfloat16)
    assert sum(p.numel() for p in family.denoiser.parameters()) == pytest.approx(1.956e9, rel=1e-3)
    assert len(family.repeated_blocks()) == 28
    held = quantised.quantised_layers(family.denoiser)
    assert len(held) == 28 * 16 and not any("embed" in name or "out" in name.split(".")[0] for name in held)
    with torch.device("meta"):
        parameters = lora.add_lora(family, Train(rank=16, targets="mlp"))
    assert sum(p.numel() for p in parameters) == 28 * 16 * (6 * 2 * 2048 + 2 * (2048 + 1024) + 2 * (2048 + 8192))


class TinyAnima(Anima):
    CONFIG = {"rope_scale": (1.0, 4.0, 4.0), "extra_pos_embed_type": None}
    CONDITIONER_CONFIG = {
        "source_dim": 64, "target_dim": 32, "model_dim": 32, "num_layers": 2, "num_attention_heads": 2, "target_vocab_size": 64,
    }  # fmt: skip


def test_single_files_are_read_as_diffusers_converts_them(load_tiny, tiny_base, tmp_path, blocks):
    wanted, folder = load_tiny("anima"), tiny_base("anima")
    state = wanted.denoiser.state_dict()
    file = {f"net.{key}": tensor.contiguous().clone() for key, tensor in original_layout.as_original(Anima.place, state).items()}
    theirs = convert_cosmos_transformer_checkpoint_to_diffusers(dict(file))
    assert theirs.keys() == state.keys() and all(torch.equal(theirs[key], state[key]) for key in state)
    conditioner = {f"net.llm_adapter.{key}": tensor.clone() + 0.1 for key, tensor in blocks.text_conditioner.state_dict().items()}
    save_file(file | conditioner, tmp_path / "a.safetensors")
    source = Source(str(tmp_path / "a.safetensors"), True, configs=str(tmp_path / "configs"), rest=Source(str(folder), True))
    found = TinyAnima(source, "cpu", torch.float32, Train())
    assert all(torch.equal(tensor, state[key]) for key, tensor in found.denoiser.state_dict().items())
    assert all(torch.equal(tensor, conditioner[f"net.llm_adapter.{key}"]) for key, tensor in found.conditioner.state_dict().items())
    assert found.source_of("text_encoder").location == found.source_of("t5_tokenizer").location == str(folder)
    assert found.process.schedule.config.shift == 3.0


def test_a_folder_of_blocks_is_one_of_weights(tiny_base, tmp_path):
    assert (tiny_base("anima") / "modular_model_index.json").is_file() and catalog.card("anima").hub
    assert local_base(tiny_base("anima"), tmp_path, "Anima", 1.0).is_local
