"""A new base is one file of a family and one card: with both in a folder of their own, everything else copes with it."""

import contextlib
import dataclasses
import json
import sys

import pytest
import torch
from safetensors.torch import save_file

from lorakit import lookup
from lorakit.bases import families, layer_names
from lorakit.errors import LorakitError
from lorakit.lora_file import formats, verify
from lorakit.lora_file.beside import About, workflow
from lorakit.lora_file.convert import convert
from lorakit.lora_file.formats import LoraLayer
from lorakit.project import catalog
from lorakit.report.handover import hand_over

FAMILY = '''
"""Toy: PixArt's transformer at a small size, its attention's query, key and value fused in its original code."""
import re

from diffusers import PixArtAlphaPipeline, PixArtTransformer2DModel
from transformers import AutoTokenizer, CLIPTextModel, CLIPTokenizer, T5EncoderModel

from lorakit.bases.families.base import Family, flow_in_comfyui
from lorakit.bases.layer_names import QKV, Original
from lorakit.bases.schedules import Diffusion
from lorakit.bases.single_file_configs import CLIP, Layout

OTHER_TRAINERS = {"ai_toolkit": {"arch": "toyland", "scheduler": "ddpm"}}


class Toy(Family):
    DENOISER, FOLDER = PixArtTransformer2DModel, "transformer"
    CONFIG = {"num_layers": 3, "num_attention_heads": 40, "attention_head_dim": 64, "cross_attention_dim": 2560, "caption_channels": 64,
              "norm_num_groups": 32, "sample_size": 16, "in_channels": 4, "out_channels": 8}
    ENCODERS = {"text_encoder": CLIPTextModel, "text_encoder_2": T5EncoderModel}
    TOKENIZERS = {"tokenizer": CLIPTokenizer, "tokenizer_2": AutoTokenizer}
    ENCODER_CONFIGS = {"text_encoder": {**CLIP, "num_hidden_layers": 2}, "text_encoder_2": {"num_layers": 2}}
    TARGETS = {"attention": ("to_q", "to_k", "to_v", "to_out.0"), "mlp": ("ff.net.0.proj", "ff.net.2"), "linear": (), "conv": ()}
    PIPELINE = PixArtAlphaPipeline
    PROCESS, PIXEL_STEP, PACKED = Diffusion, 16, True
    OTHER_CONFIGS = {"sees": "Toyland Edit"}
    IN_TOOLS = {"comfyui": flow_in_comfyui("toy_vae.safetensors", {"clip_name": "toy_words.safetensors", "type": "toy"}, sampler="heun")}
    NAME, FORMAT = "toy", "diffusers"
    NOT_TARGETS = r"^transformer_blocks\\.0\\."
    KOHYA_NAMES = ("original",)
    LAYOUTS = (Layout("toy", "Toyland", {}, cards={"toy": ""}, usual="toy", blocks="toy_blocks."),)

    @staticmethod
    def original_name(path):
        if found := re.fullmatch(r"transformer_blocks\\.(\\d+)\\.attn1\\.to_([qkv])", path):
            return Original(f"toy_blocks.{found[1]}.qkv", "qkv".index(found[2]), QKV)
        return Original("toy_" + path) if path.startswith("transformer_blocks.") else None

    def normalised(self, mean, std):
        return mean / 2, std / 2

    def unnormalised(self, latents):
        return latents * 2

    def read(self, name, prepared):
        raise NotImplementedError

    def predict(self, noisy, timesteps, text, sizes):
        raise NotImplementedError

    def pipeline(self):
        raise NotImplementedError

    def prompt_options(self, text, empty):
        raise NotImplementedError


CLASS = Toy
'''
CARD = """
title: Toyland
family: toy
hub: nobody/toyland
licence: none
size_gb: 1
min_vram_gb: 1
metadata: {ss_base_model_version: toy, modelspec.architecture: toy/lora}
settings: {train.bucket_step: 16, train.resolution: 64, check.size.min_side: 64}
"""
ATTENTION = [f"transformer.transformer_blocks.1.attn1.to_{part}" for part in "qkv"]


@pytest.fixture
def toy(tmp_path):
    """The folder of a project with the card; the family's file lies beside it."""
    (tmp_path / "families").mkdir()
    (tmp_path / "families" / "toy.py").write_text(FAMILY, encoding="utf-8")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "toy.yaml").write_text(CARD, encoding="utf-8")
    lookup.add_folder(lookup.FAMILIES, tmp_path / "families")
    yield tmp_path
    lookup.remove_folder(lookup.FAMILIES, tmp_path / "families")
    sys.modules.pop("lorakit.bases.families.toy", None)


def network():
    generator = torch.Generator().manual_seed(0)
    sizes = {**dict.fromkeys(ATTENTION, (2560, 2560)), "transformer.transformer_blocks.0.ff.net.2": (2560, 10240),
             "text_encoder.text_model.encoder.layers.1.mlp.fc1": (3072, 768), "text_encoder_2.encoder.block.1.layer.0.SelfAttention.q": (64, 64)}  # fmt: skip
    return {
        path: LoraLayer(torch.randn(2, into, generator=generator), torch.randn(out, 2, generator=generator), 1.0)
        for path, (out, into) in sizes.items()
    }


