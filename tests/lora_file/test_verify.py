"""What each tool loads: judged on small key lists in the formats that are found in the wild."""

import pytest
import torch

from lorakit.bases import families
from lorakit.errors import LorakitError
from lorakit.lora_file import names, tools
from lorakit.lora_file.verify import TOOLS, base_in_words, in_words, judge, judge_file

SD15 = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
SDXL = "lora_unet_input_blocks_7_1_transformer_blocks_9_attn1_to_q"
FLUX = "transformer.transformer_blocks.0.attn.to_q"
FLUX_BFL = "double_blocks.0.img_attn.qkv"
ZIMAGE = "layers.29.attention"
KLEIN = "single_transformer_blocks.0.attn"
KREA = "blocks.27.attn"
SD3_BFL = "lora_unet_joint_blocks_0_x_block_attn_qkv"


WIDE = {  # (outputs, inputs) of the real layers, by the end of their names; all others are 320 wide
    "mlp_fc1": (3072, 768), "ff.net.2": (320, 1280), "resnets.0.conv1": (1280, 1280), "layers_31_self_attn_out_proj": (1280, 1280),
    "blocks_9_attn1_to_q": (1280, 1280), "mid_block_attentions_0_proj_in": (1280, 1280), "img_attn.qkv": (9216, 3072),
    "img_attn_qkv": (9216, 3072), "attn_to_k": (3072, 3072), "transformer_blocks.0.attn.to_q": (3072, 3072), "transformer_blocks_0_attn_to_q": (3072, 3072),
    "attn2.to_q": (1536, 1536), "x_block_attn_qkv": (4608, 1536), "attn.to_k": (3072, 3072),
    "single_transformer_blocks.0.attn.to_out": (3072, 12288), "single_blocks.0.linear2": (3072, 12288), "single_blocks_0_linear2": (3072, 12288),
    "attn.to_qkv_mlp_proj": (27648, 3072), "attn_to_qkv_mlp_proj": (27648, 3072), "single_stream_modulation.linear": (9216, 3072),
    "single_stream_modulation.lin": (9216, 3072),
    "attn.wk": (1536, 6144), "attn_wk": (1536, 6144), "mlp.up": (16384, 6144),
    "attention.to_q": (3840, 3840), "attention_to_q": (3840, 3840), "attention_qkv": (11520, 3840), "attention.qkv": (11520, 3840),
}  # fmt: skip


def factors(stems, down, up, alpha, size=None):
    keys = {}
    for stem in stems:
        out, into = size or next((wide for end, wide in WIDE.items() if stem.endswith(end)), (320, 320))
        keys |= {f"{stem}.{down}": (4, into), f"{stem}.{up}": (out, 4)} | ({f"{stem}.alpha": ()} if alpha else {})
    return keys


def kohya(*stems, alpha=True, size=None):
    return factors(stems, "lora_down.weight", "lora_up.weight", alpha, size)


def peft(*stems, alpha=False, size=None):
    return factors(stems, "lora_A.weight", "lora_B.weight", alpha, size)


def whole(shapes):
    """(family, the tools that load all of it)."""
    family, judgements = judge(shapes)
    return family, {judgement.tool for judgement in judgements if judgement.is_whole}


