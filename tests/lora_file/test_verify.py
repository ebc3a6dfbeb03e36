"""What each tool loads: judged on small key lists in the formats that are found in the wild."""

import pytest

from lorakit.errors import LorakitError
from lorakit.lora_file.verify import TOOLS, judge, judge_file

SD15 = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
SDXL = "lora_unet_input_blocks_7_1_transformer_blocks_9_attn1_to_q"
FLUX = "transformer.transformer_blocks.0.attn.to_q"
FLUX_BFL = "double_blocks.0.img_attn.qkv"
SD3_BFL = "lora_unet_joint_blocks_0_x_block_attn_qkv"


def kohya(*stems, alpha=True):
    keys = {f"{stem}.lora_down.weight": (4, 3072) for stem in stems} | {f"{stem}.lora_up.weight": (32, 4) for stem in stems}
    return keys | ({f"{stem}.alpha": () for stem in stems} if alpha else {})


def peft(*stems, alpha=False):
    keys = {f"{stem}.lora_A.weight": (4, 3072) for stem in stems} | {f"{stem}.lora_B.weight": (32, 4) for stem in stems}
    return keys | ({f"{stem}.alpha": () for stem in stems} if alpha else {})


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
        ({f"unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.{part}.weight": (4, 1280) for part in ("up", "down")}, "sd15",
         {"comfyui", "forge"}),
        (peft(FLUX), "flux1", {"comfyui", "forge", "diffusers"}),
        (peft(FLUX, alpha=True), "flux1", {"comfyui", "forge", "diffusers"}),
        (peft(f"diffusion_model.{FLUX_BFL}"), "flux1", {"comfyui", "forge"}),
        (peft("base_model.model.single_transformer_blocks.0.attn.to_k"), "flux1", set()),
        (kohya(f"lora_unet_{FLUX_BFL.replace('.', '_')}"), "flux1", {"comfyui", "forge", "diffusers"}),
        (kohya("lora_transformer_transformer_blocks_0_attn_to_q"), "flux1", {"comfyui", "forge"}),
        ({f"diffusion_model.{FLUX_BFL}.lokr_w1": (4, 4), f"diffusion_model.{FLUX_BFL}.lokr_w2": (8, 8)}, "flux1", {"comfyui", "forge"}),
        ({"double_blocks.0.processor.qkv_lora1.down.weight": (4, 32)}, "flux1", {"diffusers"}),
        ({"double_blocks.0.img_attn.norm.query_norm.scale": (8,), "img_in.lora_B.bias": (8,)}, "flux1", {"comfyui", "diffusers"}),
        (peft("transformer.transformer_blocks.0.attn2.to_q"), "sd3", {"comfyui", "diffusers"}),
        (peft("transformer.transformer_blocks.0.attn2.to_q", alpha=True), "sd3", {"comfyui"}),
        (kohya(SD3_BFL), "sd3", {"comfyui"}),
        (kohya("lora_unet_blocks_0_cross_attn_k_proj"), None, set()),
        (peft("transformer_blocks.0.attn.to_k"), None, set()),
        (kohya(SD15.replace("lora_unet_", "lora_unet_unet_")), None, set()),
    ],
)  # fmt: skip
def test_who_loads_all_of_it(keys, family, tools):
    assert whole(keys) == (family, tools)


def judgement_of(tool, shapes, **options):
    return judge(shapes, (tool,), **options)[1][0]


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
    odd = {**kohya(SD15), f"{SD15}.lora_up.weight": (32, 8)}
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
