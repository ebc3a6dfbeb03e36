"""Randomly initialised captioners in the hub's format, in the shapes of the real ones or smaller than any: a speed needs no training."""

from __future__ import annotations

import json
from pathlib import Path

import torch

BLIP = {  # width, layers, heads, side: `base` and `large` are BLIP's own shapes, 224 and 446 M parameters with its words
    "small": {"vision": (256, 6, 4, 224), "text": (256, 4, 4)},
    "base": {"vision": (768, 12, 12, 384), "text": (768, 12, 12)},
    "large": {"vision": (1024, 24, 16, 384), "text": (768, 12, 12)},
}
FLORENCE2 = {  # widths, depths and side of DaViT; width, layers, heads of BART: `base` and `large` are Florence-2's own shapes
    "small": {"vision": ((32, 64, 128, 256), (1, 1, 3, 1), 224), "text": (256, 3, 4)},
    "base": {"vision": ((128, 256, 512, 1024), (1, 1, 9, 1), 768), "text": (768, 6, 12)},
    "large": {"vision": ((256, 512, 1024, 2048), (1, 1, 9, 1), 768), "text": (1024, 12, 16)},
}


def make_blip(folder: Path, size: str) -> Path:
    from transformers import BlipConfig, BlipForConditionalGeneration

    folder.mkdir()
    letters = [mark + letter for letter in "abcdefghijklmnopqrstuvwxyz" for mark in ("", "##")]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"word{n}" for n in range(30_467))]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    write(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})
    (width, layers, heads, side), (text_width, text_layers, text_heads) = BLIP[size].values()
    write(folder / "preprocessor_config.json", {
        "image_processor_type": "BlipImageProcessor", "size": {"height": side, "width": side}, "processor_class": "BlipProcessor",
    })  # fmt: skip
    vision = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers, "num_attention_heads": heads,
              "image_size": side, "patch_size": 16}  # fmt: skip
    text = {"hidden_size": text_width, "intermediate_size": 4 * text_width, "num_hidden_layers": text_layers, "encoder_hidden_size": width,
            "num_attention_heads": text_heads, "vocab_size": len(vocabulary), "bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3,
            "pad_token_id": 0}  # fmt: skip
    torch.manual_seed(0)
    BlipForConditionalGeneration(BlipConfig(vision_config=vision, text_config=text)).save_pretrained(folder)
    return folder


def make_florence2(folder: Path, size: str) -> Path:
    from transformers import AutoTokenizer, Florence2Config, Florence2ForConditionalGeneration

    folder.mkdir()
    (widths, depths, side), (text_width, text_layers, heads) = FLORENCE2[size].values()
    letters = [chr(c) for c in range(33, 127)]
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "\u0120", *letters, *(f"\u0120word{n}" for n in range(50_000))]
    write(folder / "vocab.json", {token: number for number, token in enumerate(tokens)})
    (folder / "merges.txt").write_text("#version: 0.2\n")
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    write(
        folder / "tokenizer_config.json", {"tokenizer_class": "BartTokenizer", **names, "extra_special_tokens": {"image_token": "<image>"}}
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<image>", *(f"<loc_{n}>" for n in range(1000))], special_tokens=True)
    tokenizer.save_pretrained(folder)
    square = {"height": side, "width": side}
    write(folder / "preprocessor_config.json", {
        "image_processor_type": "CLIPImageProcessor", "size": square, "do_center_crop": False, "crop_size": square, "resample": 3,
        "image_seq_length": (side // 32) ** 2 + 1, "processor_class": "Florence2Processor",
    })  # fmt: skip
    write(folder / "processor_config.json", {"processor_class": "Florence2Processor"})
    config = Florence2Config(
        vision_config={"depths": list(depths), "embed_dim": list(widths), "num_heads": [w // 32 for w in widths],
                       "num_groups": [w // 32 for w in widths], "projection_dim": text_width},
        text_config={"model_type": "bart", "vocab_size": len(tokenizer), "d_model": text_width, "encoder_layers": text_layers,
                     "decoder_layers": text_layers, "encoder_attention_heads": heads, "decoder_attention_heads": heads,
                     "encoder_ffn_dim": 4 * text_width, "decoder_ffn_dim": 4 * text_width, "max_position_embeddings": 4096,
                     "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": 2},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    torch.manual_seed(0)
    Florence2ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def write(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


MAKERS = {"blip": make_blip, "florence2": make_florence2}
