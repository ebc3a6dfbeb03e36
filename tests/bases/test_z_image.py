"""Z-Image beside diffusers' own pipeline on a tiny checkpoint: texts, latents, and what of its denoiser is held, swapped and trained."""

import dataclasses

import pytest
import torch
from diffusers import ZImagePipeline
from diffusers.image_processor import VaeImageProcessor
from diffusers.loaders.single_file_utils import convert_z_image_transformer_checkpoint_to_diffusers
from safetensors.torch import save_file
from transformers import Qwen3Config, Qwen3Model

from lorakit.bases import families, large_encoders, original_layout, quantised
from lorakit.bases.families.base import rows_of, stack_texts
from lorakit.bases.families.z_image import ZImage
from lorakit.errors import LorakitError
from lorakit.project import catalog
from lorakit.settings import Train
from lorakit.train import lora, memory
from lorakit.train.preflight import check_settings
from lorakit.weights import Source
from tests.bases.test_single_file import TinyFlux1

TEXTS = ["zwx mug on a table", "", "a mug " * 120]  # the last is cut at 512 tokens


@pytest.fixture(scope="module")
def pipeline(tiny_base):
    return ZImagePipeline.from_pretrained(tiny_base("z_image"))


def test_texts_are_those_of_the_pipeline_each_as_long_as_it_is(load_tiny, pipeline):
    family = load_tiny("z_image")
    wanted, _ = pipeline.encode_prompt(list(TEXTS), device="cpu", do_classifier_free_guidance=False)
    found = [text["states"] for text in family.encode_texts(TEXTS)]
    lengths = [len(states) for states in found]
    assert [one.shape for one in found] == [one.shape for one in wanted] and lengths[1] < lengths[0] < lengths[2] == 512
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(found, wanted, strict=True))
    batch = stack_texts([{"states": states} for states in found])
    assert batch["states"].shape == (3, 512, 64) and batch["states_rows"].tolist() == lengths
    assert all(torch.equal(one, other) for one, other in zip(rows_of(batch, "states"), found, strict=True))
    assert rows_of(stack_texts([{"states": found[0]}] * 2), "states")[1].shape == found[0].shape


def test_in_8_bits_its_texts_are_nearly_the_same(load_tiny):
    exact, int8 = (load_tiny("z_image", Train(encoder_precision=held)) for held in ("bf16", "int8"))
    states, nearly = (family.encode_text(TEXTS[0])["states"] for family in (exact, int8))
    held = [layer for layer in int8.encoder("text_encoder").modules() if isinstance(layer, quantised.QuantisedLinear)]
    assert len(held) == 4 * 7 and 0 < (nearly - states).norm() < 0.05 * states.norm()


