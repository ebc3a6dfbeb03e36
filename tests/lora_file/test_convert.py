"""Converted files change the layers as the first ones did."""

import hashlib
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from lorakit.errors import LorakitError
from lorakit.lora_file import formats, verify
from lorakit.lora_file.convert import convert, open_network
from lorakit.lora_file.formats import LoraLayer, LycorisLayer, nearest

LAYERS = {
    "sd15": ("unet.down_blocks.0.attentions.0.proj_in", "unet.up_blocks.1.resnets.0.conv1", "text_encoder.text_model.encoder.layers.0.mlp.fc1"),
    "sdxl": ("unet.down_blocks.2.attentions.0.transformer_blocks.9.attn1.to_q", "text_encoder_2.text_model.encoder.layers.31.mlp.fc1"),
    "flux1": ("transformer.transformer_blocks.0.attn.to_q", "transformer.transformer_blocks.0.attn.to_v",
              "transformer.single_transformer_blocks.1.proj_mlp", "transformer.single_transformer_blocks.1.attn.to_k"),
    "z_image": tuple(f"transformer.layers.1.{part}" for part in ("attention.to_q", "attention.to_v", "attention.to_out.0", "feed_forward.w1")),
    "flux2": (*(f"transformer.transformer_blocks.1.{part}" for part in ("attn.to_q", "attn.add_v_proj", "ff.linear_in")),
              "transformer.single_transformer_blocks.1.attn.to_qkv_mlp_proj"),
}  # fmt: skip


ABOUT = {"flux2": {"ss_base_model_version": "flux2_klein_4b"}}  # a tiny one may be FLUX.1's by names and widths


def make_delta(path, seed, rank=4, alpha=3.0):
    generator = torch.Generator().manual_seed(seed)
    kernel = (3, 3) if "conv" in path else ()
    out = 128 if path.endswith("proj_mlp") else 32
    up = torch.randn(out, rank, *([1] * len(kernel)), generator=generator)
    return LoraLayer(torch.randn(rank, 32, *kernel, generator=generator), up, alpha)


def write_lora(path, family, format, seed=0, layers=None, **options):
    network = {name: make_delta(name, seed + n, **options) for n, name in enumerate(layers or LAYERS[family])}
    save_file(formats.write(network, family, format, torch.float32), path, metadata={"ss_output_name": "x", **ABOUT.get(family, {})})
    return network


def assert_same(path, wanted, tolerance=1e-5):
    _, found, _, _ = open_network(path)
    assert found.keys() == wanted.keys()
    for name, change in wanted.items():
        assert torch.allclose(found[name].change(), change, atol=tolerance * float(change.abs().max())), name


@pytest.mark.parametrize("family", LAYERS)
def test_to_the_other_format_and_back_changes_nothing(tmp_path, family):
    network = write_lora(tmp_path / "a.safetensors", family, "kohya")
    wanted = {name: delta.change() for name, delta in network.items()}
    assert convert([tmp_path / "a.safetensors"], tmp_path / "b.safetensors", "diffusers") == family
    assert_same(tmp_path / "b.safetensors", wanted)
    convert([tmp_path / "b.safetensors"], tmp_path / "c.safetensors", "kohya")
    assert_same(tmp_path / "c.safetensors", wanted)
    header = open_network(tmp_path / "c.safetensors")[2]
    data = (tmp_path / "c.safetensors").read_bytes()
    assert header["ss_output_name"] == "x"
    assert header["sshs_model_hash"] == hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()


def random_factors(kind, generator):
    shapes = {"lokr": {"lokr_w1": (4, 4), "lokr_w2_a": (8, 2), "lokr_w2_b": (2, 8)},
              "loha": {"hada_w1_a": (32, 2), "hada_w1_b": (2, 32), "hada_w2_a": (32, 2), "hada_w2_b": (2, 32)}}[kind]  # fmt: skip
    return LycorisLayer({name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}, 3.0)


