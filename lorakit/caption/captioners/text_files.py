"""The captions that lie beside the photos (.txt, .caption, .json, metadata.jsonl, ...) and nothing else. `scan` has read
them already, and they are kept whichever captioner is chosen; this one writes no new ones."""

from __future__ import annotations

from lorakit.caption.captioners.base import CaptionerCard, Reader
from lorakit.settings import Caption
from lorakit.text.composing import RawCaption
from lorakit.weights import Source

CARD = CaptionerCard(
    weights=False,
    title="Text files beside the photos",
    writes="what is there",
    licence="yours",
    note="photo.txt, .caption or .json, or one list for the folder; photos without one are named and left out",
)


def load(source: Source, device: str, settings: Caption) -> Reader:
    return Reader(lambda picture: None, lambda batch: [RawCaption()] * len(batch))
