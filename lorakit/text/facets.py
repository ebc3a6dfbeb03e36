"""Facets of a photo: its medium, framing, light and setting, one of a short list each (facets.yaml), and its colours. How
they join what a captioner wrote, and which words of a text they contradict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from lorakit.text import phrases
from lorakit.text.composing import LIGHT, MEDIUM, SETTING, RawCaption
from lorakit.text.words import words

SURE = 0.9  # probability from which a facet is held against a text; it may be said from `caption.min_facet`
SPEAKS_OF = {  # a caption with one of these words has its own say on the attribute, and is the one who looked longer
    "framing": frozenset("close-up closeup macro portrait above below aerial distance far near full-length wide".split()),
    "light": LIGHT | frozenset("night day noon sunny dim bright".split()),
    "setting": SETTING - {"night", "day"} | frozenset("outside inside room indoor outdoor".split()),
    "medium": MEDIUM | phrases.MEDIA,
}
# Hue in degrees (from, to; going round through 0) at which an eye may still see this colour. Wide and overlapping: a word
# is contradicted only where there is nothing like it in the whole picture.
HUES = {"red": (325, 30), "orange": (5, 58), "yellow": (35, 78), "green": (58, 185), "blue": (165, 268), "purple": (240, 335), "pink": (285, 25)}  # fmt: skip
LEAST_CHROMA = 20  # difference of a pixel's largest and smallest channel (0-255) from which it has a hue
NONE_OF_IT = 0.0004  # share of the picture below which a colour is not in it
NO_COLOUR_OF_ITS_OWN = frozenset("eye eyes hair nose lips tea onion panda wine".split())  # 'blue eyes' are few pixels, 'green tea' a name


@dataclass(frozen=True)
class Option:
    """One value of an attribute. `tag` is '' for what most photos are."""

    tag: str
    seen: tuple[str, ...]
    rules_out: frozenset[str]


@cache
def attributes() -> dict[str, tuple[Option, ...]]:
    """{attribute: its options}, from facets.yaml."""
    import yaml

    read = yaml.safe_load((resources.files("lorakit.text") / "facets.yaml").read_text(encoding="utf-8"))
    return {
        attribute: tuple(Option(tag, tuple(about["seen"]), frozenset(about.get("rules_out", ()))) for tag, about in options.items())
        for attribute, options in read.items()
    }


def joined(reading: RawCaption, facets: Mapping[str, Any] | None, least: float) -> RawCaption:
    """The reading with the facets of at least this probability as tags, but for attributes that it speaks of itself."""
    said = words(reading.text) | set(reading.text.lower().split())
    silent = [attribute for attribute, its_words in SPEAKS_OF.items() if not said & its_words]
    seen = [facets[attribute] for attribute in silent if attribute in facets] if facets else []
    tags = [tag for tag, sure in seen if tag and sure >= least]
    return RawCaption(reading.sentence, (*reading.tags, *tags))


def contradicted(text: str, facets: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    """(word of the text, the facet that it contradicts), where the facet is SURE."""
    said = words(text) | set(text.lower().split())
    for attribute, (tag, sure) in (facets or {}).items():
        option = next((o for o in attributes()[attribute] if o.tag == tag), None)
        if option and sure >= SURE and (wrong := said & option.rules_out):
            yield min(wrong), tag


def missing_colours(text: str, shares: Mapping[str, float] | None) -> list[tuple[str, float]]:
    """[(colour, its share of the picture)] of the colours that a text names and the picture does not have."""
    if not shares:
        return []
    said = text.lower().replace(",", " ").split()
    named = {word for word, after in zip(said, [*said[1:], ""], strict=True) if word in shares and after not in NO_COLOUR_OF_ITS_OWN}
    return [(colour, shares[colour]) for colour in HUES if colour in named and shares[colour] < NONE_OF_IT]
