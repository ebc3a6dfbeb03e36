"""Words of a text, whatever their case and however their accents are written."""

from __future__ import annotations

import re
import unicodedata


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


def whole_word(word: str) -> re.Pattern:
    """`word` itself, not as a part of another: neither `cat` in `category`, nor in `cat-like` or `wild_cat`."""
    body = r"\s+".join(map(re.escape, nfc(word).split()))
    return re.compile(rf"(?<![\w-]){body}(?![\w]|-\w)", re.IGNORECASE)


def nfc(text: str) -> str:
    """One way to write an accented letter: as one character."""
    return unicodedata.normalize("NFC", text)


def joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)
