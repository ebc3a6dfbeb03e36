"""Chroma beside diffusers' own pipeline on a tiny checkpoint: texts, a batch of them, samples; its single files; how it is told from FLUX.1."""

import numpy as np
import pytest
import torch
from diffusers import ChromaPipeline
from diffusers.loaders.single_file_utils import convert_chroma_transformer_checkpoint_to_diffusers
from safetensors.torch import save_file

from lorakit.bases import original_layout, single_file
from lorakit.bases.families.base import stack_texts
from lorakit.bases.families.chroma1 import Chroma
from lorakit.errors import LorakitError
from lorakit.lora_file.verify import base_in_words, judge, judge_file
from lorakit.settings import Train
from lorakit.train.preflight import check_settings
from lorakit.weights import Source
from tests.bases.test_single_file import TinyFlux1, same

TEXTS = ["zwx mug on a table", "", "a mug " * 120]  # the last is cut at 512 tokens


class Hiding(ChromaPipeline):
    """diffusers' pipeline gives attention a mask of numbers, which is added and hides nothing (its issues 12116 and 13619)."""

    def _prepare_attention_mask(self, *args, **options):
        return super()._prepare_attention_mask(*args, **options).bool()


@pytest.fixture(scope="module")
def pipeline(tiny_base):
    return Hiding.from_pretrained(tiny_base("chroma1"))


def test_texts_are_those_of_the_pipeline_with_one_of_the_pads(load_tiny, pipeline):
    family = load_tiny("chroma1")
    for text, length in zip(TEXTS, (20, 2, 512), strict=True):
        wanted, mask = pipeline._get_t5_prompt_embeds(text)
        found = family.encode_text(text)["states"]
        assert len(found) == int(mask.sum()) == length
        assert torch.allclose(found, wanted[0, :length], atol=1e-5)


def test_texts_of_several_lengths_are_read_as_with_a_mask_that_hides(load_tiny, pipeline):
    family = load_tiny("chroma1")
    noisy, times = torch.randn(2, 16, 8, 10, generator=torch.Generator().manual_seed(0)), torch.tensor([120.5, 871.0])
    states, mask = pipeline._get_t5_prompt_embeds(TEXTS[:2])
    with torch.no_grad():
        found = family.predict(noisy, times, stack_texts([family.encode_text(text) for text in TEXTS[:2]]), None)
        wanted = pipeline.transformer(
            hidden_states=pipeline._pack_latents(noisy, 2, 16, 8, 10),
            timestep=times / 1000,
            encoder_hidden_states=states,
            txt_ids=torch.zeros(512, 3),
            img_ids=pipeline._prepare_latent_image_ids(2, 4, 5, "cpu", torch.float32),
            attention_mask=torch.cat([mask.bool(), torch.ones(2, 20, dtype=torch.bool)], dim=1),
            return_dict=False,
        )[0]
    assert torch.allclose(found, pipeline._unpack_latents(wanted, 64, 80, 8), atol=1e-5)


def test_samples_are_those_of_the_pipeline(load_tiny, pipeline):
    family = load_tiny("chroma1")
    text, negative = ({"states": family.encode_text(words)["states"][None]} for words in (TEXTS[0], "blurred"))
    options = {"width": 80, "height": 64, "num_inference_steps": 3, "guidance_scale": 3.0}
    drawing = family.pipeline()
    for one in (drawing, pipeline):
        one.set_progress_bar_config(disable=True)
    said = family.prompt_options(text, negative, negative)
    drawn = drawing(**said, **options, generator=torch.Generator().manual_seed(1), output_type="latent").images
    wanted = pipeline(
        prompt=TEXTS[0], negative_prompt="blurred", **options, generator=torch.Generator().manual_seed(1), output_type="np"
    ).images[0]
    assert np.abs(np.asarray(family.decode(family.latents_of(drawn, 64, 80))) / 255 - wanted).max() <= 0.5 / 255 + 1e-5


class TinyChroma(Chroma):
    CONFIG, VAE_CONFIG = {"axes_dims_rope": (4, 6, 6)}, TinyFlux1.VAE_CONFIG
    ENCODER_CONFIGS = {"text_encoder": TinyFlux1.ENCODER_CONFIGS["text_encoder_2"]}


def test_a_single_file_is_read_by_the_names_that_diffusers_converts(load_tiny, tiny_base, tmp_path):
    wanted = load_tiny("chroma1")
    file = original_layout.as_original(Chroma.place, wanted.denoiser.state_dict())
    save_file({key: tensor.contiguous().clone() for key, tensor in file.items()}, tmp_path / "chroma.safetensors")
    source = Source(
        str(tmp_path / "chroma.safetensors"), True, configs=str(tmp_path / "configs"), rest=Source(str(tiny_base("chroma1")), True)
    )
    found = TinyChroma(source, "cpu", torch.float32, Train())
    assert same(found.denoiser, wanted.denoiser, 0) and single_file.card_of(found.file) == "chroma"
    with torch.device("meta"):
        whole = Chroma.DENOISER().state_dict()
    theirs = convert_chroma_transformer_checkpoint_to_diffusers(original_layout.as_original(Chroma.place, whole))
    assert {key: tensor.shape for key, tensor in theirs.items()} == {key: tensor.shape for key, tensor in whole.items()}


def test_its_relatives_are_told_apart(tmp_path):
    keys = ["double_blocks.0.img_attn.qkv.weight", "distilled_guidance_layer.in_proj.weight"]
    for more, family, line in (
        ([], "flux1", "is Chroma, which this base is not; choose --base chroma"),
        (
            ["nerf_blocks.0.norm.scale"],
            "chroma1",
            "is Chroma Radiance, whose blocks are called as those of Chroma; lorakit does not know it",
        ),
    ):
        save_file({key: torch.zeros(1) for key in [*keys, *more]}, tmp_path / "x.safetensors")
        with pytest.raises(LorakitError, match=line):
            single_file.open_file(tmp_path / "x.safetensors", family)


def test_a_lora_of_it_has_flux1_s_names_and_is_told_by_its_header_or_its_modulation(tmp_path):
    blocks = {f"lora_unet_double_blocks_{n}_img_mlp_0.lora_{part}.weight": shape
              for n in range(3) for part, shape in (("down", (4, 3072)), ("up", (12288, 4)))}  # fmt: skip
    assert judge(blocks, ("comfyui",))[0] == "flux1"
    save_file({key: torch.zeros(shape) for key, shape in blocks.items()}, tmp_path / "x.safetensors", {"ss_base_model_version": "chroma"})
    assert judge_file(tmp_path / "x.safetensors", ("comfyui",))[0] == "chroma1"
    stem = "lora_unet_distilled_guidance_layer_layers_0_in_layer"
    all_of_it = blocks | {f"{stem}.lora_down.weight": (4, 5120), f"{stem}.lora_up.weight": (5120, 4)}
    family, (comfyui, diffusers) = judge(all_of_it, ("comfyui", "diffusers"))
    assert base_in_words(family, blocks) == "chroma1" and comfyui.is_whole and not diffusers.loaded  # its converter knows blocks alone


def test_its_text_encoder_does_not_learn(make_project):
    with pytest.raises(LorakitError, match="train.text_encoder: the language model that reads chroma's texts does not learn"):
        check_settings(
            make_project(base="chroma", **{"train.weights": None, "train.text_encoder": True, "train.t5": True, "train.bucket_step": 64})
        )
