"""FLUX.2 klein and dev beside diffusers' own pipelines on tiny checkpoints: texts, latents, samples, and what of their denoisers is held,
swapped and trained; their single files."""

import shutil

import numpy as np
import pytest
import torch
from diffusers import Flux2KleinPipeline, Flux2Pipeline
from diffusers.loaders.single_file_utils import convert_flux2_transformer_checkpoint_to_diffusers
from safetensors.torch import save_file

from lorakit.bases import families, large_encoders, original_layout, quantised
from lorakit.bases.families.flux2 import Flux2
from lorakit.bases.families.flux2_dev import Flux2Dev
from lorakit.bases.folder import check_folder, is_distilled
from lorakit.bases.single_file_configs import MISTRAL_SMALL_3, QWEN3_4B, QWEN3_8B
from lorakit.errors import LorakitError
from lorakit.project import catalog
from lorakit.settings import Train, resolve
from lorakit.train import lora, memory, rungs
from lorakit.train.preflight import of_weights
from lorakit.weights import Source
from tests.bases.test_folder import change_config
from tests.bases.test_single_file import vae_key

TEXTS = ["zwx mug on a table [IMG]", "", "a mug " * 120]  # the last is cut at 512 tokens


PIPELINES = {"flux2": Flux2KleinPipeline, "flux2_dev": Flux2Pipeline}


@pytest.fixture(scope="module")
def pipelines(tiny_base):
    return {family: cls.from_pretrained(tiny_base(family)) for family, cls in PIPELINES.items()}


@pytest.mark.parametrize("name", PIPELINES)
def test_texts_are_those_of_the_pipeline_with_what_fills_them_up(load_tiny, pipelines, name):
    wanted, _ = pipelines[name].encode_prompt(list(TEXTS), device="cpu")
    found = torch.stack([text["states"] for text in load_tiny(name).encode_texts(TEXTS)])
    assert found.shape == (3, 512, 3 * 32) and torch.allclose(found, wanted, atol=1e-5)
    pad = 400 if name == "flux2" else 100  # of dev in front
    assert not torch.equal(found[0, pad], found[1, pad]) or name == "flux2_dev"  # klein's pads differ: they cannot be left out


