"""What may be a trigger word at all, whatever the base knows of it."""

from __future__ import annotations

import re

from lorakit.errors import LorakitError

# What tools for drawing read as something else than letters: brackets and a colon with a number weigh a word, bars and braces choose,
# <lora:...> loads a file, a plus or minus behind a word weighs it in InvokeAI, a backslash takes the next letter as it is.
SYNTAX = re.compile(r"[()\[\]{}<>|\\]|:\s*-?\d|\w[+-]+(?=\s|$)|(?<!\w)(?:BREAK|AND|ADDCOMM|ADDROW|ADDCOL)(?!\w)")


def check_word(word: str | None) -> None:
    """Raises for a trigger with a comma (it would be two tags), or without a letter or digit."""
    if word is not None and ("," in word or not any(c.isalnum() for c in word)):
        raise LorakitError(f"--trigger {word!r}: a trigger is one word or a few, with letters and without commas, like zwx")


def faults_of(word: str) -> list[str]:
    """Why a word can be no good trigger on any base."""
    found = []
    if syntax := SYNTAX.search(word):
        found.append(f"{syntax[0].strip()!r} in {word!r} is syntax: tools for drawing read it as a weight or a command, not as letters")
    parts = word.casefold().split()
    if repeated := next((part for part in parts if parts.count(part) > 1), None):
        found.append(f"{repeated!r} stands in it twice, which says no more than once and takes places of the text")
    return found


def phrase(word: str | None, class_word: str | None, teaches: str) -> str:
    """What to write into a prompt: 'zwx mug', for a style 'zwx style'; '' without a trigger."""
    if not word:
        return ""
    if teaches == "style":
        return word if "style" in word.lower() else f"{word} style"
    return f"{word} {class_word}" if class_word else word
