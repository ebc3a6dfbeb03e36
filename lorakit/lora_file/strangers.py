"""What a LoRA file is for whose base lorakit does not know, as far as its names tell; only said, never relied on."""

from __future__ import annotations

import re
from collections.abc import Mapping

NAMES = {  # title -> what some of the keys have
    "Wan": r"blocks[._]\d+[._](self|cross)_attn[._][qkvo]\b",
    "Chroma": r"distilled_guidance_layer",
    "HunyuanVideo": r"(double|single)_blocks[._]\d+[._](img|txt)_attn_(qkv|proj)",
    "LTX-Video": r"^(transformer|diffusion_model)\.transformer_blocks\.\d+\.attn[12]\.to_[qkv]",
}


def looks_like(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The title of another base whose layers a file's are like."""
    return next((title for title, pattern in NAMES.items() if any(re.search(pattern, key) for key in shapes)), None)
