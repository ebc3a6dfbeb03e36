"""LoKr, LoHa, PiSSA, OLoRA and ranks by block: what the file says is what was trained."""

import numpy as np
import pytest
import torch
from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers
from safetensors.torch import load_file, save_file

from lorakit import lookup
from lorakit.bases import families, layer_names
from lorakit.errors import LorakitError
from lorakit.lora_file import formats, verify
from lorakit.lora_file import names as file_names
from lorakit.settings import Train, resolve
from lorakit.train import lora
from lorakit.train.adapter_size import Skeleton, predict_size, size_of
from lorakit.train.export import add_to_weights, check_file, check_loaded
from lorakit.train.preflight import check_settings


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def trained(family, settings, seed=0):
    """The network of an adapter after steps in any direction."""
    generator = torch.Generator().manual_seed(seed)
    parameters = lora.add_lora(family, settings)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return formats.from_adapter(lora.read_lora(family))


def glance(family):
    """One prediction for fixed latents and a fixed text."""
    generator = torch.Generator().manual_seed(1)
    noisy = torch.randn(1, 16 if family.FOLDER == "transformer" else 4, 8, 8, generator=generator)
    text = {name: tensor[None] for name, tensor in family.prepare_text("zwx mug").items()}
    with torch.no_grad():
        return family.predict(noisy, torch.tensor([500]), family.embed(text), torch.tensor([[64, 64, 0, 0, 64, 64]]))


def lycoris_change(tensors, stem):
    """Delta W by LyCORIS' formulas, in numpy: kron(w1, w2), or (w1_a w1_b) * (w2_a w2_b); alpha / rank where a factor is a product."""
    part = {key.removeprefix(f"{stem}."): value.numpy().astype(np.float64) for key, value in tensors.items() if key.startswith(f"{stem}.")}
    rank = next((part[name].shape[0] for name in ("hada_w1_b", "lokr_w2_b", "lokr_w1_b") if name in part), None)
    scale = 1.0 if rank is None else float(part["alpha"]) / rank
    if "hada_w1_a" in part:
        return scale * (part["hada_w1_a"] @ part["hada_w1_b"]) * (part["hada_w2_a"] @ part["hada_w2_b"])
    w1 = part.get("lokr_w1")
    w2 = part["lokr_w2"] if "lokr_w2" in part else part["lokr_w2_a"] @ part["lokr_w2_b"]
    kernel = w2.shape[2:]
    rows = [np.concatenate([w1[i, j] * w2 for j in range(w1.shape[1])], axis=1) for i in range(w1.shape[0])]
    whole = scale * np.concatenate(rows, axis=0)
    return whole.reshape(whole.shape[0], -1) if kernel else whole


@pytest.mark.parametrize(
    ("name", "adapter"),
    [("sd15", "lokr"), ("sd3", "lokr"), ("flux1", "lokr"), ("flux1", "loha"), slow("sd15", "loha"), slow("sdxl", "lokr"), slow("sdxl", "loha"),
     slow("sd3", "loha")],
)  # fmt: skip
def test_a_lycoris_file_says_what_was_trained(load_tiny, name, adapter):
    settings = Train(rank=2, alpha=3.0, adapter=adapter, targets="conv", text_encoder=name != "sdxl")
    family = load_tiny(name, settings)
    network = trained(family, settings)
    tensors = formats.write(network, name, "kohya", torch.float32)
    stems = {key.split(".")[0] for key in tensors}
    assert len(stems) == len(network) and all(f"{stem}.alpha" in tensors for stem in stems)
    kinds = {key.split(".")[1] for key in tensors} - {"alpha"}
    assert kinds <= set(file_names.LOKR if adapter == "lokr" else file_names.LOHA)
    if adapter == "lokr" and name in ("sd15", "sdxl"):
        assert {"lokr_w1", "lokr_w2", "lokr_w2_a", "lokr_w2_b"} <= kinds  # whole and made of two
    index = file_names.layers_by_stem(name)
    for path, layer in lora.adapted(family):
        stem = next(stem for stem in stems if index[stem].paths == (path,))
        wanted = layer.get_delta_weight(lora.NAME).detach().flatten(1).numpy()
        assert np.allclose(lycoris_change(tensors, stem), wanted, rtol=1e-4, atol=1e-6), path
    denoiser = [stem for stem in stems if not stem.startswith("lora_te")]
    prefix = "lycoris_" if name in ("sd3", "flux1") else "lora_unet_"
    assert denoiser and all(stem.startswith(prefix) for stem in denoiser)

    judged = {judgement.tool: judgement.is_whole for judgement in verify.judge({key: tuple(t.shape) for key, t in tensors.items()})[1]}
    knows = {tool: tool in families.load(name).TOOLS for tool in verify.TOOLS}
    assert judged == {**knows, "diffusers": False}


