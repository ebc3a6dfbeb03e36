"""The contract of a captioner. A captioner is one file of this folder; its name is the file's name.

    CARD                                   what it is, frozen data
    load(source, device) -> Reader         loads the weights once
    Reader(pictures, max_tokens)           RGB pictures in, one `Reading` each out, in their order
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from PIL import Image

from lorakit.weights import Source, hub_errors_in_words, local_folder
from lorakit.wording import Reading

Reader = Callable[[list[Image.Image], int], list[Reading]]


@dataclass(frozen=True)
class CaptionerCard:
    title: str
    writes: Literal["sentence", "tags", "what is there"]
    licence: str
    hub: str | None = None
    size_gb: float = 0.0
    note: str = ""


class Captioner(Protocol):
    CARD: CaptionerCard

    @staticmethod
    def load(source: Source, device: str) -> Reader: ...


def source_of(card: CaptionerCard, given: str | None) -> Source:
    """The folder that a user gave as `caption.weights`, else the card's hub id."""
    if given:
        return Source(str(local_folder(given, "config.json", "--set caption.weights=")), True, card.title)
    otherwise = "; or choose --captioner imagenet, which is coarse but needs no hub"
    return Source(card.hub or "", False, card.title, card.size_gb, "--set caption.weights=", otherwise, marker="config.json")


def load_model(source: Source, device: str) -> tuple[Any, Any]:
    """(model, processor) of an image-to-text model; bf16 on a CUDA card, else fp32. Remote code is never run."""
    import torch
    import transformers

    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    # The processor's backend is pinned: otherwise captions would depend on whether torchvision is installed.
    pinned = {"backend": "pil"} if int(transformers.__version__.split(".")[0]) >= 5 else {"use_fast": False}
    with hub_errors_in_words(source):
        processor = transformers.AutoProcessor.from_pretrained(source.location)
        processor.image_processor = transformers.AutoImageProcessor.from_pretrained(source.location, **pinned)
        model = transformers.AutoModelForImageTextToText.from_pretrained(source.location, dtype=dtype)
    return model.to(device).eval(), processor
