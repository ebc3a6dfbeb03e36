"""What the layers of Stable Diffusion's U-Nets are called in the original code (sgm)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lorakit.bases.layer_names import Original

INPUTS = ("input_blocks.0.0.weight", 4)  # the first weight, and the channels that it reads where it is for no inpainting

_RESNET = {"conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection"}
_OUTER = {"conv_in": "input_blocks.0.0", "conv_out": "out.2", "time_embedding.linear_1": "time_embed.0",
          "time_embedding.linear_2": "time_embed.2", "add_embedding.linear_1": "label_emb.0.0",
          "add_embedding.linear_2": "label_emb.0.2"}  # fmt: skip


def original_name(path: str, with_attention: Sequence[int]) -> Original | None:
    """`with_attention`: the levels of the way up that have attention."""
    if path in _OUTER:
        return Original(_OUTER[path])
    if found := re.fullmatch(r"up_blocks\.(\d)\.upsamplers\.0\.conv", path):
        level = int(found[1])  # an upsampler is the last part of its block: after the resnet and the attention
        return Original(f"output_blocks.{3 * level + 2}.{1 + (level in with_attention)}.conv")
    block, rest = _block(path)
    return Original(f"{block}.{_RESNET.get(rest, rest)}") if block else None


def _block(path: str) -> tuple[str, str]:
    """('input_blocks.4.1', 'proj_in') of 'down_blocks.1.attentions.0.proj_in'. Blocks are numbered through: three a
    level, of which a resnet is part 0 and an attention part 1."""
    if found := re.fullmatch(r"down_blocks\.(\d)\.(resnets|attentions)\.(\d)\.(.+)", path):
        return f"input_blocks.{1 + 3 * int(found[1]) + int(found[3])}.{int(found[2] == 'attentions')}", found[4]
    if found := re.fullmatch(r"down_blocks\.(\d)\.downsamplers\.0\.conv", path):
        return f"input_blocks.{3 * (int(found[1]) + 1)}.0", "op"
    if found := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", path):
        return f"middle_block.{1 if found[1] == 'attentions' else 2 * int(found[2])}", found[3]
    if found := re.fullmatch(r"up_blocks\.(\d)\.(resnets|attentions)\.(\d)\.(.+)", path):
        return f"output_blocks.{3 * int(found[1]) + int(found[3])}.{int(found[2] == 'attentions')}", found[4]
    return "", ""
