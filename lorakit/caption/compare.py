"""Choosing a captioner by eye: several read the same photos, and a page shows their texts side by side, without saying whose is which until
a person has chosen."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from lorakit import files
from lorakit.bases import tokens
from lorakit.caption.caption import readings_of
from lorakit.caption.captioners.base import check_readers
from lorakit.caption.trigger import word_text
from lorakit.console import say
from lorakit.errors import LorakitError, UnreadablePhoto
from lorakit.files import short_hash
from lorakit.photos.images import data_uri, load_crop_to_read, thumbnail
from lorakit.project import Project
from lorakit.record import Record
from lorakit.settings import Caption
from lorakit.text.composing import RawCaption

PAGE = "compare.html"
SIDE = 560  # px of a photo on the page
LETTERS = "ABCDEFGH"


@dataclass
class Column:
    """One captioner and, by the photo's id, its text or why it has none."""

    name: str
    texts: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0  # a photo, without loading where nothing was known


def compare(project: Project, names: Sequence[str], count: int = 12) -> Path:
    """Write `compare.html` into the project: `count` of its chosen photos with the texts that each captioner would give them, worded for
    the base as a training would see them. The set's own captions stay as they are; what was read is kept, so that the captioner who
    is chosen need not read these photos again. A captioner is a name, or `name=FOLDER` with its weights.

    Raises `LorakitError` for fewer than two captioners, or without chosen photos."""
    columns = [Column(name) for name in names]
    if not 2 <= len(columns) <= len(LETTERS) or len(set(names)) < len(names):
        raise LorakitError(f"--compare {','.join(names)}: name two to {len(LETTERS)} different captioners, as in --compare blip,qwen3_vl")
    asked = [_asked(project.settings.caption, name) for name in names]
    for settings in asked:
        check_readers(settings)
    shown = spread([r for r in project.manifest.selected if r.get("crop")], count)
    if not shown:
        raise LorakitError(f"{project.folder}: no chosen photos to compare captions of; `lorakit curate {project.folder}` chooses them")
    counter = tokens.counter_for(project).count
    for column, settings in zip(columns, asked, strict=True):
        _read(replace(project, settings=replace(project.settings, caption=settings)), column, shown, counter)
    path = project.folder / PAGE
    files.write_text(path, render(project, shown, columns))
    return path


def _asked(settings: Caption, name: str) -> Caption:
    """The settings with this captioner alone. Weights that the project names are those of its own captioner."""
    name, _, weights = name.partition("=")
    own = settings.weights if name == settings.captioner else None
    return replace(settings, captioner=name.strip(), captioners=(), weights=weights or own)


def spread(records: list[Record], count: int) -> list[Record]:
    """`count` of the records, evenly over their order: a set is chosen the most varied first."""
    if count >= len(records):
        return records
    return [records[round(n * (len(records) - 1) / max(1, count - 1))] for n in range(count)]


def _read(project: Project, column: Column, shown: list[Record], counter: Any) -> None:
    settings, begun = project.settings, time.monotonic()
    [(name, weights)] = settings.caption.readers
    for batch in readings_of(project, name, weights, shown, {}):
        for record, found, _ in batch:
            if not isinstance(found, RawCaption):
                column.reasons[record["id"]] = str(found) if isinstance(found, UnreadablePhoto) else found.reason
                continue
            read: Record = {**record, "human": {}, "caption": {"sentence": found.sentence, "tags": list(found.tags), "own": False}}
            column.texts[record["id"]] = word_text(read, settings, counter, ())[0]
    column.seconds = (time.monotonic() - begun) / len(shown)
    say(f"compare   {column.name}: {len(column.texts)} of {len(shown)} photos have a text")


def render(project: Project, shown: list[Record], columns: list[Column]) -> str:
    """The page as text."""
    import jinja2

    rows, order = [], []
    for record in shown:
        mixed = sorted(range(len(columns)), key=lambda n: short_hash(record["id"], columns[n].name, "blind"))  # the same every time
        order.append(mixed)
        texts = [(columns[n].texts.get(record["id"], ""), columns[n].reasons.get(record["id"], "")) for n in mixed]
        rows.append({"file": record["file"], "picture": _picture(record), "texts": texts, "same": len({text for text, _ in texts}) == 1})
    facts = [{"name": c.name, "seconds": round(c.seconds, 2), "words": _mean_words(c)} for c in columns]
    page = (resources.files("lorakit.caption") / "compare.page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    key = base64.b64encode(json.dumps({"order": order, "captioners": facts, "project": project.folder.name}).encode()).decode()
    return environment.from_string(page).render(
        rows=rows, letters=LETTERS, base=project.card.title, style=project.settings.caption.style, count=len(columns), key=key,
        store=short_hash(project.folder.name, [c.name for c in columns], [r["id"] for r in shown]),
    )  # fmt: skip


def _mean_words(column: Column) -> float:
    return round(sum(len(text.split()) for text in column.texts.values()) / max(1, len(column.texts)), 1)


def _picture(record: Record) -> str:
    try:
        return data_uri(thumbnail(load_crop_to_read(record), SIDE))
    except UnreadablePhoto:
        return ""
