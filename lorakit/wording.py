"""From what a captioner saw to the text that a LoRA is trained on: the base's style, and the trigger word exactly once."""

from __future__ import annotations

import re
from dataclasses import dataclass

ARTICLES = ("a", "an", "the")
FILLER = re.compile(
    r"^(?:there (?:is|are)|this is|(?:the|this) (?:image|photo|picture) (?:shows|features|depicts)|"
    r"(?:an? )?(?:image|photo|picture|photograph) of|arafed)\s+",
    re.IGNORECASE,
)
# Words that begin a new phrase of a caption: what stands before them is one tag, what follows another.
LINKS = re.compile(
    r"\s*(?:[,.;]|\b(?:and|with|on|in|at|by|near|under|over|behind|beside|next to|in front of|on top of|"
    r"wearing|holding|that is|which is|while)\b)\s*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Reading:
    """What a captioner saw in one photo. `sentence` may be empty (a tagger), `tags` too (a captioner)."""

    sentence: str = ""
    tags: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The reading as one line, for people to read."""
        return ", ".join(part for part in (self.sentence, *self.tags) if part)


def compose(reading: Reading, style: str) -> str:
    """The reading in the base's `style`: 'tags', 'mixed' (a sentence, then tags) or 'sentences'. No trigger yet."""
    sentence = clean_sentence(reading.sentence)
    if style == "tags":
        return ", ".join(without_repeats([*phrases(sentence), *reading.tags]))
    if not sentence:
        sentence = sentence_from(reading.tags)
        return sentence
    if style == "mixed":
        said = words(sentence)
        new = [tag for tag in reading.tags if not words(tag) <= said]
        return ", ".join(without_repeats([sentence, *new]))
    return sentence


def clean_sentence(text: str) -> str:
    """One line without filler openings ('there is', 'the image shows', 'arafed') and without the full stop."""
    text = " ".join(text.split()).strip(" .")
    while FILLER.match(text):
        text = FILLER.sub("", text, count=1)
    return re.sub(r"\barafed\s+", "", text, flags=re.IGNORECASE)


def sentence_from(tags: tuple[str, ...] | list[str]) -> str:
    """'teddy bear', 'soft light', 'close-up' -> 'a teddy bear, soft light, close-up'."""
    first, *rest = without_repeats(tags) or [""]
    if first and first.split()[0].lower() not in ARTICLES:
        first = f"{'an' if first[0].lower() in 'aeiou' else 'a'} {first}"
    return ", ".join(part for part in (first, *rest) if part)


def phrases(sentence: str) -> list[str]:
    """A sentence cut into tags at commas and linking words, articles dropped."""
    parts = (_without_article(part) for part in LINKS.split(sentence))
    return [part for part in parts if part]


def _without_article(phrase: str) -> str:
    first, _, rest = phrase.strip(" .,;").partition(" ")
    return rest.strip() if first.lower() in ARTICLES else phrase.strip(" .,;")


def without_repeats(parts: tuple[str, ...] | list[str]) -> list[str]:
    """The parts in their order, each once (whatever its case)."""
    seen: dict[str, str] = {}
    for part in parts:
        seen.setdefault(part.strip().lower(), part.strip())
    return [part for key, part in seen.items() if key]


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def place_trigger(text: str, trigger: str | None, class_word: str | None, style: str, teaches: str = "subject") -> str:
    """`text` with the trigger exactly once: first among tags, before the class word in sentences, and as
    'in the zwx style' in sentences when it stands for a style. Doing it twice changes nothing."""
    if not trigger:
        return text
    text = without_word(text, trigger)
    if teaches == "style":
        name = trigger if "style" in trigger.lower() else f"{trigger} style"
        text = _without_tag(text, "style")
        return _joined(name, text) if style == "tags" else _joined(text, f"in the {name}")
    if style == "tags":
        return _joined(f"{trigger} {class_word}" if class_word else trigger, _without_tag(text, class_word))
    if class_word and (found := _whole_word(class_word).search(text)):
        return f"{_matching_article(text[: found.start()], trigger)}{trigger} {text[found.start() :]}"
    name = f"a {trigger} {class_word}" if class_word else trigger
    return _joined(name, text)


def without_word(text: str, word: str) -> str:
    """`text` without any whole `word` (any case), nor `[trigger]` or `{trigger}` placeholders, and no gaps left."""
    text = re.sub(r"[\[{]trigger[\]}]", " ", text, flags=re.IGNORECASE)
    text = _whole_word(word).sub(" ", text)
    text = re.sub(r"\b(?:in the|in)\s+(?:style\s*)?(?=[,.]|$)", " ", text)
    parts = (" ".join(part.split()) for part in text.split(","))
    return ", ".join(part for part in parts if part)


def count_word(text: str, word: str) -> int:
    """How often `word` stands in `text` as a whole word, whatever its case."""
    return len(_whole_word(word).findall(text))


def _whole_word(word: str) -> re.Pattern:
    return re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE)


def _without_tag(text: str, tag: str | None) -> str:
    return ", ".join(p for p in text.split(", ") if p and p.lower() not in ((tag or "").lower(), f"a {tag}".lower()))


def _matching_article(before: str, trigger: str) -> str:
    """'... an ' before 'zwx old dog' becomes '... a ', and the other way round."""
    article = "an" if trigger[0].lower() in "aeiou" else "a"
    return re.sub(r"\b(a|an)\s+$", lambda m: (article.capitalize() if m[1][0].isupper() else article) + " ", before, flags=re.I)


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)
