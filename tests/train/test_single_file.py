"""Single files: a tiny SD1.5 in the original layout reads to the same weights, and the real bases' configurations are right."""

import re

import pytest
import torch
from safetensors.torch import save_file

from lorakit import lookup
from lorakit.errors import LorakitError
from lorakit.settings import Train
from lorakit.train import names
from lorakit.train.families.sd15 import SD15
from lorakit.train.single_file import write_configs
from lorakit.weights import Source


class TinySD15(SD15):
    """SD1.5 in the size of the tiny random base."""

    CONFIG = {"sample_size": 64, "block_out_channels": (16, 32, 32, 32), "cross_attention_dim": 32, "norm_num_groups": 8}
    VAE_CONFIG = {"block_out_channels": (8, 8, 16, 16), "layers_per_block": 1, "norm_num_groups": 4}
    ENCODER_CONFIGS = {
        "text_encoder": {**SD15.ENCODER_CONFIGS["text_encoder"], "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
                         "num_attention_heads": 4}
    }  # fmt: skip


def unet_key(key: str) -> str:
    path, end = key.rsplit(".", 1)
    path = path.replace("conv_norm_out", "out.0") if path == "conv_norm_out" else path
    path = names._sgm(path, with_attention=(1, 2, 3)).name if not path.startswith("out.") else path
    path = re.sub(r"(blocks\.\d+\.0|middle_block\.[02])\.norm1$", r"\1.in_layers.0", path)
    return "model.diffusion_model." + re.sub(r"(blocks\.\d+\.0|middle_block\.[02])\.norm2$", r"\1.out_layers.0", path) + f".{end}"


def vae_key(key: str) -> str:
    key = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", key)
    key = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{3 - int(m[1])}.block.{m[2]}", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample", key)
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    for ours, theirs in (("mid_block.attentions.0", "mid.attn_1"), ("group_norm", "norm"), ("to_out.0", "proj_out"), ("to_q", "q"),
                         ("to_k", "k"), ("to_v", "v"), ("conv_shortcut", "nin_shortcut"), ("conv_norm_out", "norm_out")):  # fmt: skip
        key = key.replace(ours, theirs)
    return f"first_stage_model.{key}"


def write_single_file(family, path):
    tensors = {unet_key(key): value for key, value in family.denoiser.state_dict().items()}
    for key, value in family.vae.state_dict().items():
        is_attention = "attentions" in key and value.dim() == 2
        tensors[vae_key(key)] = value[..., None, None] if is_attention else value
    for key, value in family.encoder("text_encoder").state_dict().items():
        tensors[f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}"] = value
    save_file({key: value.contiguous().half() for key, value in tensors.items()}, path)


@pytest.fixture
def single_file(load_tiny, tmp_path):
    write_single_file(load_tiny("sd15"), tmp_path / "tiny.safetensors")
    return Source(str(tmp_path / "tiny.safetensors"), True, configs=str(tmp_path / "configs"))


def test_every_part_is_the_same_as_in_the_folder(single_file, load_tiny):
    found, wanted = TinySD15(single_file, "cpu", torch.float32, Train()), load_tiny("sd15")
    for ours, theirs in ((found.denoiser, wanted.denoiser), (found.vae, wanted.vae), (found.encoder("text_encoder"), wanted.encoder("text_encoder"))):
        ours, theirs = ours.state_dict(), theirs.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.allclose(ours[key], theirs[key], atol=1e-3) for key in theirs)  # the file is fp16
    assert torch.equal(found.tokens("tokenizer", "zwx mug"), wanted.tokens("tokenizer", "zwx mug"))
    assert torch.allclose(found.noise.schedule.alphas_cumprod, wanted.noise.schedule.alphas_cumprod)


def test_a_file_that_lacks_a_part_is_refused(tmp_path):
    save_file({"model.diffusion_model.x": torch.zeros(1)}, tmp_path / "unet.safetensors")
    with pytest.raises(LorakitError, match="has no VAE in it"):
        TinySD15(Source(str(tmp_path / "unet.safetensors"), True, configs=str(tmp_path / "c")), "cpu", torch.float32, Train())


@pytest.mark.parametrize(
    ("family", "keys", "line"),
    [
        ("sd15", ["model.diffusion_model.double_blocks.0.img_attn.qkv.weight"], "is FLUX.1, which this base is not; choose --base flux1-dev"),
        ("sdxl", ["model.diffusion_model.x", "cond_stage_model.transformer.text_model.y"], "is Stable Diffusion 1, which this base is not; choose --base sd15"),
        ("sd15", ["cond_stage_model.model.transformer.x"], "is Stable Diffusion 2, of which single files are not read"),
        ("sd3", ["model.diffusion_model.joint_blocks.0.x", "first_stage_model.x", "text_encoders.clip_l.x"],
         "has transformer, VAE, CLIP L, and lacks CLIP G, T5; single files are read for SD1.x and SDXL"),
        ("flux1", ["double_blocks.0.img_attn.qkv.weight"], "has transformer, and lacks VAE, CLIP L, T5; single files are read"),
        ("flux1", ["x"], "has no part that is known, and lacks transformer, VAE"),
    ],
)  # fmt: skip
def test_a_file_of_another_base_or_without_a_part_is_named_in_one_line(tmp_path, family, keys, line):
    save_file({key: torch.zeros(1) for key in keys}, tmp_path / "some.safetensors")
    source = Source(str(tmp_path / "some.safetensors"), True, configs=str(tmp_path / "configs"))
    with pytest.raises(LorakitError, match=line) as error:
        lookup.load(lookup.FAMILIES, family).CLASS(source, "cpu", torch.float32, Train())
    assert "\n" not in str(error.value) and not (tmp_path / "configs").exists()


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("sd15", {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}),
        ("sdxl", {"unet": 2_567_463_684, "vae": 83_653_863, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840}),
    ],
)
def test_configurations_are_those_of_the_real_bases(tmp_path, name, counts):
    from diffusers import AutoencoderKL

    family = lookup.load(lookup.FAMILIES, name).CLASS
    write_configs(family, tmp_path)
    classes = {"unet": family.DENOISER, "vae": AutoencoderKL, **family.ENCODERS}
    for part, count in counts.items():
        with torch.device("meta"):
            if part in family.ENCODERS:
                model = classes[part](classes[part].config_class.from_pretrained(tmp_path / part))
            else:
                model = classes[part].from_config(classes[part].load_config(tmp_path, subfolder=part))
        assert sum(p.numel() for p in model.parameters()) == count
