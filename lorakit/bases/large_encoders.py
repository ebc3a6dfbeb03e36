"""Text encoders that do not fit beside anything, T5 and language models: read tensor by tensor, in 8 bits where it has to be, and
where that is too much still, a layer on the card at a time."""

from __future__ import annotations

import copy

import torch
from accelerate import cpu_offload
from torch import nn
from transformers import PretrainedConfig, T5EncoderModel

from lorakit import device
from lorakit.bases import quantised, streaming

EMBEDDING, SAME = "shared.weight", "encoder.embed_tokens.weight"  # of T5 one tensor, of which files have one name or both
BESIDE = 0.5  # GB: what it computes with for one text, and CUDA's own; a guess until it is measured


def build(
    kind: type,
    config: PretrainedConfig,
    tensors: streaming.Tensors,
    precision: str | None,
    dtype: torch.dtype,
    where: str,
    place: str,
    depth: int | None = None,
) -> nn.Module:
    """An encoder of the class `kind` on the device `where` with these tensors, which are `place`'s; of a language model the first `depth`
    layers alone, if it says so. In fp16 the layers that overflow there compute in fp32."""
    exact = tuple(getattr(kind, "_keep_in_fp32_modules", None) or ()) if dtype == torch.float16 else ()
    model = streaming.build(lambda: _made(kind, config, depth), precision, dtype)
    for name, layer in model.named_modules():
        if isinstance(layer, quantised.QuantisedLinear) and name.rpartition(".")[2] in exact:
            layer.dtype = torch.float32
    named = _under_both_names(tensors) if kind is T5EncoderModel else _without_head(tensors, kind, sees=hasattr(config, "vision_config"))
    streaming.fill(model, named, dtype, where, place, exact)
    model.tie_weights()
    return model


def fits(
    kind: type, config: PretrainedConfig, dtype: torch.dtype, where: str, depth: int | None = None, precision: str | None = None
) -> bool:
    """Whether it fits, held so, into what is free on the device; always where memory is the machine's."""
    free = device.free_gb(where)
    return free is None or size_gb(kind, config, dtype, depth, precision) + BESIDE <= free


def size_gb(kind: type, config: PretrainedConfig, dtype: torch.dtype, depth: int | None = None, precision: str | None = None) -> float:
    """GB of its weights, held in `dtype` or in the bits of `precision`."""
    model = streaming.build(lambda: _made(kind, config, depth), precision, dtype)
    dense = sum(p.numel() for name, p in model.named_parameters() if name != SAME) * dtype.itemsize
    packed = sum(b.nbytes for m in model.modules() if isinstance(m, quantised.QuantisedLinear) for b in m.buffers())
    return (dense + packed) / 2**30


def bring_by_layers(model: nn.Module, where: str) -> nn.Module:
    """The model, which lies in the machine's memory, brought to the device layer by layer in every pass: the same numbers, slower."""
    cpu_offload(model, torch.device(where), offload_buffers=True)
    return model


def _made(kind: type, config: PretrainedConfig, depth: int | None) -> nn.Module:
    """A model without weights. Where it ends before its last layer there is no norm behind it: what is read are the states between layers."""
    if depth is None:
        return kind(config)
    config = copy.deepcopy(config)
    config.num_hidden_layers = depth
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:depth]
    model = kind(config)
    model.norm = nn.Identity()
    return model


def _under_both_names(tensors: streaming.Tensors) -> streaming.Tensors:
    given = False
    for key, tensor, scale in tensors:
        if key in (EMBEDDING, SAME):
            if not given:
                yield EMBEDDING, tensor, scale
                yield SAME, tensor, scale
            given = True
        else:
            yield key, tensor, scale


def _without_head(tensors: streaming.Tensors, kind: type, sees: bool) -> streaming.Tensors:
    """A language model is published with the head that predicts words, one level above what reads them; the head itself is passed over.
    One that sees too has its layers beside those of its eyes, in older files and in ComfyUI's at their place; where its words are read
    alone, its eyes are passed over as well."""
    own = f"{kind.base_model_prefix}."
    for key, tensor, scale in tensors:
        key = key.removeprefix(own)
        if not sees:
            key = key.removeprefix("language_model.").removeprefix(own)
        elif not key.startswith(("language_model.", "visual.", "lm_head.")):
            key = f"language_model.{key}"
        yield key, tensor, scale
