"""Random checkpoints of a few hundred KB in the classes and layouts of the real bases, with a T5 tokenizer of letters."""

from __future__ import annotations

import string
from pathlib import Path

import torch
from diffusers import (
    AnimaAutoBlocks,
    AnimaModularPipeline,
    AnimaTextConditioner,
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    ChromaPipeline,
    ChromaTransformer2DModel,
    CosmosTransformer3DModel,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    Krea2Pipeline,
    Krea2Transformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PixtralImageProcessor,
    PixtralProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    Qwen3VLConfig,
    Qwen3VLModel,
    T5Config,
    T5EncoderModel,
)

from lorakit.bases.tiny_random import clip_tokenizer

T5_WIDTH = 64
QWEN_WIDTH = 64
KLEIN_WIDTH = 32
CHAT = (  # what Qwen3's own template makes of one message
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
MISTRAL_CHAT = (  # what Mistral's own makes of a message about the model and one of a user
    "{{ bos_token }}{% for message in messages %}{% for block in message.content %}"
    "{% if message.role == 'system' %}[SYSTEM_PROMPT]{{ block.text }}[/SYSTEM_PROMPT]{% else %}[INST]{{ block.text }}[/INST]{% endif %}"
    "{% endfor %}{% endfor %}"
)


def build(family: str, folder: Path) -> Path:
    """Write a diffusers folder of a family, one of MAKERS."""
    torch.manual_seed(3)
    MAKERS[family](folder).save_pretrained(str(folder))
    return folder


def _sdxl(folder: Path) -> StableDiffusionXLPipeline:
    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=(16, 32, 32), layers_per_block=2, norm_num_groups=8, cross_attention_dim=48,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 3), attention_head_dim=(2, 4, 4), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=24 + 6 * 8,
    )  # fmt: skip
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1)
    return StableDiffusionXLPipeline(
        vae=_vae(4), text_encoder=_clip(CLIPTextModel, 24), text_encoder_2=_clip(CLIPTextModelWithProjection, 24),
        tokenizer=clip_tokenizer(folder), tokenizer_2=clip_tokenizer(folder), unet=unet, scheduler=scheduler,
    )  # fmt: skip


def _sd3(folder: Path) -> StableDiffusion3Pipeline:
    transformer = SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=16, out_channels=16, num_layers=3, attention_head_dim=8, num_attention_heads=4,
        caption_projection_dim=32, joint_attention_dim=T5_WIDTH, pooled_projection_dim=48, pos_embed_max_size=32,
        dual_attention_layers=(0, 1), qk_norm="rms_norm",
    )  # fmt: skip
    return StableDiffusion3Pipeline(
        vae=_vae(16), transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=_clip(CLIPTextModelWithProjection, 24), text_encoder_2=_clip(CLIPTextModelWithProjection, 24),
        tokenizer=clip_tokenizer(folder), tokenizer_2=clip_tokenizer(folder), text_encoder_3=_t5(), tokenizer_3=_letters(),
    )  # fmt: skip


