"""The rows of `bench.gpu`: what each measures, the most important first. Weights are random, of the real sizes, and made on the device."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

GB = 2**30
STEPS, SECONDS = 8, 6.0  # a step is timed so often, or so long
TINY: dict[str, dict[str, Any]] = {  # what is otherwise in a denoiser that CI has time for
    "sd15": {"sample_size": 16, "block_out_channels": (16, 32, 32, 32), "cross_attention_dim": 32, "norm_num_groups": 8},
    "sdxl": {
        "sample_size": 16, "block_out_channels": (16, 32, 32), "norm_num_groups": 8, "cross_attention_dim": 48,
        "transformer_layers_per_block": (1, 1, 2), "attention_head_dim": (2, 4, 4), "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 1280 + 6 * 8,
    },
    "flux1": {"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2, "joint_attention_dim": 64,
              "pooled_projection_dim": 24, "axes_dims_rope": (4, 6, 6)},
    "sd3": {"sample_size": 16, "num_layers": 2, "attention_head_dim": 8, "num_attention_heads": 4, "caption_projection_dim": 32,
            "joint_attention_dim": 64, "pooled_projection_dim": 48, "pos_embed_max_size": 32, "dual_attention_layers": (0,)},
    "z_image": {"dim": 48, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 3, "n_kv_heads": 3, "cap_feat_dim": 64, "axes_dims": (4, 6, 6)},
    "flux2": {"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2, "joint_attention_dim": 96,
              "axes_dims_rope": (4, 4, 4, 4), "timestep_guidance_channels": 16},
    "chroma1": {"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2, "joint_attention_dim": 64,
                "axes_dims_rope": (4, 6, 6), "approximator_num_channels": 16, "approximator_hidden_dim": 24, "approximator_layers": 2},
    "flux2_dev": {"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2, "joint_attention_dim": 96,
                  "axes_dims_rope": (4, 4, 4, 4), "timestep_guidance_channels": 16},
    "krea2": {"num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96,
              "timestep_embed_dim": 32, "text_hidden_dim": 64, "text_num_attention_heads": 4, "text_num_key_value_heads": 4,
              "text_intermediate_size": 96, "num_layerwise_text_blocks": 1, "num_refiner_text_blocks": 1, "axes_dims_rope": (4, 6, 6)},
    "qwen_image": {"num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 3, "joint_attention_dim": 64, "axes_dims_rope": (4, 6, 6)},
    "anima": {"num_attention_heads": 2, "attention_head_dim": 24, "num_layers": 2, "mlp_ratio": 2.0, "text_embed_dim": 32, "adaln_lora_dim": 8},
}  # fmt: skip
TINY_VAE = {"block_out_channels": (8, 8, 16, 16), "layers_per_block": 1, "norm_num_groups": 4}
TINY_VAE_OF_VIDEO = {"base_dim": 8, "dim_mult": [1, 2, 2, 2], "num_res_blocks": 1}
TINY_T5 = {"d_model": 64, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 64}
TINY_WORDS = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
}
TINY_EYES = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 64, "deepstack_visual_indexes": [0]}


@dataclass(frozen=True)
class Row:
    """`measure` is the name of a function of this file; `facts` are its arguments, and stand in the row."""

    measure: str
    facts: dict[str, Any] = field(default_factory=dict)
    limit: float = 75.0  # seconds after which it is given up

    @property
    def name(self) -> str:
        return " ".join([self.measure, *(f"{key}={value}" for key, value in self.facts.items())])


@dataclass(frozen=True)
class Place:
    device: str
    tiny: bool


def rows(tiny: bool) -> list[Row]:
    """All of them in the order of their weight."""
    first = [
        _step("sd15"), _step("sdxl", ckpt=True), _step("flux1-dev", "nf4", True, optimizer="adamw8bit"), _step("flux1-dev", "fp8", True),
        _step("sd35-medium", ckpt=True), _step("flux1-dev", ckpt=True), _step("sd15", batch=8), _step("sdxl", batch=4),
    ]  # fmt: skip
    of_this_year = [
        _step("z-image", "fp8", True), _step("flux2-klein-4b", "fp8", True), _step("qwen-image", "nf4", True, optimizer="adamw8bit"),
        _step("krea2", "nf4", True, optimizer="adamw8bit"), _step("anima", ckpt=True),
    ]  # fmt: skip
    drawn = [
        Row("sampling", {"base": base})
        for base in ("sd15", "sdxl", "flux1-dev", "sd35-medium", *(row.facts["base"] for row in of_this_year))
    ]
    encoded = [Row("encoder", {"base": "flux1-dev", "held": held}) for held in ("bf16", "int8")]
    encoded += [Row("encoder", {"base": base, "held": "bf16"}) for base in ("z-image", "krea2", "qwen-image")]
    more = [
        _step("sdxl"), _step("sdxl", "fp8", True), _step("sdxl", "nf4", True, optimizer="adamw8bit", swap=9), _step("sd15", ckpt=True),
        _step("flux1-dev", "nf4", True, optimizer="adamw8bit", swap=43), _step("flux1-dev", "nf4", True),
        _step("sdxl", ckpt=True, batch=4), _step("sd35-medium", ckpt=True, batch=4), _step("sd35-medium", "fp8", True),
        _step("flux1-dev", "fp8", True, batch=4), _step("sd35-medium", "nf4", True, optimizer="adamw8bit"), _step("sd35-medium"),
        _step("sd15", batch=8, compiled=True), _step("flux1-dev", ckpt=True, compiled=True),
        _step("z-image", ckpt=True), _step("flux2-klein-4b", ckpt=True), _step("flux2-klein-9b", "fp8", True), _step("krea2", "fp8", True),
        _step("qwen-image", "fp8", True), _step("z-image", "nf4", True, optimizer="adamw8bit"), _step("chroma", "fp8", True),
        _step("flux2-dev", "nf4", True, optimizer="adamw8bit"),
    ]  # fmt: skip
    of_tests = [Row("device_tests", limit=150)]
    captioners = [Row("captioner", {"captioner": name, "size": size}, 120) for name, size in (("blip", "large"), ("florence2", "base"))]
    batches = [row for row in (*first, *more) if row.facts["batch"] > 1 and not row.facts.get("compiled")]
    predicted = [Row("predicted", dict(row.facts), 90) for row in batches]
    if tiny:
        trials = [Row("trial", {"ends": how}, limit) for how, limit in (("with an error", 9), ("the process", 9), ("never", 2))]
        small = Row("captioner", {"captioner": "blip", "size": "small"})
        return [Row("machine"), *first[:5], *of_this_year, *drawn, *encoded, *trials, small, predicted[0]]
    return [
        Row("machine"),
        *first,
        *of_this_year,
        *of_tests,
        *drawn[:4],
        *encoded[:2],
        *captioners,
        *more,
        *drawn[4:],
        *encoded[2:],
        *predicted,
    ]


def _step(
    base: str, held: str = "bf16", ckpt: bool = False, batch: int = 1, optimizer: str = "adamw", swap: int = 0, compiled=False
) -> Row:
    facts = {"base": base, "held": held, "ckpt": ckpt, "batch": batch, "optimizer": optimizer, "swap": swap}
    return Row("step", facts | ({"compiled": True} if compiled else {}), 150 if compiled else 75)


def run(row: Row, place: Place) -> dict[str, Any]:
    """What the row measures."""
    if row.measure != "trial":
        quieten()
    found = globals()[row.measure](place, **row.facts)
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}


@cache
def quieten() -> None:
    from lorakit.weights import quiet_libraries

    quiet_libraries()


def trial(place: Place, ends: str) -> dict[str, Any]:
    """What no row may do to the command."""
    if ends == "never":
        time.sleep(60)
    if ends == "the process":
        os._exit(7)
    raise ValueError("this row fails")


def machine(place: Place) -> dict[str, Any]:
    """Card, versions, and the rate of one large product, which no step can pass."""
    import diffusers
    import torch
    import transformers

    found = {
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "cores": os.cpu_count(),
    }
    with contextlib.suppress(ImportError):
        import bitsandbytes

        found["bitsandbytes"] = bitsandbytes.__version__
    if not place.device.startswith("cuda"):
        return {"card": "none, on the CPU", **found}
    from lorakit.train.clock import card_flops

    free, whole = torch.cuda.mem_get_info()
    a, b = (torch.randn(8192, 8192, device=place.device, dtype=torch.bfloat16) for _ in range(2))
    rate = 2 * 8192**3 / timed(lambda: a @ b, place.device, 10) / 1e12
    return {
        "card": torch.cuda.get_device_name(), "capability": ".".join(map(str, torch.cuda.get_device_capability())),
        "GB": whole / GB, "GB free": free / GB, "GB of CUDA itself": (whole - free - torch.cuda.memory_reserved()) / GB,
        "cuda": torch.version.cuda, "TFLOP/s of a product": rate, "TFLOP/s on paper": (card_flops("cuda") or 0) / 1e12, **found,
    }  # fmt: skip


def settings_of(base: str, place: Place, **changes: Any):
    """(card, class of the family, configuration, settings of the training)."""
    from lorakit import settings
    from lorakit.bases import families
    from lorakit.project import catalog

    card = catalog.card(base)
    cls = families.load(card.family)
    small = {"train.resolution": 64, "train.rank": 4} if place.tiny else {}
    wanted = settings.resolve([("card", card.settings), ("bench", small | {f"train.{key}": value for key, value in changes.items()})]).train
    return card, cls, {**cls.config_of(base), **(TINY[cls.NAME] if place.tiny else {})}, wanted


def random_family(cls: Any, config: dict[str, Any], settings: Any, place: Place):
    """A family whose denoiser has random weights, made on the device layer by layer, so large that its numbers stay as they are."""
    import torch

    from lorakit.train.memory import family_without_weights

    family = family_without_weights(cls, config, settings, torch.bfloat16)
    family.device = place.device
    fill_at_random(family.denoiser, place.device)
    if getattr(family, "CHANNELS_LAST", False) and place.device.startswith("cuda"):
        family.denoiser.to(memory_format=torch.channels_last)
    return family


def fill_at_random(model: Any, device: str) -> None:
    """Weights of N(0, 1 / inputs), norms of one, biases of zero."""
    import torch
    from torch import nn

    from lorakit.bases.quantised import QuantisedLinear

    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, QuantisedLinear):
            shape = (module.out_features, module.in_features)
            module.fill(torch.randn(shape, device=device, dtype=module.dtype) / module.in_features**0.5)
        for name, old in module._parameters.items():
            if old is None or not old.is_meta:
                continue
            if old.dim() > 1:
                value = torch.randn(old.shape, device=device, dtype=old.dtype) / max(1, old[0].numel()) ** 0.5
            else:
                value = torch.full(old.shape, float("bias" not in name), device=device, dtype=old.dtype)
            module._parameters[name] = nn.Parameter(value, requires_grad=False)
        for name, old in module._buffers.items():
            if old is not None and old.is_meta:
                module._buffers[name] = torch.randn(old.shape, device=device).to(old.dtype)
        for name, old in vars(module).items():  # some keep the angles of their positions beside both
            if isinstance(old, torch.Tensor) and old.is_meta:
                vars(module)[name] = torch.randn(old.shape, device=device, dtype=old.dtype)


def step(place: Place, base: str, held: str, ckpt: bool, batch: int, optimizer: str, swap: int, compiled: bool = False) -> dict[str, Any]:
    """Steps of training as the loop takes them: memory predicted and measured, seconds and where they go, share of the card's rate."""
    from lorakit.train import lora, master_weights
    from lorakit.train.clock import PARTS, Clock
    from lorakit.train.learner import compile_blocks
    from lorakit.train.optimizer import make_optimizer

    if not place.device.startswith("cuda"):
        optimizer = "adamw"  # bitsandbytes' wants a card
    changes = {"base_precision": held, "gradient_checkpointing": ckpt, "batch_size": batch, "optimizer": optimizer, "swap_blocks": swap}
    card, cls, config, settings = settings_of(base, place, **changes)
    before = start_counting(place.device)
    family = random_family(cls, config, settings, place)
    parameters = lora.add_lora(family, settings)
    made = make_optimizer(family.denoiser, settings)
    lora.leave_inputs(family)  # this and the masters as the loop has them
    masters = master_weights.of_adapter(family, settings)
    if settings.checkpoints_gradients:
        family.denoiser.enable_gradient_checkpointing()
    family.swap_blocks(min(swap, len(family.repeated_blocks())))
    family.denoiser.train()
    if compiled:
        compile_blocks(family.repeated_blocks())
    found: dict[str, Any] = {}
    if batch == 1:
        found |= attempt("predicted", lambda: {"GB predicted": need_of(card, config, settings)})
    one = Step(family, parameters, masters, made, settings)
    loss = one(Clock(place.device))  # makes the optimizer's moments, and lets the libraries choose their kernels
    clock, rounds = Clock(place.device), 0
    began = time.perf_counter()
    while rounds < (2 if place.tiny else STEPS) and (rounds < 3 or time.perf_counter() - began < SECONDS):
        loss = one(clock)
        rounds += 1
        if rounds >= 2 and not clock.is_asynchronous and time.perf_counter() - began > SECONDS:
            break
    spent = clock.read()
    seconds, parts = (
        sum(spent.values()) / rounds,
        {part: spent[part] / sum(spent.values()) for part in PARTS},
    )  # what is between two steps too
    found |= measured_peak(place.device, before)
    found |= {"s/step": seconds, "photos/s": batch / seconds, "loss": float(loss), **{f"share {k}": v for k, v in parts.items()}}
    found |= attempt("flops", lambda: rates_of(one, seconds, settings.checkpoints_gradients, place.device))
    if "GB predicted" in found and "GB peak" in found:
        found["measured / predicted"] = found["GB peak"] / found["GB predicted"]
    return found


