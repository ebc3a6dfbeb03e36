"""Linear layers of a frozen base held in 8 or 4 bits: storage only, so that any card can hold them. The dense weight exists
while one product is taken with it and never longer, in the backward pass too."""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor, nn
from torch.nn import functional

from lorakit.errors import LorakitError

PRECISIONS = ("fp8", "nf4")  # of the denoiser; int8 is for encoders: nearer than fp8, but no file has it
FP8 = torch.float8_e4m3fn
LARGEST_FP8, LARGEST_INT8 = 448.0, 127
NF4_BLOCK = 64  # weights that share a scale, as QLoRA has it (arXiv:2305.14314)
SCALE_DTYPES = {
    "fp8": torch.float32,
    "int8": torch.float32,
    "nf4": torch.float16,
}  # of NF4 there are many, and 0.05 % is nothing beside its own error


class QuantisedLinear(nn.Linear):
    """y = x @ W.T + b for a frozen W [out, in] that is held in few bits; y has the layer's `dtype`, that of the base.

    `weight` is the dense weight, made anew each time it is asked for: what reads it (DoRA, PiSSA, a merge) sees a plain tensor.
    What is held are buffers of whole numbers and scales, which no change of the model's precision touches."""

    packed: Tensor  # uint8: fp8 and int8 [out, in], nf4 [out x in / 2, 1]
    scale: Tensor  # fp8 and int8: fp32 [out, 1]; nf4: fp16 [out x in / NF4_BLOCK]

    def __init__(self, in_features: int, out_features: int, bias: bool, precision: str, dtype: torch.dtype, device: torch.device | str):
        nn.Module.__init__(self)
        self.in_features, self.out_features = in_features, out_features
        self.precision, self.dtype = precision, dtype
        packed, scale = packed_shapes(out_features, in_features, precision)
        self.register_buffer("packed", torch.empty(packed, dtype=torch.uint8, device=device))
        self.register_buffer("scale", torch.empty(scale, dtype=SCALE_DTYPES[precision], device=device))
        empty = nn.Parameter(torch.empty(out_features, dtype=dtype, device=device), requires_grad=False) if bias else None
        self.register_parameter("bias", empty)

    @property
    def weight(self) -> Tensor:
        """[out, in], dense, in the layer's dtype."""
        return self.dense(self.dtype)

    def dense(self, dtype: torch.dtype) -> Tensor:
        if self.precision == "fp8":
            return self.packed.view(FP8).to(dtype).mul_(self.scale.to(dtype))
        if self.precision == "int8":
            return self.packed.view(torch.int8).to(dtype).mul_(self.scale.to(dtype))
        library, shape = _bitsandbytes(), torch.Size((self.out_features, self.in_features))
        state = library.QuantState(absmax=self.scale.float(), shape=shape, dtype=dtype, blocksize=NF4_BLOCK, quant_type="nf4")
        return library.dequantize_4bit(self.packed, state)

    def fill(self, weight: Tensor, scale: Tensor | None = None) -> None:
        """Take the values of a weight [out, in], in fp8 times `scale` (one number, or [out, 1]). What is in fp8 already goes into
        a layer in fp8 as it stands. The device of what is held becomes the weight's."""
        if weight.dtype == FP8 and self.precision == "fp8":
            self.packed = weight.contiguous().view(torch.uint8)
            one = torch.ones(self.out_features, 1, device=weight.device)
            self.scale = one if scale is None else one * scale.to(weight.device, torch.float32).reshape(-1, 1)
        else:
            dense = weight if scale is None else weight.float() * scale.to(weight.device, torch.float32).reshape(-1, 1)
            self.packed, self.scale = pack(dense.to(self.dtype), self.precision)

    def forward(self, x: Tensor) -> Tensor:
        return _Product.apply(x.to(self.dtype), self)

    def _apply(self, fn, recurse: bool = True):
        scale = self.scale
        super()._apply(fn, recurse)
        if self.scale.dtype != scale.dtype:  # model.to(bf16) is about the layers around
            self.scale = scale.to(self.scale.device)
        return self

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, held as {self.precision}"


class _Product(torch.autograd.Function):
    """Keeps the layer for the backward pass, not its dense weight, which autograd would."""

    @staticmethod
    def forward(context, x: Tensor, layer: QuantisedLinear) -> Tensor:
        context.layer = layer
        return functional.linear(x, layer.dense(x.dtype), layer.bias)

    @staticmethod
    def backward(context, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ context.layer.dense(gradient.dtype), None


def packed_shapes(rows: int, columns: int, precision: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of what is held of a weight [rows, columns]: the packed values and their scales."""
    if precision in ("fp8", "int8"):
        return (rows, columns), (rows, 1)
    return (rows * columns // 2, 1), (-(-rows * columns // NF4_BLOCK),)


def pack(weight: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    """(packed, scale) of a dense weight [out, in]: fp8 e4m3 or int8 with a scale per row, or NF4 with one per 64 weights. The scales of
    fp8 are powers of two: multiplying by them rounds nothing, and weights that come from an fp8 file stay what they are."""
    if precision == "fp8":
        dense = weight.float()
        exponent = torch.frexp(dense.abs().amax(1, keepdim=True) / LARGEST_FP8).exponent
        scale = torch.ldexp(torch.ones_like(dense[:, :1]), exponent)
        return (dense / scale).to(FP8).view(torch.uint8), scale
    if precision == "int8":
        scale = weight.float().abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / LARGEST_INT8
        return (weight.float() / scale).round().to(torch.int8).view(torch.uint8), scale
    packed, state = _bitsandbytes().quantize_4bit(weight.contiguous(), blocksize=NF4_BLOCK, quant_type="nf4")
    return packed, state.absmax.half()


def check_available(precision: str) -> None:
    """Raises `LorakitError` where the package is missing that `precision` needs."""
    if precision == "nf4" and importlib.util.find_spec("bitsandbytes") is None:
        raise LorakitError('train.base_precision = nf4 needs bitsandbytes: pip install "lorakit[4bit]"; or take fp8, which needs nothing')


def _bitsandbytes():
    check_available("nf4")
    from bitsandbytes import functional as bitsandbytes

    return bitsandbytes


def quantised_layers(model: nn.Module) -> list[str]:
    """Names of the layers that are worth holding in few bits: the linear ones inside of lists of blocks. What lies outside
    (embeddings of patches, texts and time, the last projection) is small, and errors there reach everything."""
    lists = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, nn.ModuleList))
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and not isinstance(module, QuantisedLinear)
        and name.startswith(lists)
        and module.in_features * module.out_features % NF4_BLOCK == 0
    ]


def replace_layers(model: nn.Module, precision: str, dtype: torch.dtype) -> nn.Module:
    """Put `QuantisedLinear` in place of the layers of `quantised_layers`; where these hold weights, with those values, one
    layer after another, so that no second copy of the model is ever there."""
    check_available(precision)
    for name in quantised_layers(model):
        path, _, last = name.rpartition(".")
        dense = model.get_submodule(name)
        layer = QuantisedLinear(dense.in_features, dense.out_features, dense.bias is not None, precision, dtype, "meta")
        if not dense.weight.is_meta:
            layer.fill(dense.weight.detach().to(dtype))
        if dense.bias is not None and not dense.bias.is_meta:
            layer.bias = nn.Parameter(dense.bias.detach().to(dtype), requires_grad=False)
        setattr(model.get_submodule(path), last, layer)
    return model
