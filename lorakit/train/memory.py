"""How much memory of a card one training step takes, counted before any weight is there: the step itself is run on fake
tensors, which have shapes and types but no values, and every storage that comes and goes is added up."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from lorakit.bases import quantised
from lorakit.bases.families.base import Family
from lorakit.bases.schedules import Diffusion
from lorakit.settings import Train
from lorakit.train import lora, master_weights
from lorakit.train.loss import preservation_loss, step_loss
from lorakit.train.optimizer import make_optimizer

EncoderConfigs = Mapping[str, Mapping[str, Any]]  # of text encoders, by their sub-folder in diffusers
ALIGNMENT = 512  # bytes: the allocator of CUDA hands out no less
# What CUDA's autocast computes in fp32 and CPU's does not; without it the norms of a bf16 base would be counted at half their size.
IN_FP32 = {
    torch.nn.functional.group_norm, torch.nn.functional.layer_norm, torch.nn.functional.softmax, torch.nn.functional.mse_loss,
    torch.Tensor.softmax, torch.softmax, torch.pow, torch.Tensor.pow, torch.Tensor.__pow__, torch.rsqrt, torch.Tensor.rsqrt,
    torch.exp, torch.Tensor.exp, torch.Tensor.norm, torch.norm, torch.cumsum, torch.Tensor.cumsum,
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """What a step is made of: the latents of a batch [batch, channels, height, width], and what the settings say."""

    batch: int
    height: int  # of the picture, in pixels
    width: int
    dtype: torch.dtype = torch.bfloat16


@dataclass(frozen=True)
class Prediction:
    """Bytes, as live tensors: without what CUDA itself, its libraries and the gaps of its allocator take."""

    weights: int  # of the frozen base
    adapter: int
    optimizer: int
    peak: int  # of the whole step, all of these in it

    @property
    def activations(self) -> int:
        return self.peak - self.weights - self.adapter - self.optimizer


def predict_step(
    cls: type[Family], config: dict[str, Any], settings: Train, shape: Shape, encoder_configs: EncoderConfigs | None = None
) -> Prediction:
    """The peak of one step of a family whose denoiser has this configuration, and whose text encoders have these, or the family's usual
    ones. Takes seconds to a minute; loads nothing."""
    family = family_without_weights(cls, config, settings, shape.dtype, encoder_configs)
    with torch.device("meta"):
        lora.add_lora(family, settings)
    if shape.dtype != torch.float32:
        lora.leave_inputs(family)
    if settings.checkpoints_gradients:
        family.denoiser.enable_gradient_checkpointing()
    family.denoiser.train()
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    models = lora.models(family).values()
    for model in models:
        _make_fake(model, mode)
    parameters = [p for model in models for p in model.parameters() if p.requires_grad]
    with mode, StorageCounter() as counter, _like_cuda(shape.dtype), _DrawnNumbers():
        for model in models:
            counter.count(model)
        whole = counter.live
        adapter = sum(_allocated(p.nbytes) for p in parameters)
        optimizer = make_optimizer(family.denoiser, settings, [family.encoder(name) for name in family.learning_encoders])
        masters = master_weights.of_adapter(family, settings)
        _run_backward(_loss(family, shape, encoder_configs))
        masters.collect_gradients()
        of_backward, counter.peak = counter.peak, counter.live
        torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm or torch.inf)
        optimizer.step()
        masters.round()
        state = sum(_allocated(t.nbytes) for held in optimizer.state.values() for t in held.values() if isinstance(t, Tensor))
    return Prediction(whole - adapter, adapter, state, max(of_backward + state, counter.peak))


class StorageCounter(TorchDispatchMode):
    """Bytes of all storages that operations have made and nothing has let go yet: `live` now, `peak` at most."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                self._see(tensor)
        return out

    def count(self, model: nn.Module) -> None:
        """Take in what was there before."""
        for tensor in (*model.parameters(), *model.buffers()):
            self._see(tensor)

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = _allocated(storage.nbytes())
            weakref.finalize(storage, self._drop, key)
            self.live += self._sizes[key]
            self.peak = max(self.peak, self.live)

    def _drop(self, key: int) -> None:
        self.live -= self._sizes.pop(key)


