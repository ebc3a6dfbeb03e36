"""What a step takes, counted on fake tensors: the weights are those that are really loaded, the cards' rows are what is counted, and on
fake cards every tensor of a step has the device and the type that it should."""

import contextlib
import json

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from lorakit.bases import families
from lorakit.project import catalog
from lorakit.settings import Train, resolve
from lorakit.train import lora, master_weights, memory, rungs
from lorakit.train import optimizer as optim
from lorakit.train.average import Average
from lorakit.train.loss import preservation_loss, step_loss

FAMILIES = ("sd15", "sdxl", "sd3", "flux1", "chroma1", "z_image", "flux2", "flux2_dev", "krea2", "qwen_image", "anima")
FOLDERS = dict.fromkeys(FAMILIES, "transformer") | {"sd15": "unet", "sdxl": "unet"}


def config_of(folder, family):
    found = families.load(family).DENOISER.load_config(folder, subfolder=FOLDERS[family])
    return {key: value for key, value in found.items() if not key.startswith("_")}


@pytest.mark.parametrize("family", ["sd15", "sd3"])
def test_weights_are_as_large_as_those_that_are_loaded(tiny_base, family):
    """SD3 has a buffer of positions, large in 3.5 medium (0.42 GB), that diffusers loads in the weights' own precision."""
    cls, folder = families.load(family), tiny_base(family)
    loaded = cls.DENOISER.from_pretrained(folder, subfolder=FOLDERS[family], torch_dtype=torch.bfloat16)
    size = sum(tensor.nbytes for tensor in (*loaded.parameters(), *loaded.buffers()))
    base = rungs.Base(catalog.card("sd15"), config_of(folder, family))
    base.cls = cls
    assert base.bytes_of(base.model, "", "bf16") == size


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd15", "sdxl", "flux1-dev", "sd35-medium", "flux2-klein-4b"])
def test_the_rows_of_the_cards_are_what_is_counted(name):
    """With checkpointing, the quickest to count; the others come from the same code (bench/memory.py)."""
    card = catalog.card(name)
    row = next(row for row in card.memory if row["checkpointing"])
    changes = {"train.base_precision": "bf16", "train.gradient_checkpointing": "on"}
    train = resolve([("card", card.settings), ("test", changes)]).train
    cls = families.load(card.family)
    found = memory.predict_step(cls, dict(cls.CONFIG), train, memory.Shape(1, train.resolution, train.resolution))
    assert found.activations / rungs.GB == pytest.approx(row["activations"], rel=0.02)
    base = rungs.Base(card, dict(cls.CONFIG))
    assert found.weights / rungs.GB == pytest.approx(base.bytes_of(base.model, "", "bf16") / rungs.GB, rel=0.02)
    assert found.adapter / rungs.GB == pytest.approx(base.adapter(train), rel=0.02)


@pytest.mark.parametrize(
    "options",
    [
        {"adapter": "dora", "text_encoder": True, "preservation": 1.0, "gradient_checkpointing": "on"},
        {"adapter": "lokr", "gradient_checkpointing": "on"},
        {"adapter": "loha", "block_ranks": ("transformer_blocks=2/1",)},
        {"init": "pissa", "optimizer": "prodigy", "text_encoder": True, "t5": True},
    ],
    ids=lambda options: " ".join(map(str, options.values())),
)
def test_whatever_is_trained_can_be_counted(tiny_base, monkeypatch, tmp_path, options):
    """Before a training on a card, and for `--plan`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tiny_base("flux1")
    encoders = {name: json.loads((folder / name / "config.json").read_text()) for name in ("text_encoder", "text_encoder_2")}
    base = rungs.Base(catalog.card("flux1-dev"), config_of(folder, "flux1"), encoder_configs=encoders)
    found = rungs.need(base, Train(**{"rank": 4, "resolution": 64, "batch_size": 2, "base_precision": "bf16", **options}))
    assert min(found.weights, found.adapter, found.activations) > 0


class OneType(TorchDispatchMode):
    """Fake tensors let products of two types pass, which a card refuses."""

    PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in self.PRODUCTS:
            kinds = {arg.dtype for arg in args if isinstance(arg, torch.Tensor)}
            assert len(kinds) == 1, f"{func} of {kinds}"
        return func(*args, **(kwargs or {}))


class AsOnACard(TorchFunctionMode):
    """Attention in one type and without all its pairs, for which fake tensors have no kernel; and a number where peft's LoKr draws
    one on the CPU to compare it with its dropout of 0."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention:
            given = args + tuple(kwargs[name] for name in ("query", "key", "value") if name in kwargs)
            q, k, v = (tensor.to(torch.bfloat16) for tensor in given[:3])
            return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]
        if func is torch.rand and args == (1,):
            return 0.5
        return func(*args, **kwargs)


