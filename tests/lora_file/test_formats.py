"""LoRA files in every format: nothing is lost on the way there and back, and diffusers loads what was trained."""

import json

import pytest
import torch

from lorakit import lookup
from lorakit.errors import LorakitError
from lorakit.lora_file import formats
from lorakit.lora_file.formats import LoraLayer
from lorakit.settings import Train
from lorakit.train import lora

FAMILIES = ("sd15", "sdxl", "sd3", "flux1", "chroma1", "z_image", "flux2", "flux2_dev", "krea2", "qwen_image", "anima")


def trained_network(family, settings):
    """A network as after training: every layer of the targets with random factors."""
    parameters = lora.add_lora(family, settings)
    with torch.no_grad():
        for parameter in parameters:
            parameter.normal_(std=0.1)
    return formats.from_adapter(lora.read_lora(family))


def assert_same_change(found, wanted):
    assert found.keys() == wanted.keys()
    for name, delta in wanted.items():
        assert torch.allclose(found[name].change(), delta.change(), rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize("targets", ["attention", "mlp", "conv"])
@pytest.mark.parametrize("format", formats.FORMATS)
@pytest.mark.parametrize("name", FAMILIES)
def test_nothing_is_lost_there_and_back(load_tiny, name, format, targets):
    network = trained_network(load_tiny(name), Train(rank=4, alpha=3, targets=targets, exclude="norm1_context"))
    tensors = formats.write(network, name, format, torch.float32)
    assert_same_change(formats.read(tensors, name), network)


@pytest.mark.parametrize(
    ("name", "format", "adapter"),
    [("sd15", "kohya", "lora"), ("sd15", "diffusers", "dora"),
     pytest.param("sdxl", "kohya", "lora", marks=pytest.mark.slow), pytest.param("sdxl", "diffusers", "lora", marks=pytest.mark.slow),
     ("sd3", "diffusers", "lora"), ("flux1", "diffusers", "lora"), ("flux1", "diffusers", "dora"), ("chroma1", "diffusers", "lora"),
     ("z_image", "diffusers", "lora"), ("z_image", "kohya", "lora"),
     ("flux2", "diffusers", "lora"), ("flux2", "kohya", "lora"), ("flux2", "diffusers", "dora"), ("flux2_dev", "diffusers", "lora"), ("krea2", "diffusers", "lora"),
     ("qwen_image", "diffusers", "lora"), ("qwen_image", "kohya", "lora"), ("anima", "diffusers", "lora")],
)  # fmt: skip
@pytest.mark.slow
def test_diffusers_loads_every_layer_as_it_was_trained(load_tiny, tmp_path, name, format, adapter):
    from safetensors.torch import save_file

    from lorakit.train.export import load_in_diffusers

    network = trained_network(load_tiny(name), Train(rank=4, alpha=2, targets="conv", adapter=adapter))
    path = tmp_path / "lora.safetensors"
    tensors = formats.write(network, name, format, torch.float32)
    save_file(tensors, path)
    load_in_diffusers(path, network, load_tiny(name))
    key = next(key for key in tensors if key.endswith(("lora_up.weight", "lora_B.weight")))
    save_file({**tensors, key: 2 * tensors[key]}, path)
    with pytest.raises(LorakitError, match="differs from the trained one"):
        load_in_diffusers(path, network, load_tiny(name))


def test_sdxl_is_written_under_its_original_names(load_tiny):
    tensors = formats.write(trained_network(load_tiny("sdxl"), Train(rank=2, targets="conv")), "sdxl", "kohya", torch.float16)
    stems = {key.split(".")[0] for key in tensors}
    for wanted in ("input_blocks_4_1_transformer_blocks_0_attn1_to_q", "middle_block_1_proj_in", "output_blocks_2_1_proj_out",
                   "output_blocks_2_2_conv", "input_blocks_3_0_op", "input_blocks_4_0_in_layers_2", "output_blocks_8_0_skip_connection"):  # fmt: skip
        assert f"lora_unet_{wanted}" in stems
    assert not any("down_blocks" in stem or "up_blocks" in stem for stem in stems)


def test_flux_in_kohya_form_is_fused_and_its_rank_is_the_sum(load_tiny):
    network = trained_network(load_tiny("flux1"), Train(rank=4, alpha=2, targets="mlp"))
    tensors = formats.write(network, "flux1", "kohya", torch.float32)
    stem = "lora_unet_single_blocks_0_linear1"
    assert tensors[f"{stem}.lora_down.weight"].shape == (16, 32) and tensors[f"{stem}.lora_up.weight"].shape == (7 * 32, 16)
    assert tensors[f"{stem}.alpha"] == 8
    whole = LoraLayer(tensors[f"{stem}.lora_down.weight"], tensors[f"{stem}.lora_up.weight"], 8.0).change()
    parts = [network[f"transformer.single_transformer_blocks.0.{part}"] for part in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")]
    assert torch.allclose(whole, torch.cat([part.change() for part in parts]), atol=1e-6)


@pytest.mark.slow
def test_diffusers_splits_the_fused_layers_of_flux_as_they_were_trained():
    """At FLUX's own widths, which diffusers' converter takes for granted."""
    from diffusers import FluxPipeline

    generator = torch.Generator().manual_seed(0)
    single, double = "transformer.single_transformer_blocks.0", "transformer.transformer_blocks.0"
    heights = {f"{single}.attn.to_q": 3072, f"{single}.attn.to_k": 3072, f"{single}.attn.to_v": 3072, f"{single}.proj_mlp": 12288,
               f"{double}.attn.add_q_proj": 3072, f"{double}.attn.add_k_proj": 3072, f"{double}.attn.add_v_proj": 3072}  # fmt: skip
    network = {
        path: LoraLayer(torch.randn(2, 3072, generator=generator), torch.randn(height, 2, generator=generator), 1.0)
        for path, height in heights.items()
    }
    found = FluxPipeline.lora_state_dict(formats.write(network, "flux1", "kohya", torch.float32))
    for path, delta in network.items():
        change = found[f"{path}.lora_B.weight"] @ found[f"{path}.lora_A.weight"]
        assert torch.allclose(change, delta.change(), atol=1e-5), path


def test_text_encoder_keys_have_canonical_names():
    delta = LoraLayer(torch.rand(2, 8), torch.rand(8, 2), 2.0)
    for family, encoder, stem in (
        ("sd15", "text_encoder", "lora_te"),
        ("sdxl", "text_encoder_2", "lora_te2"),
        ("flux1", "text_encoder", "lora_te1"),
    ):
        path = f"{encoder}.text_model.encoder.layers.3.self_attn.q_proj"
        tensors = formats.write({path: delta}, family, "kohya", torch.float32)
        assert set(tensors) == {
            f"{stem}_text_model_encoder_layers_3_self_attn_q_proj.{part}" for part in ("lora_down.weight", "lora_up.weight", "alpha")
        }
        assert_same_change(formats.read(tensors, family), {path: delta})


def test_dora_scale_is_kept():
    path = "unet.mid_block.attentions.0.proj_in"
    network = {path: LoraLayer(torch.rand(2, 8, 1, 1), torch.rand(8, 2, 1, 1), 2.0, torch.rand(8))}
    tensors = formats.write(network, "sd15", "kohya", torch.float32)
    assert tensors["lora_unet_mid_block_attentions_0_proj_in.dora_scale"].shape == (8, 1, 1, 1)
    assert torch.equal(formats.read(tensors, "sd15")[path].magnitude, network[path].magnitude)


def test_a_key_that_no_layer_has_is_named():
    with pytest.raises(LorakitError, match="lora_unet_nothing.alpha: no layer of sd15"):
        formats.read({"lora_unet_nothing.alpha": torch.tensor(1.0)}, "sd15")


@pytest.mark.parametrize(
    ("family", "counts"),
    [
        ("sd15", [128, 160, 192, 278]),
        ("sdxl", [560, 700, 722, 788]),
        ("sd3", [243, 337, 385, 385]),
        ("flux1", [266, 418, 494, 494]),
        ("chroma1", [266, 418, 418, 418]),
        ("z_image", [120, 210, 210, 210]),
        ("flux2", [80, 100, 100, 100]),
        ("flux2_dev", [160, 192, 192, 192]),
        ("krea2", [160, 256, 264, 264]),
        ("qwen_image", [480, 720, 720, 720]),
        ("anima", [224, 280, 448, 448]),
    ],
)
def test_layers_of_the_full_size_base(family, counts):
    """On the meta device; SDXL's 722 and SD1.5's 192 are what sd-scripts trains."""
    from torch import nn

    cls = lookup.load(lookup.FAMILIES, family).CLASS
    with torch.device("meta"):
        model: nn.Module = cls.DENOISER(**cls.CONFIG)
    assert [len(lora.find_targets(model, cls.TARGETS, Train(targets=level), cls.NOT_TARGETS)) for level in cls.TARGETS] == counts


def test_without_alphas_all_layers_of_a_part_have_one_rank():
    """Until #14409 diffusers took one rank for every layer's alpha where a file has none; held on 0.35.1."""
    generator = torch.Generator().manual_seed(0)
    sizes = {"transformer.transformer_blocks.0.attn.to_q": 4, "transformer.transformer_blocks.0.attn.to_k": 6,
             "text_encoder.text_model.encoder.layers.0.mlp.fc1": 2}  # fmt: skip
    network = {
        path: LoraLayer(torch.randn(r, 8, generator=generator), torch.randn(8, r, generator=generator), 3.0) for path, r in sizes.items()
    }
    tensors = formats.write(network, "sd3", "diffusers", torch.float32)
    assert [tensors[f"{path}.lora_A.weight"].shape[0] for path in network] == [6, 6, 2]
    assert_same_change(formats.read(tensors, "sd3"), network)
    assert (
        formats.write(network, "flux1", "diffusers", torch.float32)["transformer.transformer_blocks.0.attn.to_q.lora_A.weight"].shape[0]
        == 4
    )


UNET = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
FLUX = "transformer_blocks.0.attn"
KREA = {"transformer.transformer_blocks.2.attn.to_q": "blocks.2.attn.wq", "transformer.text_fusion.refiner_blocks.0.ff.up":
        "txtfusion.refiner_blocks.0.mlp.up", "transformer.time_embed.linear_2": "tmlp.2", "transformer.txt_in.linear_1": "txtmlp.1",
        "transformer.final_layer.linear": "last.linear", "transformer.transformer_blocks.0.attn.to_gate": "blocks.0.attn.gate"}  # fmt: skip
QWEN = tuple(
    f"transformer_blocks.2.{part}" for part in ("attn.to_q", "attn.to_out.0", "attn.add_k_proj", "img_mlp.net.0.proj", "txt_mlp.net.2")
)
ANIMA = {"transformer.transformer_blocks.2.attn1.to_q": "blocks.2.self_attn.q_proj", "transformer.transformer_blocks.0.ff.net.2": "blocks.0.mlp.layer2",
         "transformer.transformer_blocks.1.attn2.to_out.0": "blocks.1.cross_attn.output_proj",
         "transformer.transformer_blocks.0.norm2.linear_1": "blocks.0.adaln_modulation_cross_attn.1"}  # fmt: skip
ZIMAGE, ZPARTS = "layers.0", ("attention.to_q", "attention.to_out.0", "feed_forward.w1")
KLEIN = {
    "transformer_blocks.0.attn.to_out.0": "double_blocks.0.img_attn.proj", "transformer_blocks.1.ff_context.linear_in": "double_blocks.1.txt_mlp.0",
    "single_transformer_blocks.2.attn.to_qkv_mlp_proj": "single_blocks.2.linear1",
    "double_stream_modulation_img.linear": "double_stream_modulation_img.lin",
}  # fmt: skip
CLIP = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
PEFT, KOHYA, OLD_PAIR = ("lora_A", "lora_B"), ("lora_down", "lora_up"), ("lora.down", "lora.up")
FORMS = {  # as they are found: family, {layer: how the file names it}, the two factors, whether with alphas
    "peft": ("sd15", {f"unet.{UNET}.to_q": f"unet.{UNET}.to_q"}, PEFT, False),
    "peft with alphas": ("sd15", {f"unet.{UNET}.to_q": f"unet.{UNET}.to_q"}, PEFT, True),
    "peft, bare": ("sd15", {f"unet.{UNET}.to_q": f"{UNET}.to_q"}, PEFT, False),
    "peft's model": ("sd15", {f"unet.{UNET}.to_q": f"base_model.model.{UNET}.to_q"}, PEFT, False),
    "peft's adapter": ("sd15", {f"unet.{UNET}.to_q": f"unet.{UNET}.to_q"}, ("lora_A.default", "lora_B.default"), False),
    "before peft": ("sd15", {f"unet.{UNET}.to_q": f"unet.{UNET}.to_q", f"unet.{UNET}.to_out.0": f"unet.{UNET}.to_out.0"}, OLD_PAIR, False),
    "processors": ("sd15", {f"unet.{UNET}.to_q": f"unet.{UNET}.processor.to_q_lora", f"unet.{UNET}.to_out.0": f"unet.{UNET}.processor.to_out_lora"},
                   ("down", "up"), False),
    "text before peft": ("sd15", {CLIP: CLIP}, ("lora_linear_layer.down", "lora_linear_layer.up"), False),
    "text as the U-Net": ("sd15", {CLIP: CLIP}, OLD_PAIR, False),
    "kohya": ("sd15", {f"unet.{UNET}.to_q": f"lora_unet_{UNET}.to_q".replace(".", "_")}, KOHYA, True),
    "kohya, original": ("sd15", {f"unet.{UNET}.to_q": "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q"}, KOHYA, True),
    "FLUX, peft": ("flux1", {f"transformer.{FLUX}.to_q": f"transformer.{FLUX}.to_q"}, PEFT, True),
    "FLUX, before peft": ("flux1", {f"transformer.{FLUX}.to_q": f"transformer.{FLUX}.to_q"}, OLD_PAIR, False),
    "FLUX, peft's adapter": ("flux1", {f"transformer.{FLUX}.to_q": f"transformer.{FLUX}.to_q"}, ("lora_A.default", "lora_B.default"), False),
    "FLUX, OneTrainer": ("flux1", {f"transformer.{FLUX}.to_q": f"lora_transformer_{FLUX}.to_q".replace(".", "_")}, KOHYA, True),
    "FLUX, kohya": ("flux1", {f"transformer.{FLUX}.to_out.0": "lora_unet_double_blocks_0_img_attn_proj"}, KOHYA, True),
    "SDXL, OMI": ("sdxl", {"unet.down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q": "unet.input_blocks.4.1.transformer_blocks.1.attn1.to_q"},
                  KOHYA, True),
    "FLUX, OMI": ("flux1", {f"transformer.{FLUX}.to_k": "transformer.double_blocks.0.img_attn.qkv.1", CLIP: CLIP.replace("text_encoder", "clip_l")},
                  KOHYA, True),
    "FLUX, peft's model": ("flux1", {f"transformer.{FLUX}.to_q": f"base_model.model.{FLUX}.to_q"}, PEFT, False),
    "SD3, peft": ("sd3", {f"transformer.{FLUX}.to_q": f"transformer.{FLUX}.to_q", f"transformer.{FLUX}2.to_q": f"transformer.{FLUX}2.to_q"},
                  PEFT, False),
    "Z-Image, peft": ("z_image", {f"transformer.{ZIMAGE}.attention.to_q": f"transformer.{ZIMAGE}.attention.to_q"}, PEFT, False),
    "Z-Image, peft with alphas": ("z_image", {f"transformer.{ZIMAGE}.attention.to_q": f"transformer.{ZIMAGE}.attention.to_q"}, PEFT, True),
    "Z-Image, ai-toolkit": ("z_image", {f"transformer.{ZIMAGE}.{part}": f"diffusion_model.{ZIMAGE}.{part}" for part in ZPARTS}, PEFT, False),
    "Z-Image, ai-toolkit's with alphas": ("z_image", {f"transformer.{ZIMAGE}.{part}": f"diffusion_model.{ZIMAGE}.{part}" for part in ZPARTS}, PEFT, True),
    "Krea 2, peft": ("krea2", {path: path for path in KREA}, PEFT, False),
    "Krea 2, ai-toolkit": ("krea2", {path: f"diffusion_model.{name}" for path, name in KREA.items()}, PEFT, False),
    "Krea 2, ai-toolkit's older": ("krea2", {path: f"base_model.model.{name}" for path, name in KREA.items()}, PEFT, False),
    "Krea 2, kohya": ("krea2", {path: f"lora_unet_{name}".replace(".", "_") for path, name in KREA.items()}, KOHYA, True),
    "Qwen-Image, peft": ("qwen_image", {f"transformer.{path}": f"transformer.{path}" for path in QWEN}, PEFT, False),
    "Qwen-Image, peft with alphas": ("qwen_image", {f"transformer.{path}": f"transformer.{path}" for path in QWEN}, PEFT, True),
    "Qwen-Image, ai-toolkit": ("qwen_image", {f"transformer.{path}": f"diffusion_model.{path}" for path in QWEN}, PEFT, False),
    "Qwen-Image, bare with alphas": ("qwen_image", {f"transformer.{path}": path for path in QWEN}, KOHYA, True),
    "Qwen-Image, bare": ("qwen_image", {f"transformer.{path}": path for path in QWEN}, PEFT, False),
    "Qwen-Image, musubi": ("qwen_image", {f"transformer.{path}": f"lora_unet_{path}".replace(".", "_") for path in QWEN}, KOHYA, True),
    "Qwen-Image, OneTrainer": ("qwen_image", {f"transformer.{path}": f"lora_transformer_{path}".replace(".", "_") for path in QWEN}, KOHYA, True),
    "Anima, peft": ("anima", {path: path for path in ANIMA}, PEFT, False),
    "Anima, peft with alphas": ("anima", {path: path for path in ANIMA}, PEFT, True),
    "Anima, original": ("anima", {path: f"diffusion_model.{name}" for path, name in ANIMA.items()}, PEFT, False),
    "Anima, original with alphas": ("anima", {path: f"diffusion_model.{name}" for path, name in ANIMA.items()}, PEFT, True),
    "Anima, kohya": ("anima", {path: f"lora_unet_{name}".replace(".", "_") for path, name in ANIMA.items()}, KOHYA, True),
    "Z-Image, musubi": ("z_image", {f"transformer.{ZIMAGE}.{part}": f"lora_unet_{ZIMAGE}.{part}".replace(".", "_") for part in ZPARTS}, KOHYA, True),
    "FLUX.2, peft": ("flux2", {f"transformer.{path}": f"transformer.{path}" for path in KLEIN}, PEFT, False),
    "FLUX.2, peft with alphas": ("flux2", {f"transformer.{path}": f"transformer.{path}" for path in KLEIN}, PEFT, True),
    "FLUX.2, ai-toolkit": ("flux2", {f"transformer.{path}": f"diffusion_model.{name}" for path, name in KLEIN.items()}, PEFT, False),
    "FLUX.2, ai-toolkit's with alphas": ("flux2", {f"transformer.{path}": f"diffusion_model.{name}" for path, name in KLEIN.items()}, PEFT, True),
    "FLUX.2, diffusers' blocks": ("flux2", {f"transformer.{path}": f"diffusion_model.{path}" for path in tuple(KLEIN)[:3]}, PEFT, False),
    "FLUX.2, peft's model": ("flux2", {f"transformer.{path}": f"base_model.model.{name}" for path, name in KLEIN.items()}, PEFT, False),
    "FLUX.2, kohya": ("flux2", {f"transformer.{path}": f"lora_unet_{name}".replace(".", "_") for path, name in tuple(KLEIN.items())[:3]}, KOHYA, True),
    "FLUX.2, modulation": ("flux2", {"transformer.single_stream_modulation.linear": "transformer.single_stream_modulation.linear"}, PEFT, False),
    "FLUX.2, kohya's modulation": ("flux2", {"transformer.single_stream_modulation.linear": "lora_unet_single_stream_modulation_lin"}, KOHYA, True),
    "FLUX.2, lycoris": ("flux2", {f"transformer.{path}": f"lycoris_{path}".replace(".", "_") for path in tuple(KLEIN)[:3]}, KOHYA, True),
    "FLUX, ai-toolkit": ("flux1", {f"transformer.{FLUX}.to_out.0": "diffusion_model.double_blocks.0.img_attn.proj"}, PEFT, False),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_diffusers_loads_what_verify_says_that_it_loads(load_tiny, tmp_path, form):
    """The rules are held against the installed diffusers: it loads a form whole, every layer at its strength, or it does not."""
    from safetensors.torch import save_file

    from lorakit.lora_file import verify
    from lorakit.train.export import load_in_diffusers

    name, layers, (down, up), with_alpha = FORMS[form]
    family = load_tiny(name, Train(rank=2, text_encoder=True))
    modules = {lora.canonical_name(folder, path): m for folder, model in lora.models(family).items() for path, m in model.named_modules()}
    generator, tensors, network = torch.Generator().manual_seed(0), {}, {}
    for path, stem in layers.items():
        out, into = modules[path].weight.shape
        network[path] = LoraLayer(
            torch.randn(2, into, generator=generator), torch.randn(out, 2, generator=generator), 1.0 if with_alpha else 2.0
        )
        tensors |= {f"{stem}.{down}.weight": network[path].down, f"{stem}.{up}.weight": network[path].up}
        tensors |= {f"{stem}.alpha": torch.tensor(1.0)} if with_alpha else {}
    save_file(tensors, tmp_path / "form.safetensors")
    try:
        load_in_diffusers(tmp_path / "form.safetensors", network, family)
        loads = True
    except (LorakitError, ValueError, KeyError, RuntimeError, AttributeError, NotImplementedError):
        loads = False
    assert verify.judge_file(tmp_path / "form.safetensors", ("diffusers",), name)[1][0].is_whole == loads


QKV = tuple(f"transformer.{FLUX}.{part}" for part in ("to_q", "to_k", "to_v"))
SINGLE = tuple(f"transformer.single_transformer_blocks.0.{part}" for part in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"))
FUSED = {  # family, the layers that stand under one name and how high they are, that name, the two factors
    "BFL": ("flux1", dict.fromkeys(QKV, 32), "diffusion_model.double_blocks.0.img_attn.qkv", PEFT),
    "BFL, single": ("flux1", dict(zip(SINGLE, (32, 32, 32, 128), strict=True)), "diffusion_model.single_blocks.0.linear1", PEFT),
    "XLabs": ("flux1", dict.fromkeys(QKV, 32), "double_blocks.0.processor.qkv_lora1", ("down", "up")),
    "XLabs, single": ("flux1", dict.fromkeys(SINGLE[:3], 32), "single_blocks.0.processor.qkv_lora", ("down", "up")),
    "kohya, FLUX": ("flux1", dict.fromkeys(QKV, 32), "lora_unet_double_blocks_0_img_attn_qkv", KOHYA),
    "kohya, FLUX.2": ("flux2", dict.fromkeys(QKV, 32), "lora_unet_double_blocks_0_img_attn_qkv", KOHYA),
    "BFL, FLUX.2": ("flux2", {f"transformer.{FLUX}.add_{part}_proj": 32 for part in "qkv"}, "diffusion_model.double_blocks.0.txt_attn.qkv", PEFT),
    "kohya, Z-Image": ("z_image", {f"transformer.{ZIMAGE}.attention.to_{part}": 32 for part in "qkv"}, "lora_unet_layers_0_attention_qkv", KOHYA),
    "kohya, SD3": ("sd3", dict.fromkeys(QKV, 32), "lora_unet_joint_blocks_0_x_block_attn_qkv", KOHYA),
}  # fmt: skip


def fused_file(form, dtype):
    """(family, tensors, {layer: what the file changes in it}) of a file with one fused layer."""
    family, heights, stem, (down, up) = FUSED[form]
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(4, 32, generator=generator).to(dtype), torch.randn(sum(heights.values()), 4, generator=generator).to(dtype)
    parts = (second.float() @ first.float() / 4).split(list(heights.values()))
    tensors = {f"{stem}.{down}.weight": first, f"{stem}.{up}.weight": second, f"{stem}.alpha": torch.tensor([1.0], dtype=dtype)}
    return family, tensors, dict(zip(heights, parts, strict=True))


def plain_file(form, dtype):
    name, layers, (down, up), with_alpha = FORMS[form]
    generator, tensors, changes = torch.Generator().manual_seed(0), {}, {}
    for path, stem in layers.items():
        first, second = (torch.randn(shape, generator=generator).to(dtype) for shape in ((2, 32), (32, 2)))
        tensors |= {f"{stem}.{down}.weight": first, f"{stem}.{up}.weight": second}
        tensors |= {f"{stem}.alpha": torch.tensor(1.0, dtype=dtype)} if with_alpha else {}
        changes[path] = second.float() @ first.float() * (0.5 if with_alpha else 1)
    return name, tensors, changes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("form", [*FORMS, *FUSED])
def test_every_form_goes_to_every_other_and_back(tmp_path, form, dtype):
    from safetensors.torch import save_file

    from lorakit.lora_file.convert import convert, open_network

    family, tensors, changes = (fused_file if form in FUSED else plain_file)(form, dtype)
    about = {"ss_base_model_version": "flux2_klein_4b"} if family == "flux2" else None  # a tiny one may be FLUX.1's by names and widths
    save_file(tensors, tmp_path / "form.safetensors", about)
    for first, second in (("kohya", "diffusers"), ("diffusers", "kohya")):
        assert convert([tmp_path / "form.safetensors"], tmp_path / f"{first}.safetensors", first) == family
        convert([tmp_path / f"{first}.safetensors"], tmp_path / f"{first}-{second}.safetensors", second)
        for name in (first, f"{first}-{second}"):
            _, found, _, precision = open_network(tmp_path / f"{name}.safetensors")
            assert found.keys() == changes.keys() and precision == dtype
            for path, change in changes.items():
                assert (found[path].change() - change).norm() <= 3 * formats.ROUNDING[dtype] * change.norm(), path
        (tmp_path / f"{first}-{second}.safetensors").unlink()
        (tmp_path / f"{first}.safetensors").unlink()


@pytest.mark.parametrize("height", [6, 16])
def test_lokr_of_a_fused_layer_is_cut_or_kept_whole(tmp_path, height):
    """w1's rows come out even, or they do not: then kohya's form has the factors as they were, and diffusers' wants a rank."""
    from safetensors.torch import save_file

    from lorakit.lora_file.convert import convert, open_network

    generator = torch.Generator().manual_seed(0)
    stem = "diffusion_model.double_blocks.0.img_attn.qkv"
    w1, w2 = torch.randn(height, 4, generator=generator), torch.randn(96 // height, 8, generator=generator)
    save_file({f"{stem}.lokr_w1": w1, f"{stem}.lokr_w2": w2, f"{stem}.alpha": torch.tensor(1.0)}, tmp_path / "a.safetensors")
    wanted = dict(zip(QKV, torch.kron(w1, w2).split(32), strict=True))
    convert([tmp_path / "a.safetensors"], tmp_path / "b.safetensors", "kohya")
    if height == 16:
        with pytest.raises(LorakitError, match="give --rank"):
            convert([tmp_path / "a.safetensors"], tmp_path / "c.safetensors", "diffusers")
        assert torch.equal(open_network(tmp_path / "b.safetensors")[1][QKV[0]].tensors["lokr_w1"], w1)
    convert([tmp_path / "a.safetensors"], tmp_path / "c.safetensors", "diffusers", rank=32 if height == 16 else None)
    for name in "bc":
        found = open_network(tmp_path / f"{name}.safetensors")[1]
        assert found.keys() == wanted.keys()
        assert all(torch.allclose(found[path].change(), change, atol=1e-4) for path, change in wanted.items())


def test_peft_s_alpha_of_the_header_counts():
    path = f"unet.{UNET}.to_q"
    tensors = {f"{path}.lora_A.weight": torch.ones(2, 8), f"{path}.lora_B.weight": torch.ones(8, 2)}
    for about, alpha in (
        ({}, 2), ({"unet.lora_alpha": 1}, 1), ({"unet.lora_alpha": 1, "unet.alpha_pattern": {"attn1.to_q": 4}}, 4),
        ({"unet.lora_alpha": 2, "unet.use_rslora": True}, 2 * 2**0.5),
    ):  # fmt: skip
        found = formats.read(tensors, "sd15", {"lora_adapter_metadata": json.dumps(about)})
        assert found[path].alpha == pytest.approx(alpha)