def _allocated(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


class _NormsInFp32(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in IN_FP32:
            args = tuple(a.float() if isinstance(a, Tensor) and a.dtype in (torch.bfloat16, torch.float16) else a for a in args)
            kwargs = {
                k: v.float() if isinstance(v, Tensor) and v.dtype in (torch.bfloat16, torch.float16) else v
                for k, v in (kwargs or {}).items()
            }
        return func(*args, **(kwargs or {}))


class _DrawnNumbers(TorchFunctionMode):
    """LoKr and LoHa of peft draw a number in every layer, to leave it out now and then (never, here): of a fake one nobody can say whether
    it is above the limit."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return 0.5 if func is torch.rand and args == (1,) else func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _like_cuda(dtype: torch.dtype) -> Iterator[None]:
    if dtype == torch.float32:
        yield
        return
    with torch.autocast("cpu", dtype=dtype), _NormsInFp32():
        yield


def _run_backward(loss: Tensor) -> None:
    """`loss.backward()` switches function modes off, and checkpointing would then compute its blocks again otherwise than before."""
    engine = torch.autograd.Variable._execution_engine
    engine.run_backward((loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True)


def family_without_weights(
    cls: type[Family], config: dict[str, Any], settings: Train, dtype: torch.dtype, encoder_configs: EncoderConfigs | None = None
) -> Family:
    """A family around a denoiser on the meta device, and the text encoders that learn, of these configurations or as the family's usual
    base has them: all that a step asks of it, and no file."""
    family = cls.__new__(cls)
    family.source, family.file, family.device, family.dtype, family.settings = None, None, "cpu", dtype, settings
    with torch.device("meta"):
        denoiser = cls.DENOISER(**config).requires_grad_(False).to(dtype)
    precision = settings.base_precision if settings.base_precision in quantised.PRECISIONS else None
    if precision:
        quantised.replace_layers(denoiser, precision, dtype)
    scheduler = cls.PROCESS.SCHEDULER(**cls.scheduler_config(config))
    family._parts = {cls.FOLDER: denoiser, "scheduler": scheduler}
    family.process = cls.PROCESS(scheduler, settings)
    with torch.device("meta"):
        for name in family.learning_encoders:
            encoder = encoder_without_weights(cls, name, encoder_configs).requires_grad_(False).eval()
            family._parts[name] = encoder.to(dtype if name in cls.large_encoders() else torch.float32)
    return family


def encoder_without_weights(cls: type[Family], name: str, configs: EncoderConfigs | None = None) -> nn.Module:
    """A text encoder of the family, on the device that torch makes things on just now."""
    return cls.ENCODERS[name](cls.ENCODERS[name].config_class(**(configs or cls.ENCODER_CONFIGS)[name]))


def texts_of_a_step(family: Family, batch: int, encoder_configs: EncoderConfigs | None = None) -> dict[str, Tensor]:
    """What a batch's texts are cached as, without values: embeddings, or where text encoders learn what each is given."""
    configs = encoder_configs or family.ENCODER_CONFIGS
    if not family.learning_encoders:
        return {name: torch.empty(batch, *of_one) for name, of_one in family.text_shapes().items()}
    found = {}
    for name in family.ENCODERS:
        length = configs[name].get("max_position_embeddings", 77) if name in family.clip_encoders() else family.text_length
        if name in family.clip_encoders() or name in family.learning_encoders:
            found[name] = torch.zeros(batch, length, dtype=torch.int64)
        else:
            found[name] = torch.empty(batch, length, configs[name]["d_model"])
    return found


def _make_fake(model: nn.Module, mode: FakeTensorMode) -> None:
    """Put fake tensors on the CPU in place of those on the meta device; also of those that are neither parameters nor buffers."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                with mode:
                    value = torch.empty(parameter.shape, dtype=parameter.dtype)
                module._parameters[name] = nn.Parameter(value, requires_grad=parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                with mode:
                    module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
        for name, value in vars(module).items():
            if isinstance(value, Tensor):
                with mode:
                    vars(module)[name] = torch.empty(value.shape, dtype=value.dtype)


def _loss(family: Family, shape: Shape, encoder_configs: EncoderConfigs | None) -> Tensor:
    latents = torch.empty(shape.batch, family.latent_channels(), shape.height // 8, shape.width // 8)
    timesteps = torch.zeros(shape.batch, dtype=torch.int64 if family.PROCESS is Diffusion else torch.float32)
    given = texts_of_a_step(family, shape.batch, encoder_configs)
    sizes = torch.zeros(shape.batch, 6)
    noise = torch.empty(latents.shape)
    loss = step_loss(family, latents, noise, timesteps, family.embedded(given), sizes)
    if family.settings.preservation:
        loss = loss + preservation_loss(family, family.process.add(latents, noise, timesteps), timesteps, given, sizes)
    return loss