@contextlib.contextmanager
def fake_card(monkeypatch):
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    with torch.device("cuda"), torch.autocast("cuda", dtype=torch.bfloat16), AsOnACard():
        yield


MANY = {"gradient_checkpointing": "on", "base_precision": "fp8", "preservation": 1.0, "ema": 0.9}
SLOW = pytest.mark.slow
CASES = [
    *(pytest.param(family, MANY, id=f"{family}, many", marks=SLOW if family in ("sd15", "sdxl") else ()) for family in FAMILIES),
    pytest.param("sdxl", {"adapter": "dora"}, id="sdxl, dora", marks=SLOW),
    pytest.param("flux1", {"adapter": "lokr"}, id="flux1, lokr", marks=SLOW),
    pytest.param("flux1", {"text_encoder": True, "t5": True, "preservation": 1.0}, id="flux1, text encoders"),
]


@pytest.mark.parametrize(("family", "options"), CASES)
def test_on_a_fake_card_every_tensor_of_a_step_is_there_and_of_one_type(tiny_base, monkeypatch, family, options):
    """Forward, loss with a mask, clipping, the update and the running mean; the backward pass wants a driver. Whatever asks for a
    number (`.item()`, `float(...)`) fails here, as it would make a card wait."""
    settings = Train(**{"rank": 4, "base_precision": "bf16", **options})
    cls = families.load(family)
    monkeypatch.setattr(
        cls, "ENCODER_CONFIGS", {name: json.loads((tiny_base(family) / name / "config.json").read_text()) for name in cls.ENCODERS}
    )
    loaded = memory.family_without_weights(cls, config_of(tiny_base(family), family), settings, torch.bfloat16)
    loaded.device = "cuda"
    with torch.device("meta"):
        lora.add_lora(loaded, settings)
    if settings.checkpoints_gradients:
        loaded.denoiser.enable_gradient_checkpointing()
    loaded.denoiser.train()
    with torch.device("cuda"):
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        for model in lora.models(loaded).values():
            memory._make_fake(model, mode)
    parameters = [p for model in lora.models(loaded).values() for p in model.parameters() if p.requires_grad]
    lora.leave_inputs(loaded)
    with mode, OneType(), fake_card(monkeypatch):
        optimizer = optim.make_optimizer(loaded.denoiser, settings, [loaded.encoder(name) for name in loaded.learning_encoders])
        assert optimizer.param_groups[0]["fused"]
        masters = master_weights.of_adapter(loaded, settings)
        latents = torch.empty(2, loaded.latent_channels(), 8, 8)
        timesteps = torch.zeros(2, dtype=torch.int64 if cls.PROCESS is memory.Diffusion else torch.float32)
        given = memory.texts_of_a_step(loaded, 2)
        text = loaded.embedded(given)
        if family == "sdxl":
            text["pooled"] = torch.empty(2, loaded.denoiser.config.projection_class_embeddings_input_dim - 6 * 8)
        sizes, noise = torch.zeros(2, 6, dtype=torch.int64), torch.empty(latents.shape)
        loss = step_loss(loaded, latents, noise, timesteps, text, sizes, mask=torch.ones(2, 1, 8, 8))
        if settings.preservation:
            of_base = given if loaded.learning_encoders else text
            loss = loss + preservation_loss(loaded, loaded.process.add(latents, noise, timesteps), timesteps, of_base, sizes)
        assert loss.dtype == torch.float32 and loss.device.type == "cuda" and loss.requires_grad
        for parameter in (p for model in lora.models(loaded).values() for p in model.parameters() if p.requires_grad):
            assert parameter.dtype == (torch.bfloat16 if settings.adapter == "lora" else torch.float32)
            parameter.grad = torch.empty_like(parameter)
        masters.collect_gradients()
        for parameter in parameters:
            assert (
                parameter.dtype == parameter.grad.dtype == torch.float32 and parameter.device.type == parameter.grad.device.type == "cuda"
            )
        norm = torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
        average = Average(parameters, optimizer, settings.ema)
        optim.update_where(optimizer, parameters, loss.isfinite() & norm.isfinite())
        average.update()
        masters.round()
        assert optimizer.state[parameters[0]]["exp_avg"].device.type == "cuda"