@pytest.mark.parametrize(
    ("keys", "family", "tools"),
    [
        (kohya(SD15), "sd15", set(TOOLS)),
        (kohya(SD15, "lora_te_text_model_encoder_layers_0_mlp_fc1"), "sd15", set(TOOLS)),
        (kohya(SD15, alpha=False), "sd15", set(TOOLS)),
        (kohya(SDXL), "sdxl", set(TOOLS)),
        (kohya(SDXL, "lora_te2_text_model_encoder_layers_31_self_attn_out_proj"), "sdxl", set(TOOLS)),
        (peft("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"), "sd15", {"diffusers"}),
        (peft("unet.down_blocks.0.attentions.0.transformer_blocks.0.ff.net.2", "unet.mid_block.resnets.0.conv1"), "sd15",
         {"comfyui", "forge", "diffusers"}),
        ({f"unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.{part}.weight": shape
          for part, shape in (("up", (1280, 4)), ("down", (4, 1280)))}, "sd15",
         {"comfyui", "forge", "diffusers"}),
        (peft(FLUX), "flux1", {"comfyui", "forge", "diffusers"}),
        (peft(FLUX, alpha=True), "flux1", {"comfyui", "forge", "diffusers"}),
        (peft(f"diffusion_model.{FLUX_BFL}"), "flux1", {"comfyui", "forge"}),
        (peft("base_model.model.single_transformer_blocks.0.attn.to_k"), "flux1", set()),
        (kohya(f"lora_unet_{FLUX_BFL.replace('.', '_')}"), "flux1", {"comfyui", "forge", "diffusers"}),
        (kohya("lora_transformer_transformer_blocks_0_attn_to_q"), "flux1", {"comfyui", "forge", "diffusers"}),
        ({f"diffusion_model.{FLUX_BFL}.lokr_w1": (96, 32), f"diffusion_model.{FLUX_BFL}.lokr_w2": (96, 96)}, "flux1", {"comfyui", "forge"}),
        ({"double_blocks.0.processor.qkv_lora1.down.weight": (4, 32)}, "flux1", {"diffusers"}),
        ({"double_blocks.0.img_attn.norm.query_norm.scale": (8,), "img_in.lora_B.bias": (8,)}, "flux1", {"comfyui", "diffusers"}),
        (peft("transformer.transformer_blocks.0.attn2.to_q"), "sd3", {"comfyui", "diffusers"}),
        (peft("transformer.transformer_blocks.0.attn2.to_q", alpha=True), "sd3", {"comfyui"}),
        (kohya(SD3_BFL), "sd3", {"comfyui"}),
        (peft(f"transformer.{ZIMAGE}.to_q"), "z_image", {"comfyui", "diffusers"}),
        (peft(f"transformer.{ZIMAGE}.to_q", alpha=True), "z_image", {"comfyui"}),
        (peft(f"diffusion_model.{ZIMAGE}.to_q"), "z_image", {"comfyui", "diffusers"}),
        (peft(f"diffusion_model.{ZIMAGE}.to_q", alpha=True), "z_image", {"comfyui", "diffusers"}),
        (peft(f"diffusion_model.{ZIMAGE}.qkv"), "z_image", {"comfyui"}),
        (kohya("lora_unet_layers_29_attention_qkv"), "z_image", {"comfyui", "diffusers"}),
        (kohya("lora_unet_layers_29_attention_to_q"), "z_image", {"diffusers"}),
        (peft(f"transformer.{KLEIN}.to_out"), "flux2", {"comfyui", "diffusers"}),
        (peft(f"transformer.{KLEIN}.to_out", alpha=True), "flux2", {"comfyui"}),
        (peft(f"diffusion_model.{KLEIN}.to_out"), "flux2", {"diffusers"}),
        (peft("diffusion_model.single_blocks.0.linear2"), "flux2", {"comfyui", "diffusers"}),
        (peft("diffusion_model.single_blocks.0.linear2", alpha=True), "flux2", {"comfyui"}),
        (kohya("lora_unet_single_blocks_0_linear2"), "flux2", {"comfyui", "diffusers"}),
        (kohya(f"lycoris_{KLEIN.replace('.', '_')}_to_qkv_mlp_proj"), "flux2", {"comfyui"}),
        (peft(f"transformer.{KLEIN}.to_qkv_mlp_proj", "transformer.single_stream_modulation.linear"), "flux2", {"diffusers"}),
        (peft("diffusion_model.single_blocks.0.linear2", "diffusion_model.single_stream_modulation.lin"), "flux2", {"comfyui", "diffusers"}),
        (peft("transformer.transformer_blocks.27.attn.to_k", size=(1536, 6144)), "krea2", {"comfyui", "diffusers"}),
        (peft("transformer.transformer_blocks.27.attn.to_k", alpha=True, size=(1536, 6144)), "krea2", {"comfyui"}),
        (peft(f"diffusion_model.{KREA}.wk", "diffusion_model.blocks.0.mlp.up"), "krea2", {"comfyui", "diffusers"}),
        (peft(f"base_model.model.{KREA}.wk"), "krea2", {"diffusers"}),
        (peft(f"diffusion_model.{KREA}.wk", alpha=True), "krea2", {"comfyui"}),
        (kohya("lora_unet_blocks_27_attn_wk"), "krea2", {"comfyui"}),
        (peft("diffusion_model.blocks.0.self_attn.k_proj", size=(2048, 2048)), "anima", {"comfyui", "diffusers"}),
        (peft("diffusion_model.blocks.0.self_attn.k_proj", size=(2048, 2048), alpha=True), "anima", {"comfyui"}),
        (kohya("lora_unet_blocks_0_cross_attn_k_proj", size=(2048, 1024)), "anima", {"comfyui"}),
        (peft("transformer.transformer_blocks.0.attn1.to_k", size=(2048, 2048)), "anima", {"diffusers"}),
        (peft("transformer_blocks.0.attn.to_k"), "qwen_image", {"comfyui"}),
        (kohya("transformer_blocks.0.attn.to_k"), "qwen_image", {"comfyui", "diffusers"}),
        (peft("transformer.transformer_blocks.59.attn.to_k"), "qwen_image", {"comfyui", "diffusers"}),
        (peft("transformer.transformer_blocks.59.attn.to_k", alpha=True), "qwen_image", {"comfyui"}),
        (peft("diffusion_model.transformer_blocks.59.attn.to_k", alpha=True), "qwen_image", {"comfyui", "diffusers"}),
        (kohya("lora_unet_transformer_blocks_59_attn_to_k"), "qwen_image", {"comfyui", "diffusers"}),
        ({f"lora_unet_transformer_blocks_0_attn_to_k.{part}": shape for part, shape in (("lokr_w1", (3072, 16)), ("lokr_w2", (1, 192)))},
         "qwen_image", {"comfyui"}),
        (kohya(SD15.replace("lora_unet_", "lora_unet_unet_")), None, set()),
    ],
)  # fmt: skip
def test_who_loads_all_of_it(keys, family, tools):
    assert whole(keys) == (family, tools)


