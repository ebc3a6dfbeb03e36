"""The sizes on the cards are those of the real bases: their denoisers are built on the meta device and counted."""

import re
from pathlib import Path

import pytest
import torch
from diffusers import (
    ChromaTransformer2DModel,
    CosmosTransformer3DModel,
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    Krea2Transformer2DModel,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    ZImageTransformer2DModel,
)

from bench import memory
from lorakit.bases import families
from lorakit.project import catalog
from lorakit.settings import resolve

CLIP_L, CLIP_G, CLIP_H, T5, QWEN3_4B, VAE = 0.1237, 0.6947, 0.3404, 4.7623, 4.0225, 0.0838
QWEN3_8B, MISTRAL_SMALL_3, QWEN3_VL_4B, QWEN25_VL_7B, VIDEO_VAE = (
    8.1907,
    24.0114,
    4.4378,
    8.2922,
    0.1269,
)  # billions of weights, as published
SD3 = {
    "sample_size": 128, "attention_head_dim": 64, "in_channels": 16, "out_channels": 16, "joint_attention_dim": 4096,
    "pooled_projection_dim": 2048,
}  # fmt: skip
BASES = {  # the denoiser's configuration as published, billions of weights beside it, bytes each
    "sd21": (UNet2DConditionModel, {"sample_size": 96, "cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20),
                                    "use_linear_projection": True}, CLIP_H + VAE, 4),
    "sd3-medium": (SD3Transformer2DModel, {**SD3, "num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536,
                                           "pos_embed_max_size": 192}, CLIP_L + CLIP_G + T5 + VAE, 2),
    "sd35-large": (SD3Transformer2DModel, {**SD3, "num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432,
                                           "pos_embed_max_size": 192, "qk_norm": "rms_norm"}, CLIP_L + CLIP_G + T5 + VAE, 2),
    "z-image": (ZImageTransformer2DModel, {"axes_lens": (1536, 512, 512)}, QWEN3_4B + VAE, 2),
    "z-image-turbo": (ZImageTransformer2DModel, {"axes_lens": (1536, 512, 512)}, QWEN3_4B + VAE, 2),
    "flux2-klein-4b": (Flux2Transformer2DModel, {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680,
                                                 "guidance_embeds": False}, QWEN3_4B + VAE, 2),
    "flux2-klein-9b": (Flux2Transformer2DModel, {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288,
                                                 "guidance_embeds": False}, QWEN3_8B + VAE, 2),
    "flux2-dev": (Flux2Transformer2DModel, {}, MISTRAL_SMALL_3 + VAE, 2),
    "krea2": (Krea2Transformer2DModel, {}, QWEN3_VL_4B + VIDEO_VAE, 2),
    "krea2-turbo": (Krea2Transformer2DModel, {}, QWEN3_VL_4B + VIDEO_VAE, 2),
    "qwen-image": (QwenImageTransformer2DModel, {}, QWEN25_VL_7B + VIDEO_VAE, 2),
    "qwen-image-2512": (QwenImageTransformer2DModel, {}, QWEN25_VL_7B + VIDEO_VAE, 2),
    "anima": (CosmosTransformer3DModel, dict(families.load("anima").CONFIG), 0.1347 + 0.5960 + VIDEO_VAE, 2),
    "chroma": (ChromaTransformer2DModel, {}, T5 + VAE, 2),
    "flux1-schnell": (FluxTransformer2DModel, {"guidance_embeds": False}, CLIP_L + T5 + VAE, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", BASES)
def test_the_download_is_as_large_as_its_weights(name):
    cls, config, beside, bytes_each = BASES[name]
    with torch.device("meta"):
        weights = sum(p.numel() for p in cls(**config).parameters()) / 1e9
    assert catalog.card(name).size_gb == pytest.approx((weights + beside) * bytes_each, rel=0.02)


def base_rows():
    """The table of bases in docs/training.md, from the cards."""
    for card in catalog.cards():
        if card.comes_along:
            continue
        of = resolve([(card.name, card.settings)])
        vram, size = f"{card.min_vram_gb:g} GB", f"{card.size_gb:g} GB"
        yield f"| `{card.name}` | {of.train.resolution} | {of.train.targets} | {of.caption.style} | {of.sample.guidance:g} | {size} | {vram} |"


def kind_rows():
    """The table of kinds, from the pipelines."""
    for kind in catalog.kinds():
        of = resolve([(kind.name, kind.settings)])
        photos = f"{of.select.least}, {of.select.wanted}, {of.select.most}"
        yield f"| `{kind.name}` | {photos} | {of.train.learning_rate:.0e} | {', '.join(of.caption.omit) or '-'} |".replace("e-0", "e-")


def test_the_page_of_bases_has_them_all_with_what_a_step_takes():
    """Both tables of docs/bases.md: a row of memory as `python -m bench.memory --page` prints it, and one of what is proven."""
    text = (Path(__file__).parents[2] / "docs" / "bases.md").read_text(encoding="utf-8")
    names = [card.name for card in catalog.cards() if not card.comes_along]
    assert not [name for name in names if not re.search(rf"(?m)^\| `{name}` \| [\d./ ]+ \| ([\d./ ]+|-) \|$", text)]
    assert next(memory.page(["sd15"])) in text.splitlines()  # the others take a minute
    proven = text.split("## What is proven")[1]
    assert not [name for name in names if f"`{name}`" not in proven]


def test_the_pages_tables_are_those_of_the_cards_and_pipelines():
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    missing = [row for row in (*base_rows(), *kind_rows()) if row not in page.splitlines()]
    assert not missing