LOKR = {  # layers that are called so in a file, and what diffusers makes of them
    "flux2": {"lycoris_transformer_blocks_0_ff_linear_in": "both", "transformer.transformer_blocks.0.ff.linear_in": "without alphas",
              "transformer_blocks.0.ff.linear_in": "both", "diffusion_model.transformer_blocks.0.ff.linear_in": "none",
              "diffusion_model.double_blocks.0.img_mlp.0": "both", "base_model.model.double_blocks.0.img_mlp.0": "both",
              "lycoris_x_embedder": "none", "lora_unet_double_blocks_0_img_mlp_0": "none"},
    "z_image": {"diffusion_model.layers.0.feed_forward.w1": "both", "layers.0.feed_forward.w1": "with alphas",
                "transformer.layers.0.feed_forward.w1": "without alphas", "lycoris_layers_0_feed_forward_w1": "none"},
}  # fmt: skip
CASES = [(name, stem, alpha) for name, stems in LOKR.items() for stem in stems for alpha in (True, False)]


@pytest.mark.parametrize(("name", "stem", "alpha"), CASES)
def test_verify_says_of_lokr_what_diffusers_does(load_tiny, tmp_path, name, stem, alpha):
    family = load_tiny(name)
    layer = file_names.layers_by_stem(name)[stem].paths[0].removeprefix("transformer.")
    out, into = family.denoiser.get_submodule(layer).weight.shape
    parts = {"lokr_w1": (4, 4), "lokr_w2_a": (out // 4, 2), "lokr_w2_b": (2, into // 4)} | ({"alpha": ()} if alpha else {})
    tensors = {f"{stem}.{part}": torch.ones(shape) for part, shape in parts.items()}
    save_file(tensors, tmp_path / "lokr.safetensors")
    try:
        family.bare_pipeline().load_lora_weights(tmp_path, weight_name="lokr.safetensors", adapter_name="lokr")
        changed = family.denoiser.get_submodule(layer)
        loads = bool(torch.allclose(changed.get_delta_weight("lokr"), torch.full((out, into), 1.0 if alpha else 2.0)))
    except (ValueError, AttributeError):  # peft's for layers that are not there is one too; nothing was put in
        loads = False
    assert loads is (LOKR[name][stem] in ("both", "with alphas" if alpha else "without alphas"))
    _, (judged,) = verify.judge({key: tuple(tensor.shape) for key, tensor in tensors.items()}, ("diffusers",), family=name)
    assert judged.is_whole is loads


@pytest.mark.parametrize("name", LOKR)
def test_lokr_of_these_bases_is_written_as_diffusers_and_comfyui_load_it(load_tiny, tmp_path, name):
    settings = Train(rank=2, alpha=3.0, adapter="lokr", targets="mlp")
    family = load_tiny(name, settings)
    network = trained(family, settings)
    wanted = {path: layer.get_delta_weight(lora.NAME).detach() for path, layer in lora.adapted(family)}
    tensors = formats.write(network, name, "kohya", torch.float32)
    save_file(tensors, tmp_path / "lokr.safetensors")
    other = load_tiny(name)
    other.bare_pipeline().load_lora_weights(tmp_path, weight_name="lokr.safetensors", adapter_name="lokr")
    for path, change in wanted.items():
        found = other.denoiser.get_submodule(path.removeprefix("transformer.")).get_delta_weight("lokr")
        assert torch.allclose(found, change, atol=1e-5), path
    judged = {j.tool: j.is_whole for j in verify.judge({key: tuple(t.shape) for key, t in tensors.items()}, family=name)[1]}
    assert judged["diffusers"] and judged["comfyui"]


def test_lokr_that_peft_cannot_take_apart_is_said():
    stems = {f"transformer.transformer_blocks.{n}.ff.linear_in": first for n, first in enumerate((4, 6))}
    shapes = {
        f"{stem}.{part}": shape for stem, first in stems.items() for part, shape in (("lokr_w1", (first, 4)), ("lokr_w2", (48 // first, 8)))
    }
    _, (judged,) = verify.judge(shapes, ("diffusers",), family="flux2")
    assert not judged.loaded and "no one factor" in next(iter(judged.skipped.values()))


def test_half_a_lokr_or_loha_is_named():
    stem = "lora_unet_down_blocks_0_attentions_0_proj_in"
    half = {f"{stem}.lokr_w1": (4, 4), f"{stem}.lokr_w2_a": (8, 2)}
    assert "lokr_w2 is missing" in verify.judge(half, ("a1111",))[1][0].skipped[f"{stem}.lokr_w1"]
    half = {f"{stem}.hada_w1_a": (32, 2), f"{stem}.hada_w1_b": (2, 32), f"{stem}.hada_w2_a": (32, 2)}
    assert "hada_w2_b is missing" in verify.judge(half, ("comfyui",))[1][0].skipped[f"{stem}.hada_w1_a"]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("sd15", {"init": "pissa"}), slow("flux1", {"init": "olora", "alpha": 2.0}), slow("sd15", {"adapter": "lokr"}),
        ("flux1", {"adapter": "loha"}), slow("sd15", {"adapter": "dora"}), slow("sd3", {"block_ranks": ("attn2=6/2", "text_encoder=2")}),
    ],
)  # fmt: skip
def test_base_and_file_predict_what_the_trained_model_does(load_tiny, tmp_path, name, settings):
    settings = Train(**{"rank": 4, "text_encoder": True, "targets": "mlp", **settings})
    family, fresh = load_tiny(name, settings), load_tiny(name, settings)
    network = formats.with_uniform_alpha(trained(family, settings))
    path = tmp_path / "lora.safetensors"
    form = "diffusers" if name in ("sd3", "flux1") and settings.adapter == "lora" else "kohya"
    save_file(formats.write(network, name, form, torch.float16), path)
    written = check_file(path, network, name)
    assert check_loaded(path, written, fresh, lambda: glance(fresh)) > 1e-3
    wanted = glance(family)
    assert (glance(fresh) - wanted).norm() <= 1e-3 * wanted.norm()


def test_a_file_that_changes_nothing_is_an_error(load_tiny, tmp_path):
    settings = Train(rank=4)
    family = load_tiny("sd15", settings)
    lora.add_lora(family, settings)  # B is zero
    network = formats.from_adapter(lora.read_lora(family))
    path = tmp_path / "lora.safetensors"
    save_file(formats.write(network, "sd15", "kohya", torch.float16), path)
    fresh = load_tiny("sd15", settings)
    with pytest.raises(LorakitError, match="changes nothing of what the base predicts"):
        check_loaded(path, check_file(path, network, "sd15"), fresh, lambda: glance(fresh))


@pytest.mark.parametrize("init", ["pissa", slow("olora")])
def test_pissa_and_olora_start_as_peft_s_own_and_change_nothing(load_tiny, init):
    settings = Train(rank=4, alpha=2, init=init, targets="attention")
    family, side, base = load_tiny("sd15", settings), load_tiny("sd15"), glance(load_tiny("sd15"))
    parameters = lora.add_lora(family, settings)
    assert len(parameters) == 2 * 128  # what is taken off again does not learn
    config = lora.make_config(lora.find_targets(side.denoiser, side.TARGETS, settings), settings, "unet")
    config.init_lora_weights = init
    side.denoiser.add_adapter(config, adapter_name=lora.NAME)
    for (path, own), (_, other) in zip(lora.adapted(family), lora.adapted(side), strict=True):
        ours, theirs = own.get_delta_weight(lora.NAME), other.get_delta_weight(lora.NAME)
        assert (ours - theirs).norm() <= 1e-2 * theirs.norm(), path  # a randomised SVD beside a full one
    assert torch.allclose(glance(family), base, atol=1e-4)
    lora.set_strength(family, 0)
    assert torch.equal(glance(family), base)
    lora.set_strength(family, 0.5)
    assert [p.requires_grad for _, layer in lora.adapted(family) for p in lora.tensors_of(layer, lora.START).values()] == [False] * 256


@pytest.mark.slow
def test_half_the_strength_is_half_the_change_from_pissa_too(load_tiny):
    settings = Train(rank=4, init="pissa", targets="attention")
    family, fresh = load_tiny("sd15", settings), load_tiny("sd15", settings)
    network = trained(family, settings)
    half = {path: formats.LoraLayer(delta.down, delta.up, delta.alpha / 2) for path, delta in network.items()}
    add_to_weights(half, fresh)
    lora.set_strength(family, 0.5)
    assert torch.allclose(glance(family), glance(fresh), atol=1e-4)


def original_sd3(transformer, generator):
    """A random checkpoint in the original code's layout, of a tiny transformer's shapes."""
    made = {}
    for path, original in layer_names.originals("sd3").items():
        module = dict(transformer.named_modules()).get(path)
        if module is not None:
            rows = module.weight.shape[0] * len(original.heights)
            made[f"{original.name}.weight"] = torch.randn(rows, module.weight.shape[1], generator=generator)
            made[f"{original.name}.bias"] = torch.randn(rows, generator=generator)
    state = transformer.state_dict()
    others = {
        "pos_embed": "pos_embed.pos_embed", "x_embedder.proj": "pos_embed.proj", "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
        "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2", "context_embedder": "context_embedder",
        "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1", "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
        "final_layer.linear": "proj_out", "final_layer.adaLN_modulation.1": "norm_out.linear",
    }  # fmt: skip
    for block in range(3):
        for attention in ("attn", "attn2") if block < 2 else ("attn",):
            for part in "qk":
                others[f"joint_blocks.{block}.x_block.{attention}.ln_{part}"] = f"transformer_blocks.{block}.{attention}.norm_{part}"
        for part in "qk":
            others[f"joint_blocks.{block}.context_block.attn.ln_{part}"] = f"transformer_blocks.{block}.attn.norm_added_{part}"
    for original, path in others.items():
        for ending in (".weight", ".bias", ""):
            if f"{path}{ending}" in state:
                made[f"{original}{ending}"] = state[f"{path}{ending}"]
    return made


def test_sd3_in_kohya_form_changes_the_original_weights_as_they_are_converted(load_tiny):
    """The file is added to a checkpoint of the original layout, which diffusers then converts: every layer, the last
    block's norm of the text with its swapped halves too, has changed as it was trained."""
    settings = Train(rank=4, alpha=2, targets="linear")
    family = load_tiny("sd3", settings)
    plain = load_tiny("sd3").denoiser
    network = trained(family, settings)
    assert "transformer.transformer_blocks.2.norm1_context.linear" in network
    tensors = formats.write(network, "sd3", "kohya", torch.float32)
    first = original_sd3(plain, torch.Generator().manual_seed(0))
    second = dict(first)
    stems = {f"lora_unet_{key.removesuffix('.weight').replace('.', '_')}": key for key in first if key.endswith(".weight")}
    for stem in {key.split(".")[0] for key in tensors}:
        down, up = tensors[f"{stem}.lora_down.weight"], tensors[f"{stem}.lora_up.weight"]
        second[stems[stem]] = first[stems[stem]] + up @ down * (tensors[f"{stem}.alpha"] / down.shape[0])
    before, after = (convert_sd3_transformer_checkpoint_to_diffusers(dict(weights)) for weights in (first, second))
    for path, delta in network.items():
        key = f"{path.removeprefix('transformer.')}.weight"
        assert torch.allclose(after[key] - before[key], delta.change(), atol=1e-5), path
    assert formats.read(tensors, "sd3").keys() == network.keys()


def test_block_ranks_are_a_table_of_expressions():
    made = resolve([("project.yaml", {"train": {"rank": 8, "alpha": 4, "block_ranks": {"down_blocks.2": 64, "mid": "16/8"}}})]).train
    assert lora.size_of("unet.down_blocks.2.attentions.0.proj_in", made) == (64, 32)  # alpha / rank as elsewhere
    assert lora.size_of("unet.mid_block.attentions.0.proj_in", made) == (16, 8)
    assert lora.size_of("unet.up_blocks.1.attentions.0.proj_in", made) == (8, 4)


@pytest.mark.parametrize("line", ["mid", "mid=", "mid=none", "mid=0", "mid=4/0", "=4", "mid(=4"])
def test_a_line_of_block_ranks_that_is_none_is_refused(line):
    with pytest.raises(LorakitError, match="is not an expression with a rank; write it as mid_block: 16"):
        lora.block_ranks(Train(block_ranks=(line,)))


def test_block_ranks_that_no_layer_has_are_refused(load_tiny):
    with pytest.raises(LorakitError, match="no trained layer is called 'middle'; names are like unet.down_blocks.0"):
        lora.add_lora(load_tiny("sd15"), Train(block_ranks=("middle=4",)))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"adapter": "lokr", "rank_stabilised": True}, "rank_stabilised is for LoRA and DoRA"),
        ({"adapter": "loha", "lora_plus_ratio": 4.0}, "lora_plus_ratio is about LoRA's B"),
        ({"lokr_factor": 8}, "lokr_factor is for train.adapter=lokr"),
        ({"adapter": "dora", "init": "pissa"}, "train.init=pissa is for train.adapter=lora"),
        ({"text_encoder_rate": 1e-5}, "text_encoder_rate has no effect without"),
        ({"t5": True}, "t5 has no effect without train.text_encoder"),
        ({"block_ranks": {"mid": "x"}}, "is not an expression with a rank"),
    ],
)
def test_adapter_settings_that_fight_are_named_before_anything_loads(make_project, settings, line):
    with pytest.raises(LorakitError, match=line):
        check_settings(make_project(**{f"train.{key}": value for key, value in settings.items()}))


