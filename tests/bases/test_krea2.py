"""Krea 2 beside diffusers' own pipeline on a tiny checkpoint: texts, latents, its single files, and what of its denoiser is trained."""

import pytest
import torch
from diffusers import Krea2Pipeline
from diffusers.image_processor import VaeImageProcessor
from diffusers.loaders.single_file_utils import convert_krea2_transformer_checkpoint_to_diffusers
from safetensors.torch import save_file
from transformers import Qwen3VLConfig, Qwen3VLModel

from lorakit.bases import families, large_encoders, original_layout, quantised
from lorakit.bases.families.base import mask_of, stack_texts
from lorakit.bases.families.krea2 import LAYERS, Krea2
from lorakit.settings import Train
from lorakit.train import lora, memory
from lorakit.weights import Source

TEXTS = ["zwx mug on a table", "", "a mug " * 120]  # the last is cut


@pytest.fixture(scope="module")
def pipeline(tiny_base):
    return Krea2Pipeline.from_pretrained(tiny_base("krea2"))


def test_texts_are_those_of_the_pipeline_without_what_it_fills_up(load_tiny, pipeline):
    family = load_tiny("krea2")
    wanted, mask = pipeline.encode_prompt(list(TEXTS), device="cpu")
    found = [text["states"] for text in family.encode_texts(TEXTS)]
    lengths = [len(states) for states in found]
    assert lengths == mask.sum(1).tolist() and lengths[1] < lengths[0] < lengths[2]
    assert all(torch.allclose(one, other[own], atol=1e-5) for one, other, own in zip(found, wanted, mask, strict=True))
    batch = stack_texts([{"states": states} for states in found])
    assert batch["states"].shape == (3, max(lengths), 3, 64) and mask_of(batch, "states").sum(1).tolist() == lengths
    assert mask_of(stack_texts([{"states": found[0]}] * 2), "states") is None


def test_in_8_bits_its_texts_are_nearly_the_same(load_tiny):
    exact, int8 = (load_tiny("krea2", Train(encoder_precision=held)) for held in ("bf16", "int8"))
    states, nearly = (family.encode_text(TEXTS[0])["states"] for family in (exact, int8))
    assert any(isinstance(layer, quantised.QuantisedLinear) for layer in int8.encoder("text_encoder").modules())
    assert 0 < (nearly - states).norm() < 0.05 * states.norm()


def test_texts_in_a_batch_are_as_alone(load_tiny):
    family, generator = load_tiny("krea2"), torch.Generator().manual_seed(0)
    noisy, states = torch.randn(2, 16, 8, 8, generator=generator), [torch.randn(rows, 3, 64, generator=generator) for rows in (9, 40)]
    times = torch.tensor([120.5, 871.0])
    together = family.predict(noisy, times, stack_texts([{"states": one} for one in states]), torch.zeros(2, 6))
    alone = [family.predict(noisy[n : n + 1], times[n : n + 1], {"states": states[n][None]}, torch.zeros(1, 6)) for n in range(2)]
    assert torch.allclose(torch.cat(alone), together, atol=1e-5)


