"""Qwen-Image beside diffusers' own pipeline on a tiny checkpoint: texts, latents, its single files, and what of its denoiser is trained."""

import pytest
import torch
from diffusers import QwenImagePipeline, QwenImageTransformer2DModel
from safetensors.torch import save_file
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel

from lorakit.bases import families, large_encoders, quantised, single_file
from lorakit.bases.families.base import mask_of, stack_texts
from lorakit.bases.families.qwen_image import QwenImage
from lorakit.errors import LorakitError
from lorakit.settings import Train
from lorakit.train import lora, memory
from lorakit.weights import Source

TEXTS = ["zwx mug on a table", "", "a mug " * 120]  # the last is cut at 512 tokens


@pytest.fixture(scope="module")
def pipeline(tiny_base):
    return QwenImagePipeline.from_pretrained(tiny_base("qwen_image"))


def test_texts_are_those_of_the_pipeline_each_as_long_as_it_is(load_tiny, pipeline):
    wanted, mask = pipeline.encode_prompt(list(TEXTS), device="cpu", max_sequence_length=512)
    found = [text["states"] for text in load_tiny("qwen_image").encode_texts(TEXTS)]
    lengths = [len(states) for states in found]
    assert lengths == mask.sum(1).tolist() and lengths[1] < lengths[0] < lengths[2] == 512
    assert all(torch.allclose(one, other[own.bool()], atol=1e-5) for one, other, own in zip(found, wanted, mask, strict=True))
    assert mask_of(stack_texts([{"states": states} for states in found]), "states").sum(1).tolist() == lengths


def test_in_8_bits_its_texts_are_nearly_the_same(load_tiny):
    exact, int8 = (load_tiny("qwen_image", Train(encoder_precision=held)) for held in ("bf16", "int8"))
    states, nearly = (family.encode_text(TEXTS[0])["states"] for family in (exact, int8))
    assert any(isinstance(layer, quantised.QuantisedLinear) for layer in int8.encoder("text_encoder").modules())
    assert 0 < (nearly - states).norm() < 0.05 * states.norm()


def test_texts_in_a_batch_are_as_alone(load_tiny):
    family, generator = load_tiny("qwen_image"), torch.Generator().manual_seed(0)
    noisy, states = torch.randn(2, 16, 8, 8, generator=generator), [torch.randn(rows, 64, generator=generator) for rows in (9, 40)]
    times = torch.tensor([120.5, 871.0])
    together = family.predict(noisy, times, stack_texts([{"states": one} for one in states]), torch.zeros(2, 6))
    alone = [family.predict(noisy[n : n + 1], times[n : n + 1], {"states": states[n][None]}, torch.zeros(1, 6)) for n in range(2)]
    assert torch.allclose(torch.cat(alone), together, atol=1e-5)


def test_the_full_size_denoiser_and_what_of_it_is_trained_swapped_and_held_in_few_bits():
    cls = families.load("qwen_image")
    family = memory.family_without_weights(cls, dict(cls.CONFIG), Train(base_precision="bf16"), torch.bfloat16)
    model = family.denoiser
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(20.43e9, rel=1e-3)
    assert len(family.repeated_blocks()) == 60
    held = quantised.quantised_layers(model)
    assert len(held) == 60 * 14 and not any(name in held for name in ("img_in", "txt_in", "proj_out"))
    with torch.device("meta"):
        parameters = lora.add_lora(family, Train(rank=16, targets="mlp"))
    assert len(parameters) == 2 * 60 * 12
    assert sum(p.numel() for p in parameters) == 60 * 16 * (8 * 2 * 3072 + 4 * (3072 + 12288))


def test_the_language_model_is_as_published():
    config = Qwen2_5_VLConfig(**QwenImage.ENCODER_CONFIGS["text_encoder"])
    head = 152064 * 3584  # which predicts words, and is not loaded
    assert large_encoders.size_gb(Qwen2_5_VLModel, config, torch.bfloat16) == pytest.approx((8.2922e9 - head) * 2 / 2**30, rel=1e-3)
    rope = config.text_config.rope_parameters
    assert rope["rope_theta"] == 1e6 and rope["mrope_section"] == [16, 24, 24]


class TinyQwenImage(QwenImage):
    CONFIG = {"axes_dims_rope": (4, 6, 6)}


def test_single_files_are_read_as_diffusers_reads_them(load_tiny, tiny_base, tmp_path):
    """Their names are diffusers' own."""
    wanted, folder = load_tiny("qwen_image"), tiny_base("qwen_image")
    state = {key: tensor.contiguous().clone() for key, tensor in wanted.denoiser.state_dict().items()}
    save_file(state, tmp_path / "q.safetensors")
    theirs = QwenImageTransformer2DModel.from_single_file(tmp_path / "q.safetensors", config=str(folder), subfolder="transformer")
    assert all(torch.equal(tensor, state[key]) for key, tensor in theirs.state_dict().items())
    source = Source(str(tmp_path / "q.safetensors"), True, configs=str(tmp_path / "configs"), rest=Source(str(folder), True))
    found = TinyQwenImage(source, "cpu", torch.float32, Train())
    assert all(torch.equal(tensor, state[key]) for key, tensor in found.denoiser.state_dict().items())
    assert found.source_of("text_encoder").location == found.source_of("tokenizer").location == str(folder)
    assert found.process.schedule.config.shift_terminal == 0.02 and found.process.schedule.config.max_shift == 0.9
    assert torch.equal(found.encode_text("a mug")["states"], wanted.encode_text("a mug")["states"])
    save_file({**state, "__index_timestep_zero__": torch.zeros(0)}, tmp_path / "edit.safetensors")
    with pytest.raises(LorakitError, match="is Qwen-Image-Edit-2511"):
        single_file.open_file(tmp_path / "edit.safetensors", "qwen_image")
