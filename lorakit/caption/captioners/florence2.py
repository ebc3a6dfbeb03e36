"""Florence-2 base: a detailed description, and the names of the things that it finds as tags."""

from __future__ import annotations

from PIL import Image

from lorakit.caption.captioners.base import CaptionerCard, Reader, load_model
from lorakit.weights import Source
from lorakit.wording import Reading, without_repeats

CARD = CaptionerCard(
    title="Florence-2 base",
    writes="sentence",
    licence="MIT",
    hub="florence-community/Florence-2-base",
    size_gb=0.5,
    note="richer than BLIP and smaller; best for FLUX and SD3, which want sentences",
)
DESCRIBE, DETECT = "<DETAILED_CAPTION>", "<OD>"


def load(source: Source, device: str) -> Reader:
    import torch

    model, processor = load_model(source, device)

    @torch.inference_mode()
    def answer(task: str, pictures: list[Image.Image], max_tokens: int) -> list:
        inputs = processor(text=[task] * len(pictures), images=pictures, return_tensors="pt").to(device, model.dtype)
        written = model.generate(**inputs, max_new_tokens=max_tokens, num_beams=3)
        texts = processor.batch_decode(written, skip_special_tokens=False)  # the parser reads the location tokens
        parse = processor.post_process_generation
        return [parse(text.replace("<pad>", ""), task=task, image_size=p.size)[task] for text, p in zip(texts, pictures)]

    def read(pictures: list[Image.Image], max_tokens: int) -> list[Reading]:
        sentences = answer(DESCRIBE, pictures, max_tokens)
        found = answer(DETECT, pictures, max_tokens)
        return [Reading(text.strip(), tuple(without_repeats(boxes["labels"]))) for text, boxes in zip(sentences, found)]

    return read
