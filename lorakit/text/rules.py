"""Rules that change the words of a whole set: replace, regex, remove, drop, add; and whole families of words left out.
They are kept as text in `caption.rules`, so that photos which come later follow them too, and taking one back is enough
to have the former words again."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from importlib import resources

from lorakit.errors import LorakitError, UnknownName
from lorakit.text import phrases
from lorakit.text.composing import tags_of
from lorakit.text.placing import matching_article
from lorakit.text.syntax import strip_syntax, without_empty_brackets
from lorakit.text.words import count_word, split_tags, stems, whole_word, without, without_repeats

ARROW = " => "
VERBS = {
    "replace": "words by others: replace: cat => kitten",
    "regex": "what a regular expression finds: regex: (\\d+) cats => \\1 kittens",
    "remove": "a phrase, wherever it stands: remove: red blanket",
    "drop": "every tag or phrase that has the word in it (a blacklist): drop: watermark",
    "add": "a tag at the end: add: studio photo",
    "strip": "what prompting tools read as commands, (x:1.3), {a|b}, <lora:x:1>, BREAK: strip: syntax",
}
INVARIANT = 0.8  # share of the texts from which a phrase counts as part of the concept
LEAST_TEXTS = 5  # with fewer texts everything stands in most of them


@cache
def word_groups() -> dict[str, frozenset[str]]:
    """{family: its words}, from word_groups.yaml."""
    import yaml

    text = (resources.files("lorakit.text") / "word_groups.yaml").read_text(encoding="utf-8")
    return {name: frozenset(map(str, words)) for name, words in yaml.safe_load(text).items()}


def family_words(names: tuple[str, ...], where: str) -> frozenset[str]:
    """The words of these families together. Raises `UnknownName`."""
    for name in names:
        if name not in word_groups():
            raise UnknownName("family of words", name, list(word_groups()), where)
    return frozenset().union(*(word_groups()[name] for name in names))


def check(rule: str) -> tuple[str, str, str]:
    """(verb, old, new) of a rule. Raises a one-line error for one that cannot be read."""
    verb, colon, rest = rule.partition(":")
    old, arrow, new = rest.strip().partition(ARROW.rstrip())
    old, new = old.strip(), new.strip()
    if verb not in VERBS or not colon or not old:
        raise LorakitError(f"caption.rules: {rule!r} is no rule; write one of: {'; '.join(VERBS.values())}")
    if verb == "strip" and old != "syntax":
        raise LorakitError(f"caption.rules: {rule!r}: what is to be stripped can only be syntax; write strip: syntax")
    if verb in ("replace", "regex") and not arrow:
        raise LorakitError(f"caption.rules: {rule!r} does not say by what; write it as {VERBS[verb]}")
    if verb == "regex":
        try:
            re.compile(old).sub(new, "")
        except (re.error, IndexError) as error:
            raise LorakitError(f"caption.rules: {old!r} is no regular expression ({error})") from None
    return verb, old, new


def apply(text: str, rules: tuple[str, ...], style: str, protected: tuple[str, ...] = ()) -> str:
    """`text` after all rules. Phrases with a `protected` word (trigger, class word) lose words but are never dropped."""
    for rule in rules:
        verb, old, new = check(rule)
        if verb == "replace":
            text = _tidy(whole_word(old).sub(lambda _, new=new: new, text), style)
        elif verb == "regex":
            text = _tidy(re.sub(old, new, text), style)
        elif verb == "add" and not count_word(text, old):
            text = f"{text}, {old}".strip(" ,")
        elif verb == "strip":
            text = _tidy(strip_syntax(text), style)
        elif verb == "remove":
            text = remove(text, old, style, protected)
        elif verb == "drop":
            text = drop_words(text, frozenset([old.lower()]), style, protected)
    return text


def remove(text: str, phrase: str, style: str, protected: tuple[str, ...] = ()) -> str:
    """`text` without a phrase: a tag or phrase that says just this goes with its linking word, elsewhere the words go."""
    if any(count_word(phrase, word) for word in protected):
        return text
    parts = _parts(text, style)
    if any(_is_head(part) and part.tag.lower() == phrase.lower() for part in parts):
        return text
    text = _join([part for part in parts if part.tag.lower() != phrase.lower()], style)
    return _tidy(without(text, phrase), style)


def drop_words(text: str, words: frozenset[str], style: str, protected: tuple[str, ...] = (), *, of_thing: bool = False) -> str:
    """`text` without the phrases that have one of `words` in them. What the sentence is about, and what is `protected`,
    stays and loses only the word: 'a blonde woman in a red dress' -> 'a woman in a red dress'. With `of_thing` nothing
    else is touched: 'a red mug on a red cloth' -> 'a mug on a red cloth'."""
    kept = []
    words -= {word.lower() for word in protected}
    for part in _parts(text, style):
        if of_thing and re.search(r"\b(?:tones|light|lighting)\W*$", part.raw):
            pass  # of the whole picture: 'green tones' alone must not become 'tones'
        elif words & _said(part):
            if _is_head(part) or any(count_word(part.raw, word) for word in protected):
                part.raw = _without(part.raw, words)
            elif not of_thing:
                continue
        kept.append(part)
    return _tidy(_join(kept, style), style)


def _without(text: str, words: frozenset[str]) -> str:
    """'an old red mug' without 'old' is 'a red mug'."""
    for word in words:
        while found := whole_word(word).search(text):
            rest = re.sub(r"^[\s,]*(?:and\s+)?", "", text[found.end() :])
            text = (matching_article(text[: found.start()], rest) if rest else text[: found.start()]) + rest
    return text


def _said(part: phrases.Phrase) -> set[str]:
    said = set(re.findall(r"[\w-]+", part.raw.lower()))
    return said | {piece for word in said for piece in word.split("-")}


def _parts(text: str, style: str) -> list[phrases.Phrase]:
    """The tags of a text, or the phrases of a sentence."""
    if style != "tags":
        return phrases.split(text)
    return [phrases.Phrase(tag, tag) for tag in split_tags(text)]


def _is_head(part: phrases.Phrase) -> bool:
    """Whether it is what the sentence is about, without which the rest hangs in the air."""
    return part.role == "subject"


def _join(parts: list[phrases.Phrase], style: str) -> str:
    return ", ".join(part.raw for part in parts) if style == "tags" else phrases.joined(parts)


def _tidy(text: str, style: str) -> str:
    """No gaps, no empty parts, and in tags each thing once."""
    parts = [" ".join(part.split()) for part in split_tags(without_empty_brackets(text))]
    text = ", ".join(without_repeats(parts) if style == "tags" else [part for part in parts if part])
    return re.sub(r"\s+([.;])", r"\1", text)


def invariants(texts: list[str], protected: tuple[str, ...] = (), describe: tuple[str, ...] = ()) -> list[tuple[str, int]]:
    """[(phrase, in how many texts)] of the phrases in at least 80 % of the texts: they are part of the concept, and
    a LoRA learns what the texts do not say. Trigger, class word and the families to `describe` are left alone."""
    if len(texts) < LEAST_TEXTS:
        return []
    spared = family_words(describe, "caption.describe")
    counts = frequencies(texts)
    return [
        (tag, count)
        for tag, count in counts
        if count >= INVARIANT * len(texts)
        and not any(count_word(tag, word) for word in protected)
        and not spared & stems(tag)
        and not spared & set(tag.lower().split())
    ]


def frequencies(texts: list[str]) -> list[tuple[str, int]]:
    """[(phrase, in how many texts)], the most frequent first."""
    counts = Counter(tag for text in texts for tag in {tag.lower() for tag in tags_of(text)})
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
