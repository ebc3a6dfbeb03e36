"""Single files: tiny bases in the original layout read to the same weights, with the missing parts from elsewhere, and the
real bases' configurations are right."""

import re
from dataclasses import replace

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.loaders.single_file_utils import (
    convert_flux_transformer_checkpoint_to_diffusers,
    convert_sd3_transformer_checkpoint_to_diffusers,
)
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, T5Config, T5EncoderModel

from lorakit.bases import families, original_layout, quantised, single_file, unet_names
from lorakit.bases.families.flux1 import Flux1
from lorakit.bases.families.sd3 import SD3
from lorakit.bases.families.sd15 import SD15
from lorakit.bases.families.sdxl import SDXL
from lorakit.bases.schedules import Diffusion
from lorakit.bases.single_file import write_configs
from lorakit.bases.single_file_configs import CLIP_H, SD2_UNET
from lorakit.errors import LorakitError
from lorakit.settings import Train
from lorakit.train.preflight import check_single_file, of_weights, preflight
from lorakit.weights import Source

VAE = {"block_out_channels": (8, 8, 16, 16), "layers_per_block": 1, "norm_num_groups": 4}
CLIP = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "projection_dim": 24}
T5 = {"vocab_size": 64, "d_model": 64, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 4, "feed_forward_proj": "gated-gelu"}


class TinySD15(SD15):
    """SD1.5 in the size of the tiny random base."""

    CONFIG = {"sample_size": 64, "block_out_channels": (16, 32, 32, 32), "cross_attention_dim": 32, "norm_num_groups": 8}
    VAE_CONFIG = VAE
    ENCODER_CONFIGS = {
        "text_encoder": {**SD15.ENCODER_CONFIGS["text_encoder"], "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
                         "num_attention_heads": 4}
    }  # fmt: skip


class TinySD3(SD3):
    CONFIG = {**SD3.CONFIG, "sample_size": 16, "attention_head_dim": 8}
    VAE_CONFIG = {**VAE, "latent_channels": 16, "shift_factor": 0.06, "use_quant_conv": False, "use_post_quant_conv": False}
    ENCODER_CONFIGS = {
        "text_encoder": {**SD3.ENCODER_CONFIGS["text_encoder"], **CLIP}, "text_encoder_2": {**SD3.ENCODER_CONFIGS["text_encoder"], **CLIP},
        "text_encoder_3": {**SD3.ENCODER_CONFIGS["text_encoder_3"], **T5},
    }  # fmt: skip


class TinyFlux1(Flux1):
    CONFIG = {**Flux1.CONFIG, "axes_dims_rope": (4, 6, 6)}
    VAE_CONFIG = TinySD3.VAE_CONFIG
    ENCODER_CONFIGS = {
        "text_encoder": {**Flux1.ENCODER_CONFIGS["text_encoder"], **CLIP},
        "text_encoder_2": {**Flux1.ENCODER_CONFIGS["text_encoder_2"], **T5},
    }


class TinySDXL(SDXL):
    CONFIG = {
        **SDXL.CONFIG, "sample_size": 16, "block_out_channels": (16, 32, 32), "norm_num_groups": 8, "cross_attention_dim": 48,
        "transformer_layers_per_block": (1, 2, 3), "attention_head_dim": (2, 4, 4), "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 24 + 6 * 8,
    }  # fmt: skip
    VAE_CONFIG = {**VAE, "scaling_factor": 0.18215}
    ENCODER_CONFIGS = {name: {**SDXL.ENCODER_CONFIGS["text_encoder"], **CLIP} for name in SDXL.ENCODERS}


TINY = {"sd15": TinySD15, "sdxl": TinySDXL, "sd3": TinySD3, "flux1": TinyFlux1}


def unet_key(key: str, with_attention) -> str:
    path, end = key.rsplit(".", 1)
    path = path.replace("conv_norm_out", "out.0") if path == "conv_norm_out" else path
    path = unet_names.original_name(path, with_attention=with_attention).name if not path.startswith("out.") else path
    path = re.sub(r"(blocks\.\d+\.0|middle_block\.[02])\.norm1$", r"\1.in_layers.0", path)
    return "model.diffusion_model." + re.sub(r"(blocks\.\d+\.0|middle_block\.[02])\.norm2$", r"\1.out_layers.0", path) + f".{end}"


