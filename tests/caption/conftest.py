"""Tiny captioners in the hub's format: random weights, widened so that photos differ, and words of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

WORDS = (
    "dog cat bear mug skull statue chair table garden street window river sitting standing lying holding wearing red "
    "blue green brown white black small large old wooden soft bright dark on in under beside with and the a"
).split()


def save(folder: Path, model, std: float = 0.4) -> Path:
    """The model with its weights drawn anew at `std`: with the usual 0.02 every photo gets the same caption."""
    import torch

    torch.manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, std)
            elif "norm" not in name.lower():
                parameter.normal_(0, 0.1)
    model.save_pretrained(folder, safe_serialization=True)
    return folder


def write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.fixture(scope="session")
def cropped_once(tmp_path_factory, tiny_weights) -> Path:
    """A project of four photos as far as their crops, made once; tests work on copies."""
    import lorakit
    from tests.conftest import QUICK, draw_photo

    folder = tmp_path_factory.mktemp("cropped")
    (folder / "photos").mkdir()
    for number, size in enumerate([(640, 512), (640, 512), (512, 640), (600, 600)]):
        draw_photo(number, size).save(folder / "photos" / f"photo_{number}.jpg", quality=92)
    project = lorakit.new_project(
        folder / "project", folder / "photos", base="tiny-random", trigger="zwx", class_word="mug", device="cpu",
        settings={**QUICK, "train.weights": str(tiny_weights)},
    )  # fmt: skip
    lorakit.walk(project, last="crop")
    return project.folder


@pytest.fixture
def cropped(cropped_once, tmp_path):
    """cropped(**settings): a project whose four photos wait for captions."""
    import shutil

    import lorakit

    def make(**settings):
        shutil.copytree(cropped_once, tmp_path / "project", ignore=shutil.ignore_patterns(".lock"))
        project = lorakit.open_project(tmp_path / "project", settings=settings, device="cpu")
        project.keep_words()
        return project

    return make


def image_settings(kind: str, side: int) -> dict:
    return {
        "image_processor_type": kind, "do_resize": True, "size": {"height": side, "width": side}, "do_normalize": True,
        "do_rescale": True, "rescale_factor": 1 / 255, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3,
    }  # fmt: skip


def write_bert_words(folder: Path) -> int:
    """A WordPiece vocabulary of WORDS and letters. Returns its size."""
    letters = [mark + letter for letter in "abcdefghijklmnopqrstuvwxyz" for mark in ("", "##")]
    vocabulary = list(dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, ".", ",", *letters]))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    return len(vocabulary)


def write_byte_words(folder: Path, kind: str, added: list[str], **config) -> int:
    """A byte-level vocabulary of WORDS and single letters. Returns its size, added tokens included."""
    from transformers import AutoTokenizer

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokens = list(dict.fromkeys([*special, *(f"\u0120{word}" for word in WORDS), *"\u0120abcdefghijklmnopqrstuvwxyzDLW,.?"]))
    write_json(folder / "vocab.json", {token: number for number, token in enumerate(tokens)})
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": kind, **names, **config})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(added, special_tokens=True)
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


@pytest.fixture(scope="session")
def tiny_blip(tmp_path_factory) -> Path:
    from transformers import BlipConfig, BlipForConditionalGeneration

    folder = tmp_path_factory.mktemp("blip")
    size = write_bert_words(folder)
    write_json(
        folder / "preprocessor_config.json",
        {**image_settings("BlipImageProcessor", 32), "processor_class": "BlipProcessor"},
    )
    config = BlipConfig(
        text_config={
            "vocab_size": size, "hidden_size": 32, "encoder_hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "max_position_embeddings": 64, "bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3,
            "pad_token_id": 0,
        },
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8,
        },
        projection_dim=32,
    )  # fmt: skip
    return save(folder, BlipForConditionalGeneration(config))


@pytest.fixture(scope="session")
def tiny_blip2(tmp_path_factory) -> Path:
    from transformers import Blip2Config, Blip2ForConditionalGeneration

    folder = tmp_path_factory.mktemp("blip2")
    size = write_byte_words(folder, "GPT2Tokenizer", ["<image>"])
    write_json(folder / "preprocessor_config.json", image_settings("BlipImageProcessor", 32))
    write_json(folder / "processor_config.json", {"processor_class": "Blip2Processor", "num_query_tokens": 4})
    config = Blip2Config(
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8,
        },
        qformer_config={
            "vocab_size": size, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "encoder_hidden_size": 32,
        },
        text_config={
            "model_type": "opt", "vocab_size": size, "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "max_position_embeddings": 128, "word_embed_proj_dim": 32, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
        },
        num_query_tokens=4, image_token_index=size - 1,
    )  # fmt: skip
    return save(folder, Blip2ForConditionalGeneration(config))


@pytest.fixture(scope="session")
def tiny_florence2(tmp_path_factory) -> Path:
    from transformers import Florence2Config, Florence2ForConditionalGeneration

    folder = tmp_path_factory.mktemp("florence2")
    places = [f"<loc_{number}>" for number in range(0, 1000, 50)]
    size = write_byte_words(folder, "BartTokenizer", ["<image>", *places], extra_special_tokens={"image_token": "<image>"})
    image = image_settings("CLIPImageProcessor", 64) | {
        "do_center_crop": False,
        "image_seq_length": 5,
        "crop_size": {"height": 64, "width": 64},
    }
    write_json(folder / "preprocessor_config.json", {**image, "processor_class": "Florence2Processor"})
    parsing = {"NUM_BBOX_HEIGHT_BINS": 1000, "NUM_BBOX_WIDTH_BINS": 1000, "PARSE_TASKS": [
        {"TASK_NAME": "pure_text"}, {"TASK_NAME": "description_with_bboxes", "PATTERN": None},
    ]}  # fmt: skip
    write_json(folder / "processor_config.json", {"processor_class": "Florence2Processor", "post_processor_config": parsing})
    config = Florence2Config(
        vision_config={
            "depths": [1, 1], "patch_size": [7, 3], "patch_stride": [8, 4], "patch_padding": [3, 1], "patch_prenorm": [False, True],
            "embed_dim": [16, 32], "num_heads": [2, 2], "num_groups": [2, 2], "window_size": 2, "projection_dim": 32,
        },
        text_config={
            "model_type": "bart", "vocab_size": size, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
            "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 512,
            "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": 2,
        },
        image_token_id=size - len(places) - 1,
    )  # fmt: skip
    return save(folder, Florence2ForConditionalGeneration(config))


@pytest.fixture(scope="session")
def tiny_vlm(tmp_path_factory) -> Path:
    """A chat model in LLaVA's shape."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    folder = tmp_path_factory.mktemp("vlm")
    size = write_byte_words(folder, "GPT2Tokenizer", ["<image>"], extra_special_tokens={"image_token": "<image>"})
    image = image_settings("CLIPImageProcessor", 32) | {
        "do_center_crop": False,
        "crop_size": {"height": 32, "width": 32},
    }
    write_json(folder / "preprocessor_config.json", {**image, "processor_class": "LlavaProcessor"})
    talk = (
        "{% for m in messages %}{% for c in m.content %}{% if c.type == 'image' %}<image>{% else %}{{ c.text }}{% endif %}{% endfor %}"
        "{% endfor %} answer "
    )
    write_json(
        folder / "processor_config.json",
        {
            "processor_class": "LlavaProcessor",
            "patch_size": 8,
            "vision_feature_select_strategy": "full",
            "num_additional_image_tokens": 1,
        },
    )
    write_json(folder / "chat_template.json", {"chat_template": talk})
    config = LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 32, "patch_size": 8,
        },
        text_config={
            "model_type": "llama", "vocab_size": size, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "max_position_embeddings": 1024, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
        },
        image_token_index=size - 1, vision_feature_select_strategy="full",
    )  # fmt: skip
    return save(folder, LlavaForConditionalGeneration(config))