def test_its_card_and_its_layers_are_found(toy):
    assert catalog.card("toy", toy).is_built and "toy" in families.names()
    assert layer_names.is_fused("toy") and layer_names.kohya_stem("toy", "transformer_blocks.2.attn1.to_k") == "lora_unet_toy_blocks_2_qkv"
    assert len(layer_names.text_layers("toy")) == 2 * 6 and len(layer_names.t5_layers("toy")) == 2 * 7


def test_its_files_are_written_read_judged_and_converted(toy):
    trained = network()
    for format in formats.FORMATS:
        tensors = formats.write(trained, "toy", format, torch.float32)
        save_file(tensors, toy / f"{format}.safetensors")
        found = formats.read(tensors, "toy")
        assert found.keys() == trained.keys()
        assert all(torch.allclose(found[path].change(), trained[path].change(), rtol=1e-4, atol=1e-5) for path in trained)
    family, (comfyui, a1111, _, diffusers) = verify.judge_file(toy / "diffusers.safetensors")
    assert family == "toy" and comfyui.is_whole and not a1111.loaded
    assert set(diffusers.skipped.values()) == {"diffusers loads no LoRA of T5"}
    assert verify.judge_file(toy / "kohya.safetensors", ("comfyui",))[1][0].is_whole
    assert convert([toy / "kohya.safetensors"], toy / "again.safetensors", "diffusers") == "toy"


def test_a_trainer_that_it_has_words_for_takes_it_and_others_say_so_in_one_line(toy, make_dataset):
    project = dataclasses.replace(make_dataset(), card=catalog.card("toy", toy))
    assert "arch: toyland" in (hand_over(project, "ai-toolkit") / "train.yaml").read_text(encoding="utf-8")
    for trainer in ("sd-scripts", "diffusers"):
        with pytest.raises(LorakitError, match=rf"{trainer}: nothing is known here of how it trains Toyland \(family toy\)"):
            hand_over(project, trainer)


def test_its_settings_are_checked_before_anything_loads(toy, make_project):
    from lorakit.train.preflight import check_settings

    check_settings(dataclasses.replace(make_project(), card=catalog.card("toy", toy)))


def test_its_single_files_are_told_by_their_keys(toy):
    from lorakit.bases import single_file

    save_file({"model.diffusion_model.toy_blocks.0.x": torch.zeros(1)}, toy / "base.safetensors")
    file = single_file.open_file(toy / "base.safetensors", "toy")
    assert file.layout.title == "Toyland" and single_file.card_of(file) == "toy"
    with pytest.raises(LorakitError, match="is Toyland, which this base is not; choose --base toy"):
        single_file.open_file(toy / "base.safetensors", families.names()[0])


def test_its_folders_are_told_by_its_pipeline_and_its_configuration(toy, tmp_path):
    from lorakit.bases.folder import check_folder

    (tmp_path / "base" / "transformer").mkdir(parents=True)
    index, config = tmp_path / "base/model_index.json", tmp_path / "base/transformer/config.json"
    for drawn_by, own, line in (
        ("PixArtAlphaPipeline", {}, None),
        ("PixArtEditPipeline", {}, "is for editing pictures, by the PixArtEditPipeline"),
        ("PixArtAlphaPipeline", {"sees": True}, "is Toyland Edit, by its transformer's configuration"),
        ("PixArtAlphaPipeline", {"_class_name": "UNet2DConditionModel"}, "not toy's PixArtTransformer2DModel"),
    ):
        index.write_text(json.dumps({"_class_name": drawn_by}), encoding="utf-8")
        config.write_text(json.dumps(own), encoding="utf-8")
        with pytest.raises(LorakitError, match=line) if line else contextlib.nullcontext():
            check_folder(families.load("toy"), tmp_path / "base", "toy")


def test_a_workflow_of_comfyui_draws_with_it(toy):
    about = About("toy", "Toyland", "toy", "toy.safetensors", "zwx mug", "a zwx mug", 1.0, side=512, steps=10, guidance=4.0, notes="")
    nodes = {node["class_type"]: node["inputs"] for node in workflow(about, "x.safetensors").values()}
    assert nodes["VAELoader"]["vae_name"] == "toy_vae.safetensors" and nodes["CLIPLoader"]["type"] == "toy"
    assert nodes["KSampler"]["sampler_name"] == "heun" and nodes["EmptySD3LatentImage"]["width"] == 512


def test_what_a_family_does_not_say_is_read_without_importing_it(toy):
    assert lookup.constant(lookup.FAMILIES, "toy", "OTHER_TRAINERS")["ai_toolkit"]["arch"] == "toyland"
    assert lookup.constant(lookup.FAMILIES, "toy", "NOTHING", {}) == {}
    assert lookup.constant(lookup.FAMILIES, "nowhere", "OTHER_TRAINERS") is None
    assert "lorakit.bases.families.toy" not in sys.modules


def test_what_it_excludes_gets_no_lora_and_its_latents_are_its_own(toy):
    from lorakit.settings import Train
    from lorakit.train import lora

    cls = families.load("toy")
    with torch.device("meta"):
        model = cls.DENOISER(**cls.CONFIG)
    found = lora.find_targets(model, cls.TARGETS, Train(targets="attention"), cls.NOT_TARGETS)
    assert {path.split(".")[1] for path in found} == {"1", "2"}
    mean, std = cls.normalised(None, torch.ones(1), torch.ones(1))
    assert (mean, std, cls.unnormalised(None, mean)) == (0.5, 0.5, 1.0)
