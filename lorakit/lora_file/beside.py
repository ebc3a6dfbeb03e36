"""What lies beside a LoRA file and is read by tools: a preview, the card of A1111 and Forge, and a workflow for ComfyUI.

What the tools call a base stands in its family, under IN_TOOLS. A workflow is in ComfyUI's format for programs, which its page opens too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from lorakit import files
from lorakit.bases import families

PREVIEW = 512  # pixels of the longer side


@dataclass(frozen=True)
class About:
    """What is to be known of a LoRA where it is used."""

    family: str
    base: str  # its title
    version: str  # kohya's ss_base_model_version
    checkpoint: str  # file of the base, as people mostly have it
    phrase: str  # trigger and class word; '' without a trigger
    prompt: str  # that draws what was learned
    strength: float
    side: int  # pixels
    steps: int  # of sampling
    guidance: float
    notes: str
    velocity: bool = False  # the base predicts velocity
    zero_snr: bool = False


def write_beside(lora: Path, about: About, picture: Path | None) -> list[Path]:
    """Write `name.json` and `name.comfyui.json` beside `name.safetensors`, and `name.preview.png` where there is a `picture`. Returns
    their paths. Raises `OSError` as writing does, and what Pillow raises for a picture that cannot be read."""
    written = [lora.with_name(f"{lora.stem}.json")]
    files.write_json(written[0], web_card(about))
    if graph := workflow(about, lora.name):
        written.append(lora.with_name(f"{lora.stem}.comfyui.json"))
        files.write_json(written[-1], graph)
    if picture is not None:
        written.append(lora.with_name(f"{lora.stem}.preview.png"))
        with Image.open(picture) as image:
            small = image.convert("RGB")
        small.thumbnail((PREVIEW, PREVIEW), Image.Resampling.LANCZOS)
        files.write_whole(written[-1], lambda part: small.save(part, "PNG"))
    return written


def web_card(about: About) -> dict[str, Any]:
    """What the card of a LoRA in A1111 and Forge is filled with."""
    versions: Mapping[str, str] = families.load(about.family).IN_TOOLS.get("a1111", {})
    return {
        "description": about.notes,
        "sd version": next((said for start, said in versions.items() if about.version.startswith(start)), "Unknown"),
        "activation text": about.phrase,
        "preferred weight": about.strength,
        "negative text": "",
        "notes": about.notes,
    }


def workflow(about: About, lora: str) -> dict[str, dict[str, Any]] | None:
    """{number: node} that loads base and LoRA, and draws `prompt`; None for a family of which ComfyUI's nodes are not known."""
    known: Mapping[str, Any] = families.load(about.family).IN_TOOLS.get("comfyui", {})
    if not known:
        return None
    known = {**known, **known.get("by_version", {}).get(about.version, {})}
    nodes: dict[str, dict[str, Any]] = {}

    def add(kind: str, title: str, **inputs: Any) -> str:
        nodes[str(len(nodes) + 1)] = {"class_type": kind, "inputs": inputs, "_meta": {"title": title}}
        return str(len(nodes))

    if "vae" in known:
        model = [add("UNETLoader", f"Base: {about.base}", unet_name=about.checkpoint, weight_dtype="default"), 0]
        vae = [add("VAELoader", "VAE", vae_name=known["vae"]), 0]
    else:
        loader = add("CheckpointLoaderSimple", f"Base: {about.base}", ckpt_name=about.checkpoint)
        model, vae = [loader, 0], [loader, 2]
    clip = [add(known["clip_loader"], "Text encoders", **known["clip"]), 0] if "clip_loader" in known else [loader, 1]
    loaded = add(
        "LoraLoader", "The LoRA", model=model, clip=clip, lora_name=lora, strength_model=about.strength, strength_clip=about.strength
    )
    model, clip = [loaded, 0], [loaded, 1]
    if about.velocity:
        model = [add("ModelSamplingDiscrete", "Velocity", model=model, sampling="v_prediction", zsnr=about.zero_snr), 0]
    positive = [add("CLIPTextEncode", "Prompt", clip=clip, text=about.prompt), 0]
    negative = [add("CLIPTextEncode", "Negative prompt", clip=clip, text=""), 0]
    cfg = about.guidance + (1.0 if known.get("guidance_is_from_zero") else 0.0)  # ComfyUI counts from 1, where the prompt alone speaks
    if known.get("is_distilled"):
        positive, cfg = [add("FluxGuidance", "Guidance", conditioning=positive, guidance=about.guidance), 0], 1.0
    latent = [add(known["latent"], "Size", width=about.side, height=about.side, batch_size=1), 0]
    sampled = add(
        "KSampler", "Sampler", model=model, positive=positive, negative=negative, latent_image=latent, seed=0, steps=about.steps, cfg=cfg,
        sampler_name=known["sampler"], scheduler=known["scheduler"], denoise=1.0,
    )  # fmt: skip
    picture = add("VAEDecode", "Decode", samples=[sampled, 0], vae=vae)
    add("SaveImage", "Save", images=[picture, 0], filename_prefix=Path(lora).stem)
    return nodes
