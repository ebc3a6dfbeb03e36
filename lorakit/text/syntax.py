"""What prompting tools (A1111, ComfyUI, wildcards) read as commands and a trainer reads as letters: weights, alternatives, LoRA tags,
BREAK. A text is trained as it stands, so this is found, and taken out where that is asked for."""

from __future__ import annotations

import re

_NUMBER = r"-?\d*\.?\d+%?"
_EXTRA = r"<\s*(?:lora|lyco|lycoris|hypernet|ti|embedding|lbw|segment|setvar|alternate|fuzzy|random|preset|param|object|clear|refiner)\s*:[^<>]*>"
_PARTS = (
    _EXTRA,
    r"(?<!\\)\([^()]*[^()\d\s]\s*:\s*-?\d*\.?\d+\s*(?<!\\)\)",  # (x:1.3), and no (10:30)
    rf"\[[^\[\]]*[^\[\]\d\s]\s*:\s*{_NUMBER}\s*\]",  # [a:b:0.5], [a:0.3]
    r"\[[^\[\]|]+(?:\|[^\[\]|]*)+\]",  # [a|b]
    r"\{[^{}]*\|[^{}]*\}",  # {a|b}, {2$$a|b}
    r"\{\{[^{}]*\}\}",  # {{x}}
    r"(?<!\\)\(\([^()]*(?<!\\)\)\)|\[\[[^\[\]]*\]\]",  # ((x)), [[x]]
    r"\\[()\[\]]",  # \( as A1111 wants a bracket that is one
    r"\bembedding:\S+",
    r"(?<![\w-])BREAK(?![\w-])",
    r"(?:^|\s)(?:ADDCOMM|ADDBASE|ADDCOL|ADDROW|ADDCOMMON)(?:\s|$)",
    r"(?<=\s)AND(?=\s+\S.*:\s*\d)",
    r"\|\|\|",
    r"\b__[\w/*-]+__(?!\w)|(?<![\w])__[\w/*-]+__",
    r"(?<=[^\W\d]) ?:-?\d\.\d+(?=\s*(?:,|$))",  # x:1.3 without brackets
    r"\bNegative prompt:|\bSteps: \d+, Sampler:",
)
SYNTAX = re.compile("|".join(f"(?:{part})" for part in _PARTS))


def find_syntax(text: str) -> str | None:
    """The first piece of a prompting tool's syntax in a caption, None where there is none. Brackets alone are none: `bear (black)`."""
    match = SYNTAX.search(text)
    return match.group().strip() if match else None


def strip_syntax(text: str) -> str:
    """The words alone: `(x:1.3)` is x, the first of `{a|b}` and `[a:b:0.5]` stays, `<lora:...>` goes, BREAK is a comma."""
    text = re.sub(r"\s*(?:\bNegative prompt:|\bSteps: \d+, Sampler:).*$", "", text, flags=re.DOTALL)
    text = re.sub(_EXTRA, "", text)
    text = re.sub(r"\bembedding:(\S+?)(?::[\d.]+)?(?=[\s,)]|$)", r"\1", text)
    text = re.sub(r"\\([()\[\]])", lambda m: {"(": "\1", ")": "\2", "[": "\3", "]": "\4"}[m.group(1)], text)  # stay brackets to the end
    before = None
    while before != text:
        before = text
        text = re.sub(r"\(([^()\[\]{}]*[^()\[\]{}\d\s])\s*:\s*-?\d*\.?\d+\s*\)", r"\1", text)
        text = re.sub(rf"\[([^()\[\]{{}}]*[^()\[\]{{}}\d\s])\s*:\s*{_NUMBER}\s*\]", lambda m: _first(m.group(1).split(":")), text)
        text = re.sub(
            r"[\[{]([^\[\]{}]*\|[^\[\]{}]*)[\]}]", lambda m: _first(re.sub(r"^[\d-]*\$\$(?:[^$]*\$\$)?", "", m.group(1)).split("|")), text
        )
        text = re.sub(
            r"\(\(+([^()]*)\)+\)|\[\[+([^\[\]]*)\]+\]|\{\{+([^{}]*)\}+\}", lambda m: next(g for g in m.groups() if g is not None), text
        )
    text = re.sub(r"\s*,?\s*\|\|\|\s*,?\s*", ", ", text)  # sd-scripts' end of the tags that are kept in front
    text = re.sub(r"\s*(?<![\w-])(?:BREAK|ADDCOMM|ADDBASE|ADDCOL|ADDROW|ADDCOMMON)(?![\w-])\s*,?|(?<=\s)AND(?=\s+\S.*:\s*\d)", ", ", text)
    text = re.sub(r"(?<![\w])__([\w/*-]+?)__(?!\w)", "", text)
    text = re.sub(r"(?<=[^\W\d]) ?:-?\d\.\d+(?=\s*(?:,|$))", "", text)
    text = text.translate({1: "(", 2: ")", 3: "[", 4: "]"})
    text = re.sub(r"\s+,", ",", re.sub(r"[ \t]+", " ", without_empty_brackets(text)))
    return re.sub(r"(?:,\s*)+", ", ", text).strip(" ,")


def _first(parts: list[str]) -> str:
    """The first alternative that has words, without its own weight (`2::red`)."""
    return next((plain for part in parts if (plain := re.sub(r"^\s*[\d.]+::", "", part).strip())), "")


def without_empty_brackets(text: str) -> str:
    """`text` without what is left of brackets when their words have gone: `{|}`, `()`; `{|blue}` is blue. Others stay as they are."""
    before = None
    while before != text:
        before = text
        text = re.sub(r"\(\s*[,|]?\s*(?::\s*[\d.]+\s*)?\)|\[[\s|,]*\]|\{[\s|,]*\}", "", text)
        text = re.sub(r"([{\[])([^{}\[\]]*\|[^{}\[\]]*)([}\]])", _without_empty_alternatives, text)
    return text


def _without_empty_alternatives(match: re.Match) -> str:
    opens, inside, closes = match.groups()
    parts = inside.split("|")
    left = [part for part in parts if part.strip()]
    if len(left) == len(parts):
        return match.group()
    return left[0].strip() if len(left) == 1 else f"{opens}{'|'.join(left)}{closes}"