def test_latents_are_those_of_the_pipeline_there_and_back(load_tiny, pipeline):
    family, vae = load_tiny("z_image"), pipeline.vae
    pixels = torch.rand(1, 3, 64, 80, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        raw = vae.encode(pixels).latent_dist
        wanted = (raw.mean - vae.config.shift_factor) * vae.config.scaling_factor
        drawn = vae.decode(wanted / vae.config.scaling_factor + vae.config.shift_factor, return_dict=False)[0]
    found = family.encode_picture(pixels)
    assert torch.allclose(found["mean"], wanted[0], atol=1e-5)
    assert torch.allclose(found["std"], raw.std[0] * vae.config.scaling_factor, atol=1e-5)
    assert list(family.decode(found["mean"][None]).getdata()) == list(VaeImageProcessor().postprocess(drawn)[0].getdata())


def test_the_full_size_denoiser_and_what_of_it_is_trained_swapped_and_held_in_few_bits():
    cls = families.load("z_image")
    family = memory.family_without_weights(cls, dict(cls.CONFIG), Train(base_precision="bf16"), torch.bfloat16)
    model = family.denoiser
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(6.155e9, rel=1e-3)
    assert [block.layer_id for block in family.repeated_blocks()] == [1000, 1001, 0, 1, *range(30)]  # noise, context, then both
    held = quantised.quantised_layers(model)
    assert len(held) == 34 * 7 + 32 and not any("embedder" in name or "final" in name for name in held)
    with torch.device("meta"):
        parameters = lora.add_lora(family, Train(rank=32, targets="mlp"))
    assert len(parameters) == 2 * 30 * 7
    assert sum(p.numel() for p in parameters) == 30 * 32 * (4 * 2 * 3840 + 3 * (3840 + 10240))


def test_the_language_model_is_as_published():
    config = Qwen3Config(**ZImage.ENCODER_CONFIGS["text_encoder"])
    assert large_encoders.size_gb(Qwen3Model, config, torch.bfloat16) == pytest.approx(4.0225e9 * 2 / 2**30, rel=1e-3)
    assert (getattr(config, "rope_parameters", None) or {"rope_theta": config.rope_theta})["rope_theta"] == 1e6


def test_a_language_model_that_is_to_learn_is_refused(make_project):
    project = dataclasses.replace(make_project(**{"train.text_encoder": True}), card=catalog.card("z-image"))
    with pytest.raises(LorakitError, match=r"train\.text_encoder: the language model that reads z-image's texts does not learn"):
        check_settings(project)


class TinyZImage(ZImage):
    CONFIG = {"axes_dims": (4, 6, 6), "axes_lens": (1536, 64, 64)}
    VAE_CONFIG = TinyFlux1.VAE_CONFIG
    ENCODER_CONFIGS = {
        "text_encoder": {
            "vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 1024,
        }
    }  # fmt: skip


@pytest.mark.parametrize("whole", [True, False], ids=["with its texts", "as ComfyUI splits it"])
def test_single_files_are_read_as_diffusers_converts_them(load_tiny, tiny_base, tmp_path, whole):
    wanted, folder = load_tiny("z_image"), tiny_base("z_image")
    state = wanted.denoiser.state_dict()
    file = original_layout.as_original(ZImage.place, state)
    theirs = convert_z_image_transformer_checkpoint_to_diffusers(dict(file))
    assert theirs.keys() == state.keys() and all(torch.equal(theirs[key], state[key]) for key in state)
    tensors = {f"{'model.diffusion_model.' if whole else ''}{key}": tensor for key, tensor in file.items()}
    if whole:
        texts = wanted.encoder("text_encoder").state_dict()
        tensors |= {f"text_encoders.qwen3_4b.transformer.model.{key}": tensor for key, tensor in texts.items()}
    save_file({key: tensor.contiguous().clone() for key, tensor in tensors.items()}, tmp_path / "z.safetensors")
    source = Source(str(tmp_path / "z.safetensors"), True, configs=str(tmp_path / "configs"), rest=Source(str(folder), True))
    found = TinyZImage(source, "cpu", torch.float32, Train())
    assert all(torch.equal(tensor, state[key]) for key, tensor in found.denoiser.state_dict().items())
    assert torch.equal(found.encode_text("a mug")["states"], wanted.encode_text("a mug")["states"])
    assert found.file.has("text_encoder") == whole and not found.file.has("tokenizer")
    assert found.process.schedule.config.shift == 6.0 and found.source_of("scheduler").location == str(folder)
    with pytest.raises(LorakitError, match="has no scheduler in it; --set train.parts=FOLDER"):
        TinyZImage(dataclasses.replace(source, rest=None), "cpu", torch.float32, Train())


def test_lumina_is_no_z_image(tmp_path):
    keys = ["noise_refiner.0.attention.qkv.weight", "layers.0.adaLN_modulation.1.weight"]
    save_file({key: torch.zeros(1) for key in keys}, tmp_path / "lumina.safetensors")
    source = Source(str(tmp_path / "lumina.safetensors"), True, configs=str(tmp_path / "configs"))
    with pytest.raises(LorakitError, match="is Lumina 2, whose blocks are called as those of Z-Image; lorakit does not know it"):
        ZImage(source, "cpu", torch.float32, Train())