@pytest.mark.parametrize(
    "settings",
    [{"text_encoder": True, "block_ranks": ("mid=6/2",)}, slow({}), slow({"adapter": "dora"}), slow({"adapter": "lokr", "targets": "conv"}),
     slow({"adapter": "loha"}), slow({"init": "pissa", "text_encoder": True})],
)  # fmt: skip
def test_the_size_is_known_before_the_start(load_tiny, make_project, tmp_path, settings):
    predicted = predict_size(make_project(**{f"train.{key}": value for key, value in settings.items()}))
    settings = Train(**{"rank": 4, **settings})
    family = load_tiny("sd15", settings)
    parameters = lora.add_lora(family, settings)
    path = tmp_path / "lora.safetensors"
    network = formats.with_uniform_alpha(formats.from_adapter(lora.read_lora(family)))
    save_file(formats.write(network, "sd15", "kohya", torch.float16), path)
    assert predicted.bytes == path.stat().st_size
    assert predicted.parameters == sum(p.numel() for p in parameters) and predicted.modules == len(network)


def full_size(device):
    cls = lookup.load(lookup.FAMILIES, "sd15").CLASS
    with torch.device("meta"):
        denoiser = cls.DENOISER(**cls.CONFIG).requires_grad_(False)
    return Skeleton(cls.FOLDER, cls.TARGETS, cls.NOT_TARGETS, denoiser if device == "meta" else denoiser.half().to_empty(device=device))


@pytest.mark.slow
def test_the_size_of_a_real_sd15_file_is_what_was_predicted(tmp_path):
    """860 million weights in fp16 (what they are does not matter here), rank 32 on all linear layers."""
    settings = Train(rank=32, block_ranks=("mid_block=64",))
    predicted = size_of(full_size("meta"), "sd15", settings, "kohya", torch.float16)
    parameters = lora.add_lora(real := full_size("cpu"), settings)
    path = tmp_path / "lora.safetensors"
    tensors = formats.write(formats.with_uniform_alpha(formats.from_adapter(lora.read_lora(real))), "sd15", "kohya", torch.float16)
    save_file(tensors, path)
    assert predicted.bytes == path.stat().st_size
    assert predicted.parameters == sum(p.numel() for p in parameters) == sum(t.numel() for t in load_file(path).values() if t.dim())
    assert predicted.modules == 192