def test_latents_are_those_of_the_pipeline_there_and_back(load_tiny, pipelines):
    family, pipeline = load_tiny("flux2"), pipelines["flux2"]
    vae = pipeline.vae
    pixels = torch.rand(1, 3, 64, 80, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = family.encode_picture(pixels)
    with torch.no_grad():
        wanted = pipeline._encode_vae_image(pixels, None)
        raw = vae.encode(pixels).latent_dist
    assert found["mean"].shape == (32, 8, 10)
    assert torch.allclose(pipeline._patchify_latents(found["mean"][None]), wanted, atol=1e-5)
    spread = torch.sqrt(vae.bn.running_var + 1e-4)[:, None, None]
    assert torch.allclose(pipeline._patchify_latents(found["std"][None])[0], pipeline._patchify_latents(raw.std)[0] / spread, atol=1e-5)
    assert torch.allclose(family.unnormalised(found["mean"][None]), raw.mean, atol=1e-5)


@pytest.mark.parametrize(("name", "guidance"), [pytest.param("flux2", 1.0, marks=pytest.mark.slow), ("flux2", 4.0), ("flux2_dev", 4.0)])
def test_samples_are_those_of_the_pipeline_without_the_vae_beside_the_denoiser(load_tiny, pipelines, name, guidance):
    family, pipeline = load_tiny(name), pipelines[name]
    text, empty = ({"states": family.encode_text(words)["states"][None]} for words in (TEXTS[0], ""))
    options = {"width": 80, "height": 64, "num_inference_steps": 3, "guidance_scale": guidance}
    drawing = family.pipeline()
    drawing.set_progress_bar_config(disable=True)
    pipeline.set_progress_bar_config(disable=True)
    drawn = drawing(
        **family.prompt_options(text, empty), **options, generator=torch.Generator().manual_seed(1), output_type="latent"
    ).images
    assert "vae" not in family._parts
    wanted = pipeline(prompt=TEXTS[0], **options, generator=torch.Generator().manual_seed(1), output_type="np").images[0]
    latents = family.latents_of(drawn, 64, 80)
    assert latents.shape == (1, 32, 8, 10)
    assert np.abs(np.asarray(family.decode(latents)) / 255 - wanted).max() <= 0.5 / 255 + 1e-5


SIZES = {  # of the denoiser and of its whole language model, without the head that is published with it; billions
    "flux2-klein-4b": (3.876, QWEN3_4B, 4.0225),
    "flux2-klein-9b": (9.079, QWEN3_8B, 7.5684),
    "flux2-dev": (32.223, MISTRAL_SMALL_3, 22.901),
}


@pytest.mark.parametrize("card", [pytest.param(name, marks=pytest.mark.slow if name == "flux2-dev" else ()) for name in SIZES])
def test_the_full_size_denoisers_and_what_of_them_is_trained_swapped_and_held_in_few_bits(card):
    cls, (size, words, reads) = families.load(catalog.card(card).family), SIZES[card]
    family = memory.family_without_weights(cls, cls.config_of(card), Train(base_precision="bf16"), torch.bfloat16)
    model, config = family.denoiser, family.denoiser.config
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(size * 1e9, rel=1e-3)
    double, single, width = config.num_layers, config.num_single_layers, config.num_attention_heads * 128
    names = {module: name for name, module in model.named_modules()}
    called = [names[block] for block in family.repeated_blocks()]
    assert called == [f"transformer_blocks.{n}" for n in range(double)] + [f"single_transformer_blocks.{n}" for n in range(single)]
    held = quantised.quantised_layers(model)
    assert len(held) == 12 * double + 2 * single and all("transformer_blocks." in name for name in held)
    with torch.device("meta"):
        parameters = lora.add_lora(family, Train(rank=32, targets="mlp"))
    assert len(parameters) == 2 * (12 * double + 2 * single)
    in_double, in_single = 8 * 2 * width + 2 * (7 * width + 4 * width), (width + 9 * width) + (4 * width + width)
    assert sum(p.numel() for p in parameters) == 32 * (double * in_double + single * in_single)
    assert config.joint_attention_dim == 3 * words["hidden_size"]
    reader, depth = cls.ENCODERS["text_encoder"], cls.LAYERS_READ["text_encoder"]
    whole, read = (large_encoders.size_gb(reader, reader.config_class(**words), torch.bfloat16, to) for to in (None, depth))
    assert whole == pytest.approx(reads * 2e9 / 2**30, rel=1e-3) and read < 0.8 * whole


@pytest.mark.parametrize(("name", "vram"), [("flux2-klein-4b", 8), ("flux2-klein-9b", 12), ("z-image", 10)])
def test_by_the_count_it_is_trained_in_so_many_gigabytes_without_swapping(name, vram):
    card = catalog.card(name)
    train = resolve([("card", card.settings)]).train
    base = rungs.Base(card, families.load(card.family).config_of(name))
    found = rungs.fit(base, train, vram - rungs.CONTEXT, frozenset({"train.optimizer", "train.swap_blocks"}))
    assert found.is_enough and not found.settings.swap_blocks and card.min_vram_gb <= max(vram, 12)


def test_a_distilled_base_is_said_before_it_is_trained(tiny_base, make_project, tmp_path):
    shutil.copytree(tiny_base("flux2"), tmp_path / "klein")
    for name, distilled in (("a", False), ("b", True)):
        change_config(tmp_path / "klein" / "model_index.json", is_distilled=distilled)
        lines = list(of_weights(make_project(name, base="flux2-klein-4b", **{"train.weights": str(tmp_path / "klein")})))
        assert bool(lines) is distilled and all("train on black-forest-labs/FLUX.2-klein-base-4B" in line for line in lines)


class TinyFlux2(Flux2):
    CONFIG = {**Flux2.CONFIG, "axes_dims_rope": (4, 4, 4, 4)}
    VAE_CONFIG = {**Flux2.VAE_CONFIG, "block_out_channels": (8, 8, 16, 16), "layers_per_block": 1, "norm_num_groups": 4}


class TinyFlux2Dev(Flux2Dev):
    CONFIG, VAE_CONFIG = {**Flux2Dev.CONFIG, "axes_dims_rope": (4, 4, 4, 4)}, TinyFlux2.VAE_CONFIG
    ENCODER_CONFIGS = {
        "text_encoder": {**MISTRAL_SMALL_3, "head_dim": 16, "max_position_embeddings": 1024, "rope_theta": 1e6, "rms_norm_eps": 1e-6}
    }


TINY = {"flux2": TinyFlux2, "flux2_dev": TinyFlux2Dev}


def original_vae(vae, inside):
    """As the original code has it; the outer convolutions inside of encoder and decoder, or beside them."""
    found = {}
    for key, value in vae.state_dict().items():
        name = vae_key(key)
        if inside and name.startswith(("quant_conv", "post_quant_conv")):
            name = f"{'decoder' if name.startswith('post') else 'encoder'}.{name}"
        found[name] = value[..., None, None] if "attentions" in key and value.dim() == 2 else value
    return found


@pytest.mark.parametrize(("name", "whole"), [("flux2", True), ("flux2", False), ("flux2_dev", True)])
def test_single_files_are_read_as_diffusers_converts_them(load_tiny, tiny_base, tmp_path, name, whole):
    """With texts and VAE in them, or as ComfyUI splits them."""
    wanted, folder = load_tiny(name), tiny_base(name)
    state = wanted.denoiser.state_dict()
    file = original_layout.as_original(Flux2.place, state)
    theirs = convert_flux2_transformer_checkpoint_to_diffusers(dict(file))
    assert theirs.keys() == state.keys() and all(torch.equal(theirs[key], state[key]) for key in state)
    tensors = {f"{'model.diffusion_model.' if whole else ''}{key}": tensor for key, tensor in file.items()}
    if whole:
        words = wanted.LAYOUTS[0].begins("text_encoder")[-1]
        tensors |= {f"{words}model.{key}": t for key, t in wanted.encoder("text_encoder").state_dict().items()}
        tensors |= {f"vae.{key}": tensor for key, tensor in original_vae(wanted.vae, inside=True).items()}
    save_file({key: tensor.contiguous().clone() for key, tensor in tensors.items()}, tmp_path / "klein.safetensors")
    source = Source(str(tmp_path / "klein.safetensors"), True, configs=str(tmp_path / "configs"), rest=Source(str(folder), True))
    found = TINY[name](source, "cpu", torch.float32, Train())
    assert all(torch.equal(tensor, state[key]) for key, tensor in found.denoiser.state_dict().items())
    assert torch.equal(found.encode_text("a mug")["states"], wanted.encode_text("a mug")["states"])
    pixels = torch.rand(1, 3, 32, 32)
    assert torch.equal(found.encode_picture(pixels)["mean"], wanted.encode_picture(pixels)["mean"])
    assert found.file.has("text_encoder") == found.file.has("vae") == whole and not found.file.has("tokenizer")
    shape = torch.Size((1, 32, 128, 128))
    assert found.process.shift(shape) == wanted.process.shift(shape) == pytest.approx(3.158, abs=1e-3)  # FLUX.1's


@pytest.mark.parametrize("form", ["beside", "diffusers"])
def test_the_vae_s_file_is_read_in_every_form_and_never_without_its_statistics(load_tiny, form):
    vae = load_tiny("flux2").vae
    tensors = original_vae(vae, inside=False) if form == "beside" else vae.state_dict()
    found = Flux2.vae_from_file(tensors, vae.config)
    assert all(torch.equal(found[key], tensor) for key, tensor in vae.state_dict().items() if not key.endswith("num_batches_tracked"))
    if form == "beside":
        with pytest.raises(KeyError, match="bn.running_var"):
            Flux2.vae_from_file({key: t for key, t in tensors.items() if key != "bn.running_var"}, vae.config)


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (["guidance_in.in_layer.weight"], "is FLUX.2 dev, which this base is not; choose --base flux2-dev"),
        ([], "its transformer lacks img_in.weight"),
    ],
)
def test_other_bases_of_these_blocks_are_told_apart(tmp_path, keys, line):
    keys = ["double_blocks.0.img_attn.qkv.weight", "double_stream_modulation_img.lin.weight", *keys]
    save_file({key: torch.zeros(1) for key in keys}, tmp_path / "some.safetensors")
    with pytest.raises(LorakitError, match=line):
        _ = Flux2(
            Source(str(tmp_path / "some.safetensors"), True, configs=str(tmp_path / "configs")), "cpu", torch.float32, Train()
        ).denoiser


def test_a_folder_of_the_other_klein_is_told_by_its_layers(tmp_path):
    (tmp_path / "transformer").mkdir()
    path = tmp_path / "transformer" / "config.json"
    path.write_text("{}")
    change_config(path, _class_name="Flux2Transformer2DModel", in_channels=128, **Flux2.config_of("flux2-klein-9b"))
    check_folder(Flux2, tmp_path, "flux2-klein-9b")
    check_folder(Flux2, tmp_path, "a card of one's own")
    with pytest.raises(LorakitError, match="is flux2-klein-9b, by its layers; choose --base flux2-klein-9b"):
        check_folder(Flux2, tmp_path, "flux2-klein-4b")
    assert not is_distilled(tmp_path)
    (tmp_path / "model_index.json").write_text('{"is_distilled": true}')
    assert is_distilled(tmp_path)
    change_config(path, **Flux2.CONFIG)
    with pytest.raises(LorakitError, match="is flux2-klein-4b, by its layers; choose --base flux2-klein-4b"):
        check_folder(Flux2, tmp_path, "flux2-klein-9b")