def open_clip_keys(state):
    """A text encoder as open_clip lays it out: query, key and value as one, the projection the other way round."""
    state = {key.removeprefix("text_model."): value for key, value in state.items()}
    outer = {"embeddings.token_embedding.weight": "token_embedding.weight", "embeddings.position_embedding.weight": "positional_embedding",
             "final_layer_norm.weight": "ln_final.weight", "final_layer_norm.bias": "ln_final.bias"}  # fmt: skip
    found = {new: state[old] for old, new in outer.items()} | {"text_projection": state["text_projection.weight"].T}
    inner = {
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "self_attn.out_proj": "attn.out_proj",
    }
    for number in {int(key.split(".")[2]) for key in state if key.startswith("encoder.")}:
        old, new = f"encoder.layers.{number}.", f"transformer.resblocks.{number}."
        for end in ("weight", "bias"):
            found |= {f"{new}{theirs}.{end}": state[f"{old}{ours}.{end}"] for ours, theirs in inner.items()}
            found[f"{new}attn.in_proj_{end}"] = torch.cat([state[f"{old}self_attn.{part}_proj.{end}"] for part in "qkv"])
    return found


def vae_key(key: str) -> str:
    key = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", key)
    key = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{3 - int(m[1])}.block.{m[2]}", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample", key)
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    for ours, theirs in (("mid_block.attentions.0", "mid.attn_1"), ("group_norm", "norm"), ("to_out.0", "proj_out"), ("to_q", "q"),
                         ("to_k", "k"), ("to_v", "v"), ("conv_shortcut", "nin_shortcut"), ("conv_norm_out", "norm_out")):  # fmt: skip
        key = key.replace(ours, theirs)
    return key


def write_single_file(
    family, path, parts=("denoiser", "vae", "encoders"), dtype=torch.float16, vae="first_stage_model.", denoiser="model.diffusion_model."
):
    """The base in one file as the model sites have it: some parts of it, in half precision."""
    tensors = {}
    if "denoiser" in parts and family.FOLDER == "unet":
        with_attention = (1, 2, 3) if family.NAME == "sd15" else (0, 1)
        tensors |= {unet_key(key, with_attention): value for key, value in family.denoiser.state_dict().items()}
    elif "denoiser" in parts:
        tensors |= {denoiser + key: value for key, value in original_layout.as_original(family.place, family.denoiser.state_dict()).items()}
    for key, value in family.vae.state_dict().items() if "vae" in parts else ():
        is_attention = "attentions" in key and value.dim() == 2
        tensors[vae + vae_key(key)] = value[..., None, None] if is_attention else value
    for name, prefix in family.LAYOUTS[0].encoders.items() if "encoders" in parts else ():
        if prefix in single_file.OPEN_CLIP:
            tensors |= {prefix + key: value for key, value in open_clip_keys(family.encoder(name).state_dict()).items()}
            continue
        for key, value in family.encoder(name).state_dict().items():
            level = "" if "t5xxl" in prefix or key.startswith("text_projection") else "text_model."
            tensors[prefix + level + key.removeprefix("text_model.")] = value
    save_file({key: value.to(dtype).contiguous().clone() for key, value in tensors.items()}, path)


def as_dict(converted):
    return {key: tensor for key, tensor, _ in converted}


def source_of(path, tmp_path, rest=None, configs=None):
    """A single file, its configurations beside those of the other tests: files of one kind share them, as they do in the user's cache."""
    return Source(str(path), True, configs=str(configs or tmp_path.parent / "configs"), rest=rest and Source(str(rest), True))


def same(ours, theirs, tolerance=1e-3):
    ours, theirs = ours.state_dict(), theirs.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.allclose(ours[key].float(), theirs[key].float(), atol=tolerance, rtol=tolerance) for key in theirs
    )


