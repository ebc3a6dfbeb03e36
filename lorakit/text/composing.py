"""From what a captioner saw to words in the base's style: tags, a sentence, or both. The trigger is not placed yet."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lorakit.text import phrases
from lorakit.text.phrases import ARTICLES
from lorakit.text.words import COUNT_TAG, joined, stem, stems, without_repeats, words

FILLER = re.compile(
    r"^(?:(?:in|on) (?:the|this) (?:image|photo|picture|photograph|scene),?\s*(?:(?:i|we|you|one) (?:can )?see|there (?:is|are))?|"
    r"(?:the|this) (?:image|photo|picture|photograph|scene) (?:(?:also )?(?:shows|features|depicts|displays|captures|contains|portrays)|"
    r"(?:is|appears to be) of)|there (?:is|are|appears to be|seems to be)|this is|it is|it's|here is|here's|(?:i|we|you) (?:can )?see|(?:i'm|i am|we are|we're) looking at|"
    r"(?:an? )?(?:image|photo|picture|photograph) (?:of|showing|(?:that )?(?:shows|captures|depicts|features))|arafed)\b[\s,]*",
    re.IGNORECASE,
)
SEEMS = re.compile(r"\b(?:appears|seems) to be\b|\bcan be seen\b", re.IGNORECASE)
# Names that a detector gives to parts and kinds of what a sentence describes better.
GENERIC_LABELS = (
    frozenset("person human animal mammal clothing footwear face head body hand arm leg eye nose mouth ear object product thing".split())
    | {f"human {part}" for part in "face head body hand arm leg eye nose mouth ear hair foot beard".split()}
    | {"fashion accessory"}
)
PEOPLE = frozenset("man woman boy girl men women boys girls lady guy child kid baby people person".split())
SETTING = frozenset(
    "background street room beach forest city park garden field kitchen bedroom office sky mountain mountains lake river road house "
    "wall floor window restaurant studio outdoors indoors grass snow water sea ocean desert night day table shelf yard".split()
)
LIGHT = frozenset(
    "light lit lighting sunlight backlit backlight shadow shadows sunset sunrise dark bright contrast glow neon tones colors colours".split()
)
MEDIUM = phrases.MEDIA | frozenset("digital oil 3d bokeh blurred art style photography photorealistic".split())
ROLES = ("subject", "attribute", "action", "setting", "light", "medium")
STYLES = ("tags", "mixed", "sentences", "both")


@dataclass(frozen=True)
class RawCaption:
    """What a captioner saw in one photo. `sentence` may be empty (a tagger), `tags` too (a captioner)."""

    sentence: str = ""
    tags: tuple[str, ...] = ()
    cut: bool = False  # the limit of tokens has stopped it

    @property
    def text(self) -> str:
        """The reading as one line, for people to read."""
        return ", ".join(part for part in (self.sentence, *self.tags) if part)


def compose(reading: RawCaption, style: str, order: str = "subject") -> str:
    """The reading in the base's `style`: 'tags', 'mixed' (a sentence, then tags), 'sentences', or 'both' (tags, then all sentences, as
    Anima reads them). Tags alone stand in an `order`, see `caption.tag_order`. No trigger yet."""
    sentence = clean_sentence(reading.sentence)
    if style == "both":
        tags = ", ".join(without_said(without_repeats(reading.tags)) or tags_of(sentence))
        return ". ".join(part for part in (tags, sentence[:1].upper() + sentence[1:]) if part)
    if style == "tags":
        return ", ".join(booru_tags(sentence, reading.tags) if order == "booru" else tags_of(sentence, reading.tags))
    if not sentence:
        return sentence_from(reading.tags)
    if style == "mixed":
        first = phrases.SENTENCE_END.split(sentence)[0].rstrip(".")
        said = words(first)
        rest = [tag for tag in tags_of(sentence, reading.tags) if not stems(tag) <= {stem(w) for w in said}]
        return ", ".join(without_repeats([first, *rest]))
    return sentence


def clean_sentence(text: str) -> str:
    """One line without filler ('there is', 'the image shows', 'arafed') and without the last full stop."""
    text = " ".join(text.split())
    sentences = phrases.SENTENCE_END.split(text)
    cleaned = [part for number, sentence in enumerate(sentences) if (part := _without_filler(sentence, number))]
    text = SEEMS.sub(lambda m: "is" if "be" in m.group() and "seen" not in m.group() else "", " ".join(cleaned))
    text = re.sub(r"\barafed\s+", "", text, flags=re.IGNORECASE)
    text = re.sub(r"\s+([,.;])", r"\1", " ".join(text.split()))
    text = re.sub(r"\b([Cc])lose up (?=of|shot|view|photo|portrait)", r"\1lose-up ", text)
    return re.sub(r"[\s,;.]+$", "", _without_stutter(text)).lstrip(" ,.;")


def _without_filler(sentence: str, number: int) -> str:
    before = sentence
    while FILLER.match(sentence):
        sentence = FILLER.sub("", sentence, count=1)
    if sentence != before and number and sentence:  # what was the middle of a sentence is its beginning now
        return sentence[0].upper() + sentence[1:]
    return sentence


def _without_stutter(text: str) -> str:
    """'bald bald bald man' -> 'bald man', and 'with a red hat and a red hat' once."""
    text = re.sub(r"\b(\w+)(?:[\s,]+\1\b)+", r"\1", text, flags=re.IGNORECASE)
    return re.sub(r"\b((?:\w+ ){1,5}?\w+)(?:,? (?:(?:and|with) )?\1\b)+", r"\1", text, flags=re.IGNORECASE)


def tags_of(sentence: str, extra: tuple[str, ...] = ()) -> list[str]:
    """A sentence's phrases and the `extra` tags as one list: each thing once, in the order subject, attributes, action,
    setting, light, medium."""
    found = [(role_of(p.tag, p.role), p.tag) for p in phrases.split(sentence) if p.tag]
    labels = [tag for tag in map(str.strip, extra) if tag and not (sentence and tag.lower() in GENERIC_LABELS)]
    if set(words(sentence)) & PEOPLE:  # 'a girl': the detector's 'woman' is the same person
        labels = [tag for tag in labels if tag.lower() not in PEOPLE]
    begin = len(found)
    found += [("subject" if not begin and not n else role_of(tag, "attribute"), tag) for n, tag in enumerate(labels)]
    ordered = [tag for _, tag in sorted(found, key=lambda item: ROLES.index(item[0]))]
    return without_said(without_repeats(ordered))


def booru_tags(sentence: str, tags: tuple[str, ...]) -> list[str]:
    """A tagger's tags in its own order with the counts first: `1girl`, who it is, from what, by whom, the rest; then what a sentence says
    besides. Tags of others, which count nothing, as `tags_of` has them."""
    counts = [tag for tag in tags if COUNT_TAG.fullmatch(tag.strip())]
    if not counts:
        return tags_of(sentence, tags)
    besides = [tag for tag in tags_of(sentence) if tag.lower() not in PEOPLE]  # they are counted
    return without_said(without_repeats([*counts, *(tag for tag in tags if tag not in counts), *besides]))


def role_of(tag: str, role: str) -> str:
    """What part of the picture a tag speaks of."""
    if role in ("subject", "action", "medium"):
        return role
    said = words(tag)
    for name, family in (("light", LIGHT), ("medium", MEDIUM), ("setting", SETTING)):
        if said & family:
            return name
    return role


def without_said(tags: list[str]) -> list[str]:
    """Tags that no longer tag says: `long hair` goes beside `very long hair`, and `cat` stays beside `cat ears` as `hat` beside `chat
    bubble`. The longer one takes the place of a shorter one before it."""
    parts = [(tag, _parts_of(tag)) for tag in tags]
    kept: list[str] = []
    for tag in tags:
        longer = next((other for other, its_parts in parts if _says(its_parts, tag) and stems(tag) < stems(other)), None)
        if longer is None:
            kept.append(tag)
        elif not kept:
            kept.append(longer)
    return without_repeats(kept)


def _parts_of(tag: str) -> list[list[str]]:
    """The things of a tag, each as its words: 'statue of a man on grass' -> statue | man | grass."""
    found: list[list[str]] = [[]]
    for word in re.findall(r"\w+", tag.lower()):
        if word in phrases.PREPOSITIONS or word in ("of", "and"):
            found.append([])
        elif word not in ARTICLES:
            found[-1].append(stem(word))
    return found


def _says(parts: list[list[str]], tag: str) -> bool:
    """Whether a tag is the end of one of these things, which is what it is, or only a quality or a deed of it."""
    said = [stem(word) for word in re.findall(r"\w+", tag.lower()) if word not in ARTICLES]
    if not re.search(r"[^\W_]{2}", tag):  # faces
        return False
    if len(said) == 1 and (said[0] in phrases.JOINED_BY_AND or said[0] in phrases.TRANSITIVE):
        return any(said[0] in part for part in parts)
    alone = [one for one in _parts_of(tag) if one]
    return bool(alone) and all(any(part[-len(one) :] == one for part in parts) for one in alone)


def sentence_from(tags: tuple[str, ...] | list[str]) -> str:
    """'teddy bear', 'close-up', 'soft light', 'brown tones' -> 'a close-up of a teddy bear in soft light, with brown tones'."""
    rest = without_said(without_repeats(tags))
    text = _with_article(rest.pop(0)) if rest and not _joint(rest[0]) and rest[0] != "close-up" else ""
    for tag in rest:
        if tag == "close-up":
            text = f"a close-up of {text}" if text else "in close-up"
        elif joint := _joint(tag):
            comma = "," if joint == "with" and _has_joint(text) else ""
            text = f"{text}{comma} {joint} {_with_article(tag)}".strip()
        else:
            text = joined(text, tag)
    return text


def _joint(tag: str) -> str:
    """The word by which a facet joins a sentence, '' for the name of a thing."""
    last = tag.split()[-1]
    if last == "background":
        return "against"
    return "in" if last == "light" else "with" if last in ("tones", "contrast") else ""


def _has_joint(text: str) -> bool:
    return re.search(r"\b(?:in|against|with)\b", text) is not None


def _with_article(phrase: str) -> str:
    if (
        not phrase
        or phrase[0].isdigit()
        or phrase.split()[-1] in ("light", "contrast")
        or phrase.split()[0].lower() in ARTICLES
        or stem(phrase.split()[-1]) != phrase.split()[-1]
    ):
        return phrase
    return f"{'an' if phrase[0].lower() in 'aeiou' else 'a'} {phrase}"
