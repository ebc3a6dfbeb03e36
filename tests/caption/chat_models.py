"""Tiny random checkpoints of every kind of chat model that sees, with the marks and the kind of template that the real ones have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.caption.conftest import WORDS, save

LIST_TALK = (  # as most: content is a list, the template sets the mark
    "{{% for m in messages %}}{{{{ '{begin}' + m.role + '\n' }}}}{{% for c in m.content %}}{{% if c.type == 'image' %}}{mark}{{% else %}}{{{{ c.text }}}}"
    "{{% endif %}}{{% endfor %}}{{{{ '{end}\n' }}}}{{% endfor %}}{{% if add_generation_prompt %}}{{{{ '{begin}assistant\n' }}}}{{% endif %}}"
)
# As JoyCaption's: content is a text that is stripped, and the picture is put in by the template.
STRING_TALK = (
    "{{{{ '<s>' }}}}{{% for m in messages %}}{{{{ '{begin}' + m.role + '\n' }}}}{{% if loop.first %}}{mark}{{% endif %}}{{{{ m.content | trim if m.content is string "
    "else m.content.strip() }}}}{{{{ '{end}\n' }}}}{{% endfor %}}{{{{ '{begin}assistant\n' }}}}"
)
# As Qwen3.5's: it thinks where nobody says otherwise.
THINKING_TALK = (
    LIST_TALK + "{{% if enable_thinking is not defined or enable_thinking %}}<think>\n{{% else %}}<think>\n\n</think>\n\n{{% endif %}}"
)
MARKS = ("<|im_start|>", "<|im_end|>")


def tokenizer(added: tuple[str, ...] = (), **named: str):
    """One word a token; what is not known is <unk>. `named` are special tokens that processors look for: image_token, boi_token, ..."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    known = {word: number for number, word in enumerate([*special, *WORDS, ".", ","])}
    made = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.decoder = decoders.Fuse()
    made.decoder = decoders.Sequence([decoders.WordPiece(prefix="##")])
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])  # adds a beginning, as Llama's does
    found = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>", extra_special_tokens=dict(named)
    )
    found.add_tokens([*MARKS, *named.values(), *added], special_tokens=True)
    return found


def talk(kind: str, mark: str, begins: str = "") -> str:
    return begins + kind.format(mark=mark, begin=MARKS[0], end=MARKS[1])


TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
        "max_position_embeddings": 4096, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}  # fmt: skip
SIGHT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}


def square(cls: Any, side: int = 32, **more: Any):
    size = {"height": side, "width": side}
    return cls(size=size, do_resize=True, image_mean=[0.5] * 3, image_std=[0.5] * 3, **more)


def _llava(folder: Path, template: str = LIST_TALK, begins: str = "") -> Any:
    import transformers as t

    words = tokenizer(image_token="<image>")
    t.LlavaProcessor(
        square(t.CLIPImageProcessorPil, do_center_crop=False), words, patch_size=8, vision_feature_select_strategy="full",
        num_additional_image_tokens=1, chat_template=talk(template, "<image>", begins),
    ).save_pretrained(folder)  # fmt: skip
    return t.LlavaForConditionalGeneration(t.LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **SIGHT}, text_config={"model_type": "llama", "vocab_size": len(words), **TEXT},
        image_token_id=words.convert_tokens_to_ids("<image>"), vision_feature_select_strategy="full",
    ))  # fmt: skip


def _joycaption(folder: Path) -> Any:
    return _llava(folder, STRING_TALK)


def _llava_next(folder: Path) -> Any:
    import transformers as t

    words = tokenizer(image_token="<image>")
    points = [[32, 64], [64, 32], [64, 64]]
    t.LlavaNextProcessor(
        t.LlavaNextImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_grid_pinpoints=points), words,
        patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1, chat_template=talk(LIST_TALK, "<image>"),
    ).save_pretrained(folder)  # fmt: skip
    return t.LlavaNextForConditionalGeneration(t.LlavaNextConfig(
        vision_config={"model_type": "clip_vision_model", **SIGHT}, text_config={"model_type": "llama", "vocab_size": len(words), **TEXT},
        image_token_id=words.convert_tokens_to_ids("<image>"), image_grid_pinpoints=points,
    ))  # fmt: skip


