"""What FLUX's original code calls the layers of its double blocks, over picture and text, and of its single ones over both together: the
same in FLUX.1, Chroma and FLUX.2."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from lorakit.bases.layer_names import QKV, SLOTS, Original
from lorakit.bases.original_layout import Place, count_blocks

_NORMS = {"norm_q": "img_attn.norm.query_norm", "norm_k": "img_attn.norm.key_norm", "norm_added_q": "txt_attn.norm.query_norm",
          "norm_added_k": "txt_attn.norm.key_norm"}  # fmt: skip


def in_double_block(path: str, parts: Mapping[str, str]) -> Original | None:
    """A layer of a double block: of its attention what is fused, else what `parts` calls it; None for another layer."""
    found = re.fullmatch(r"transformer_blocks\.(\d+)\.(.+)", path)
    if not found:
        return None
    block, part = f"double_blocks.{found[1]}", found[2]
    if fused := re.fullmatch(r"attn\.(?:to_([qkv])|add_([qkv])_proj)", part):
        return Original(f"{block}.{'img' if fused[1] else 'txt'}_attn.qkv", SLOTS[fused[1] or fused[2]], QKV)
    return Original(f"{block}.{parts[part]}") if part in parts else None


def place(original_name: Callable[[str], Original | None], key: str) -> Place | None:
    """Where a single file has a tensor of the blocks, or of a layer that `original_name` names."""
    path, _, kind = key.rpartition(".")
    if found := re.fullmatch(r"transformer_blocks\.(\d+)\.attn\.(norm_(?:added_)?[qk])", path):
        return Place(f"double_blocks.{found[1]}.{_NORMS[found[2]]}.scale")
    if found := re.fullmatch(r"single_transformer_blocks\.(\d+)\.attn\.norm_([qk])", path):
        return Place(f"single_blocks.{found[1]}.norm.{'query' if found[2] == 'q' else 'key'}_norm.scale")
    layer = original_name(path)
    return Place(f"{layer.name}.{kind}", layer.slot, layer.heights) if layer else None


def config_from(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """What the shapes of a single file's transformer tell of its configuration. Raises `KeyError` for a tensor it lacks."""
    width, channels = shapes["img_in.weight"]
    head = shapes["double_blocks.0.img_attn.norm.query_norm.scale"][0]
    return {
        "num_layers": count_blocks("double_blocks", shapes), "num_single_layers": count_blocks("single_blocks", shapes),
        "in_channels": channels, "attention_head_dim": head, "num_attention_heads": width // head, "joint_attention_dim": shapes["txt_in.weight"][1],
    }  # fmt: skip