# each way that a part lies in a file once, each dtype with a U-Net and with a transformer
@pytest.mark.parametrize(
    ("family", "dtype"), [("sd15", torch.float16), ("sdxl", torch.bfloat16), ("sd3", torch.float16), ("flux1", torch.bfloat16)]
)
def test_every_part_is_the_same_as_in_the_folder(load_tiny, tiny_base, tmp_path, family, dtype):
    wanted = load_tiny(family)
    if family == "sd3":  # CLIP L's projection is none in SD3
        wanted.encoder("text_encoder").text_projection.weight.copy_(torch.eye(24))
    write_single_file(wanted, tmp_path / "tiny.safetensors", dtype=dtype, vae="vae." if family == "flux1" else "first_stage_model.")
    found = TINY[family](source_of(tmp_path / "tiny.safetensors", tmp_path, tiny_base(family)), "cpu", torch.float32, Train())
    tolerance = 1e-3 if dtype == torch.float16 else 8e-3
    assert same(found.denoiser, wanted.denoiser, tolerance) and same(found.vae, wanted.vae, tolerance)
    assert all(same(found.encoder(name), wanted.encoder(name), tolerance) for name in found.ENCODERS)
    assert all(
        torch.equal(found.tokens(name, "zwx mug"), wanted.tokens(name, "zwx mug")) for name in found.TOKENIZERS if name != "tokenizer_2"
    )
    if family in ("sd15", "sdxl"):
        assert torch.allclose(found.process.schedule.alphas_cumprod, wanted.process.schedule.alphas_cumprod)
    else:
        assert found.process.shift(torch.Size((1, 16, 64, 64))) == wanted.process.shift(torch.Size((1, 16, 64, 64)))
    assert found.text_length == wanted.text_length


@pytest.mark.parametrize("family", TINY)
def test_what_a_file_lacks_comes_from_a_diffusers_folder(load_tiny, tiny_base, tmp_path, family):
    wanted = load_tiny(family)
    write_single_file(
        wanted,
        tmp_path / "bare.safetensors",
        parts=("denoiser",),
        dtype=torch.float32,
        denoiser="" if family == "flux1" else "model.diffusion_model.",
    )
    with pytest.MonkeyPatch.context() as patch:
        for cls, width in ((SD15, 32), (SDXL, 48)):  # a U-Net alone is known by the width of its text
            patch.setattr(cls, "LAYOUTS", (replace(cls.LAYOUTS[0], text_width=width), *cls.LAYOUTS[1:]))
        found = TINY[family](source_of(tmp_path / "bare.safetensors", tmp_path, tiny_base(family)), "cpu", torch.float32, Train())
        alone = TINY[family](source_of(tmp_path / "bare.safetensors", tmp_path), "cpu", torch.float32, Train())
    assert same(found.denoiser, wanted.denoiser, 0) and same(found.vae, wanted.vae, 0)
    assert all(same(found.encoder(name), wanted.encoder(name), 0) for name in found.ENCODERS)
    found.release_encoders()
    assert same(found.vae, wanted.vae, 0)  # read again
    with pytest.raises(LorakitError, match="has no vae in it; --set train.parts=FOLDER"):
        alone.vae.to("cpu")


def test_flux_as_in_diffusers_own_conversion():
    """At FLUX' own heights, which the library's converter has written in it; the widths do not matter to it."""
    with torch.device("meta"):
        model = Flux1.DENOISER(**{**Flux1.CONFIG, "num_layers": 1, "num_single_layers": 2})
    state = {key: torch.randn(t.shape[0], *([1] * (t.dim() - 1))) for key, t in model.state_dict().items()}
    file = original_layout.as_original(Flux1.place, state)
    converted = convert_flux_transformer_checkpoint_to_diffusers(dict(file))
    found = as_dict(original_layout.converted(Flux1.place, file, {key: tuple(t.shape) for key, t in state.items()}))
    assert found.keys() == converted.keys() == state.keys()
    assert all(torch.equal(found[key], converted[key]) and torch.equal(found[key], state[key]) for key in state)


def test_sd3_as_in_diffusers_own_conversion(load_tiny):
    state = load_tiny("sd3").denoiser.state_dict()
    file = original_layout.as_original(SD3.place, state)
    converted = convert_sd3_transformer_checkpoint_to_diffusers(dict(file))
    found = as_dict(original_layout.converted(SD3.place, file, {key: tuple(t.shape) for key, t in state.items()}))
    assert found.keys() == converted.keys() == state.keys()
    assert all(torch.equal(found[key], converted[key]) and torch.equal(found[key], state[key]) for key in state)