def need_of(card: Any, config: dict[str, Any], settings: Any) -> float:
    """GB of a step, as the plan says it."""
    from lorakit.train import rungs

    return rungs.need(rungs.Base(card, config), settings).peak


def predicted(place: Place, base: str, held: str, ckpt: bool, batch: int, optimizer: str, swap: int) -> dict[str, Any]:
    """The prediction of a row whose batch is larger than the cards have: it takes seconds to a minute of the CPU."""
    changes = {"base_precision": held, "gradient_checkpointing": ckpt, "batch_size": batch, "optimizer": optimizer, "swap_blocks": swap}
    card, _, config, settings = settings_of(base, place, **changes)
    return {"GB predicted": need_of(card, config, settings)}


class Step:
    """One step of random numbers: what the loop does, in its order, and nothing that it waits for."""

    def __init__(self, family: Any, parameters: list, masters: Any, optimizer: Any, settings: Any):
        import torch

        from lorakit.bases.schedules import Diffusion

        self.family, self.parameters, self.masters, self.optimizer, self.settings = family, parameters, masters, optimizer, settings
        self.is_diffusion = family.PROCESS is Diffusion
        self.generator = torch.Generator().manual_seed(0)
        side = settings.resolution // 8
        self.shape = (settings.batch_size, family.latent_channels(), side, side)
        self.mean = torch.randn(self.shape, generator=self.generator)
        self.texts = {
            name: torch.randn(settings.batch_size, *shape, generator=self.generator) for name, shape in family.text_shapes().items()
        }

    def __call__(self, clock: Any) -> Any:
        import torch

        from lorakit.train.optimizer import update_where

        clock.mark("data")
        batch = self.data()
        clock.mark("forward")
        loss = self.forward(*batch)
        clock.mark("backward")
        loss.backward()
        self.masters.collect_gradients()
        self.family.settle_blocks()
        clock.mark("optimizer")
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
        update_where(self.optimizer, self.parameters, loss.detach().isfinite() & norm.isfinite())
        self.masters.round()
        self.optimizer.zero_grad(set_to_none=True)
        clock.mark("between two")
        return loss.detach()

    def data(self) -> tuple:
        import torch

        noise, other = (torch.randn(self.shape, generator=self.generator) for _ in range(2))
        timesteps = self.family.process.draw_timesteps(self.mean.shape, self.generator)
        sent = (self.mean + 0.1 * other, noise, timesteps, torch.zeros(len(noise), 6))
        return *(self._send(tensor) for tensor in sent), {name: self._send(tensor) for name, tensor in self.texts.items()}

    def _send(self, tensor: Any) -> Any:
        if not self.family.device.startswith("cuda"):
            return tensor
        return tensor.pin_memory().to(self.family.device, non_blocking=True)

    def forward(self, latents: Any, noise: Any, timesteps: Any, sizes: Any, text: dict) -> Any:
        import torch

        from lorakit.train.loss import step_loss

        with torch.autocast(self.family.device.split(":")[0], dtype=self.family.dtype):
            return step_loss(self.family, latents, noise, timesteps, text, sizes)


