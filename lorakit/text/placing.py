"""The trigger word in a text, exactly once: where a person put it, else where the base's style wants it."""

from __future__ import annotations

import re

from lorakit.text.phrases import ARTICLES
from lorakit.text.words import count_word, joined, nfc, split_tags, whole_word, without

PLACEHOLDER = re.compile(r"\[\s*trigger\s*\]|\{\s*trigger\s*\}", re.IGNORECASE)


def place_trigger(text: str, trigger: str | None, class_word: str | None, style: str, teaches: str = "subject") -> str:
    """`text` with the trigger exactly once: first among tags, before the class word in sentences, and as
    'in the zwx style' in sentences when it stands for a style. Doing it twice changes nothing."""
    if not trigger:
        return _without_placeholder(nfc(text))
    trigger = nfc(trigger)
    text = without_word(text, trigger)
    if teaches == "style":
        name = trigger if "style" in trigger.lower() else f"{trigger} style"
        text = _without_tag(text, "style")
        return joined(text.rstrip(" ."), f"in the {name}") if style == "sentences" else joined(name, text)
    if style in ("tags", "both"):
        return joined(f"{trigger} {class_word}" if class_word else trigger, _without_tag(text, class_word))
    if class_word and (found := whole_word(class_word).search(text)):
        return f"{matching_article(text[: found.start()], trigger)}{trigger} {text[found.start() :]}"
    name = f"{_article(trigger)} {trigger} {class_word}" if class_word else trigger
    rest = _without_tag(text, class_word)
    return f"{name} {rest}" if class_word and rest.split(" ")[0] in ("in", "with", "against", "on", "at") else joined(name, rest)


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
    text = nfc(text)
    trigger = nfc(trigger) if trigger else None
    for old in former:
        if trigger is None or nfc(old).casefold() != trigger.casefold():
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
    again = r"(?:\b(?:a|an|the)\s+)?_*\0_*(?:['’]s)?(?=\s*(?:[,.;]|$))[ ]?|_*\0_*(?:['’]s\b)?[ ]?"
    return text[:first] + re.sub(again, "", rest, flags=re.IGNORECASE).rstrip(" ,")


def without_word(text: str, word: str) -> str:
    """`text` as one line without any whole `word` (any case), nor `[trigger]` or `{trigger}` placeholders, and no gaps left."""
    before, text = None, _without_placeholder(nfc(text))
    while text != before:  # what closes a gap may make the word anew
        before = text
        body = whole_word(word).pattern
        text = re.sub(rf"(?:\bin\s+(?:the\s+)?|_+)?{body}(?:\s+style)?(?=\s*(?:[,.]|$))", " ", text, flags=re.IGNORECASE)
        text = _tidy(without(text, word))
    return text


def _tidy(text: str) -> str:
    """One line, no empty parts between commas, no part that is a bare article or a full stop."""
    parts = (" ".join(part.split()) for part in split_tags(text))
    return ", ".join(part for part in parts if part.strip(" .").lower() not in ("", *ARTICLES))


def _without_placeholder(text: str) -> str:
    return _tidy(re.sub(r"\s+([,.;])", r"\1", PLACEHOLDER.sub(" ", text))) if PLACEHOLDER.search(text) else text


def _without_tag(text: str, tag: str | None) -> str:
    if not tag:
        return text
    drop = {tag.lower(), f"a {tag}".lower(), f"an {tag}".lower(), f"the {tag}".lower()}
    return ", ".join(p for p in split_tags(text) if p.lower() not in drop)


def _article(word: str) -> str:
    return "an" if word[0].lower() in "aeiou" else "a"


def matching_article(before: str, trigger: str) -> str:
    """'... an ' before 'zwx old dog' becomes '... a ', and the other way round."""
    article = _article(trigger)
    return re.sub(r"\b(a|an)\s+$", lambda m: (article.capitalize() if m[1][0].isupper() else article) + " ", before, flags=re.I)