@pytest.mark.parametrize(
    ("gone", "line"),
    [
        ("img_in.weight", "its transformer lacks img_in.weight"),
        ("double_blocks.1.img_mlp.0.bias", "its transformer lacks 1 weights, the first transformer_blocks.1.ff.net.0.proj.bias"),
        ("clip_l.transformer.text_model.final_layer_norm.bias", "its text_encoder lacks 1 weights, the first .*final_layer_norm.bias"),
    ],
)
def test_a_weight_that_is_missing_is_named(load_tiny, tmp_path, gone, line):
    write_single_file(load_tiny("flux1"), tmp_path / "tiny.safetensors")
    tensors = load_file(tmp_path / "tiny.safetensors")
    save_file({key: value for key, value in tensors.items() if not key.endswith(gone)}, tmp_path / "part.safetensors")
    with pytest.raises(LorakitError, match=line):
        base = TinyFlux1(source_of(tmp_path / "part.safetensors", tmp_path), "cpu", torch.float32, Train())
        [base.denoiser, base.encoder("text_encoder")]


@pytest.mark.parametrize(
    ("family", "keys", "line"),
    [
        ("sd15", ["model.diffusion_model.double_blocks.0.img_attn.qkv.weight"], "is FLUX.1, which this base is not; choose --base flux1-dev"),
        ("sdxl", ["model.diffusion_model.x", "cond_stage_model.transformer.text_model.y"], "is Stable Diffusion 1, which this base is not; choose --base sd15"),
        ("sdxl", ["cond_stage_model.model.transformer.x"], "is Stable Diffusion 2, which this base is not; choose --base sd21"),
        ("sd3", ["model.diffusion_model.y", "conditioner.embedders.1.model.x"], "is SDXL, which this base is not; choose --base sdxl"),
        ("sd15", ["cond_stage_model.transformer.text_model.y"], "has no unet in it; give a full checkpoint"),
        ("flux1", ["x"], "has no U-Net or transformer of a base that lorakit knows"),
        ("sd15", ["lora_unet_mid_block_attentions_0_proj_in.lora_up.weight"], "is a LoRA, no base"),
        ("flux1", ["double_blocks.0.img_attn.qkv.weight", "double_blocks.0.img_attn.qkv.weight.absmax"], "is quantised"),
        ("flux1", ["double_blocks.0.img_attn.qkv.weight", "double_blocks.0.img_attn.qkv.weight_scale_2"], "is quantised"),
        ("flux1", ["transformer_blocks.0.qkv_proj.qweight"], "is quantised"),
        ("flux1", ["double_blocks.0.x", "distilled_guidance_layer.layers.0.x"], "is Chroma, which this base is not; choose --base chroma"),
        ("flux1", ["double_blocks.0.x", "controlnet_blocks.0.x"], "is a ControlNet, .* lorakit does not know it"),
        ("flux1", ["double_blocks.0.x"], "its transformer lacks "),
        ("qwen_image", ["transformer_blocks.0.img_mod.1.x", "time_text_embed.addition_t_embedding.weight"], "is Qwen-Image-Layered, "),
        ("qwen_image", ["transformer_blocks.0.img_mod.1.x", "__index_timestep_zero__"], "is Qwen-Image-Edit-2511, "),
        ("z_image", ["noise_refiner.0.x", "siglip_embedder.1.weight"], "is Z-Image Omni, "),
        ("sd15", ["cond_stage_model.model.transformer.x", "model.diffusion_model.label_emb.0.0.weight"], "is Stable Diffusion 2 unCLIP, "),
        ("flux1", ["double_blocks.0.x", "double_stream_modulation_img.lin.weight"], "is FLUX.2 klein, which this base is not; choose --base flux2-klein-4b"),
    ],
)  # fmt: skip
def test_a_file_of_another_base_or_of_no_use_is_named_in_one_line(tmp_path, family, keys, line):
    save_file({key: torch.zeros(1) for key in keys}, tmp_path / "some.safetensors")
    with pytest.raises(LorakitError, match=line) as error:
        families.load(family)(
            source_of(tmp_path / "some.safetensors", tmp_path, configs=tmp_path / "configs"), "cpu", torch.float32, Train()
        )
    assert "\n" not in str(error.value) and not (tmp_path / "configs").exists()