def _flux1(folder: Path) -> FluxPipeline:
    transformer = FluxTransformer2DModel(
        in_channels=64, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=T5_WIDTH, pooled_projection_dim=24, guidance_embeds=True, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return FluxPipeline(
        vae=_vae(16), transformer=transformer, scheduler=scheduler, text_encoder=_clip(CLIPTextModel, 24),
        tokenizer=clip_tokenizer(folder), text_encoder_2=_t5(), tokenizer_2=_letters(),
    )  # fmt: skip


def _chroma(folder: Path) -> ChromaPipeline:
    transformer = ChromaTransformer2DModel(
        in_channels=64, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=T5_WIDTH,
        axes_dims_rope=(4, 6, 6), approximator_num_channels=16, approximator_hidden_dim=24, approximator_layers=2,
    )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    return ChromaPipeline(vae=_vae(16), transformer=transformer, scheduler=scheduler, text_encoder=_t5(), tokenizer=_letters())


def _z_image(folder: Path) -> ZImagePipeline:
    transformer = ZImageTransformer2DModel(
        dim=48, n_layers=3, n_refiner_layers=1, n_heads=3, n_kv_heads=3, cap_feat_dim=QWEN_WIDTH, axes_dims=(4, 6, 6), axes_lens=(1536, 64, 64),
    )  # fmt: skip
    for pad in (transformer.x_pad_token, transformer.cap_pad_token):  # which begin as zeros, and are attended
        torch.nn.init.normal_(pad)
    return ZImagePipeline(
        vae=_vae(16),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        text_encoder=_qwen(),
        tokenizer=_chat_letters(),
    )


def _flux2_parts(guided: bool):
    """{name: part} that klein and dev have both."""
    transformer = Flux2Transformer2DModel(
        in_channels=128, num_layers=2, num_single_layers=3, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=3 * KLEIN_WIDTH,
        axes_dims_rope=(4, 4, 4, 4), guidance_embeds=guided, timestep_guidance_channels=16,
    )  # fmt: skip
    vae = AutoencoderKLFlux2(block_out_channels=(8, 8, 16, 16), layers_per_block=1, latent_channels=32, norm_num_groups=4, sample_size=512)
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 2.0)
    return {"transformer": transformer, "vae": vae, "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)}


def _flux2(folder: Path) -> Flux2KleinPipeline:
    parts = _flux2_parts(guided=False)
    words = Qwen3Config(
        vocab_size=64, hidden_size=KLEIN_WIDTH, intermediate_size=48, num_hidden_layers=28, num_attention_heads=2, num_key_value_heads=1,
        head_dim=16, max_position_embeddings=1024, tie_word_embeddings=False, rope_theta=1e6,
    )  # fmt: skip
    # as it is published, with the head that predicts words
    return Flux2KleinPipeline(**parts, text_encoder=Qwen3ForCausalLM(words), tokenizer=_chat_letters())


def _flux2_dev(folder: Path) -> Flux2Pipeline:
    parts = _flux2_parts(guided=True)
    words = {
        "model_type": "mistral", "vocab_size": 64, "hidden_size": KLEIN_WIDTH, "intermediate_size": 48, "num_hidden_layers": 32,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 1024, "rope_theta": 1e6,
    }  # fmt: skip
    sights = {
        "model_type": "pixtral", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 8,
        "image_size": 32, "patch_size": 8,
    }  # fmt: skip
    processor = PixtralProcessor(PixtralImageProcessor(), _mistral_letters(), chat_template=MISTRAL_CHAT)
    encoder = Mistral3ForConditionalGeneration(Mistral3Config(text_config=words, vision_config=sights))  # that sees too, as it is published
    return Flux2Pipeline(**parts, text_encoder=encoder, tokenizer=processor)


def _krea2(folder: Path) -> Krea2Pipeline:
    transformer = Krea2Transformer2DModel(
        in_channels=64, num_layers=3, attention_head_dim=16, num_attention_heads=4, num_key_value_heads=2, intermediate_size=96,
        timestep_embed_dim=32, text_hidden_dim=QWEN_WIDTH, num_text_layers=3, text_num_attention_heads=4, text_num_key_value_heads=4,
        text_intermediate_size=96, num_layerwise_text_blocks=1, num_refiner_text_blocks=1, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if "scale_shift_table" in name or "norm" in name:  # which begin as zeros
                torch.nn.init.normal_(parameter, std=0.2)
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, max_image_seq_len=6400)
    return Krea2Pipeline(
        vae=_video_vae(), transformer=transformer, scheduler=scheduler, text_encoder=Qwen3VLModel(_seeing(Qwen3VLConfig)),
        tokenizer=_chat_letters(), text_encoder_select_layers=(1, 2, 4),
    )  # fmt: skip


def _qwen_image(folder: Path) -> QwenImagePipeline:
    transformer = QwenImageTransformer2DModel(
        in_channels=64, num_layers=3, attention_head_dim=16, num_attention_heads=3, joint_attention_dim=QWEN_WIDTH, axes_dims_rope=(4, 6, 6)
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02
    )
    return QwenImagePipeline(
        vae=_video_vae(), transformer=transformer, scheduler=scheduler, tokenizer=_chat_letters(),
        text_encoder=Qwen2_5_VLForConditionalGeneration(_seeing(Qwen2_5_VLConfig)),
    )  # fmt: skip


def _anima(folder: Path) -> AnimaModularPipeline:
    transformer = CosmosTransformer3DModel(
        num_attention_heads=2, attention_head_dim=24, num_layers=3, mlp_ratio=2.0, text_embed_dim=32, adaln_lora_dim=8,
        rope_scale=(1.0, 4.0, 4.0), extra_pos_embed_type=None,
    )  # fmt: skip
    conditioner = AnimaTextConditioner(
        source_dim=QWEN_WIDTH, target_dim=32, model_dim=32, num_layers=2, num_attention_heads=2, target_vocab_size=64
    )
    pipeline = AnimaAutoBlocks().init_pipeline()
    pipeline.update_components(
        transformer=transformer, text_conditioner=conditioner, text_encoder=_qwen(), tokenizer=_chat_letters(), t5_tokenizer=_letters(),
        vae=_video_vae(), scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )  # fmt: skip
    return pipeline


def _video_vae() -> AutoencoderKLQwenImage:
    return AutoencoderKLQwenImage(base_dim=8, z_dim=16, dim_mult=[1, 2, 2, 2], num_res_blocks=1)


def _seeing(kind: type):
    """The configuration of a small Qwen that has eyes too."""
    text = {
        "vocab_size": 64, "hidden_size": QWEN_WIDTH, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 2048,
        "rope_scaling": {"rope_type": "default", "mrope_section": [4, 2, 2]},
    }  # fmt: skip
    vision = {
        "depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": QWEN_WIDTH, "patch_size": 4,
        "num_position_embeddings": 16, "deepstack_visual_indexes": [0], "fullatt_block_indexes": [0],
    }  # fmt: skip
    return kind(text_config=text, vision_config=vision)


def _vae(channels: int) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, block_out_channels=(8, 8, 16, 16),
        layers_per_block=1, latent_channels=channels, norm_num_groups=4, sample_size=512, shift_factor=0.06 if channels == 16 else None,
        use_quant_conv=channels == 4, use_post_quant_conv=channels == 4,
    )  # fmt: skip


