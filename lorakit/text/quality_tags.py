"""Quality tags (`score_9`, `masterpiece`) that bases of drawn pictures were taught with: in front of a text, or behind its tags, each once.
Also the order in which such bases had their tags."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from lorakit.text.phrases import SENTENCE_END
from lorakit.text.words import joined, split_tags, without_repeats

_QUALITY = re.compile(r"masterpiece|(?:best|amazing|great|high|good|average|normal|medium|low|bad|worst) quality|score \d(?: up)?")


def same(tag: str) -> str:
    """A tag as it is compared: `Score_9` and `score 9` are one."""
    return " ".join(tag.lower().replace("_", " ").split()).strip(" .")


def without_listed(tags: Iterable[str], listed: Iterable[str]) -> tuple[str, ...]:
    """The tags that are none of the listed ones, which have a place of their own."""
    taken = set(map(same, listed))
    return tuple(tag for tag in tags if same(tag) not in taken)


def missing(text: str, lead: Sequence[str], behind: Sequence[str]) -> tuple[list[str], list[str]]:
    """(tags to put in front, tags to put behind) of those which `text` does not have yet. Where it says another quality itself (a tagger's
    `worst quality`), none of the listed ones speaks against it."""
    said = {same(tag) for sentence in SENTENCE_END.split(text) for tag in split_tags(sentence)}
    listed = set(map(same, (*lead, *behind)))
    judged = any(_QUALITY.fullmatch(tag) for tag in said - listed)
    front, back = (
        [tag for tag in tags if same(tag) not in said and not (judged and _QUALITY.fullmatch(same(tag)))] for tags in (lead, behind)
    )
    front = without_repeats(front)
    return front, list(without_listed(without_repeats(back), front))


def around(text: str, front: Sequence[str], back: Sequence[str], style: str) -> str:
    """`text` between these tags; where sentences follow its tags (style 'both') the last ones stand before the sentences."""
    tags, *sentences = SENTENCE_END.split(text, maxsplit=1) if style == "both" and back else [text]
    whole = joined(*front, tags.rstrip(" .") if back else tags, *back)
    return ". ".join([whole, *sentences])


def with_quality(text: str, lead: Sequence[str], behind: Sequence[str], style: str) -> str:
    """`text` with each listed tag once. Doing it twice changes nothing."""
    return around(text, *missing(text, lead, behind), style)


def leading(tags: Sequence[str], lead: Iterable[str]) -> int:
    """How many of the first tags of a text are such as stand in front."""
    known = set(map(same, lead))
    return next((number for number, tag in enumerate(tags) if same(tag) not in known), len(tags))