def test_latents_are_those_of_the_pipeline_there_and_back(load_tiny, pipeline):
    family, vae = load_tiny("krea2"), pipeline.vae
    pixels = torch.rand(1, 3, 64, 80, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mean, std = (torch.tensor(found).view(1, -1, 1, 1, 1) for found in (vae.config.latents_mean, vae.config.latents_std))
    with torch.no_grad():
        raw = vae.encode(pixels.unsqueeze(2)).latent_dist
        wanted = (raw.mean - mean) * (1 / std)
        drawn = vae.decode(wanted / (1 / std) + mean, return_dict=False)[0][:, :, 0]
    found = family.encode_picture(pixels)
    assert found["mean"].shape == (16, 8, 10) and torch.allclose(found["mean"], wanted[0, :, 0], atol=1e-5)
    assert torch.allclose(found["std"], (raw.std / std)[0, :, 0], atol=1e-5)
    assert list(family.decode(found["mean"][None]).getdata()) == list(VaeImageProcessor().postprocess(drawn)[0].getdata())


def test_a_distilled_checkpoint_is_drawn_with_its_own_schedule(load_tiny, monkeypatch):
    family = load_tiny("krea2")
    assert not family.pipeline().config.is_distilled and family.layers() == (1, 2, 4)
    monkeypatch.setattr(Krea2Pipeline, "load_config", lambda *_, **__: {"is_distilled": True})
    assert family.pipeline().config.is_distilled and family.layers() == LAYERS


def test_the_full_size_denoiser_and_what_of_it_is_trained_swapped_and_held_in_few_bits():
    cls = families.load("krea2")
    family = memory.family_without_weights(cls, dict(cls.CONFIG), Train(base_precision="bf16"), torch.bfloat16)
    model = family.denoiser
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(12.82e9, rel=1e-3)
    assert len(family.repeated_blocks()) == 28
    held = quantised.quantised_layers(model)
    assert len(held) == (28 + 4) * 8 and not any("projector" in name or "final" in name for name in held)
    with torch.device("meta"):
        parameters = lora.add_lora(family, Train(rank=32, targets="attention"))
    assert len(parameters) == 2 * (28 + 4) * 5
    assert sum(p.numel() for p in parameters) == 32 * (28 * (3 * 2 * 6144 + 2 * (6144 + 1536)) + 4 * 5 * 2 * 2560)


def test_the_language_model_is_as_published():
    config = Qwen3VLConfig(**Krea2.ENCODER_CONFIGS["text_encoder"])
    assert large_encoders.size_gb(Qwen3VLModel, config, torch.bfloat16) == pytest.approx(4.4378e9 * 2 / 2**30, rel=1e-3)
    rope = config.text_config.rope_parameters
    assert rope["rope_theta"] == 5e6 and rope["mrope_section"] == [24, 20, 20]


@pytest.mark.parametrize("level", ["", "model.", "old"])
def test_a_language_model_that_sees_is_read_by_all_names_that_it_is_published_under(load_tiny, level):
    family = load_tiny("krea2")
    model = family.encoder("text_encoder")
    state = dict(model.state_dict())
    if level == "old":  # as files before transformers 4.52, and ComfyUI's
        named = {key.replace("language_model.", "model.", 1): tensor for key, tensor in state.items()} | {"lm_head.weight": torch.ones(1)}
    else:
        named = {level + key: tensor for key, tensor in state.items()}
    tensors = ((key, tensor, None) for key, tensor in named.items())
    found = large_encoders.build(Qwen3VLModel, model.config, tensors, None, torch.float32, "cpu", "here")
    assert all(torch.equal(tensor, state[key]) for key, tensor in found.state_dict().items())


class TinyKrea2(Krea2):
    CONFIG = {"axes_dims_rope": (4, 6, 6)}


def test_single_files_are_read_as_diffusers_converts_them(load_tiny, tiny_base, tmp_path):
    wanted, folder = load_tiny("krea2"), tiny_base("krea2")
    state = wanted.denoiser.state_dict()
    file = original_layout.as_original(Krea2.place, state)
    theirs = convert_krea2_transformer_checkpoint_to_diffusers(dict(file))
    assert theirs.keys() == state.keys() and all(torch.equal(theirs[key], state[key]) for key in state)
    save_file({key: tensor.contiguous().clone() for key, tensor in file.items()}, tmp_path / "k.safetensors")
    source = Source(str(tmp_path / "k.safetensors"), True, configs=str(tmp_path / "configs"), rest=Source(str(folder), True))
    found = TinyKrea2(source, "cpu", torch.float32, Train())
    assert all(torch.equal(tensor, state[key]) for key, tensor in found.denoiser.state_dict().items())
    assert {found.source_of(part).location for part in ("text_encoder", "tokenizer", "scheduler", "vae")} == {str(folder)}
    assert torch.equal(found.encode_text("a mug")["states"], wanted.encode_text("a mug")["states"])
    half = TinyKrea2(source, "cpu", torch.bfloat16, Train()).denoiser  # whose norms are to stay exact
    kept = {name for name, parameter in half.named_parameters() if parameter.dtype == torch.float32}
    assert kept and all("norm" in name for name in kept)