def _clip(cls: type, width: int):
    config = CLIPTextConfig(
        vocab_size=49408, hidden_size=width, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4, projection_dim=width,
        max_position_embeddings=77, hidden_act="quick_gelu", bos_token_id=49406, eos_token_id=49407, pad_token_id=49407,
    )  # fmt: skip
    return cls(config)


def _t5() -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=64, d_model=T5_WIDTH, d_kv=16, d_ff=64, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu")
    )


def _qwen() -> Qwen3Model:
    config = Qwen3Config(
        vocab_size=64, hidden_size=QWEN_WIDTH, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
        max_position_embeddings=1024,
    )  # fmt: skip
    return Qwen3Model(config)


def _chat_letters() -> PreTrainedTokenizerFast:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<unk>"]
    vocabulary = {token: number for number, token in enumerate([*special, "\n", " ", *string.ascii_lowercase, *string.digits])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    found = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        unk_token="<unk>",
        additional_special_tokens=special[1:5],
        model_max_length=1024,
    )
    found.chat_template = CHAT
    return found


def _mistral_letters() -> PreTrainedTokenizerFast:
    """Filled up in front, as Mistral's is."""
    special = [
        "<pad>",
        "<s>",
        "</s>",
        "<unk>",
        "[SYSTEM_PROMPT]",
        "[/SYSTEM_PROMPT]",
        "[INST]",
        "[/INST]",
        "[IMG]",
        "[IMG_BREAK]",
        "[IMG_END]",
    ]
    vocabulary = {token: number for number, token in enumerate([*special, "\n", " ", *string.ascii_lowercase, *string.digits])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>", model_max_length=1024,
        padding_side="left", additional_special_tokens=special[4:],
    )  # fmt: skip


def _letters() -> PreTrainedTokenizerFast:
    vocabulary = {token: number for number, token in enumerate(["<pad>", "</s>", "<unk>", *string.ascii_lowercase, *string.digits])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512)


MAKERS = {
    "sdxl": _sdxl,
    "sd3": _sd3,
    "flux1": _flux1,
    "chroma1": _chroma,
    "z_image": _z_image,
    "flux2": _flux2,
    "flux2_dev": _flux2_dev,
    "krea2": _krea2,
    "qwen_image": _qwen_image,
    "anima": _anima,
}