@pytest.mark.parametrize("family", ["sd15", "flux1"])
def test_lokr_loha_and_dora_are_carried_there_and_back(tmp_path, family):
    generator = torch.Generator().manual_seed(0)
    first, second, third = LAYERS[family][:3]
    dora = make_delta(third, 1)
    network = {first: random_factors("lokr", generator), second: random_factors("loha", generator),
               third: replace(dora, magnitude=torch.rand(dora.up.shape[0], generator=generator))}  # fmt: skip
    if family == "flux1":  # of a fused layer all parts have lengths, or the file could not say them
        network[second.replace("to_v", "to_k")] = network.pop(second)
        stem = third.rpartition(".")[0]
        for part in ("attn.to_q", "attn.to_k", "attn.to_v"):
            network[f"{stem}.{part}"] = replace(make_delta(part, 7), magnitude=torch.rand(32, generator=generator))
    save_file(formats.write(network, family, "kohya", torch.float32), tmp_path / "a.safetensors")
    convert([tmp_path / "a.safetensors"], tmp_path / "b.safetensors", "diffusers")
    convert([tmp_path / "b.safetensors"], tmp_path / "c.safetensors", "kohya")
    for name in "bc":
        assert_same(tmp_path / f"{name}.safetensors", {path: change.change() for path, change in network.items()})
        found = open_network(tmp_path / f"{name}.safetensors")[1]
        for path, change in network.items():
            if isinstance(change, LycorisLayer):
                assert all(torch.equal(found[path].tensors[key], tensor) for key, tensor in change.tensors.items())
            elif change.magnitude is not None:
                assert torch.equal(found[path].magnitude, change.magnitude)


def test_dora_on_a_part_of_a_fused_layer_is_refused_in_kohya_form(tmp_path):
    path = LAYERS["flux1"][0]
    network = {path: replace(make_delta(path, 1), magnitude=torch.rand(32))}
    save_file(formats.write(network, "flux1", "diffusers", torch.float32), tmp_path / "a.safetensors")
    with pytest.raises(LorakitError, match="only some of the fused ones were trained"):
        convert([tmp_path / "a.safetensors"], tmp_path / "b.safetensors", "kohya")


def test_lokr_becomes_a_plain_lora_of_a_rank_and_can_then_be_merged(tmp_path):
    generator = torch.Generator().manual_seed(0)
    layer, conv = LAYERS["sd15"][0], LAYERS["sd15"][1]
    whole = LycorisLayer({"lokr_w1": torch.randn(4, 4, generator=generator), "lokr_w2": torch.randn(8, 8, 3, 3, generator=generator)}, 1.0)
    lokr = {layer: random_factors("lokr", generator), conv: whole}
    save_file(formats.write(lokr, "sd15", "kohya", torch.float32), tmp_path / "a.safetensors")
    plain = write_lora(tmp_path / "b.safetensors", "sd15", "kohya", 5, [layer])
    both = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    with pytest.raises(LorakitError, match="give --rank"):
        convert(both, tmp_path / "c.safetensors", "kohya", strengths=(0.5, 1.0))
    convert(both, tmp_path / "d.safetensors", "kohya", rank=64, strengths=(0.5, 1.0))
    wanted = {layer: 0.5 * lokr[layer].change() + plain[layer].change(), conv: 0.5 * whole.change()}
    assert_same(tmp_path / "d.safetensors", wanted)
    assert open_network(tmp_path / "d.safetensors")[1][conv].down.shape[2:] == (3, 3)


def test_locon_s_core_goes_into_the_down(tmp_path):
    generator = torch.Generator().manual_seed(0)
    stem = "lora_unet_up_blocks_1_resnets_0_conv1"
    down, up, core = (torch.randn(shape, generator=generator) for shape in ((4, 32, 1, 1), (32, 4, 1, 1), (4, 4, 3, 3)))
    tensors = {
        f"{stem}.lora_down.weight": down,
        f"{stem}.lora_up.weight": up,
        f"{stem}.lora_mid.weight": core,
        f"{stem}.alpha": torch.tensor(2.0),
    }
    picture = torch.randn(1, 32, 6, 6, generator=generator)
    conv = torch.nn.functional.conv2d
    wanted = conv(conv(conv(picture, down), core, padding=1), up) * 0.5
    found = formats.read(tensors, "sd15")[LAYERS["sd15"][1]].change().reshape(32, 32, 3, 3)
    assert torch.allclose(conv(picture, found, padding=1), wanted, rtol=1e-4, atol=1e-3)


def test_without_metadata_there_is_none(tmp_path):
    write_lora(tmp_path / "a.safetensors", "sd15", "kohya")
    convert([tmp_path / "a.safetensors"], tmp_path / "b.safetensors", "kohya", metadata=False)
    assert open_network(tmp_path / "b.safetensors")[2] == {}


