"""Florence-2: a detailed description, and the names of the things that it finds as tags."""

from __future__ import annotations

import re
from pathlib import Path

from lorakit.caption.captioners.base import ONE_SENTENCE, CaptionerCard, Reader, load_model, pixels_of, written_texts
from lorakit.errors import LorakitError, UnknownName
from lorakit.settings import Caption
from lorakit.text.composing import RawCaption
from lorakit.text.words import without_repeats
from lorakit.weights import Source

CARD = CaptionerCard(
    title="Florence-2 base",
    writes="sentence and tags",
    licence="MIT",
    hub="florence-community/Florence-2-base",
    size_gb=0.5,
    batch_per_gb=3,
    note="richer than BLIP and smaller; best for FLUX and SD3. caption.prompt is its task: short, detailed or more_detailed; "
    "caption.weights=florence-community/Florence-2-large is surer and 1.6 GB",
)
TASKS = {"short": "<CAPTION>", "detailed": "<DETAILED_CAPTION>", "more_detailed": "<MORE_DETAILED_CAPTION>"}
LEAST_TOKENS = {"<DETAILED_CAPTION>": 128, "<MORE_DETAILED_CAPTION>": 256}  # what their answers take on most photos
DETECT = "<OD>"
DETECT_TOKENS = 256  # a box takes five tokens, its name two or three
SPECIAL = re.compile(r"</?s>|<pad>|<unk>|<mask>|<image>")
BOXES = re.compile(r"<loc_\d+>")


def check(settings: Caption) -> None:
    """Raises `LorakitError` for weights in Microsoft's own form, which only their own code can load, with those that need none."""
    weights = settings.weights or ""
    config = Path(weights).expanduser() / "config.json"
    if weights.lower().startswith("microsoft/florence") or (
        config.is_file() and '"auto_map"' in config.read_text(encoding="utf-8", errors="replace")
    ):
        raise LorakitError(
            f"captioner florence2: {weights} needs code of its own to be loaded, and lorakit runs no code that comes with weights; "
            "florence-community/Florence-2-base and florence-community/Florence-2-large are the same weights without"
        )


def load(source: Source, device: str, settings: Caption) -> Reader:
    import torch

    model, processor = load_model(source, device)
    task = task_of(settings.question)
    asked = {name: _question(processor, name) for name in (task, DETECT)}

    @torch.inference_mode()
    def answer(name: str, pixels, max_tokens: int):
        question = asked[name].repeat(len(pixels), 1).to(device)
        return model.generate(input_ids=question, pixel_values=pixels, max_new_tokens=max_tokens, num_beams=3)

    def read(pixels: list) -> list[RawCaption]:
        batch = torch.stack(pixels).to(device, model.dtype)
        longest = max(settings.max_tokens or ONE_SENTENCE, LEAST_TOKENS.get(task, 0))
        sentences = written_texts(model, processor, answer(task, batch, longest), longest)
        found = processor.batch_decode(answer(DETECT, batch, DETECT_TOKENS), skip_special_tokens=False)  # boxes are special tokens
        return [RawCaption(plain(text), tuple(labels(boxes)), cut) for (text, cut), boxes in zip(sentences, found, strict=True)]

    return Reader(pixels_of(processor), read)


def task_of(prompt: str | None) -> str:
    """The task token for `caption.prompt`. Raises `UnknownName` naming the nearest task."""
    name = (prompt or "detailed").strip("<>").lower().removesuffix("_caption").replace(" ", "_")
    name = "short" if name == "caption" else name
    if name not in TASKS:
        raise UnknownName("Florence-2 task", name, list(TASKS), "caption.prompt")
    return TASKS[name]


def _question(processor, task: str):
    """[1, n] token ids of a task, with the places that the picture's features will take."""
    from PIL import Image

    return processor(text=[task], images=[Image.new("RGB", (64, 64))], return_tensors="pt").input_ids


def plain(text: str) -> str:
    """An answer without its special tokens. (The processor's own parser needs a `post_processor_config`, which not
    every checkpoint has, so answers are parsed here.)"""
    return " ".join(BOXES.sub(" ", SPECIAL.sub("", text)).split())


def labels(text: str) -> list[str]:
    """'dog<loc_1><loc_2><loc_3><loc_4>chair<loc_5>...' -> ['dog', 'chair']: the names that stand before boxes."""
    names = BOXES.split(SPECIAL.sub("", text))[:-1]
    return without_repeats([name.strip(" .,").lower() for name in names])
