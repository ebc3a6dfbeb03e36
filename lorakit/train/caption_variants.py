"""Other readings of a text: its tags in another order, some left out. They are drawn beforehand, so that their embeddings
can be cached like the text's own."""

from __future__ import annotations

import random
from collections.abc import Sequence

from lorakit.settings import Train
from lorakit.text.quality_tags import leading
from lorakit.text.words import count_word, split_tags


def variants(text: str, trigger: str | None, settings: Train, lead: Sequence[str] = ()) -> tuple[str, ...]:
    """`caption_variants` readings of a text, or the text alone where nothing is shuffled or dropped. The first `keep_tags`
    tags stay where they are, as do those of `lead` before them, and a tag that holds the trigger is never dropped."""
    if not (settings.shuffle_tags or settings.tag_dropout):
        return (text,)
    generator = random.Random(f"{settings.seed}:{text}")
    tags = split_tags(text)
    stay = leading(tags, lead) + settings.keep_tags
    return tuple(_vary(tags, stay, trigger, settings, generator) for _ in range(settings.caption_variants))


def _vary(tags: list[str], stay: int, trigger: str | None, settings: Train, generator: random.Random) -> str:
    first, rest = tags[:stay], tags[stay:]
    rest = [tag for tag in rest if (trigger and count_word(tag, trigger)) or generator.random() >= settings.tag_dropout]
    if settings.shuffle_tags:
        generator.shuffle(rest)
    return ", ".join(first + rest)