def rates_of(one: Step, seconds: float, ckpt: bool, device: str) -> dict[str, Any]:
    """FLOPs of a step, counted as they are done; what checkpointing does twice is left out of the model's share of the card's rate
    (MFU), and in that of the hardware (HFU)."""
    from torch.utils.flop_counter import FlopCounterMode

    from lorakit.train.clock import card_flops

    batch = one.data()
    with FlopCounterMode(display=False) as forwards:
        loss = one.forward(*batch)
    with FlopCounterMode(display=False) as backwards:
        loss.backward()
    one.family.settle_blocks()
    one.masters.drop_gradients()
    done = forwards.get_total_flops() + backwards.get_total_flops()
    of_model = done - (forwards.get_total_flops() if ckpt else 0)
    found = {"TFLOP forward": forwards.get_total_flops() / 1e12, "TFLOP backward": backwards.get_total_flops() / 1e12}
    found["TFLOP/s"] = of_model / seconds / 1e12
    paper = card_flops(device)
    return found | ({"MFU": of_model / seconds / paper, "HFU": done / seconds / paper} if paper else {})


def sampling(place: Place, base: str) -> dict[str, Any]:
    """A step of the sampler, then the VAE whole and in tiles, and a picture encoded: seconds, and memory beside the weights."""
    import torch

    from lorakit.bases import autoencoder

    _, cls, config, settings = settings_of(base, place)
    cls = type(cls.__name__, (cls,), {"_about": lambda self: {}})  # Krea 2 asks its checkpoint how it draws
    side, steps = settings.resolution, 2 if place.tiny else 4
    start_counting(place.device)
    family = random_family(cls, config, settings, place)
    family.denoiser.eval()
    family.vae_config = vae_config(cls, place)
    pipeline = family.pipeline()
    pipeline.vae_scale_factor = family.latent_side
    pipeline.set_progress_bar_config(disable=True)
    text, empty = (
        {name: torch.randn(1, *shape, device=place.device, dtype=family.dtype) for name, shape in family.text_shapes().items()}
        for _ in range(2)
    )

    @torch.no_grad()
    def draw(pipeline):
        options = {"width": side, "height": side, "num_inference_steps": steps, cls.GUIDANCE: 5.0, "output_type": "latent"}
        drawn = pipeline(**family.prompt_options(text, empty), **options, generator=torch.Generator().manual_seed(0))
        return family.latents_of(drawn.images, side, side)

    before = start_counting(place.device)
    found = {
        "s/step of the sampler": timed(partial(draw, pipeline), place.device, 1) / steps,
        **measured_peak(place.device, before, "GB beside, denoiser"),
    }
    latents = draw(pipeline)
    found["latents are numbers"] = bool(torch.isfinite(latents).all())
    family._parts.clear()  # as where memory is short: the VAE alone
    del pipeline
    with torch.device(place.device):
        vae = cls.VAE(**family.vae_config).eval().requires_grad_(False)
    family._parts["vae"] = vae
    found["GB predicted, VAE whole"] = autoencoder.whole_gb(vae.config, side, side)
    latents = latents.nan_to_num().clamp(-4, 4)
    for name, tile in (("whole", None), ("tiles of 512", 512), ("tiles of 256", 256)):
        before = start_counting(place.device)
        found |= attempt(name, lambda tile=tile: {"s": _decode(vae, latents, tile, place)}, f"{name}, ")
        found |= measured_peak(place.device, before, f"GB beside, {name}")
    before = start_counting(place.device)
    pixels = torch.zeros(1, 3, side, side)
    found |= attempt("encoded", lambda: {"s encoded": timed(lambda: family.encode_picture(pixels), place.device, 1)})
    return found | measured_peak(place.device, before, "GB beside, encoded")


