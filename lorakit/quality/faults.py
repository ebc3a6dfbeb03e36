"""What may be wrong with a training text. Each fault is a `warn` with its reason, derived from the stored words and the
present settings whenever it is asked for; nothing here reads a photo."""

from __future__ import annotations

import math
import re
import unicodedata
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import cache

from lorakit.quality import verdicts
from lorakit.quality.verdicts import Reason, Verdict
from lorakit.record import Record
from lorakit.settings import Settings
from lorakit.text import facets
from lorakit.text.composing import RawCaption
from lorakit.text.contradictions import contradictions
from lorakit.text.syntax import find_syntax
from lorakit.text.words import count_word, stems, words

FILLER = re.compile(
    r"\b(arafed|(?:the|this) (?:image|photo|picture) (?:shows|features|depicts)|(?:in|on) (?:the|this) (?:image|photo|picture)|"
    r"there (?:is|are)|appears to be|seems to be|a (?:picture|image) of)\b",
    re.IGNORECASE,
)
GUESS = re.compile(
    r"\b(?:possibly|perhaps|presumably|seemingly|may be|might be|could be|appears to|seems to|what looks like|suggesting that|likely an?)\b",
    re.IGNORECASE,
)
REPEATED = re.compile(r"\b(\w+(?: \w+){0,5}?)(?:[, ]+\1\b){2,}", re.IGNORECASE)
CUT_OFF = re.compile(r"\b(?:a|an|the|and|or|of|with|in|on|at|to|by|from|is|are|has|its|their|his|her|that|which|next)$", re.IGNORECASE)
ALIKE = 0.85  # share of the words of two texts that both have, from which they say as good as the same
MANY_WORDS = 8  # in shorter texts one other word is another thing: a mug on a table, a mug on a chair
OTHERS = 0.2  # where more captions than this lack the class word, the captioner does not know the thing
GRAY = re.compile(r"\b(?:black[ -]and[ -]white (?:photo\w*|picture|image)|monochrome|gr[ae]yscale)\b", re.IGNORECASE)
COLOURED = 60  # difference of channels (0-255) in the most colourful hundredth of a photo from which it is no gray one
DARK = frozenset("dark night dim gloomy".split())
BRIGHT = frozenset("bright sunny overexposed".split())


def find(records: list[Record], settings: Settings) -> dict[str, list[Reason]]:
    """{record id: what is wrong with its text}, for the records that have a text."""
    told = [r for r in records if r.get("text") is not None and r.get("caption")]
    others = alike(told)
    found = {r["id"]: [*_of_words(r), *_of_trigger(r, settings), *_of_measures(r, settings)] for r in told}
    for record in told:
        caption = record["caption"]
        written = caption.get("sentence") and not caption.get("own")  # taggers have few words and must repeat them
        if written and (same := others[record["id"]]):
            found[record["id"]].append(Reason("warn", "same_words_as_others", same, 0))
    for record in _of_another_thing(told, settings):
        found[record["id"]].append(Reason("warn", "another_thing", record["caption"]["sentence"], settings.trigger.class_word))
    return {id: reasons for id, reasons in found.items() if reasons}


def _of_another_thing(records: list[Record], settings: Settings) -> list[Record]:
    """Photos in which the captioner saw no such thing as the class word, where in most of the set it did: a photo of
    something else that came along."""
    thing = settings.trigger.class_word
    read = [r for r in records if r["caption"].get("sentence") and not r["caption"].get("own")]
    if not thing or settings.trigger.teaches != "subject":
        return []
    without = [r for r in read if not words(thing) & words(r["caption"]["sentence"])]
    return without if len(without) <= OTHERS * len(read) else []


def judge(records: list[Record], settings: Settings, photos: Mapping[str, Verdict] | None = None) -> dict[str, Verdict]:
    """{record id: the verdict on the photo, with what is wrong with the text of a chosen one}. A text's fault warns of a
    photo that is kept; it never changes which photos are chosen. `photos`: the verdicts without the texts, where they are known."""
    wrong = find([r for r in records if "select" in r and r["select"].get("selected")], settings)
    photos = verdicts.judge_all(records, settings) if photos is None else photos
    return {id: verdicts.add_warnings(verdict, wrong.get(id, ())) for id, verdict in photos.items()}


def alike(records: list[Record]) -> dict[str, int]:
    """{record id: how many other texts have the same words, or as good as the same: ALIKE of the words of both}. Texts of
    few words count only where they are all the same."""
    sets = {r["id"]: frozenset(stems(r["text"])) for r in records}
    counts = Counter(sets.values())
    others = {said: count - 1 for said, count in counts.items()}
    for said, other in _nearly_the_same(list(counts)):
        others[said] += counts[other]
        others[other] += counts[said]
    return {id: others[said] for id, said in sets.items()}


def _nearly_the_same(texts: list[frozenset[str]]) -> Iterator[tuple[frozenset[str], frozenset[str]]]:
    """Every two of different sets of words that have ALIKE of their words in common, once.

    Such two differ in few words (`_most_other_words`). Cut into one more part than that by what the words are, they have one part quite the
    same, so only sets with the same part are compared; the parts have several words each, and few texts share them. Words that no other
    text has are certain to differ, and are counted beforehand (Arasu, Ganti and Kaushik 2006: PartEnum)."""
    said_in = Counter(word for said in texts for word in said)
    holders: dict[tuple, list[frozenset[str]]] = defaultdict(list)
    for said in (said for said in texts if len(said) >= MANY_WORDS):
        shared = [word for word in said if said_in[word] > 1]
        parts = list(_parts(shared, len(said), len(said) - len(shared)))
        for other in {other for part in parts for other in holders.get(part, ())}:
            if len(said & other) >= ALIKE * len(said | other):
                yield said, other
        for part in parts:
            holders[part].append(said)


