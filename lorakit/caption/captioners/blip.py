"""BLIP large: one short, plain sentence a photo."""

from __future__ import annotations

from lorakit.caption.captioners.base import ONE_SENTENCE, CaptionerCard, Reader, load_model, pixels_of, without_prompt, written_texts
from lorakit.settings import Caption
from lorakit.text.composing import RawCaption
from lorakit.weights import Source

CARD = CaptionerCard(
    title="BLIP large",
    writes="sentence",
    licence="BSD-3-Clause",
    hub="Salesforce/blip-image-captioning-large",
    size_gb=1.9,
    batch_per_gb=8,
    note="fast and plain; a good first choice. caption.prompt is the beginning of every sentence, such as 'a photo of'",
)


def load(source: Source, device: str, settings: Caption) -> Reader:
    import torch

    model, processor = load_model(source, device)
    prompt, most = settings.question or "", settings.max_tokens or ONE_SENTENCE
    start = processor.tokenizer(prompt, return_tensors="pt").input_ids if prompt else None

    @torch.inference_mode()
    def read(pixels: list) -> list[RawCaption]:
        given = {} if start is None else {"input_ids": start.repeat(len(pixels), 1).to(device)}
        batch = torch.stack(pixels).to(device, model.dtype)
        written = model.generate(pixel_values=batch, **given, max_new_tokens=most, num_beams=3)
        texts = written_texts(model, processor, written, most)
        return [RawCaption(sentence=without_prompt(text, prompt), cut=is_cut) for text, is_cut in texts]

    return Reader(pixels_of(processor), read)
