"""Builds the base `tiny-random`: random weights of a few MB in Stable Diffusion 1.5's own classes and block layout, with
CLIP's real vocabulary from the open_clip package. Its images are noise; every step around them is real."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from lorakit import files
from lorakit.weights import quiet_libraries

SEED = 7
WIDTH = 32  # of the text encoder, and so of cross-attention


def build(folder: Path) -> None:
    """Write a diffusers folder. The same weights each time (for one version of torch)."""
    quiet_libraries()
    state = torch.random.get_rng_state()
    torch.manual_seed(SEED)
    try:
        files.write_folder(folder, lambda part: _pipeline(part).save_pretrained(part, safe_serialization=True))
    finally:
        torch.random.set_rng_state(state)


def _pipeline(folder: Path) -> StableDiffusionPipeline:
    scheduler = DDPMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    return StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=_text_encoder(),
        tokenizer=clip_tokenizer(folder),
        unet=_unet(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=64, block_out_channels=(16, 32, 32, 32), layers_per_block=2, cross_attention_dim=WIDTH,
        attention_head_dim=8, norm_num_groups=8,
    )  # fmt: skip


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16), layers_per_block=1, latent_channels=4, norm_num_groups=4, sample_size=512,
    )  # fmt: skip


def _text_encoder() -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408, hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=77, hidden_act="quick_gelu", bos_token_id=49406, eos_token_id=49407, pad_token_id=49407,
        )
    )  # fmt: skip


def clip_tokenizer(folder: Path) -> CLIPTokenizer:
    """CLIP's tokenizer from the merges that open_clip carries; `folder` takes the two files that it is read from."""
    source = folder / "tokenizer"
    source.mkdir(parents=True, exist_ok=True)
    for name, text in _clip_vocabulary().items():
        (source / name).write_text(text, encoding="utf-8")
    return CLIPTokenizer.from_pretrained(source, model_max_length=77)


@cache
def _clip_vocabulary() -> dict[str, str]:
    """{"vocab.json": ..., "merges.txt": ...}, as OpenAI published them."""
    import open_clip

    packed = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(packed.read_bytes()).decode("utf-8").split("\n")
    merges = lines[1 : 49152 - 256 - 2 + 1]  # as OpenAI's own tokenizer reads this file
    letters = list(open_clip.tokenizer.bytes_to_unicode().values())
    vocabulary = letters + [letter + "</w>" for letter in letters] + ["".join(merge.split()) for merge in merges]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    numbered = {token: number for number, token in enumerate(vocabulary)}
    return {"vocab.json": json.dumps(numbered), "merges.txt": "#version: 0.2\n" + "\n".join(merges) + "\n"}