def vae_config(cls: Any, place: Place) -> dict[str, Any]:
    import torch
    from diffusers import AutoencoderKLQwenImage

    from lorakit.bases.single_file_configs import AUTOENCODER

    if cls.VAE is AutoencoderKLQwenImage:
        with torch.device("meta"):
            whole = cls.VAE(**cls.VAE_CONFIG, **(TINY_VAE_OF_VIDEO if place.tiny else {})).config
        return {key: value for key, value in whole.items() if not key.startswith("_")}
    return {**AUTOENCODER, **cls.VAE_CONFIG, **(TINY_VAE if place.tiny else {})}


def _decode(vae: Any, latents: Any, tile: int | None, place: Place) -> float:
    import torch

    from lorakit.bases import autoencoder

    autoencoder.use_tiles(vae, tile // 8 if tile and place.tiny else tile)
    with torch.no_grad():
        return timed(lambda: autoencoder.decode(vae, latents.to(place.device, torch.float32)), place.device, 1)


def encoder(place: Place, base: str, held: str) -> dict[str, Any]:
    """The large text encoder of a base, T5-XXL or a language model: what it takes, and seconds for one text of 512 tokens."""
    import torch

    from lorakit.bases import large_encoders, streaming

    cls = settings_of(base, place)[1]
    name = cls.large_encoders()[-1]
    kind = cls.ENCODERS[name]
    config = kind.config_class(**(tiny_encoder(cls.ENCODER_CONFIGS[name]) if place.tiny else cls.ENCODER_CONFIGS[name]))
    before = start_counting(place.device)
    model = streaming.build(lambda: kind(config), "int8" if held == "int8" else None, torch.bfloat16).to(torch.bfloat16)
    fill_at_random(model, place.device)
    model.tie_weights()
    model.eval().requires_grad_(False)
    ids = torch.ones(1, 32 if place.tiny else 512, dtype=torch.int64, device=place.device)
    with torch.no_grad():
        seconds = timed(lambda: model(ids)[0], place.device, 3)
    predicted = large_encoders.size_gb(kind, config, torch.bfloat16, precision="int8" if held == "int8" else None)
    return {"encoder": kind.__name__, "s/text": seconds, "GB predicted": predicted, **measured_peak(place.device, before)}


def tiny_encoder(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same, so small that CI has time for it."""
    if "text_config" in config:
        text, eyes = config["text_config"], config["vision_config"]
        parts = {"rope_type": "default", "mrope_section": [2, 3, 3]}
        return {
            **config,
            "text_config": {**text, **TINY_WORDS, "head_dim": 16, "rope_scaling": parts},
            "vision_config": {**eyes, **TINY_EYES},
        }
    return {**config, **(TINY_T5 if "d_model" in config else TINY_WORDS | {"head_dim": 16})}


def captioner(place: Place, captioner: str, size: str) -> dict[str, Any]:
    """Captions a second, and how near to nothing but model.generate."""
    from bench import caption

    few = (
        ["--photos", "2", "--batch", "1", "2", "--tokens", "4", "--repeats", "1"] if place.tiny else ["--photos", "32", "--batch", "1", "8"]
    )
    given = caption.parser().parse_args(["--captioner", captioner, "--size", size, "--device", place.device, "--repeats", "2", *few])
    found = {}
    for line in caption.rates(given):
        found |= {f"{key}, batch {line['batch']}": value for key, value in line.items() if key != "batch"}
    return found


def device_tests(place: Place) -> dict[str, Any]:
    """The tests of the suite that want a card."""
    words = [sys.executable, "-m", "pytest", "-q", "--maxfail=5", "--no-header", "-p", "no:cacheprovider", "tests/test_card.py"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=140)
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR", "E  "))][:6]
    return {"result": lines[-1] if lines else done.stderr[-300:], **({"failed": failed} if failed else {})}


def start_counting(device: str) -> int:
    """Bytes that are taken already; the peak is counted from here."""
    gc.collect()
    if not device.startswith("cuda"):
        return 0
    import torch

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def measured_peak(device: str, before: int, name: str = "GB peak") -> dict[str, float]:
    """GB of live tensors at most, and of what the allocator took for them; nothing where there is no card."""
    if not device.startswith("cuda"):
        return {}
    import torch

    return {name: (torch.cuda.max_memory_allocated() - before) / GB, f"{name}, reserved": torch.cuda.max_memory_reserved() / GB}


def timed(work: Callable[[], Any], device: str, count: int) -> float:
    """Seconds of one, the mean of `count` after one that is not counted."""
    import torch

    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    work()
    wait()
    began = time.perf_counter()
    for _ in range(count):
        work()
    wait()
    return (time.perf_counter() - began) / count


def attempt(what: str, work: Callable[[], dict[str, Any]], prefix: str = "") -> dict[str, Any]:
    """What `work` gives, or why it gave nothing: one figure that fails leaves the others of its row."""
    try:
        return {prefix + key: value for key, value in work().items()}
    except Exception as error:  # whatever it is, it is a result
        return {f"failed, {what}": in_words(error)}


def in_words(error: BaseException) -> str:
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first[:240]}"


def forget() -> None:
    """Free what the last row has left. Raises where the card can be used no more."""
    gc.collect()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.synchronize()
        sys.modules["torch"].cuda.empty_cache()


def todo(names: list[str], tiny: bool) -> Iterator[Row]:
    return (row for row in rows(tiny) if row.name in names)