def judgement_of(tool, shapes, **options):
    return judge(shapes, (tool,), **options)[1][0]


def of_flux2(width=6144):
    """Its double blocks are called as FLUX.1's."""
    stems = [f"transformer.transformer_blocks.{n}.attn.{part}" for n in range(8) for part in ("to_q", "to_k", "to_v", "add_q_proj")]
    return peft(*stems, size=(width, width))


def test_what_two_bases_have_alike_is_the_one_s_that_the_header_names(tmp_path):
    from safetensors.torch import save_file

    tensors = {
        key: torch.zeros(shape)
        for key, shape in peft(*(f"transformer.transformer_blocks.{n}.attn.to_q" for n in range(5)), size=(3072, 3072)).items()
    }
    for about, family in (
        ({}, "flux1"),
        ({"modelspec.architecture": "Flux.2-klein-4b/lora"}, "flux2"),
        ({"ss_base_model_version": "flux1"}, "flux1"),
    ):
        save_file(tensors, tmp_path / "x.safetensors", about)
        assert judge_file(tmp_path / "x.safetensors", ("comfyui",))[0] == family
    small = {key: torch.zeros(shape) for key, shape in peft(FLUX, size=(32, 32)).items()}  # of a tiny base, which may be any of them
    for said, family in (("Flux.2-dev/lora", "flux2_dev"), ("flux-2-klein-9b/lora", "flux2"), ("flux-1-dev/lora", "flux1")):
        save_file(small, tmp_path / "x.safetensors", {"modelspec.architecture": said})
        assert judge_file(tmp_path / "x.safetensors", ("comfyui",))[0] == family


def of_qwen():
    """As wide as FLUX.1, and its attention is called the same, but there are three times as many blocks."""
    stems = [f"transformer.transformer_blocks.{n}.attn.{part}" for n in range(60) for part in ("to_q", "to_k", "to_v", "to_out.0")]
    return peft(*stems, size=(3072, 3072))


def of_klein():
    stems = peft(*(f"diffusion_model.double_blocks.{n}.img_attn.qkv" for n in range(5)), size=(9216, 3072))
    return stems | peft(*(f"diffusion_model.single_blocks.{n}.linear1" for n in range(20)), size=(27648, 3072))


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (of_flux2(), "flux2_dev"),
        (of_flux2(4096), "flux2"),
        (
            kohya("lora_unet_double_blocks_0_img_attn_qkv", "lora_unet_distilled_guidance_layer_x"),
            "none that lorakit knows (looks like Chroma)",
        ),
        (of_qwen(), "qwen_image"),
        (of_klein(), "flux2"),
        (kohya("lora_unet_blocks_0_cross_attn_k"), "none that lorakit knows (looks like Wan)"),
        (kohya(SD15.replace("lora_unet_", "lora_unet_unet_")), "none that lorakit knows"),
        (kohya(SD15.replace("attn1_to_q", "attn2_to_k"), size=(320, 768)), "sd15 (Stable Diffusion 1)"),
        (kohya(SD15.replace("attn1_to_q", "attn2_to_k"), size=(320, 1024)), "sd15 (Stable Diffusion 2)"),
        (kohya(SDXL), "sdxl"),
        (peft("transformer.transformer_blocks.37.attn.to_q", size=(2432, 2432)), "sd3"),
        (peft(FLUX, size=(32, 32)), "flux1"),  # of a tiny base
        (kohya("lora_te_text_model_encoder_layers_22_mlp_fc1"), "sd15"),  # Stable Diffusion 2 reads 23 layers
    ],
)
def test_a_base_is_told_by_names_and_widths(shapes, words):
    family, judgements = judge(shapes)
    assert base_in_words(family, shapes) == words
    if family is None:
        assert not any(judgement.is_whole or judgement.loaded for judgement in judgements)
        assert all("not judged: " in line for judgement in judgements for line in in_words(judgement))


