"""Words of a text, whatever their case and however their accents are written."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

# Scripts that are written without gaps between words: Chinese, Japanese, Korean with its endings, Thai, Lao, Burmese, Khmer.
_GAPLESS = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007"
    "\u3040-\u30ff\u3100-\u318f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_CARRIES_ON = f"[^\\W_{_GAPLESS}]"  # a letter or digit that makes another word of the one beside it
_CLOSES = {"(": ")", "[": "]", "{": "}", "<": ">"}


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def stem(word: str) -> str:
    """A word without its plural ending, enough to see that 'mugs' have been said by 'mug'."""
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us")) else word


def stems(text: str) -> set[str]:
    return {stem(word) for word in words(text)}


def without_repeats(parts: tuple[str, ...] | list[str]) -> list[str]:
    """The parts in their order, each once (whatever its case)."""
    seen: dict[str, str] = {}
    for part in parts:
        seen.setdefault(part.strip().lower(), part.strip())
    return [part for key, part in seen.items() if key]


def count_word(text: str, word: str) -> int:
    """How often `word` stands in `text` as a whole word, whatever its case."""
    return len(whole_word(word).findall(nfc(text)))


@lru_cache(maxsize=512)
def whole_word(word: str) -> re.Pattern:
    """`word` itself, not as a part of another: neither `cat` in `category` nor in `cat-like`. A `_` is a border, as in a booru's
    `wild_cat`; and so is the change between letters of scripts with and without gaps between words: `zwx` in `一只zwx熊`."""
    word = nfc(word)
    body = r"[\s_]+".join(map(re.escape, word.split()))
    before = "" if _is_gapless(word[:1]) else rf"(?<!{_CARRIES_ON})(?<!-)"
    after = "" if _is_gapless(word[-1:]) else rf"(?!{_CARRIES_ON}|-\w)"
    return re.compile(rf"{before}{body}{after}", re.IGNORECASE)


def _is_gapless(char: str) -> bool:
    return re.match(f"[{_GAPLESS}]", char) is not None


def without(text: str, word: str) -> str:
    """`text` with a gap for each whole `word`, and for the `_` that bound it to another."""
    marked = whole_word(word).sub("\0", text)
    marked = re.sub(f"(?<=[{_GAPLESS}])\0+(?=[{_GAPLESS}])", "", marked)
    return re.sub("_*\0+_*(?:['’]s\\b)?", " ", marked)


def split_tags(text: str) -> list[str]:
    """The tags of a text, cut at its commas: not at those in brackets, `bear (black, white)` is one."""
    parts, depth, start = [], 0, 0
    cuts = any(c in text for c in "([{<") and _is_balanced(text)
    for place, char in enumerate(text):
        depth += (char in "([{<") - (char in ")]}>") if cuts else 0
        if char == "," and depth <= 0:
            parts.append(text[start:place])
            start = place + 1
    return [part.strip() for part in [*parts, text[start:]] if part.strip()]


# How many there are, in a booru's words.
COUNT_TAG = re.compile(
    r"(?:\d\+?|6\+)(?:girl|boy|other|animal|person|human)s?|solo|multiple[_ ](?:girls|boys|others)|no[_ ]humans|solo[_ ]focus",
    re.IGNORECASE,
)


# Pony's own tags, which it was taught with their `_`.
_KEEPS_UNDERSCORE = re.compile(r"score_\d(?:_up)?|rating_(?:safe|questionable|explicit)|source_(?:pony|furry|cartoon|anime)", re.IGNORECASE)


def spaced_tag(name: str) -> str:
    """A booru's `long_hair` as words. Names of three letters, faces (`;_;`, `(o)_(o)`) and `score_9` stay, as sd-scripts writes them."""
    if _KEEPS_UNDERSCORE.fullmatch(name):
        return name
    return name.replace("_", " ").strip() if len(name) > 3 and re.search(r"[^\W_]{2}", name) else name


def _is_balanced(text: str) -> bool:
    """Whether brackets close as they open; `:<` and `>_<` do not."""
    open_ones = []
    for char in text:
        if char in "([{<":
            open_ones.append(_CLOSES[char])
        elif char in ")]}>" and (not open_ones or open_ones.pop() != char):
            return False
    return not open_ones


def nfc(text: str) -> str:
    """One way to write an accented letter: as one character."""
    return unicodedata.normalize("NFC", text)


def joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)