def _llava_onevision(folder: Path) -> Any:
    import transformers as t

    words = tokenizer(image_token="<image>", video_token="<video>")
    points = [[32, 64], [64, 32], [64, 64]]
    t.LlavaOnevisionProcessor(
        t.LlavaOnevisionImageProcessorPil(size={"height": 32, "width": 32}, image_grid_pinpoints=points), words, t.LlavaOnevisionVideoProcessor(),
        num_image_tokens=16, vision_feature_select_strategy="full", chat_template=talk(LIST_TALK, "<image>"), vision_aspect_ratio="anyres_max_9",
    ).save_pretrained(folder)  # fmt: skip
    return t.LlavaOnevisionForConditionalGeneration(t.LlavaOnevisionConfig(
        vision_config={"model_type": "siglip_vision_model", **SIGHT, "vision_use_head": False}, text_config={"model_type": "qwen2", "vocab_size": len(words), **TEXT},
        image_token_id=words.convert_tokens_to_ids("<image>"), video_token_id=words.convert_tokens_to_ids("<video>"), image_grid_pinpoints=points,
    ))  # fmt: skip


QWEN = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
QWEN_MARK = "<|vision_start|><|image_pad|><|vision_end|>"
QWEN_SIZE = {"shortest_edge": 56 * 56, "longest_edge": 84 * 84}


def _qwen_ids(words) -> dict[str, int]:
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    return {name: words.convert_tokens_to_ids(mark) for name, mark in names.items()}


def _qwen2_vl(folder: Path) -> Any:
    import transformers as t

    words = tokenizer(**QWEN)
    t.Qwen2VLProcessor(
        t.Qwen2VLImageProcessorPil(size=QWEN_SIZE), words, t.Qwen2VLVideoProcessor(), chat_template=talk(LIST_TALK, QWEN_MARK)
    ).save_pretrained(folder)
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    return t.Qwen2VLForConditionalGeneration(t.Qwen2VLConfig(
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14},
        text_config={"vocab_size": len(words), **TEXT, "rope_parameters": rope}, **_qwen_ids(words),
    ))  # fmt: skip


def _qwen2_5_vl(folder: Path) -> Any:
    import transformers as t

    words = tokenizer(**QWEN)
    t.Qwen2_5_VLProcessor(
        t.Qwen2VLImageProcessorPil(size=QWEN_SIZE), words, t.Qwen2VLVideoProcessor(), chat_template=talk(LIST_TALK, QWEN_MARK)
    ).save_pretrained(folder)
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    return t.Qwen2_5_VLForConditionalGeneration(t.Qwen2_5_VLConfig(
        vision_config={"depth": 2, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 2, "intermediate_size": 64, "patch_size": 14, "fullatt_block_indexes": [1]},
        text_config={"vocab_size": len(words), **TEXT, "rope_parameters": rope}, **_qwen_ids(words),
    ))  # fmt: skip


def _qwen3_vl(folder: Path) -> Any:
    import transformers as t

    words = tokenizer(**QWEN)
    image = t.Qwen2VLImageProcessorPil(size={"shortest_edge": 64 * 64, "longest_edge": 96 * 96}, patch_size=16)
    t.Qwen3VLProcessor(image, words, t.Qwen3VLVideoProcessor(), chat_template=talk(LIST_TALK, QWEN_MARK)).save_pretrained(folder)
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0, "mrope_interleaved": True}
    return t.Qwen3VLForConditionalGeneration(t.Qwen3VLConfig(
        vision_config={"depth": 2, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 2, "intermediate_size": 64, "patch_size": 16, "deepstack_visual_indexes": [0],
                       "num_position_embeddings": 64},
        text_config={"vocab_size": len(words), **TEXT, "head_dim": 16, "rope_parameters": rope}, **_qwen_ids(words),
    ))  # fmt: skip


