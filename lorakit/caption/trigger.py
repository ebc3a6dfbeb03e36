"""Stage trigger: words each caption in the base's style and puts the trigger word into it exactly once."""

from __future__ import annotations

from lorakit import manifest, stamps
from lorakit.errors import LorakitError
from lorakit.manifest import Record
from lorakit.project import Project
from lorakit.settings import Settings
from lorakit.wording import Reading, compose, count_word, place_trigger


def trigger(project: Project) -> None:
    """Give every captioned photo its `text`. A text written by hand is changed only where the trigger is missing or
    stands more than once. Raises `LorakitError` for a trigger that could not be found again in a text."""
    check_word(project.trigger)
    changed = []
    for record in project.manifest.selected:
        stamp = stamps.trigger(project, record)
        if record.get("caption") and "caption" in record.get("done", {}) and record["done"].get("trigger") != stamp:
            changed.append(manifest.finish(record, "trigger", stamp, text=word(record, project.settings)))
    project.manifest.keep(*changed)
    project.manifest.save()


def check_word(word: str | None) -> None:
    """Raises for a trigger with a comma (it would be two tags), or without a letter or digit."""
    if word is not None and ("," in word or not any(c.isalnum() for c in word)):
        raise LorakitError(f"--trigger {word!r}: a trigger is one word or a few, with letters and without commas, like zwx")


def word(record: Record, settings: Settings) -> str:
    """The training text of a captioned photo."""
    found, by_hand = record["caption"], record.get("human", {}).get("text")
    trigger, style = settings.trigger, settings.caption.style
    own = by_hand or (found["sentence"] if found["own"] else None)
    if own is not None and trigger.word and count_word(own, trigger.word) == 1:
        return own
    text = own if own is not None else _with_beside(found, compose(Reading(found["sentence"], tuple(found["tags"])), style))
    return place_trigger(text, trigger.word, trigger.class_word, style, trigger.teaches)


def _with_beside(found: dict, text: str) -> str:
    """`text` behind or before the words that lay beside the photo, where `caption.existing` wants both."""
    beside = found.get("beside")
    if not beside:
        return text
    parts = (beside["text"], text) if beside["first"] else (text, beside["text"])
    return ", ".join(part.strip(" ,") for part in parts)
