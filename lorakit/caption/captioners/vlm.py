"""Any chat model that reads pictures (Qwen-VL, SmolVLM, LLaVA, ...), asked with a prompt that you may edit."""

from __future__ import annotations

import re

from PIL import Image

from lorakit.caption.captioners.base import CaptionerCard, Reader, are_cut, load_model, without_prompt
from lorakit.errors import LorakitError
from lorakit.settings import Caption
from lorakit.text.composing import RawCaption
from lorakit.text.phrases import without_loose_end
from lorakit.text.words import without_repeats
from lorakit.weights import Source

CARD = CaptionerCard(
    title="SmolVLM2 2.2B",
    writes="sentence and tags",
    licence="Apache-2.0",
    hub="HuggingFaceTB/SmolVLM2-2.2B-Instruct",
    size_gb=4.5,
    batch_per_gb=1,
    note="follows instructions: caption.prompt is yours to write; caption.weights=Qwen/Qwen2.5-VL-7B-Instruct is surer and 16.6 GB",
)
# One question serves every style, so that another base needs no new reading. A card or a kind may set its own prompt.
PROMPT = (
    "Describe this photo for someone who cannot see it, in one or two plain sentences: who or what, what they do, the place and the "
    "light. Do not begin with 'the image'. Then write a new line that begins with 'Tags:' and lists what is visible, separated by commas."
)
TAGS = re.compile(r"\n?\s*\**tags\**\s*:\**\s*", re.IGNORECASE)
LEAST_TOKENS = 120  # a sentence and a list of tags do not fit into what a caption of one sentence takes


def load(source: Source, device: str, settings: Caption) -> Reader:
    import torch

    model, processor = load_model(source, device)
    if not getattr(processor, "chat_template", None):
        raise LorakitError(
            f"{source.location}: no chat template, so it is no chat model; choose --captioner blip, blip2 or florence2 for it"
        )
    processor.tokenizer.padding_side = "left"  # answers of a batch begin where its prompts end
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": settings.question or PROMPT}]}]
    question = processor.apply_chat_template(asked, add_generation_prompt=True)

    @torch.inference_mode()
    def read(pictures: list[Image.Image]) -> list[RawCaption]:
        inputs = processor(text=[question] * len(pictures), images=[[p] for p in pictures], padding=True, return_tensors="pt")
        inputs = inputs.to(device, model.dtype)
        longest = max(settings.max_tokens, LEAST_TOKENS)
        written = model.generate(**inputs, max_new_tokens=longest, do_sample=False)[:, inputs["input_ids"].shape[1] :]
        answers = processor.batch_decode(written, skip_special_tokens=True)
        return [parse(answer, cut) for answer, cut in zip(answers, are_cut(model, processor, written, longest), strict=True)]

    return Reader(lambda picture: picture, read)


def parse(answer: str, is_cut: bool = False) -> RawCaption:
    """'A dog on grass.\\nTags: dog, grass' -> its sentence and its tags. An answer without tags is all sentence. Of one
    that `is_cut` at its end, the last tag or phrase is left out."""
    sentence, *rest = TAGS.split(without_prompt(answer, "assistant"), maxsplit=1)
    tags = re.split(r"[,;\n]|(?<=\w)\.", rest[0]) if rest else []
    if is_cut and tags:
        tags.pop()
    elif is_cut:
        sentence = without_loose_end(sentence)
    return RawCaption(" ".join(sentence.split()), tuple(without_repeats([tag.strip(" .*-#") for tag in tags])))