def _qwen3_5(folder: Path) -> Any:
    import transformers as t

    words = tokenizer(("<think>", "</think>"), **QWEN)
    image = t.Qwen2VLImageProcessorPil(size={"shortest_edge": 64 * 64, "longest_edge": 96 * 96}, patch_size=16)
    t.Qwen3VLProcessor(image, words, t.Qwen3VLVideoProcessor(), chat_template=talk(THINKING_TALK, QWEN_MARK)).save_pretrained(folder)
    rope = {
        "rope_type": "default",
        "mrope_section": [1, 1, 0],
        "rope_theta": 10000.0,
        "mrope_interleaved": True,
        "partial_rotary_factor": 0.25,
    }
    return t.Qwen3_5ForConditionalGeneration(t.Qwen3_5Config(
        vision_config={"depth": 2, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 2, "intermediate_size": 64, "patch_size": 16, "num_position_embeddings": 64},
        text_config={"vocab_size": len(words), **TEXT, "head_dim": 16, "rope_parameters": rope, "layer_types": ["linear_attention", "full_attention"],
                     "linear_key_head_dim": 16, "linear_value_head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 2}, **_qwen_ids(words),
    ))  # fmt: skip


def _idefics3(folder: Path) -> Any:
    import transformers as t

    tags = tuple(f"<row_{r + 1}_col_{c + 1}>" for r in range(6) for c in range(6))
    words = tokenizer(("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", *tags))
    image = t.Idefics3ImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32}, do_image_splitting=False)
    t.Idefics3Processor(image, words, image_seq_len=4, chat_template=talk(LIST_TALK, "<image>")).save_pretrained(folder)
    return t.Idefics3ForConditionalGeneration(t.Idefics3Config(
        vision_config=SIGHT, text_config={"model_type": "llama", "vocab_size": len(words), **TEXT}, image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2, pad_token_id=1,
    ))  # fmt: skip


def _smolvlm2(folder: Path) -> Any:
    import transformers as t

    tags = tuple(f"<row_{r + 1}_col_{c + 1}>" for r in range(6) for c in range(6))
    named = {
        "fake_image_token": "<fake_token_around_image>",
        "image_token": "<image>",
        "end_of_utterance_token": "<end_of_utterance>",
        "global_image_token": "<global-img>",
    }
    words = tokenizer(tags, **named)
    image = t.SmolVLMImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32}, do_image_splitting=False)
    t.SmolVLMProcessor(image, words, t.SmolVLMVideoProcessor(), image_seq_len=4, chat_template=talk(LIST_TALK, "<image>")).save_pretrained(
        folder
    )
    return t.SmolVLMForConditionalGeneration(t.SmolVLMConfig(
        vision_config=SIGHT, text_config={"model_type": "llama", "vocab_size": len(words), **TEXT}, image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2, pad_token_id=1,
    ))  # fmt: skip


