"""What a chat model answers as a caption, or why it is none: without its thoughts, its manners and its markup, and never a refusal.
Nothing that a person wrote comes here."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lorakit.text import answer_wordings as wordings
from lorakit.text.cleaning import without_html
from lorakit.text.composing import RawCaption
from lorakit.text.phrases import PREPOSITIONS, without_loose_end
from lorakit.text.words import spaced_tag, split_tags, without_repeats

LONGEST_TAG = 7  # words; what is longer is a sentence in a list of tags
FEWEST_WORDS = 2  # of a caption without tags
LOOP = 3  # times that an answer may say all it says before it is a loop that was stopped; one that ended by itself, twice as often


@dataclass(frozen=True)
class NoCaption:
    """In place of a `RawCaption`: one photo that could not be read, and why. The others go on."""

    reason: str


def read_answer(answer: str, is_cut: bool = False) -> RawCaption | NoCaption:
    """The sentence and the tags of an answer; of one that `is_cut` at its end, the last tag or phrase is left out. `NoCaption` where it
    is a refusal, a thought, a guess, or nothing."""
    text = without_thoughts(answer)
    if text is None:
        return NoCaption("it only thought, and wrote no caption")
    text = _unwrapped(text)
    if not re.search(r"\w", text):
        return NoCaption("an empty answer" if not answer.strip() else "an answer without words")
    found = _from_json(text)
    if isinstance(found, NoCaption):
        return found
    sentence, tags = found or _parts(text)
    loose = is_cut and not found
    if loose and tags:
        tags = tags[:-1]
    kept, refused = _of_the_photo(sentence)
    if loose and not tags:
        kept = without_loose_end(kept)
    before = kept
    kept = _decided(kept)
    if _is_loop(before, kept, is_cut):
        return NoCaption(f"it says one thing again and again: {kept[:60]!r}")
    if not kept and not tags and (headed := re.match(r"^(?:#{1,6}\s+|\*\*|__)(\w+(?:\s[^\s*]+){2,})[\s*_]*$", text)):
        kept = headed.group(1)  # a heading is all there is
    if not tags and (tags := _only_tags(kept)):
        kept = ""
    if _words_in(kept) < FEWEST_WORDS and not tags and not _is_word(kept):
        if refused:
            return NoCaption(f"it refused: {refused[:80]!r}")
        return NoCaption(
            f"it only guessed: {before[:80]!r}"
            if wordings.GUESSED.match(before)
            else f"no caption in its answer: {' '.join(answer.split())[:80]!r}"
        )
    return RawCaption(kept, tuple(tags), cut=is_cut)


def _words_in(text: str) -> int:
    """How many words; what is written without gaps counts two letters as one."""
    return len(text.split()) + len(re.findall(r"[\u3040-\u30ff\u3400-\u9fff]", text)) // 2


def without_thoughts(answer: str) -> str | None:
    """An answer behind its last thought; None where a thought was begun and never ended."""
    answer = re.sub(r"&lt;(/?[\w:]+)&gt;", r"<\1>", answer)
    for opening, closing in wordings.THOUGHTS:
        ends = list(re.finditer(closing, answer, re.I))
        begun = [match.start() for match in re.finditer(opening, answer, re.I)]
        if begun and (not ends or begun[-1] > ends[-1].start()):
            head = answer[: begun[-1]].strip()
            return head if not ends and len(head.split()) > 3 else None
        if ends:
            answer = answer[ends[-1].end() :]
            if not answer.strip():
                return None
    return _behind_thoughts_in_words(answer) if wordings.THINKS.match(answer) else answer


def _behind_thoughts_in_words(answer: str) -> str | None:
    ends = list(wordings.THOUGHT_ENDS.finditer(answer))
    if ends:
        return answer[ends[-1].end() :] if answer[ends[-1].end() :].strip() else None
    first, *paragraphs = re.split(r"\n\s*\n", answer.strip())
    while paragraphs and wordings.BULLET.match(paragraphs[0]):  # the steps of a thought
        paragraphs.pop(0)
    if not paragraphs and re.match(r"\W*(?:\w+ )?analysis", first, re.I):  # of the picture, so its description
        return wordings.THINKS.sub("", first)
    return "\n\n".join(paragraphs) or None


def _unwrapped(text: str) -> str:
    """Without marks of turns, tags around the answer, fences, HTML, and the role it speaks in."""
    if "\\n" in text and "\n" not in text:
        text = text.replace("\\n", "\n")
    text = wordings.NEXT_TURN.sub("", wordings.ROLE.sub("", wordings.TURN.sub("\n", text).strip()))
    listed = [match.group(2) or match.group(4) or "" for match in wordings.TAGS_WRAPPED.finditer(text)]
    text = wordings.TAGS_WRAPPED.sub("", text)
    if match := wordings.WRAPPED.search(text):
        text = match.group(2) if match.group(2) is not None else match.group(3)
    if match := wordings.FENCE.search(text):
        outside = wordings.FENCE.sub("\n", text).strip()
        text = match.group(1) if len(match.group(1).split()) >= 2 or not outside else text
    if (match := wordings.TABLE.search(text)) and len(names := match.group(1).split("|")) == len(cells := match.group(2).split("|")):
        text = "\n".join(f"{name.strip(' *')}: {cell.strip()}" for name, cell in zip(names, cells, strict=True))
    if match := wordings.BOXED.match(text.strip()):
        text = match.group(1)
    text = re.sub(r"(?m)^\s*>\s?(?=\w)", "", without_html(text).replace("\u200b", ""))
    if (finals := list(wordings.FINAL.finditer(text))) and len(text[finals[-1].end() :].split()) > 2:
        text = text[finals[-1].end() :]
    return "\n".join((_unquoted(text.strip()), *([f"Tags: {', '.join(listed)}"] if any(listed) else [])))


def _unquoted(text: str) -> str:
    """Without quotes around all of it."""
    text = text.strip()
    if match := re.fullmatch(r"(\"{2,3}|'{2,3})(?!\1)(.+?)\1\.?", text, re.S):
        text = match.group(2).strip()
    while len(text) > 2 and (closing := wordings.QUOTES.get(text[0])) and text.rstrip(".").endswith(closing):
        inner = text.rstrip(".")[1:-1]
        if text[0] in inner or closing in inner.replace("'", "") * (closing != "’"):
            break
        text = inner.strip()
    return text


_JSON_TAGS = r"tag|keyword|label|object"
_JSON_PROSE = r"caption|description|text|sentence|prompt|answer|summary|scene|alt|content|prose|output|result|response"
_JSON_NAME = re.compile(rf"{_JSON_TAGS}|{_JSON_PROSE}|^{wordings.MOOD}$", re.I)


def _from_json(text: str) -> tuple[str, list[str]] | NoCaption | None:
    """The sentence and tags of an answer in JSON; None for one that is none."""
    start = re.search(r"[{\[]\s*[\"'{\[]|\{\s*\w+\s*:\s*[\"\[{]", text)
    if not start or (start.start() > 0 and not re.fullmatch(r"[^{\[]{0,120}[:\n]\s*", text[: start.start()])):
        return None
    try:
        entry, _ = json.JSONDecoder(strict=False).raw_decode(text[start.start() :])
    except (ValueError, RecursionError):
        entry = _of_python(text[start.start() :])
    if entry is None:  # names without quotes, a comma too many
        try:
            mended = re.sub(r",\s*(?=[}\]])", "", re.sub(r"([{,]\s*)([A-Za-z_]\w*)(?=\s*:)", r'\1"\2"', text[start.start() :]))
            entry, _ = json.JSONDecoder(strict=False).raw_decode(mended)
        except (ValueError, RecursionError):
            entry = None
    if entry is None:
        pairs = re.findall(r'"(\w+)"\s*:\s*"((?:[^"\\]|\\.)*)"', text)
        entry = dict(pairs)
        if not entry:
            return NoCaption("half of a JSON text") if text.lstrip()[:1] == "{" else None
    if isinstance(entry, dict) and (refused := entry.get("error") or entry.get("refusal")) and not entry.get("caption"):
        return NoCaption(f"it refused: {str(refused)[:80]!r}")
    sentences, tags = [], []
    for path, value in _leaves(entry):
        name = path if _JSON_NAME.search(path.rsplit("/", 1)[-1]) is None else path.rsplit("/", 1)[-1]
        if re.search(_JSON_TAGS, name, re.I) or (not name and len(value.split()) <= 3):
            tags += split_tags(value)
        elif not name or re.search(_JSON_PROSE, name, re.I):
            sentences.append(value if value.rstrip().endswith((".", "!", "?")) else f"{value.rstrip()}.")
    if not sentences and not tags:
        sentences = [f"{value.rstrip('.')}." for name, value in _leaves(entry) if not wordings.MOODY.match(name.rsplit("/", 1)[-1])]
    if not sentences and not tags:
        return NoCaption("a JSON text without a caption")
    return " ".join(sentences[:1] if len(set(sentences)) > 1 and isinstance(entry, list) else dict.fromkeys(sentences)), _clean_tags(tags)


def _of_python(text: str) -> Any:
    """A mapping or list as Python prints it; None for anything else."""
    try:
        found = ast.literal_eval(text[: max(text.rfind("}"), text.rfind("]")) + 1])
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return found if isinstance(found, (dict, list)) else None


def _leaves(entry: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """(names from the outermost on, joined by '/', text) of all texts in a JSON value."""
    if isinstance(entry, str) and entry.strip():
        yield name, " ".join(entry.split())
    elif isinstance(entry, dict):
        for key, value in entry.items():
            yield from _leaves(value, f"{name}/{key}" if name else str(key))
    elif isinstance(entry, list):
        for value in entry:
            yield from _leaves(value, name)


def _parts(text: str) -> tuple[str, list[str]]:
    """(prose, tags) of an answer in words."""
    head, *rest = wordings.TAGS.split(text, maxsplit=1)
    tags: list[str] = []
    if not rest and (match := wordings.HASHTAGS.search(text)):
        head, rest = text[: match.start()], [match.group()]
    if rest:
        listed, after = _tag_block(rest[0])
        tags, head = _clean_tags(listed), f"{head}\n{after}"
    head = _without_preamble(head.strip())
    last = re.fullmatch(r"(.*[.!?][\"'”’)*]*)\s*\n\s*(?:part\s+\d\s*:\s*)?([^-*•\n][^\n]*)", head, re.S | re.I)
    if not rest and last and not _ends(last[2]) and (unnamed := _only_tags(_plain(last[2]))):
        head, tags = last[1], unnamed  # in a line of their own, without a name
    if not rest and not tags:
        lines = head.rstrip().split("\n")
        start = next(
            (
                n
                for n in range(len(lines))
                if all(re.fullmatch(r"[a-z0-9][^.:!?,]*", line.strip()) and len(line.split()) <= 4 for line in lines[n:])
            ),
            0,
        )
        if start and len(lines) - start >= 3 and any(map(_ends, lines[:start])):  # one below the other
            head, tags = "\n".join(lines[:start]), _clean_tags(lines[start:])
    options = [wordings.OPTION.sub("", line) for line in head.splitlines() if wordings.OPTION.match(line)]
    if options:
        head = next((option for option in options if len(option.split()) > 1), head)
    lines = [line for line in head.splitlines() if line.strip()]
    if lines and wordings.BULLET.match(lines[0]):  # numbers that go on within the line
        lines = [re.sub(r"(?<=[.!?])\s+\(?\d{1,2}[.)]\s+(?=[A-Z])", " ", line) for line in lines]
    after = [*lines[1:], ""]
    lines = [
        line
        for line, then in zip(lines, after, strict=False)
        if not (wordings.BULLET.match(then) and re.fullmatch(r"\s*[^.!?]{1,40}:\W*", line))
    ]
    bullets = [wordings.BULLET.sub("", line) for line in lines if wordings.BULLET.match(line)]
    if (
        len(bullets) > 1
        and not tags
        and all(len(_plain(line).split()) <= LONGEST_TAG and not _ends(line) and ":" not in line for line in bullets)
    ):
        tags, lines = _clean_tags(bullets), [line for line in lines if not wordings.BULLET.match(line)]
    elif (
        len(bullets) > 1
        and all(_ends(line) and len(line.split()) > LONGEST_TAG for line in bullets)
        and re.search(r"caption|option|version", text[:120], re.I)
    ):
        lines = bullets[:1]  # several to choose from
    return " ".join(filter(None, map(_line, lines))), tags


def _line(line: str) -> str:
    """A line without its bullet, its heading and its label."""
    if wordings.HEADING.match(line):
        return ""
    line = wordings.BULLET.sub("", line)
    if wordings.HEADING.match(line):
        return ""
    while match := wordings.LABELLED.match(line):
        if wordings.MOODY.match(match["name"]):
            return ""
        line = match["rest"]
        line = line if _ends(line) or "," in line[-2:] else f"{line}."
    return _unquoted(_plain(_without_preamble(line)))


def _plain(text: str) -> str:
    """Without the stars and ticks of Markdown; `>_<` and `^_^` stay."""
    text = re.sub(r"!?\[([^\]\n]+)\]\([^)\s]*\)", r"\1", text)
    text = re.sub(r"\*{1,3}(?=\S)([^*\n]+?)(?<=\S)\*{1,3}", r"\1", text)
    text = re.sub(r"(?<!\w)_{1,2}(?=[^\W_])([^_\n]+?)(?<=[^\W_])_{1,2}(?!\w)", r"\1", text)
    return re.sub(r"`([^`\n]+)`", r"\1", text).replace("**", "").strip()


def _ends(line: str) -> bool:
    return re.search(r"[.!?。！？][\"'”’)*]*\s*$", line) is not None


def _tag_block(text: str) -> tuple[list[str], str]:
    """(tags, prose that stands behind them)."""
    listed, after, gap, behind = [], [], False, False
    for line in text.strip("\n").split("\n"):
        plain = _plain(wordings.BULLET.sub("", line))
        if not plain:
            gap = bool(listed)
            continue
        commas = len(re.split(r"[,;#]", plain)) - 1
        is_prose = commas < 2 and len(plain.split()) > LONGEST_TAG or (gap and _ends(plain) and len(plain.split()) > 3 and commas < 3)
        behind = behind or (bool(listed) and (is_prose or wordings.HEADING.match(line) is not None))
        if behind or wordings.LABELLED.match(line) or wordings.TO_THE_ASKER.match(plain):
            after.append(line)
        else:
            listed.append(plain)
    # The list goes on to a full stop only where another sentence follows on its line.
    if len(listed) == 1 and (match := re.match(r"(.*?,[^.]*)\.\s+(?=[A-Z])(.*)", listed[0])) and len(match[2].split()) > 3:
        listed, after = [match[1]], [match[2], *after]
    parts = [part for line in listed for part in (re.findall(r"#(\w[\w-]*)", line) if line.count("#") > 1 else _listed(line))]
    return parts, "\n".join(after)


def _listed(line: str) -> list[str]:
    if line[:1] + line[-1:] in ("[]", "()", "{}"):
        line = line[1:-1]
    numbered = re.split(r"(?:^|\s)\d{1,2}[.)]\s+", line)
    if len(numbered) > 2:
        return [part for part in numbered if part.strip()]
    if line.count(" - ") > 1 and "," not in line:
        return line.split(" - ")
    if re.fullmatch(r"[^\s,;/]+(?:/[^\s,;/]+){2,}", line.strip()):
        return line.split("/")
    parts = [part for piece in re.split(r";(?=\s)|(?<=[^\W_]);|[•|\n]|、|，|(?<=\w)\.(?=\s|$)", line) for part in split_tags(piece)]
    return parts if len(parts) > 1 or "_" not in line or " " not in line.strip() else line.split()


def _clean_tags(tags: list[str]) -> list[str]:
    """Tags without their dress; what is none (`no people`, `rating:safe`, a sentence) goes."""
    plain = [_clean_tag(tag) for tag in tags]
    return without_repeats(
        [spaced_tag(tag) for tag in plain if tag and len(tag.split()) <= LONGEST_TAG and not _is_no_tag(tag.replace("_", " "))]
    )


def _clean_tag(tag: str) -> str:
    tag = re.sub(r"^\s*<(\w[\w .'-]{2,})>\s*$", r"\1", tag)
    tag = re.sub(r"^\s*[\[{(](?=[^\])}]*$)|(?<=\w)[\]}]\s*$", "", _plain(tag))  # of a list in brackets
    tag = re.sub(r"^\s*(?:#(?=\w)|[-*•]\s+|and\s+)|\s*\(\d?\.\d+\)$|(?<=[^\W_]|[)\]\"'”])[\s.,;*]+$|^[\s*]+(?=\w)", "", tag)
    return re.sub(r"^(?:an?|the)\s+(?=\w)", "", _unquoted(tag), flags=re.I).strip()


def _is_no_tag(tag: str) -> bool:
    return wordings.NO_TAG.match(tag) is not None or wordings.GUESSED.match(tag) is not None or wordings.SAYS.search(tag) is not None


_BEGIN_PROSE = PREPOSITIONS | frozenset(
    "one two three four five each both all most many several none some others another his her its their".split()
)


def _only_tags(text: str) -> list[str]:
    """The tags of an answer that is nothing but a list of them."""
    parts = [part.strip() for part in text.strip(" .,").split(",")]
    prose = (
        text[:1].isupper()
        and text.rstrip().endswith(".")
        and any(part.split()[:1] and part.split()[0].lower() in _BEGIN_PROSE for part in parts[1:])
    )
    short = not prose and all(
        part and len(part.split()) <= 4 and not re.match(r"(?:an?|the|and|with|in|on|at|while|who|which)\b", part, re.I) for part in parts
    )
    is_list = (
        len(parts) >= 3 and short and not re.search(r"[.!?]\s", text) and not re.search(r"\b(?:is|are|sits?|stands?|has|wears?)\b", text)
    )
    return _clean_tags(parts) if is_list else []


def _without_preamble(text: str) -> str:
    before = None
    while before != text:
        before, text = text, wordings.PREAMBLE.sub("", text.lstrip(" *_"), count=1) if wordings.PREAMBLE.match(text.lstrip(" *_")) else text
    return text


def _of_the_photo(text: str) -> tuple[str, str]:
    """(the sentences that speak of the photo, each once; the first that speaks to the asker)."""
    kept: dict[str, str] = {}
    refused = ""
    for sentence in _sentences(_unquoted(" ".join(text.split()))):
        said = sentence.strip()
        if wordings.TO_THE_ASKER.match(said):
            refused = refused or said
            if not (match := wordings.GOES_ON.match(said)):
                continue
            said = _line(said[match.end() :])
            said = said[:1].upper() + said[1:]
        if (shorter := wordings.CLAUSE_TO_THE_ASKER.sub("", said)) != said:
            if len(shorter.split()) < 6:
                refused = refused or said
                continue
            said = shorter
        said = re.sub(r";\s+([^;.]+)", lambda clause: "" if wordings.TO_THE_ASKER.match(clause.group(1)) else clause.group(), said)
        if re.search(r"\w", said):
            kept.setdefault(re.sub(r"\W+", " ", said).strip().casefold(), said)
    if (
        len(kept) > 1
        and not _ends(last := list(kept)[-1])
        and not _ends(kept[last])
        and any(other.startswith(last) for other in list(kept)[:-1])
    ):
        del kept[last]  # begun once more, and not ended
    rest = [said for said in kept.values() if not wordings.IMPRESSION.match(said) and not wordings.NEGATED.match(said)]
    return " ".join(rest), refused


def _sentences(text: str) -> list[str]:
    """The sentences of a text; a full stop within quotes ends none."""
    found, start = [], 0
    for match in wordings.SENTENCES.finditer(text):
        said = text[start : match.start()]
        if said.count('"') % 2 == 0 and said.count("“") <= said.count("”") + text[match.start() : match.end()].count("”"):
            found.append(text[start : match.end()].strip())
            start = match.end()
    return [*found, text[start:]]


def _decided(text: str) -> str:
    """Without guesses: sentences and clauses that only may be true."""
    kept = []
    for sentence in _sentences(text):
        if wordings.GUESSED.match(sentence.strip()):
            continue
        for pattern, by in wordings.GUESSES:
            sentence = pattern.sub(lambda match, by=by: _preposition(match.group()) if by == "@" else by, sentence)
        kept.append(re.sub(r"\s+([,.;:!?])(?=\s|$)", r"\1", " ".join(sentence.split())))
    return " ".join(part[:1].upper() + part[1:] if number else part for number, part in enumerate(filter(None, kept)))


def _preposition(text: str) -> str:
    first = text.split()[0].lower()
    return f"{first} " if first in ("in", "at", "on") else ""


def _is_loop(before: str, after: str, is_cut: bool) -> bool:
    """Whether an answer that was stopped says a few words over and over."""
    words = re.findall(r"\w+", after.casefold())
    return len(words) >= (24 if is_cut else 40) and len(set(words)) * (LOOP if is_cut else 2 * LOOP) < len(words)


def _is_word(text: str) -> bool:
    """One word may be a caption: 'Skyline.'; a bare 'Yes' is not."""
    return bool(re.fullmatch(r"[^\W\d_]{3,}\.?", text.strip())) and text.strip(" .").casefold() not in wordings.NO_WORDS
