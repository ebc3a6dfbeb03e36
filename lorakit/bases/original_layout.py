"""The transformers of SD3 and FLUX in the layout of their original code, as single files hold them: which tensor of the file
each of diffusers' is, and what the file's shapes say of the architecture."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lorakit.bases import layer_names

Shapes = Mapping[str, tuple[int, ...]]

_OUTER = {
    "sd3": {
        "pos_embed.pos_embed": "pos_embed", "pos_embed.proj": "x_embedder.proj", "context_embedder": "context_embedder",
        "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0", "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
        "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0", "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
        "norm_out.linear": "final_layer.adaLN_modulation.1", "proj_out": "final_layer.linear",
    },
    "flux1": {
        **{f"time_text_embed.{ours}_embedder.linear_{number}": f"{theirs}_in.{layer}_layer"
           for ours, theirs in (("timestep", "time"), ("guidance", "guidance"), ("text", "vector")) for number, layer in ((1, "in"), (2, "out"))},
        "context_embedder": "txt_in", "x_embedder": "img_in", "norm_out.linear": "final_layer.adaLN_modulation.1", "proj_out": "final_layer.linear",
    },
}  # fmt: skip
_NORMS = {"norm_q": ("img", "query"), "norm_k": ("img", "key"), "norm_added_q": ("txt", "query"), "norm_added_k": ("txt", "key")}


@dataclass(frozen=True)
class Place:
    """Where a tensor of diffusers lies in a file: a fused tensor holds several one above the other."""

    key: str
    slot: int = 0
    swapped: bool = False  # shift and scale stand the other way round

    def take(self, tensor: Tensor, height: int) -> Tensor:
        """[height, ...] of the file's tensor. Only the last of a fused one, FLUX' MLP, may be of another height."""
        if self.swapped:
            return tensor.roll(height // 2, 0)
        if tensor.shape[:1] == (height,):
            return tensor
        start = self.slot * height if self.slot < 3 else tensor.shape[0] - height
        return tensor[start : start + height]


def place(architecture: str, key: str, shape: tuple[int, ...]) -> Place | None:
    """Where the tensor `key` of diffusers lies; None where the file has it not."""
    path, _, kind = key.rpartition(".")
    outer = _OUTER[architecture]
    if key in outer:
        return Place(outer[key])
    if path in outer:
        return Place(f"{outer[path]}.{kind}", swapped=path == "norm_out.linear")
    if found := re.fullmatch(r"(single_)?transformer_blocks\.(\d+)\.(attn2?)\.(norm_(?:added_)?[qk])", path):
        return Place(_norm(architecture, *found.groups(), kind))
    layer = (layer_names.bfl if architecture == "flux1" else layer_names.mmdit)(path)
    if layer is None:
        return None
    halves = architecture == "sd3" and path.endswith("norm1_context.linear") and len(shape) > 1 and shape[0] == 2 * shape[1]
    return Place(f"{layer.name}.{kind}", layer.slot, swapped=halves)


def _norm(architecture: str, single: str | None, number: str, attention: str, norm: str, kind: str) -> str:
    side, what = _NORMS[norm]
    if architecture == "sd3":
        return f"joint_blocks.{number}.{'x' if side == 'img' else 'context'}_block.{attention}.ln_{what[0]}.{kind}"
    block = f"single_blocks.{number}.norm" if single else f"double_blocks.{number}.{side}_attn.norm"
    return f"{block}.{what}_norm.scale"


def converted(architecture: str, tensors: Mapping[str, Tensor], wanted: Shapes) -> dict[str, Tensor]:
    """The tensors of a file under diffusers' names, as far as the file has them. One that is not as high as its parts together is
    given whole, for whoever compares shapes to name it."""
    # of a bias the weight tells whether it is the last norm's, with its halves swapped
    places = {key: place(architecture, key, wanted.get(f"{key.removesuffix('.bias')}.weight", shape)) for key, shape in wanted.items()}
    heights: Counter[str] = Counter()
    for key, at in places.items():
        if at:
            heights[at.key] += wanted[key][0]
    found = {}
    for key, at in places.items():
        if at and at.key in tensors:
            tensor = tensors[at.key]
            found[key] = at.take(tensor, wanted[key][0]) if tensor.shape[:1] == (heights[at.key],) else tensor
    return found


def as_original(architecture: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The other way: diffusers' tensors in the file's layout."""
    fused: dict[str, dict[int, Tensor]] = {}
    for key, tensor in state.items():
        weight = state.get(f"{key.removesuffix('.bias')}.weight", tensor)
        at = place(architecture, key, tuple(weight.shape))
        if at is None:
            raise ValueError(f"{key}: has no name in the original code")
        fused.setdefault(at.key, {})[at.slot] = tensor.roll(tensor.shape[0] // 2, 0) if at.swapped else tensor
    return {key: torch.cat([parts[slot] for slot in sorted(parts)]) for key, parts in fused.items()}


def find_config(architecture: str, shapes: Shapes, usual: Mapping[str, Any]) -> dict[str, Any]:
    """What of diffusers' configuration the shapes of a file tell; `usual` gives what they cannot (the width of a head)."""
    if architecture == "flux1":
        width, channels = shapes["img_in.weight"]
        head = shapes["double_blocks.0.img_attn.norm.query_norm.scale"][0]
        return {
            "num_layers": _count("double_blocks", shapes), "num_single_layers": _count("single_blocks", shapes), "in_channels": channels,
            "guidance_embeds": "guidance_in.in_layer.weight" in shapes, "attention_head_dim": head, "num_attention_heads": width // head,
            "joint_attention_dim": shapes["txt_in.weight"][1], "pooled_projection_dim": shapes["vector_in.in_layer.weight"][1],
        }  # fmt: skip
    width, channels, patch, _ = shapes["x_embedder.proj.weight"]
    dual = {int(found[1]) for key in shapes if (found := re.match(r"joint_blocks\.(\d+)\.x_block\.attn2\.", key))}
    return {
        "num_layers": _count("joint_blocks", shapes), "in_channels": channels, "patch_size": patch,
        "out_channels": shapes["final_layer.linear.weight"][0] // patch**2, "num_attention_heads": width // usual["attention_head_dim"],
        "caption_projection_dim": shapes["context_embedder.weight"][0], "joint_attention_dim": shapes["context_embedder.weight"][1],
        "pooled_projection_dim": shapes["y_embedder.mlp.0.weight"][1], "pos_embed_max_size": math.isqrt(shapes["pos_embed"][1]),
        "dual_attention_layers": tuple(sorted(dual)), "qk_norm": "rms_norm" if any(".ln_q." in key for key in shapes) else None,
    }  # fmt: skip


def _count(blocks: str, keys: Iterable[str]) -> int:
    return 1 + max(int(found[1]) for key in keys if (found := re.match(rf"{blocks}\.(\d+)\.", key)))