@pytest.mark.parametrize(
    ("family", "mark", "first", "channels"),
    [
        ("flux1", "double_blocks.0.x", "img_in.weight", 384),
        ("sd15", "cond_stage_model.transformer.x", "model.diffusion_model.input_blocks.0.0.weight", 9),
    ],
)
def test_a_base_for_inpainting_is_named(tmp_path, family, mark, first, channels):
    save_file({mark: torch.zeros(1), first: torch.zeros(2, channels, 1, 1)}, tmp_path / "fill.safetensors")
    with pytest.raises(LorakitError, match=f"reads {channels} channels in place of .*, for inpainting or control"):
        single_file.open_file(tmp_path / "fill.safetensors", family)


def test_what_its_layers_do_not_tell_its_header_or_its_name_does(tmp_path, make_project):
    for family, key, said in (
        ("flux1", "double_blocks.0.img_attn.qkv.weight", "Flux.1-kontext-dev"),
        ("qwen_image", "transformer_blocks.0.img_mod.1.weight", "Qwen-Image-Edit-2509"),
    ):
        save_file({key: torch.zeros(1)}, tmp_path / "some.safetensors", {"modelspec.architecture": said})
        with pytest.raises(LorakitError, match=rf"is for editing pictures, as it says of itself \(modelspec.architecture = {said}\)"):
            single_file.open_file(tmp_path / "some.safetensors", family)
        save_file({key: torch.zeros(1)}, tmp_path / "some.safetensors", {"modelspec.architecture": "flux-1-dev/lora"})
        single_file.open_file(tmp_path / "some.safetensors", family)
    for number, name in enumerate(("qwen_image_edit_2509_fp8_e4m3fn", "qwen_image_edition", "qwen_image_fp8")):
        save_file({"transformer_blocks.0.img_mod.1.weight": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
        project = make_project(str(number), base="qwen-image", **{"train.weights": str(tmp_path / f"{name}.safetensors")})
        assert bool([line for line in of_weights(project) if "is for editing pictures, by its name" in line]) is (number == 0)


def test_the_refiner_of_sdxl_is_named(tmp_path):
    save_file(
        {UNET.replace("1.1", "4.1"): torch.zeros(768, 1280), "conditioner.embedders.0.model.x": torch.zeros(1)}, tmp_path / "r.safetensors"
    )
    with pytest.raises(LorakitError, match="is SDXL's refiner"):
        single_file.open_file(tmp_path / "r.safetensors", "sdxl")


UNET = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


@pytest.mark.parametrize(
    ("keys", "card"),
    [
        ({UNET: (320, 768)}, "sd15"),
        ({UNET: (320, 1024)}, "sd21"),
        ({UNET.replace("1.1", "4.1"): (640, 2048)}, "sdxl"),
        ({"joint_blocks.0.x_block.attn.qkv.weight": (1,)}, "sd3-medium"),
        ({"joint_blocks.0.x_block.attn.ln_q.weight": (1,)}, "sd35-large"),
        ({"joint_blocks.0.x_block.attn.ln_q.weight": (1,), "joint_blocks.0.x_block.attn2.qkv.weight": (1,)}, "sd35-medium"),
        ({"model.diffusion_model.double_blocks.0.x": (1,), "model.diffusion_model.guidance_in.in_layer.bias": (1,)}, "flux1-dev"),
        ({"double_blocks.0.x": (1,)}, "flux1-schnell"),
    ],
)
def test_the_card_of_a_file_is_told_by_its_layers(tmp_path, keys, card):
    save_file({key: torch.zeros(shape) for key, shape in keys.items()}, tmp_path / "some.safetensors")
    family = {"sd21": "sd15", "flux1-schnell": "flux1", "flux1-dev": "flux1"}.get(card, "sd3" if card.startswith("sd3") else card)
    assert single_file.card_of(single_file.open_file(tmp_path / "some.safetensors", family)) == card


def test_a_file_of_another_member_of_the_family_is_named_before_anything_loads(make_project, tmp_path):
    save_file({"double_blocks.0.img_attn.qkv.weight": torch.zeros(1)}, tmp_path / "schnell.safetensors")
    weights = {"train.weights": str(tmp_path / "schnell.safetensors")}
    with pytest.raises(LorakitError, match="is flux1-schnell, by its layers; choose --base flux1-schnell"):
        preflight(make_project("dev", base="flux1-dev", **weights))
    with pytest.raises(LorakitError, match="the weights of FLUX.1 schnell .* --set train.parts=FOLDER"):  # the tests have no network
        preflight(make_project("schnell", base="flux1-schnell", **weights))
    with pytest.raises(LorakitError, match="train.parts is for weights in a single .safetensors"):
        preflight(make_project("folder", **{"train.parts": str(tmp_path)}))


def test_open_clip_s_tokenizer_fills_up_with_zeros_as_it_was_trained(tmp_path):
    write_configs(SDXL, tmp_path)
    ends = [SDXL.TOKENIZERS[name].from_pretrained(tmp_path / name)("zwx", padding="max_length").input_ids[-1] for name in SDXL.TOKENIZERS]
    assert ends == [49407, 0]


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("sd15", {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}),
        ("sdxl", {"unet": 2_567_463_684, "vae": 83_653_863, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840}),
        ("sd3", {"transformer": 2_243_171_520, "vae": 83_819_683, "text_encoder": 123_650_304, "text_encoder_2": 694_659_840}),
        ("flux1", {"transformer": 11_901_408_320, "vae": 83_819_683, "text_encoder": 123_060_480}),
        ("krea2", {"vae": 126_892_531}),
    ],
)
def test_configurations_are_those_of_the_real_bases(tmp_path, name, counts):
    family = families.load(name)
    write_configs(family, tmp_path)
    classes = {family.FOLDER: family.DENOISER, "vae": family.VAE, **family.ENCODERS}
    for part, count in counts.items():
        with torch.device("meta"):
            if part in family.ENCODERS:
                model = classes[part](classes[part].config_class.from_pretrained(tmp_path / part))
            else:
                model = classes[part].from_config(classes[part].load_config(tmp_path, subfolder=part))
        assert sum(p.numel() for p in model.parameters()) == count, part