def _parts(words_: list[str], count: int, own: int) -> Iterator[tuple]:
    """What another text must have one of to be nearly the same as one of `count` words of which `own` stand nowhere else."""
    smaller = range(math.ceil(ALIKE * count), count + 1)  # words of the one of the two that has fewer
    for differing in sorted({left for size in smaller for left in range(_most_other_words(size) - own + 1)}):
        cut: list[list[str]] = [[] for _ in range(differing + 1)]
        for word in words_:
            cut[_number_of(word) % len(cut)].append(word)
        for number, part in enumerate(cut):
            yield differing, number, frozenset(part)


@cache
def _most_other_words(count: int) -> int:
    """In how many words two texts that are nearly the same can differ, where the shorter has `count`."""
    both = ((common, union) for union in range(count, 2 * count + 2) for common in range(count + 1))
    return max(union - common for common, union in both if common >= ALIKE * union)


def _number_of(word: str) -> int:
    return zlib.crc32(word.encode("utf-8", "surrogatepass"))


def _of_words(record: Record) -> Iterator[Reason]:
    """Filler, loops, cut-off ends, nothing said, commands of prompting tools, letters that no tokenizer of the bases knows well."""
    text = record["text"].strip()
    if match := FILLER.search(text):
        yield Reason("warn", "filler", match.group(), None)
    if match := GUESS.search(text):
        yield Reason("warn", "guesses", match.group(), None)
    if match := REPEATED.search(text):
        yield Reason("warn", "repetition", match.group(1), None)
    if match := CUT_OFF.search(text.rstrip(" .")):
        yield Reason("warn", "cut_off", match.group(), None)
    if found := find_syntax(text):
        yield Reason("warn", "prompt_syntax", found, None)
    if odd := odd_letters(text):
        yield Reason("warn", "odd_letters", odd, None)


def odd_letters(text: str) -> str:
    """Letters that are not Latin, broken ones and emoji, each once."""
    return "".join(dict.fromkeys(c for c in text if ord(c) > 126 and not _is_plain(c)))[:12]


def _is_plain(char: str) -> bool:
    """Whether it is an accented Latin letter or ordinary typography."""
    return char in "’‘“”–—…°·×" or unicodedata.name(char, "").startswith("LATIN ")


def _of_trigger(record: Record, settings: Settings) -> Iterator[Reason]:
    """A trigger that is missing or stands more than once, a text that says nothing besides, one that is too long."""
    trigger, text = settings.trigger.word, record["text"]
    if trigger and (count := count_word(text, trigger)) != 1:
        yield Reason("warn", "trigger_missing" if count == 0 else "trigger_repeated", count, 1)
    quality = words(" ".join((*settings.caption.lead_tags, *settings.caption.quality_tags)))
    besides = words(text) - quality - words(trigger or "") - words(settings.trigger.class_word or "") - {"a", "an", "the", "style", "in"}
    if not besides:
        yield Reason("warn", "says_nothing", 0, 1)
    found = record.get("trigger", {})
    if found.get("tokens", 0) > settings.caption.token_budget:
        yield Reason("warn", "too_many_tokens", found["tokens"], settings.caption.token_budget)
    if found.get("cut"):
        yield Reason("warn", "cut_to_budget", found["cut"], settings.caption.token_budget)


def _of_measures(record: Record, settings: Settings) -> Iterator[Reason]:
    """Words that the crop's own measures contradict: 'night' on a bright photo, 'red' where nothing is red; a facet that
    open_clip is sure of, and its score."""
    text, said = record["text"], words(record["text"])
    middle, high = _luma(record)
    if (dark := said & DARK) and "background" not in said and middle > 170:
        yield Reason("warn", "not_dark", middle, min(dark))
    if (bright := said & BRIGHT) and high < 110:
        yield Reason("warn", "not_bright", high, min(bright))
    shares = (record["caption"].get("pixels") or {}).get("colours")
    for colour, share in facets.missing_colours(text, shares):
        yield Reason("warn", f"no_{colour}", share, facets.NONE_OF_IT)
    chroma = (record.get("measures", {}).get("colour") or {}).get("chroma")
    if chroma is not None and (gray := GRAY.search(text)) and chroma > COLOURED:
        yield Reason("warn", "not_gray", chroma, gray.group())
    for word, other in _between_readings(record):
        yield Reason("warn", "readings_contradict", word, other)
    for word, facet in facets.contradicted(text, record.get("facets")):
        yield Reason("warn", "contradicts_photo", word, facet)
    score = record.get("trigger", {}).get("agreement")
    if score is not None and score < settings.caption.min_agreement:
        yield Reason("warn", "does_not_match_photo", score, settings.caption.min_agreement)


def _between_readings(record: Record) -> Iterator[tuple[str, str]]:
    """What two captioners say of the photo that cannot both be. A text that a person wrote since has decided between them."""
    told = record["caption"].get("readings", []) if record.get("human", {}).get("text") is None else []
    read = [RawCaption(one.get("sentence", ""), tuple(one.get("tags", ()))) for one in told]
    for number, one in enumerate(read):
        for other in read[number + 1 :]:
            yield from contradictions(one, other)


def _luma(record: Record) -> tuple[float, float]:
    """(median, near the brightest) luma of the crop, or where that is not measured, of the photo; such that nothing is
    contradicted where neither is."""
    if found := (record["caption"].get("pixels") or {}).get("luma"):
        return found[1], found[2]
    exposure = record.get("measures", {}).get("exposure") or {}
    return exposure.get("p50", 0), exposure.get("p99", 255)
