"""From what a captioner saw to the text that a LoRA is trained on: the base's style, and the trigger word exactly once."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from lorakit import phrases
from lorakit.phrases import ARTICLES

FILLER = re.compile(
    r"^(?:(?:in|on) (?:the|this) (?:image|photo|picture|photograph|scene),?\s*(?:(?:we|you|one) (?:can )?see|there (?:is|are))?|"
    r"(?:the|this) (?:image|photo|picture|photograph|scene) (?:(?:also )?(?:shows|features|depicts|displays|captures|contains|portrays)|"
    r"(?:is|appears to be) of)|there (?:is|are|appears to be|seems to be)|this is|it is|it's|here is|(?:we|you) (?:can )?see|"
    r"(?:an? )?(?:image|photo|picture|photograph) (?:of|showing)|arafed)\b[\s,]*",
    re.IGNORECASE,
)
SEEMS = re.compile(r"\b(?:appears|seems) to be\b|\bcan be seen\b", re.IGNORECASE)
# Names that a detector gives to parts and kinds of what a sentence describes better.
GENERIC_LABELS = (
    frozenset(
        "person human animal mammal clothing footwear face head body hand arm leg eye nose mouth ear object product thing".split()
    )
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
STYLES = ("tags", "mixed", "sentences")


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
        return ", ".join(tags_of(sentence, reading.tags))
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
    """Tags whose words do not all stand in a longer tag (as whole words: `hat` stays beside `chat bubble`). The longer
    one takes the place of a shorter one before it."""
    kept: list[str] = []
    for tag in tags:
        longer = next((other for other in tags if stems(tag) < stems(other)), None)
        if longer is None:
            kept.append(tag)
        elif not kept:
            kept.append(longer)
    return without_repeats(kept)


def stem(word: str) -> str:
    """A word without its plural ending, enough to see that 'mugs' have been said by 'mug'."""
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us")) else word


def stems(text: str) -> set[str]:
    return {stem(word) for word in words(text)}


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
            text = _joined(text, tag)
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


def without_repeats(parts: tuple[str, ...] | list[str]) -> list[str]:
    """The parts in their order, each once (whatever its case)."""
    seen: dict[str, str] = {}
    for part in parts:
        seen.setdefault(part.strip().lower(), part.strip())
    return [part for key, part in seen.items() if key]


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


# --- the trigger word

PLACEHOLDER = re.compile(r"\[\s*trigger\s*\]|\{\s*trigger\s*\}", re.IGNORECASE)


def place_trigger(text: str, trigger: str | None, class_word: str | None, style: str, teaches: str = "subject") -> str:
    """`text` with the trigger exactly once: first among tags, before the class word in sentences, and as
    'in the zwx style' in sentences when it stands for a style. Doing it twice changes nothing."""
    if not trigger:
        return _without_placeholder(_nfc(text))
    trigger = _nfc(trigger)
    text = without_word(text, trigger)
    if teaches == "style":
        name = trigger if "style" in trigger.lower() else f"{trigger} style"
        text = _without_tag(text, "style")
        return _joined(text.rstrip(" ."), f"in the {name}") if style == "sentences" else _joined(name, text)
    if style == "tags":
        return _joined(f"{trigger} {class_word}" if class_word else trigger, _without_tag(text, class_word))
    if class_word and (found := whole_word(class_word).search(text)):
        return f"{matching_article(text[: found.start()], trigger)}{trigger} {text[found.start() :]}"
    name = f"{_article(trigger)} {trigger} {class_word}" if class_word else trigger
    rest = _without_tag(text, class_word)
    return (
        f"{name} {rest}"
        if class_word and rest.split(" ")[0] in ("in", "with", "against", "on", "at")
        else _joined(name, rest)
    )


def keep_trigger(
    text: str,
    trigger: str | None,
    class_word: str | None,
    style: str,
    teaches: str = "subject",
    former: tuple[str, ...] = (),
) -> str:
    """A person's own text with the trigger exactly once, and where they put it: at a `[trigger]` or `{trigger}`
    placeholder, where a `former` trigger stood, where it stands first; only where it is missing it is placed."""
    text = _nfc(text)
    trigger = _nfc(trigger) if trigger else None
    for old in former:
        if trigger is None or _nfc(old).casefold() != trigger.casefold():
            text = whole_word(old).sub("[trigger]", text) if trigger else without_word(text, old)
    if trigger is None:
        return _without_placeholder(text)
    if count_word(text, trigger) == 0:
        text = PLACEHOLDER.sub(lambda _: trigger, text, count=1)
    text = _without_placeholder(text)
    found = list(whole_word(trigger).finditer(text))
    if not found:
        return place_trigger(text, trigger, class_word, style, teaches)
    if len(found) == 1:
        return text
    first = found[0].end()
    rest = whole_word(trigger).sub("\0", text[first:])
    return text[:first] + re.sub(
        r"(?:\b(?:a|an|the)\s+)?\0(?:['’]s)?(?=\s*(?:[,.;]|$))[ ]?|\0[ ]?", "", rest, flags=re.IGNORECASE
    ).rstrip(" ,")


def without_word(text: str, word: str) -> str:
    """`text` as one line without any whole `word` (any case), nor `[trigger]` or `{trigger}` placeholders, and no gaps left."""
    before, text = None, _without_placeholder(_nfc(text))
    while text != before:  # what closes a gap may make the word anew
        before = text
        body = whole_word(word).pattern
        text = re.sub(rf"(?:\bin\s+(?:the\s+)?)?{body}(?:\s+style)?(?=\s*(?:[,.]|$))", " ", text, flags=re.IGNORECASE)
        text = _tidy(whole_word(word).sub(" ", text))
    return text


def _tidy(text: str) -> str:
    """One line, no empty parts between commas, no part that is a bare article or a full stop."""
    parts = (" ".join(part.split()) for part in text.split(","))
    return ", ".join(part for part in parts if part.strip(" .").lower() not in ("", *ARTICLES))


def count_word(text: str, word: str) -> int:
    """How often `word` stands in `text` as a whole word, whatever its case."""
    return len(whole_word(word).findall(_nfc(text)))


def whole_word(word: str) -> re.Pattern:
    """`word` itself, not as a part of another: neither `cat` in `category`, nor in `cat-like` or `wild_cat`."""
    body = r"\s+".join(map(re.escape, _nfc(word).split()))
    return re.compile(rf"(?<![\w-]){body}(?![\w]|-\w)", re.IGNORECASE)


def _nfc(text: str) -> str:
    """One way to write an accented letter: as one character."""
    return unicodedata.normalize("NFC", text)


def _without_placeholder(text: str) -> str:
    return _tidy(re.sub(r"\s+([,.;])", r"\1", PLACEHOLDER.sub(" ", text))) if PLACEHOLDER.search(text) else text


def _without_tag(text: str, tag: str | None) -> str:
    if not tag:
        return text
    drop = {tag.lower(), f"a {tag}".lower(), f"an {tag}".lower(), f"the {tag}".lower()}
    return ", ".join(p for p in text.split(", ") if p and p.lower() not in drop)


def _article(word: str) -> str:
    return "an" if word[0].lower() in "aeiou" else "a"


def matching_article(before: str, trigger: str) -> str:
    """'... an ' before 'zwx old dog' becomes '... a ', and the other way round."""
    article = _article(trigger)
    return re.sub(
        r"\b(a|an)\s+$", lambda m: (article.capitalize() if m[1][0].isupper() else article) + " ", before, flags=re.I
    )


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)
