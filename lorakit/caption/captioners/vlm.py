"""Any chat model that reads pictures (Qwen-VL, Gemma, JoyCaption, LLaVA, ...), asked with a prompt that you may edit. Well-known ones
have cards of their own in this folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image

from lorakit.caption.captioners.base import CaptionerCard, Reader, are_cut, load_model
from lorakit.errors import LorakitError
from lorakit.settings import Caption
from lorakit.text.answers import NoCaption, read_answer
from lorakit.text.composing import RawCaption
from lorakit.weights import Source

CARD = CaptionerCard(
    title="Any chat model; Qwen3-VL 4B where none is named",
    writes="sentence and tags",
    licence="Apache-2.0",
    hub="Qwen/Qwen3-VL-4B-Instruct",
    size_gb=8.9,
    batch_per_gb=1,
    quantises=True,
    note="follows instructions: caption.prompt is yours to write, caption.weights names another model",
)
# One question serves every style, so that another base needs no new reading. A card or a kind may set its own prompt.
PROMPT = (
    "Describe this photo for someone who cannot see it, in one to three plain sentences: who or what, what they do, the place and the "
    "light. Say only what is visible, without guesses. Do not begin with 'the image'. Then write a new line that begins with 'Tags:' and lists "
    "what is visible, separated by commas."
)
TAGS = "{tags}"  # stands in a prompt for what a tagger has found
TOLD = f" A tagger, which errs at times, has found: {TAGS}. Take from it what you see to be true."
LEAST_TOKENS, MOST_TOKENS = 160, 480  # of an answer where nobody says: a sentence and tags, or a paragraph and tags
# Where a model's thoughts end and begin, as single tokens that decoding would leave out.
THOUGHT_ENDS = ("</think>", "<channel|>", "[/THINK]", "</thought>")
THOUGHT_BEGINS = ("<think>", "<|channel>", "[THINK]", "<thought>")


def load(source: Source, device: str, settings: Caption) -> Reader:
    import torch

    model, processor = load_model(source, device, settings.precision)
    if not getattr(processor, "chat_template", None):
        raise LorakitError(
            f"{source.location}: no chat template, so it is no chat model; choose --captioner blip, blip2 or florence2 for it"
        )
    processor.tokenizer.padding_side = "left"  # answers of a batch begin where its prompts end
    asked, longest = settings.question or PROMPT, settings.max_tokens or answer_tokens(settings.token_budget)
    render(processor, asked)  # raises before any photo is opened

    @torch.inference_mode()
    def ask(pictures: list[Image.Image], questions: list[str]) -> list[RawCaption | NoCaption]:
        prompts = [render(processor, question) for question in questions]
        inputs = processor(
            text=prompts, images=[[p] for p in pictures], padding=True, return_tensors="pt", **_without_second_bos(processor, prompts[0])
        )
        inputs = inputs.to(device, model.dtype)
        written = model.generate(**inputs, max_new_tokens=longest, do_sample=False)[:, inputs["input_ids"].shape[1] :]
        cut = are_cut(model, processor, written, longest)
        return [read_answer(spoken(processor, ids), is_cut) for ids, is_cut in zip(written, cut, strict=True)]

    def told(pictures: list[Image.Image], tags: Sequence[Sequence[str]]) -> list[RawCaption | NoCaption]:
        question = asked if TAGS in asked else asked + TOLD if settings.question is None else asked
        return ask(pictures, [question.replace(TAGS, ", ".join(found)) if found else asked.replace(TAGS, "none") for found in tags])

    return Reader(lambda picture: picture, lambda pictures: ask(pictures, [asked] * len(pictures)), told)


def answer_tokens(budget: int) -> int:
    """New tokens for an answer to a base that reads `budget` of its own."""
    return max(LEAST_TOKENS, min(MOST_TOKENS, budget))


def render(processor: Any, question: str) -> str:
    """The prompt with its picture as the model's own template writes it: a list of picture and text, or for templates that put the
    picture in themselves (JoyCaption) the text alone. Thinking is switched off where that can be done.

    Raises `LorakitError` where neither comes out with the whole question and one picture."""
    from jinja2 import TemplateError

    for content in ([{"type": "image"}, {"type": "text", "text": question}], question):
        talk = [{"role": "user", "content": content}]
        try:
            text = processor.apply_chat_template(talk, add_generation_prompt=True, tokenize=False, enable_thinking=False)
        except (TemplateError, TypeError, ValueError, KeyError):  # of a template that takes the other form
            continue
        if question.strip() in text and "[{" not in text.replace(question.strip(), "") and _has_one_picture(processor, text):
            return text
    raise LorakitError(
        f"{getattr(processor.tokenizer, 'name_or_path', 'captioner')}: its chat template takes no picture with a question; choose another "
        "captioner, or weights of a model that is asked about pictures"
    )


def _has_one_picture(processor: Any, text: str) -> bool:
    counts = [text.count(mark) for mark in _picture_marks(processor)]
    return 1 in counts and max(counts) == 1


def _picture_marks(processor: Any) -> Iterator[str]:
    """What may stand for a picture in a prompt."""
    for owner in (processor, processor.tokenizer):
        for name in ("image_token", "boi_token", "start_image_token"):
            if mark := getattr(owner, name, None):
                yield str(mark)


def _without_second_bos(processor: Any, prompt: str) -> dict[str, bool]:
    """A template that writes the beginning itself wants no other from the tokenizer."""
    begins = processor.tokenizer.bos_token
    return {"add_special_tokens": False} if begins and prompt.startswith(begins) else {}


def spoken(processor: Any, ids: Any) -> str:
    """The text of generated token ids [length] behind its thoughts; as a thought where one was begun and not ended."""
    tokenizer = processor.tokenizer
    written = ids.tolist()
    ends, begins = (_single_tokens(tokenizer, marks) for marks in (THOUGHT_ENDS, THOUGHT_BEGINS))
    last = max((place for place, token in enumerate(written) if token in ends), default=-1)
    open_ones = any(token in begins for token in written[last + 1 :])
    text = tokenizer.decode(written[last + 1 :], skip_special_tokens=True)
    return f"<think>{text}" if open_ones and "<think>" not in text else text


def _single_tokens(tokenizer: Any, marks: Sequence[str]) -> set[int]:
    known = tokenizer.get_added_vocab()
    return {known[mark] for mark in marks if mark in known}
