"""What stands in the files that people and tools write captions into, as captions: lines that are tags, several captions in one
file, HTML, tags without commas."""

from __future__ import annotations

import html
import re
from typing import Any

# Of a mapping the first that has words is taken.
TEXT_KEYS = ("text", "caption", "prompt", "caption_short", "tags", "tag_string", "description")
_MORE_TEXT_KEYS = (
    "captions", "texts", "image_caption", "image_description", "imagedescription", "alt_text", "alt", "content", "sentence", "sentences",
    "label", "comment", "tag_string_general", "positive_prompt", "en_text", "keywords",
)  # fmt: skip
_TAG_KEYS = ("tags", "tag_string", "tag_string_general", "keywords")
_NAMES_OF_TAGS = ("name", "tag", "tag_name", "label")
_HTML = re.compile(
    r"</?(?:a|abbr|b|big|blockquote|body|br|center|code|dd|div|dl|dt|em|font|h[1-6]|head|hr|html|i|iframe|img|li|ol|p|pre|s|script|small|span|"
    r"strike|strong|style|sub|sup|table|tbody|td|th|thead|tr|tt|u|ul|video|wbr)(?:\s[^<>]*)?/?>|<!--.*?-->",
    re.IGNORECASE | re.DOTALL,
)
_BREAKS = re.compile(r"<(?:br|/p|/div|/li|/h[1-6]|/tr|hr)\s*/?>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#\d{1,6}|#x[0-9a-fA-F]{1,5}|[a-zA-Z]{2,8});")
_ENDS_SENTENCE = re.compile(r"[.!?。！？][\"'”’)\]]*$")
_CARRIES_ON = re.compile(
    r"(?:[,;:&/-]|\b(?:a|an|the|and|or|of|with|in|on|at|to|by|from|is|are|has|its|their|his|her|that|which))$", re.IGNORECASE
)
_OWN_CAPTION = re.compile(r"(?:an?|two|three|four|several|some|there|photo|picture|image|close-up|closeup)\b", re.IGNORECASE)
TAG = 4  # words that a tag has at the most
WIDE = 60  # letters from which lines look broken by an editor


def captions_in(text: str) -> list[str]:
    """The captions that a text holds, each as one line: one mostly. Lines of a few words are tags of one caption; lines that are
    captions each are several; broken lines and paragraphs of one text are one."""
    text = without_html(text)
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    if len(lines) < 2:
        return lines
    if any(_CARRIES_ON.search(line) for line in lines[:-1]) and not all(map(_is_tag, lines)):
        return [_glued(lines)]
    if all(map(_is_tag, lines[1:])):  # tags, or a sentence and tags
        return [", ".join(line.strip(" ,") for line in lines)]
    if all("," in line or _is_tag(line) for line in lines) and all(_is_tag(tag) for line in lines for tag in line.split(",")):
        tags = [[tag.strip().lower() for tag in line.split(",") if tag.strip()] for line in lines]
        if len({tag for line in tags for tag in line}) == sum(map(len, tags)):  # one list that goes over several lines
            return [", ".join(line.strip(" ,") for line in lines)]
        return lines
    if _is_one_text(lines):
        return [_glued(lines)]
    return lines


def _is_tag(line: str) -> bool:
    line = line.strip(" ,")
    return "," not in line and len(line.split()) <= TAG and not _ENDS_SENTENCE.search(line)


def _glued(lines: list[str]) -> str:
    return " ".join(lines)


def _is_one_text(lines: list[str]) -> bool:
    """Whether lines are the broken lines or the paragraphs of one text, not captions one by one."""
    if all(len(line) >= WIDE and not _ENDS_SENTENCE.search(line) for line in lines[:-1]):
        return True  # broken by an editor
    if not all(_ENDS_SENTENCE.search(line) for line in lines[:-1]):
        return False
    several = any(re.search(r"[.!?]\s+\S", line) for line in lines)
    return several or not all(_OWN_CAPTION.match(line) for line in lines)


def without_html(text: str) -> str:
    """`text` without HTML's tags and with its letters in place of `&amp;`; the `<lora:x:1>` of prompting tools is none."""
    if "<" in text and _HTML.search(text):
        text = _HTML.sub(" ", _BREAKS.sub("\n", text))
        text = re.sub(r" +([,.;:!?])", r"\1", text)
    return html.unescape(text) if _ENTITY.search(text) else text


def texts_of(entry: Any) -> list[str]:
    """The captions of an entry of a list or a JSON file: one mostly, several where it holds a list of sentences."""
    if isinstance(entry, dict):
        named = {plain_key(key): value for key, value in entry.items() if isinstance(key, str)}
        for key in (*TEXT_KEYS, *_MORE_TEXT_KEYS):
            found = _tags(named[key]) if key in _TAG_KEYS and key in named else texts_of(named.get(key))
            if found:
                return found
        numbered = sorted(key for key in named if re.fullmatch(r"(?:caption|text|sentence|prompt|description)_?\d+", key))
        return [text for key in numbered for text in texts_of(named[key])]
    if isinstance(entry, list):
        parts = [text for part in entry for text in texts_of(part if isinstance(part, (str, list)) else _tag_of(part))]
        return parts if any(len(part.split()) > TAG or _ENDS_SENTENCE.search(part) for part in parts) else [", ".join(parts)] * bool(parts)
    return captions_in(whole(entry)) if isinstance(entry, str) else []


def _tags(value: Any) -> list[str]:
    """Tags as boorus and taggers write them: a list, a text with or without commas, lists by family, {tag: how sure}."""
    if isinstance(value, str):
        if "," in value or "\n" in value or " " not in value.strip():
            return captions_in(whole(value))
        tags = whole(without_html(value)).split()
        # 'long_hair blue_eyes' is tags; 'a red bear on grass' is a sentence in the wrong place.
        return (
            [", ".join(map(_spaced, tags))] if "_" in value or len(tags) > TAG and tags[0] not in ("a", "an", "the") else captions_in(value)
        )
    if isinstance(value, dict):
        if value and all(isinstance(score, (int, float)) for score in value.values()):
            return [", ".join(_spaced(str(tag)) for tag in sorted(value, key=lambda tag: -value[tag]))]
        return [", ".join(text for part in value.values() for text in _tags(part))] if value else []
    if isinstance(value, list):
        parts = [part if isinstance(part, str) else _tag_of(part) for part in value]
        if any(isinstance(part, str) and len(part.split()) > TAG for part in parts):
            return texts_of(parts)
        text = ", ".join(" ".join(whole(without_html(part)).split()) for part in parts if isinstance(part, str) and part.strip())
        return [text] if text else []
    return []


def _tag_of(part: Any) -> Any:
    """The words of a tag that is a mapping: {"name": "bear", "count": 3}."""
    if not isinstance(part, dict):
        return None
    return next((part[key] for key in _NAMES_OF_TAGS if isinstance(part.get(key), str)), None) or part


def _spaced(tag: str) -> str:
    """A booru's `long_hair` as words; `^_^` stays."""
    return tag.replace("_", " ").strip() if re.search(r"\w\w", tag.replace("_", "")) else tag


def plain_key(key: str) -> str:
    """'File Name' and 'file-name' as `file_name`."""
    return re.sub(r"[\s_-]+", "_", key.strip().strip("\ufeff").casefold())


def whole(text: str) -> str:
    """Halves of letters that JSON lets stand, as in a caption cut within an emoji, can be written to no file."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
