"""BLIP-2 OPT 2.7b: one sentence a photo, surer of what it sees than BLIP, and eight times its size."""

from __future__ import annotations

from lorakit.caption.captioners.base import ONE_SENTENCE, CaptionerCard, Reader, load_model, pixels_of, without_prompt, written_texts
from lorakit.settings import Caption
from lorakit.text.composing import RawCaption
from lorakit.weights import Source

CARD = CaptionerCard(
    title="BLIP-2 OPT 2.7b",
    writes="sentence",
    licence="MIT",
    hub="Salesforce/blip2-opt-2.7b",
    size_gb=15.5,
    batch_per_gb=4,
    note="one sentence, surer than BLIP; wants a GPU with 10 GB. caption.prompt is the beginning of every sentence",
)


def load(source: Source, device: str, settings: Caption) -> Reader:
    import torch

    model, processor = load_model(source, device)
    prompt, most = settings.question or "", settings.max_tokens or ONE_SENTENCE
    processor.num_query_tokens = processor.num_query_tokens or model.config.num_query_tokens  # older checkpoints lack it
    start = processor(text=[prompt], images=_any_picture(), return_tensors="pt").input_ids

    @torch.inference_mode()
    def read(pixels: list) -> list[RawCaption]:
        batch = torch.stack(pixels).to(device, model.dtype)
        given = start.repeat(len(pixels), 1).to(device)
        written = model.generate(
            pixel_values=batch,
            input_ids=given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=most,
            num_beams=3,
        )
        texts = written_texts(model, processor, written, most)
        return [RawCaption(sentence=without_prompt(text, prompt), cut=is_cut) for text, is_cut in texts]

    return Reader(pixels_of(processor), read)


def _any_picture():
    from PIL import Image

    return [Image.new("RGB", (64, 64))]
