"""BLIP large: one short, plain sentence a photo."""

from __future__ import annotations

from PIL import Image

from lorakit.caption.captioners.base import CaptionerCard, Reader, load_model
from lorakit.weights import Source
from lorakit.wording import Reading

CARD = CaptionerCard(
    title="BLIP large",
    writes="sentence",
    licence="BSD-3-Clause",
    hub="Salesforce/blip-image-captioning-large",
    size_gb=1.9,
    note="fast and plain; a good first choice",
)


def load(source: Source, device: str) -> Reader:
    import torch

    model, processor = load_model(source, device)

    @torch.inference_mode()
    def read(pictures: list[Image.Image], max_tokens: int) -> list[Reading]:
        inputs = processor(images=pictures, return_tensors="pt").to(device, model.dtype)
        written = model.generate(**inputs, max_new_tokens=max_tokens, num_beams=3)
        return [Reading(sentence=text.strip()) for text in processor.batch_decode(written, skip_special_tokens=True)]

    return read