def test_stable_diffusion_2_and_t5_have_as_many_weights_as_published():
    with torch.device("meta"):
        unet = SD15.DENOISER(**{**SD15.CONFIG, **SD2_UNET})
        clip = SD15.ENCODERS["text_encoder"](CLIPTextConfig(**CLIP_H))
        t5 = T5EncoderModel(T5Config(**Flux1.ENCODER_CONFIGS["text_encoder_2"]))
    assert [sum(p.numel() for p in model.parameters()) for model in (unet, clip, t5)] == [865_910_724, 340_387_840, 4_762_310_656]


def in_fp8(path, scale):
    """The file with the transformer's weights as ComfyUI holds them: e4m3, each with a number to multiply it by, or plain."""
    tensors = load_file(path)
    fp8 = {}
    for key, tensor in tensors.items():
        inside = key.startswith("model.diffusion_model.") and key.endswith(".weight") and tensor.dim() == 2
        fp8[key] = (tensor.float() / scale).to(torch.float8_e4m3fn) if inside else tensor
        if inside and scale != 1:
            fp8[key.removesuffix("weight") + "scale_weight"] = torch.tensor(scale)
    if scale != 1:
        fp8["model.diffusion_model.scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    save_file(fp8, path)


@pytest.mark.parametrize("scale", [1, 0.013])
@pytest.mark.parametrize("name", ["sd3", "flux1"])
def test_comfyui_fp8_is_read_as_it_stands(tiny_base, tmp_path, name, scale):
    path = tmp_path / "one.safetensors"
    write_single_file(TINY[name](Source(str(tiny_base(name)), True), "cpu", torch.float32, Train()), path)
    in_fp8(path, scale)
    held, dense, four = (
        TINY[name](source_of(path, tmp_path, tiny_base(name)), "cpu", torch.float32, Train(base_precision=precision))
        for precision in ("auto", "bf16", "nf4")
    )
    assert (held.held_in(), dense.held_in(), four.held_in()) == ("fp8", None, "nf4")
    layers = [path for path, module in held.denoiser.named_modules() if isinstance(module, quantised.QuantisedLinear)]
    assert layers and not quantised.quantised_layers(held.denoiser)
    for layer in layers:
        ours, theirs = (base.denoiser.get_submodule(layer) for base in (held, dense))
        assert torch.allclose(ours.weight, theirs.weight.float(), rtol=0.01) and torch.equal(ours.bias, theirs.bias)
    others = {key: t for key, t in held.denoiser.state_dict().items() if not key.endswith((".packed", ".scale"))}
    assert all(torch.allclose(t.float(), dense.denoiser.state_dict()[key].float(), rtol=0.01) for key, t in others.items())


@pytest.mark.parametrize("name", TINY)
def test_a_single_file_in_few_bits_holds_what_a_whole_reading_gives(load_tiny, tmp_path, name):
    path = tmp_path / "one.safetensors"
    write_single_file(load_tiny(name), path)
    for precision in quantised.PRECISIONS:
        few, whole = (
            TINY[name](source_of(path, tmp_path), "cpu", torch.float32, Train(base_precision=wanted)).denoiser
            for wanted in (precision, "auto")
        )
        quantised.replace_layers(whole, precision, torch.float32)
        ours, theirs = few.state_dict(), whole.state_dict()
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in theirs), precision


