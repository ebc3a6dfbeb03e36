"""What a LoRA file is for whose base lorakit does not know, as far as its names and widths tell; only said, never relied on."""

from __future__ import annotations

import re
from collections.abc import Mapping

NAMES = {  # title -> what some of the keys have
    "FLUX.2": r"(double|single)_stream_modulation|to_qkv_mlp_proj|ff(_context)?[._]linear_(in|out)\b",
    "Wan": r"blocks[._]\d+[._](self|cross)_attn[._][qkvo]\b",
    "Chroma": r"distilled_guidance_layer",
    "HunyuanVideo": r"(double|single)_blocks[._]\d+[._](img|txt)_attn_(qkv|proj)",
    "LTX-Video": r"^(transformer|diffusion_model)\.transformer_blocks\.\d+\.attn[12]\.to_[qkv]",
}
WIDTHS = {  # title -> what keys have, and how wide the inputs of these layers are there
    "FLUX.2": (r"(double|single)(_transformer)?_blocks|transformer_blocks[._]\d+[._]attn[._]", (4096, 6144)),
}


def looks_like(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The title of another base whose layers a file's are like."""
    for title, pattern in NAMES.items():
        if any(re.search(pattern, key) for key in shapes):
            return title
    downs = {key: shape for key, shape in shapes.items() if key.endswith((".lora_down.weight", ".lora_A.weight")) and len(shape) > 1}
    for title, (pattern, widths) in WIDTHS.items():
        if any(re.search(pattern, key) and shape[1] in widths for key, shape in downs.items()):
            return title
    return None