def test_whatever_a_tool_knows_tells_the_family():
    for family in families.names():
        known = names.layers_by_stem(family).keys()
        assert tools.comfyui_stems(family) | tools.dotted(family) <= known, family


def test_a_doubled_prefix_is_called_so():
    found = judgement_of("comfyui", kohya(SD15.replace("lora_unet_", "lora_unet_unet_")))
    assert not found.loaded and set(found.skipped.values()) == {"the prefix stands twice, which no tool reads"}


def test_keys_besides_are_named_and_forge_throws_more_than_twelve_away():
    few = kohya(SD15) | {f"text_projection_{n}.weight": (4,) for n in range(3)}
    assert len(judgement_of("forge", few).skipped) == 3 and len(judgement_of("forge", few).loaded) == 3
    many = kohya(SD15) | {f"text_projection_{n}.weight": (4,) for n in range(13)}
    assert not judgement_of("forge", many).loaded and len(judgement_of("comfyui", many).loaded) == 3


def test_peft_s_alpha_in_the_header_alone_is_a_wrong_strength():
    for alpha, factor in ((4.0, None), (2.0, 2.0)):
        found = judgement_of("comfyui", peft(FLUX), peft_alpha=alpha)
        assert found.wrong_scale == ({} if factor is None else {FLUX: factor})
    assert not judgement_of("diffusers", peft(FLUX), peft_alpha=2.0).wrong_scale


def test_half_a_layer_and_ranks_that_differ_are_named():
    half = {key: shape for key, shape in kohya(SD15).items() if "up" not in key}
    assert "lora_up.weight is missing" in judgement_of("comfyui", half).skipped[f"{SD15}.lora_down.weight"]
    odd = {**kohya(SD15), f"{SD15}.lora_up.weight": (320, 8)}
    assert "differ" in judgement_of("a1111", odd).skipped[f"{SD15}.lora_up.weight"]


def test_dora_is_whole_in_comfyui_and_not_in_diffusers():
    keys = kohya(SD15) | {f"{SD15}.dora_scale": (32, 1)}
    assert judgement_of("comfyui", keys).is_whole
    assert list(judgement_of("diffusers", keys).skipped) == [f"{SD15}.dora_scale"]


def test_what_is_no_safetensors_or_no_tool_is_refused(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"no header")
    with pytest.raises(LorakitError, match="cannot be read as .safetensors"):
        judge_file(tmp_path / "x.safetensors")
    with pytest.raises(LorakitError, match="did you mean 'comfyui'"):
        judge(kohya(SD15), ("comfy",))


def test_alphas_that_diffusers_reads_for_no_attention_are_a_wrong_strength():
    """As it is: diffusers loads such a file, and its own layers are held against the file's."""
    other = SD15.replace("attn1", "attn2")
    keys = kohya(SD15, other, "lora_unet_mid_block_attentions_0_proj_in")
    alphas = dict.fromkeys((other, "lora_unet_mid_block_attentions_0_proj_in"), 2.0) | {SD15: 1.0}
    assert judgement_of("diffusers", keys, alphas=alphas).wrong_scale == {SD15: 2.0}
    assert judgement_of("comfyui", keys, alphas=alphas).is_whole
    assert judgement_of("diffusers", keys, alphas=dict.fromkeys(alphas, 2.0)).is_whole


def test_diffusers_refuses_a_file_with_factors_whole():
    """`load_lora_weights` raises where a key is no LoRA's."""
    keys = kohya(SD15) | {f"lora_unet_mid_block_attentions_0_proj_in.{name}": (4, 4) for name in ("lokr_w1", "lokr_w2")}
    assert not judgement_of("diffusers", keys).loaded and judgement_of("comfyui", keys).is_whole
    dotted = {f"{FLUX}.hada_{part}": (4, 4) for part in ("w1_a", "w1_b", "w2_a", "w2_b")} | {f"{FLUX}.alpha": ()}
    assert not judgement_of("diffusers", dotted).loaded and judgement_of("comfyui", dotted).is_whole
