"""A whole SD1.x or SDXL in one `.safetensors`, as model sites give it: read offline, with configurations written here from
what the family says of itself and CLIP's vocabulary from open_clip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler
from safetensors import SafetensorError, safe_open
from transformers import CLIPTextConfig

from lorakit import files
from lorakit.errors import LorakitError
from lorakit.train.tiny_random import clip_tokenizer
from lorakit.weights import Source

DENOISER = "model.diffusion_model."
KINDS = (  # what a key holds that only one architecture has; the first that is found counts
    ("double_blocks.", "flux1", "FLUX.1", "flux1-dev"), ("joint_blocks.", "sd3", "Stable Diffusion 3", "sd35-medium"),
    ("conditioner.embedders.1.", "sdxl", "SDXL", "sdxl"), ("cond_stage_model.model.", "sd2", "Stable Diffusion 2", "sd21"),
    ("cond_stage_model.transformer.", "sd15", "Stable Diffusion 1", "sd15"),
)  # fmt: skip
PARTS = {  # by architecture: a part, and how the keys of it begin
    "unet": (("U-Net", (DENOISER,)), ("VAE", ("first_stage_model.",)), ("text encoder", ("cond_stage_model.", "conditioner.embedders."))),
    "sd3": (("transformer", (f"{DENOISER}joint_blocks.", "joint_blocks.")), ("VAE", ("first_stage_model.", "vae.")),
            ("CLIP L", ("text_encoders.clip_l.",)), ("CLIP G", ("text_encoders.clip_g.",)), ("T5", ("text_encoders.t5xxl.",))),
    "flux1": (("transformer", (f"{DENOISER}double_blocks.", "double_blocks.")), ("VAE", ("first_stage_model.", "vae.")),
              ("CLIP L", ("text_encoders.clip_l.",)), ("T5", ("text_encoders.t5xxl.",))),
}  # fmt: skip
CLIP = {
    "vocab_size": 49408, "max_position_embeddings": 77, "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407,
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "projection_dim": 768,
    "hidden_act": "quick_gelu",
}  # fmt: skip
CLIP_G = {
    **CLIP, "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20, "projection_dim": 1280,
    "hidden_act": "gelu", "pad_token_id": 0,
}  # fmt: skip
AUTOENCODER = {
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 512,
}  # fmt: skip
SCHEDULER = {
    "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False,
    "steps_offset": 1,
}  # fmt: skip


def load_parts(family: type, source: Source) -> dict[str, Any]:
    """{sub-folder: part} of everything in the file, in fp32. Raises `LorakitError` when a part is missing in it."""
    path, configs = Path(source.location), Path(source.configs)
    check_contents(path, family.NAME)
    if not configs.is_dir():
        files.write_folder(configs, lambda part: write_configs(family, part))
    without = dict.fromkeys(family.OPTIONAL)
    pipeline = family.PIPELINE.from_single_file(
        str(path), config=str(configs), local_files_only=True, torch_dtype=torch.float32, **without
    )
    wanted = (family.FOLDER, "vae", "scheduler", *family.ENCODERS, *family.TOKENIZERS)
    return {name: getattr(pipeline, name) for name in wanted}


def check_contents(path: Path, family: str) -> None:
    """Raises `LorakitError` naming what a file lacks to be trained on as `family`, or which base it is of."""
    try:
        with safe_open(path, "pt") as file:
            keys = list(file.keys())
    except (OSError, SafetensorError) as error:
        raise LorakitError(f"{path}: cannot be read as .safetensors ({error})") from None
    kind = next((found for found in KINDS if any(found[0] in key for key in keys)), None)
    if kind and kind[1] == "sd2":
        raise LorakitError(f"{path}: is Stable Diffusion 2, of which single files are not read; give a diffusers folder with --base sd21")
    if kind and kind[1] != family:
        raise LorakitError(f"{path}: is {kind[2]}, which this base is not; choose --base {kind[3]}, or weights of this one")
    parts = PARTS.get(family, PARTS["unet"])
    missing = [part for part, begins in parts if not any(key.startswith(begins) for key in keys)]
    if family in PARTS:  # transformers with T5: one file seldom holds it all
        found = ", ".join(part for part, _ in parts if part not in missing) or "no part that is known"
        lacks = f", and lacks {', '.join(missing)}" if missing else ""
        raise LorakitError(f"{path}: has {found}{lacks}; single files are read for SD1.x and SDXL, so give a diffusers folder of this base")
    if missing:
        raise LorakitError(f"{path}: has no {missing[0]} in it; give a full checkpoint, or a diffusers folder")


def write_configs(family: type, folder: Path) -> None:
    """A diffusers folder with everything but weights."""
    index = {"_class_name": family.PIPELINE.__name__, "scheduler": ["diffusers", "DDPMScheduler"], "vae": ["diffusers", "AutoencoderKL"]}
    index[family.FOLDER] = ["diffusers", family.DENOISER.__name__]
    index |= {name: ["transformers", cls.__name__] for name, cls in (family.ENCODERS | family.TOKENIZERS).items()}
    index |= {name: [None, None] for name in family.OPTIONAL}
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    DDPMScheduler(**SCHEDULER).save_config(folder / "scheduler")
    with torch.device("meta"):  # models without memory: only their configurations are wanted, with every default filled in
        AutoencoderKL(**AUTOENCODER | dict(family.VAE_CONFIG)).save_config(folder / "vae")
        family.DENOISER(**family.CONFIG).save_config(folder / family.FOLDER)
    for name, config in family.ENCODER_CONFIGS.items():
        CLIPTextConfig(**config).save_pretrained(folder / name)
    for name in family.TOKENIZERS:
        clip_tokenizer(folder).save_pretrained(folder / name)
