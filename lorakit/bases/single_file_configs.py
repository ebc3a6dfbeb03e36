"""How bases lie in single files, and the configurations of their parts, as published: a file does not hold them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Layout:
    """One architecture in a single `.safetensors`: where its parts are, and by what it is told from all others."""

    name: str
    title: str
    encoders: Mapping[str, str | tuple[str, ...]]  # sub-folder of diffusers -> how its keys begin, in the one or the other of its bases
    cards: Mapping[str, str]  # card -> a part of a key that only this base has; the first that fits, "" is the rest
    usual: str  # the card to propose
    mark: str = ""  # how a key begins that no other architecture has: of a text encoder ...
    blocks: str = ""  # ... or, of a transformer, which may also lie bare in the file, of its blocks
    inputs: tuple[str, int] = ("", 0)  # the denoiser's first weight, and how many channels it reads
    others: Mapping[str, str] = field(default_factory=dict)  # part of a key -> title of another base with blocks of these names
    needs: str = ""  # part of a key that tells it from such another base, which lacks it
    text_width: int = 0  # by which a U-Net alone is told: of the text that it reads
    config: Mapping[str, Any] = field(default_factory=dict)  # of the denoiser, what is otherwise than in the family's
    encoder_configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # text encoders that are others than the family's
    has_schedule: bool = True  # whether the schedule is known by the file; else it comes from where the other parts do
    unknown_tokenizers: tuple[str, ...] = ()  # sub-folders of those that are not known here, and come from there too

    def begins(self, encoder: str) -> tuple[str, ...]:
        found = self.encoders[encoder]
        return (found,) if isinstance(found, str) else found

    def card_of(self, keys: Iterable[str]) -> str:
        keys = tuple(keys)
        return next(card for card, part in self.cards.items() if not part or any(part in key for key in keys))


CLIP = {
    "vocab_size": 49408, "max_position_embeddings": 77, "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407,
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "projection_dim": 768,
    "hidden_act": "quick_gelu",
}  # fmt: skip
CLIP_G = {
    **CLIP, "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20, "projection_dim": 1280,
    "hidden_act": "gelu", "pad_token_id": 0,
}  # fmt: skip
CLIP_H = {  # of Stable Diffusion 2, which reads the layer before the last: the 24th is left out
    **CLIP, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16, "projection_dim": 512,
    "hidden_act": "gelu", "pad_token_id": 0,
}  # fmt: skip
T5_XXL = {
    "vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "feed_forward_proj": "gated-gelu",
    "is_encoder_decoder": False, "use_cache": False, "tie_word_embeddings": False,
}  # fmt: skip
QWEN3_06B = {
    "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "tie_word_embeddings": True,
    "rope_theta": 1000000.0,
}  # fmt: skip
QWEN3_4B = {
    "vocab_size": 151936, "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "tie_word_embeddings": True,
    "rope_theta": 1000000.0,
}  # fmt: skip
QWEN3_8B = {**QWEN3_4B, "hidden_size": 4096, "intermediate_size": 12288, "tie_word_embeddings": False}
QWEN3_VL_4B = {
    "text_config": {
        "vocab_size": 151936, "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 262144, "rms_norm_eps": 1e-6, "rope_theta": 5000000.0,
        "rope_scaling": {"rope_type": "default", "mrope_section": [24, 20, 20], "mrope_interleaved": True}, "tie_word_embeddings": True,
    },
    "vision_config": {
        "depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "out_hidden_size": 2560, "patch_size": 16,
        "num_position_embeddings": 2304, "deepstack_visual_indexes": [5, 11, 17],
    },
    "tie_word_embeddings": True,
}  # fmt: skip
QWEN2_5_VL_7B = {
    "text_config": {
        "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "max_position_embeddings": 128000, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    },
    "vision_config": {
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584, "patch_size": 14,
        "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
    },
}  # fmt: skip
MISTRAL_SMALL_3 = {
    "vocab_size": 131072, "hidden_size": 5120, "intermediate_size": 32768, "num_hidden_layers": 40, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 1000000000.0,
    "sliding_window": None, "tie_word_embeddings": False,
}  # fmt: skip


def language_model_sizes(shapes: Mapping[str, tuple[int, ...]], head: int) -> dict[str, Any]:
    """What the shapes of a language model's tensors tell of its configuration; `KeyError` for one that it lacks. A model whose heads have no
    norm, as Mistral's, does not tell how wide they are: then that is `head`."""
    first = "layers.0.self_attn"
    words, width = shapes["embed_tokens.weight"]
    head = shapes.get(f"{first}.q_norm.weight", (head,))[0]
    return {
        "vocab_size": words, "hidden_size": width, "intermediate_size": shapes["layers.0.mlp.gate_proj.weight"][0],
        "num_hidden_layers": 1 + max(int(key.split(".")[1]) for key in shapes if key.startswith("layers.")), "head_dim": head,
        "num_attention_heads": shapes[f"{first}.q_proj.weight"][0] // head, "num_key_value_heads": shapes[f"{first}.k_proj.weight"][0] // head,
    }  # fmt: skip


SD2_UNET = {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True, "sample_size": 96}
AUTOENCODER = {
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 512,
}  # fmt: skip
AUTOENCODER_16 = {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False, "sample_size": 1024, "force_upcast": True}
DDPM = {
    "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False,
    "steps_offset": 1,
}  # fmt: skip