def _gemma3(folder: Path) -> Any:
    import transformers as t

    words = tokenizer(image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>")
    t.Gemma3Processor(
        square(t.Gemma3ImageProcessorPil), words, image_seq_length=4, chat_template=talk(LIST_TALK, "<start_of_image>", "<s>")
    ).save_pretrained(folder)
    return t.Gemma3ForConditionalGeneration(t.Gemma3Config(
        vision_config={**SIGHT, "vision_use_head": False}, text_config={"vocab_size": len(words), **TEXT, "head_dim": 16, "sliding_window": 512},
        mm_tokens_per_image=4, image_token_id=words.convert_tokens_to_ids("<image_soft_token>"), boi_token_id=words.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_id=words.convert_tokens_to_ids("<end_of_image>"),
    ))  # fmt: skip


def _gemma4(folder: Path) -> Any:
    import transformers as t

    named = {
        "image_token": "<|image|>",
        "boi_token": "<|image>",
        "eoi_token": "<image|>",
        "audio_token": "<|audio|>",
        "boa_token": "<|audio>",
        "eoa_token": "<audio|>",
    }
    words = tokenizer(("<|video|>", "<|channel>", "<channel|>"), **named)
    image = t.Gemma4ImageProcessorPil(patch_size=8, max_soft_tokens=70, pooling_kernel_size=3)
    t.Gemma4Processor(
        t.Gemma4AudioFeatureExtractor(),
        image,
        words,
        t.Gemma4VideoProcessor(),
        image_seq_length=16,
        chat_template=talk(LIST_TALK, "<|image|>", "<s>"),
    ).save_pretrained(folder)
    return t.Gemma4ForConditionalGeneration(t.Gemma4Config(
        vision_config={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16,
                       "global_head_dim": 16, "patch_size": 8, "pooling_kernel_size": 3, "position_embedding_size": 512},
        text_config={"vocab_size": len(words), **TEXT, "head_dim": 16, "global_head_dim": 16, "vocab_size_per_layer_input": len(words), "hidden_size_per_layer_input": 8,
                     "num_kv_shared_layers": 0, "sliding_window": 512, "layer_types": ["sliding_attention", "full_attention"]},
        audio_config=None, image_token_id=words.convert_tokens_to_ids("<|image|>"), video_token_id=words.convert_tokens_to_ids("<|video|>"),
        boi_token_id=words.convert_tokens_to_ids("<|image>"), eoi_token_id=words.convert_tokens_to_ids("<image|>"),
    ))  # fmt: skip


def _internvl(folder: Path) -> Any:
    import transformers as t

    words = tokenizer(start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>", video_token="<video>")
    image = t.GotOcr2ImageProcessorPil(size={"height": 32, "width": 32}, crop_to_patches=False)
    t.InternVLProcessor(
        image, words, t.InternVLVideoProcessor(), image_seq_length=4, chat_template=talk(LIST_TALK, "<IMG_CONTEXT>\n")
    ).save_pretrained(folder)
    return t.InternVLForConditionalGeneration(t.InternVLConfig(
        vision_config={**SIGHT, "image_size": [32, 32], "patch_size": [8, 8]}, text_config={"model_type": "qwen2", "vocab_size": len(words), **TEXT},
        image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"), image_seq_length=4,
    ))  # fmt: skip


def _mistral3(folder: Path) -> Any:
    import transformers as t

    words = tokenizer(("[IMG]", "[IMG_BREAK]", "[IMG_END]"))
    image = t.PixtralImageProcessorPil(size={"longest_edge": 48}, patch_size={"height": 8, "width": 8})
    t.PixtralProcessor(image, words, patch_size=8, spatial_merge_size=2, chat_template=talk(LIST_TALK, "[IMG]", "<s>")).save_pretrained(
        folder
    )
    return t.Mistral3ForConditionalGeneration(t.Mistral3Config(
        vision_config={"model_type": "pixtral", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64,
                       "patch_size": 8, "head_dim": 16},
        text_config={"model_type": "mistral", "vocab_size": len(words), **TEXT, "head_dim": 16}, image_token_index=words.convert_tokens_to_ids("[IMG]"), spatial_merge_size=2,
    ))  # fmt: skip


def _mllama(folder: Path) -> Any:
    import transformers as t

    words = tokenizer(("<|python_tag|>",), image_token="<|image|>")
    image = t.MllamaImageProcessorPil(size={"height": 32, "width": 32}, max_image_tiles=2)
    t.MllamaProcessor(image, words, chat_template=talk(LIST_TALK, "<|image|>", "<s>")).save_pretrained(folder)
    return t.MllamaForConditionalGeneration(t.MllamaConfig(
        vision_config={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_global_layers": 1, "attention_heads": 2, "image_size": 32, "patch_size": 8,
                       "max_num_tiles": 2, "vision_output_dim": 64, "intermediate_layers_indices": [0], "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]]},
        text_config={"vocab_size": len(words) - 1, **TEXT, "cross_attention_layers": [1]}, image_token_index=words.convert_tokens_to_ids("<|image|>"),
    ))  # fmt: skip


def _glm4v(folder: Path) -> Any:
    import transformers as t

    named = {"image_token": "<|image|>", "video_token": "<|video|>"}
    words = tokenizer(("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>"), **named)
    image = t.Glm4vImageProcessorPil(size={"shortest_edge": 56 * 56 * 2, "longest_edge": 84 * 84 * 2})
    mark = "<|begin_of_image|><|image|><|end_of_image|>"
    t.Glm4vProcessor(image, words, t.Glm4vVideoProcessor(), chat_template=talk(LIST_TALK, mark)).save_pretrained(folder)
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    ids = {f"{side}_token_id": words.convert_tokens_to_ids(f"<|{end}_of_{kind}|>")
           for kind in ("image", "video") for side, end in ((f"{kind}_start", "begin"), (f"{kind}_end", "end"))}  # fmt: skip
    return t.Glm4vForConditionalGeneration(t.Glm4vConfig(
        vision_config={"depth": 2, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 2, "intermediate_size": 64, "patch_size": 14, "image_size": 84},
        text_config={"vocab_size": len(words), **TEXT, "head_dim": 16, "rope_parameters": rope}, **ids,
        image_token_id=words.convert_tokens_to_ids("<|image|>"), video_token_id=words.convert_tokens_to_ids("<|video|>"),
    ))  # fmt: skip


def _minicpmv4_6(folder: Path) -> Any:
    import transformers as t

    named = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>", "image_start_token": "<image>", "image_end_token": "</image>", "slice_start_token": "<slice>",
             "slice_end_token": "</slice>", "image_id_start_token": "<image_id>", "image_id_end_token": "</image_id>"}  # fmt: skip
    words = tokenizer(("<think>", "</think>"), **named)
    image = t.MiniCPMV4_6ImageProcessorPil(scale_resolution=56, slice_mode=False)
    t.MiniCPMV4_6Processor(image, t.MiniCPMV4_6VideoProcessor(), words, chat_template=talk(THINKING_TALK, "<|image_pad|>")).save_pretrained(
        folder
    )
    return t.MiniCPMV4_6ForConditionalGeneration(t.MiniCPMV4_6Config(
        vision_config={**SIGHT, "patch_size": 14, "image_size": 70}, insert_layer_id=0,
        text_config={"model_type": "qwen3_5_text", "vocab_size": len(words), **TEXT, "head_dim": 16, "layer_types": ["linear_attention", "full_attention"],
                     "linear_key_head_dim": 16, "linear_value_head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 2},
        image_token_id=words.convert_tokens_to_ids("<|image_pad|>"), video_token_id=words.convert_tokens_to_ids("<|video_pad|>"),
    ))  # fmt: skip


MAKERS = {
    "LLaVA 1.5": _llava, "JoyCaption": _joycaption, "LLaVA-Next": _llava_next, "LLaVA-OneVision": _llava_onevision, "Qwen2-VL": _qwen2_vl, "Qwen2.5-VL": _qwen2_5_vl,
    "Qwen3-VL": _qwen3_vl, "Qwen3.5": _qwen3_5, "Idefics3": _idefics3, "SmolVLM2": _smolvlm2, "Gemma 3": _gemma3, "Gemma 4": _gemma4, "InternVL": _internvl,
    "Mistral 3": _mistral3, "Mllama": _mllama, "GLM-4V": _glm4v, "MiniCPM-V 4.6": _minicpmv4_6,
}  # fmt: skip


def make(name: str, folder: Path) -> Path:
    """A folder with a tiny random checkpoint of this kind, its weights widened so that photos differ."""
    folder.mkdir()
    model = MAKERS[name](folder)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id, model.generation_config.bos_token_id = 2, 1, 0
    return save(folder, model)