def test_merged_file_is_the_sum_at_the_strengths(tmp_path):
    first, second = LAYERS["sd15"][:2], LAYERS["sd15"][1:]
    a = write_lora(tmp_path / "a.safetensors", "sd15", "kohya", 1, first)
    b = write_lora(tmp_path / "b.safetensors", "sd15", "diffusers", 7, second, rank=2, alpha=1.0)
    convert([tmp_path / "a.safetensors", tmp_path / "b.safetensors"], tmp_path / "c.safetensors", "kohya", strengths=(0.7, 0.5))
    wanted = {first[0]: 0.7 * a[first[0]].change(), second[1]: 0.5 * b[second[1]].change()}
    wanted[first[1]] = 0.7 * a[first[1]].change() + 0.5 * b[first[1]].change()
    assert_same(tmp_path / "c.safetensors", wanted)


def test_resized_is_the_nearest_change_of_that_rank():
    delta = make_delta("x", 3, rank=8, alpha=2.0)
    left, values, right = torch.linalg.svd(delta.change().double())
    wanted = left[:, :3] * values[:3] @ right[:3]
    small = nearest(delta, 3)
    assert small.rank == 3 and torch.allclose(small.change().double(), wanted, atol=1e-5)
    assert torch.allclose(nearest(delta, 64).change(), delta.change(), atol=1e-4)
    assert nearest(make_delta("conv", 1), 2).down.shape == (2, 32, 3, 3)


def test_what_cannot_be_merged_or_written_is_refused(tmp_path):
    write_lora(tmp_path / "a.safetensors", "sd15", "kohya")
    write_lora(tmp_path / "b.safetensors", "flux1", "kohya")
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    with pytest.raises(LorakitError, match="different bases cannot be merged: flux1, sd15"):
        convert(paths, tmp_path / "c.safetensors", "kohya")
    with pytest.raises(LorakitError, match="is there already"):
        convert(paths[:1], paths[1], "kohya")
    with pytest.raises(LorakitError, match="1 strengths for 2 files"):
        convert(paths, tmp_path / "c.safetensors", "kohya", strengths=(1.0,))


def test_a_merge_has_one_alpha_in_every_part_of_the_base(tmp_path):
    """With several diffusers plays attention at the strength of the commonest."""
    path = "unet.down_blocks.0.attentions.0.transformer_blocks.0.{}.to_q"
    first, second = path.format("attn1"), path.format("attn2")
    write_lora(tmp_path / "a.safetensors", "sd15", "kohya", 1, [first, second])
    write_lora(tmp_path / "b.safetensors", "sd15", "kohya", 7, [second], rank=2, alpha=1.0)
    convert([tmp_path / "a.safetensors", tmp_path / "b.safetensors"], tmp_path / "c.safetensors", "kohya")
    assert len({change.alpha for change in open_network(tmp_path / "c.safetensors")[1].values()}) == 1
    assert not any(judgement.wrong_scale for judgement in verify.judge_file(tmp_path / "c.safetensors")[1])


def test_what_would_not_be_as_it_was_is_not_written(tmp_path):
    """Twice the largest numbers of fp16 are infinite: no file under the final name, none beside it."""
    path = LAYERS["sd15"][0]
    delta = LoraLayer(torch.ones(2, 32).half(), torch.full((32, 2), 60000.0).half(), 8.0)
    save_file(formats.write({path: delta}, "sd15", "kohya", torch.float16), tmp_path / "a.safetensors")
    with pytest.raises(LorakitError, match="not written.*proj_in.* infinite"):
        convert([tmp_path / "a.safetensors"], tmp_path / "b.safetensors", "diffusers")
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


WAN = {f"diffusion_model.blocks.{n}.self_attn.q.lora_{side}.weight": torch.zeros(shape)
       for n in range(8) for side, shape in (("A", (1, 5120)), ("B", (5120, 1)))}  # fmt: skip


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (WAN, "looks like Wan; lorakit does not convert it"),
        ({"double_blocks.0.img_attn.norm.query_norm.scale": torch.ones(8)}, "is a control LoRA"),
        ({"nothing.weight": torch.ones(8)}, "is for no base that lorakit knows"),
    ],
)
def test_what_is_no_lora_of_a_known_base_is_named(tmp_path, tensors, words):
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(LorakitError, match=words):
        convert([tmp_path / "a.safetensors"], tmp_path / "b.safetensors", "kohya")
    assert not (tmp_path / "b.safetensors").exists()