SAYS = {
    "NoobAI": ({"v_pred": torch.empty(0), "ztsnr": torch.empty(0)}, {}, "v_prediction", True),
    "ModelSpec": ({}, {"modelspec.prediction_type": "v"}, "v_prediction", False),
    "ModelSpec's older name": ({}, {"modelspec.predict_key": "v"}, "v_prediction", False),
    "noise": ({}, {"modelspec.prediction_type": "epsilon"}, "epsilon", False),
    "kohya": ({}, {"ss_v_parameterization": "True", "ss_zero_terminal_snr": "True"}, "v_prediction", True),
    "nothing": ({}, {}, None, False),
}


def file_that_says(path, tensors, header):
    marks = {"cond_stage_model.transformer.x": torch.zeros(1), "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(2, 4, 1, 1)}
    save_file(marks | tensors, path, metadata=header or None)
    return path


@pytest.mark.parametrize("kind", SAYS)
def test_a_file_is_trained_as_it_says_of_itself(tmp_path, kind):
    tensors, header, prediction, zero_snr = SAYS[kind]
    file = single_file.open_file(file_that_says(tmp_path / "base.safetensors", tensors, header), "sd15")
    assert (file.prediction, file.zero_snr) == (prediction, zero_snr)
    (tmp_path / "configs").mkdir()
    write_configs(TinySD15, tmp_path / "configs", file)
    schedule = Diffusion(DDPMScheduler.from_pretrained(tmp_path / "configs", subfolder="scheduler"), Train()).schedule
    assert schedule.config.prediction_type == (prediction or "epsilon")
    assert (schedule.alphas_cumprod[-1] < 1e-6) == zero_snr


def test_settings_that_contradict_the_file_are_refused(make_project, tmp_path):
    path = file_that_says(tmp_path / "v.safetensors", {"v_pred": torch.empty(0)}, {})
    weights = {"train.weights": str(path)}
    with pytest.raises(
        LorakitError, match=r"train.prediction = epsilon: v.safetensors says that it predicts v_prediction; --set train.pred"
    ):
        preflight(make_project("a", base="sd15", **weights, **{"train.prediction": "epsilon"}))
    file_that_says(path, {"ztsnr": torch.empty(0)}, {})
    with pytest.raises(LorakitError, match="says zero terminal SNR: the base predicts the noise"):
        preflight(make_project("b", base="sd15", **weights))
    file_that_says(path, {}, {"modelspec.prediction_type": "edm"})
    with pytest.raises(LorakitError, match="says that it predicts 'edm'"):
        preflight(make_project("c", base="sd15", **weights))


def test_half_a_vae(tmp_path):
    path = tmp_path / "a.safetensors"
    file_that_says(path, {"first_stage_model.decoder.x": torch.zeros(1)}, {})
    assert not single_file.open_file(path, "sd15").has("vae")
    file_that_says(path, {"first_stage_model.decoder.x": torch.zeros(1), "first_stage_model.encoder.x": torch.zeros(1)}, {})
    assert single_file.open_file(path, "sd15").has("vae")


def test_a_base_without_a_place_on_the_hub_is_whole_in_its_file(load_tiny, make_project, tmp_path):
    write_single_file(load_tiny("sdxl"), tmp_path / "pony.safetensors")
    project = make_project(base="pony", **{"train.weights": str(tmp_path / "pony.safetensors")})
    assert check_single_file(project) == [] and project.base_source.rest is None
    found = TinySDXL(project.base_source, "cpu", torch.float32, Train())
    assert len(found.tokens("tokenizer", "score_9, zwx")[0]) > 3
