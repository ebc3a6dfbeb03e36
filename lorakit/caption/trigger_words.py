"""Judges a trigger word: a good one is rare, short in the tokens of all the base's tokenizers, and means nothing to it yet."""

from __future__ import annotations

import csv
import hashlib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from lorakit import lookup
from lorakit.bases.tokens import CLIP_BUDGET, LARGE
from lorakit.project.catalog import Card
from lorakit.text import clip_bpe
from lorakit.text.trigger_word import faults_of

MANY_TOKENS = 4
# CLIP's merges stand in the order of how often they were made: the first ones are everyday words, the last ones rare.
EVERYDAY_RANK = 20_000
LEAST_WORD = 4  # letters from which a single piece of T5's, or an entry of a word list, is a word and no scrap or abbreviation
NAME = 6  # letters from which a word with vowels in it may well be somebody's name
WRITTEN = 2.0  # Zipf frequency: once in ten million words
CONSONANTS = "bcdfghjklmnpqrstvwxz"
KNOWN = {
    "sks": "a rifle: bases draw weapons for it",
    "ohwx": "in so many guides that merged models may have learned it already",
}
Encode = Callable[[str], list[str]]


@dataclass(frozen=True)
class Judgement:
    verdict: Literal["good", "usable", "bad"]
    findings: tuple[str, ...]
    faults: tuple[str, ...] = ()  # of the findings, those that make it bad


def judge(word: str, card: Card, tokenizers: Mapping[str, Encode] | None = None) -> Judgement:
    """What speaks for and against a trigger word on this base. `tokenizers`: the base's own by their names, as far as
    they are at hand (`tokens.tokenizers_of`); without a CLIP among them, open_clip's stands for it."""
    encoders = with_clip(tokenizers)
    faults, doubts = faults_of(word), []
    findings = _counts(word, card, encoders)
    for part in word.split():
        faults += _meaning(part, encoders)
    most = max(len(encode(word)) for encode in encoders.values())
    if most > MANY_TOKENS:
        doubts.append(f"more than {MANY_TOKENS} tokens: each takes one of the text's places")
    if len(word) < 3:
        doubts.append("so short that it stands in other words and texts by chance")
    if word.lower() in KNOWN:
        doubts.append(f"{word.lower()!r} is known: {KNOWN[word.lower()]}")
    if any(ord(c) > 127 for c in word):
        doubts.append("letters beyond ASCII are typed and tokenized in more than one way")
    if not faults and not find_spec("wordfreq") and any(_may_be_a_name(part) for part in word.split()):
        doubts.append('long and pronounceable, so perhaps a name that is known: `pip install "lorakit[words]"` looks it up')
    if not faults and not doubts:
        findings.append("no ordinary word and no known name")
    return Judgement("bad" if faults else "usable" if doubts else "good", (*findings, *faults, *doubts), tuple(faults))


def with_clip(tokenizers: Mapping[str, Encode] | None) -> dict[str, Encode]:
    """The base's tokenizers, and where no CLIP is among them, open_clip's before them: its vocabulary is the same for all
    bases that read CLIP, and tells of words that others know too."""
    own = dict(tokenizers or {})
    return own if any(name.startswith("CLIP") for name in own) else {"CLIP": clip_bpe.tokens, **own}


def _counts(word: str, card: Card, encoders: Mapping[str, Encode]) -> list[str]:
    """'2 tokens in CLIP's tokenizer, which ... reads: zw + x', tokenizers that say the same in one line."""
    same: dict[tuple[str, ...], list[str]] = {}
    for name, encode in encoders.items():
        same.setdefault(tuple(encode(word)), []).append(name)
    read = reads(card)
    lines = []
    for pieces, names in same.items():
        names = [name for name in names if name.startswith(read)]  # CLIP's may stand in for one that is not here
        if not names:
            continue
        shown = " + ".join(_plain(piece) or "a space" for piece in pieces)
        kinds = " and ".join(dict.fromkeys(name.split(" ")[0] for name in names))
        lines.append(f"{len(pieces)} token{'s' if len(pieces) > 1 else ''} in {kinds}'s tokenizer, which {card.title} reads: {shown}")
    for kind in read:
        if not any(name.startswith(kind) for name in encoders):
            what = f"reads {kind}{' too' if len(read) > 1 else ''}, whose tokenizer"
            lines.append(f"{card.title} {what} is not on this machine and was not asked (--weights FOLDER gives it)")
    return lines


def reads(card: Card) -> tuple[str, ...]:
    """How the names of the tokenizers begin that read the base's texts."""
    named = lookup.constant(lookup.FAMILIES, card.family, "READS", ())
    return named or (("CLIP", "T5") if card.settings.get("caption.token_budget", 0) > CLIP_BUDGET else ("CLIP",))


def _plain(piece: str) -> str:
    return piece.replace("</w>", "").replace("\u2581", "")


def _meaning(word: str, encoders: Mapping[str, Encode]) -> list[str]:
    """Why a single word has a meaning already: a tokenizer, or a list of words, knows it as one."""
    lower = word.lower()
    if lower in thing_names():
        return [f"{word!r} is the name of a thing that bases know (ImageNet)"]
    if len(lower) < 3 or lower in KNOWN:
        return []
    for name, encode in encoders.items():
        if name.startswith("CLIP") and len(pieces := encode(lower)) == 1:
            return [_known_to_clip(word, pieces[0])]
        spellings = {lower, lower.capitalize(), word} if len(lower) >= LEAST_WORD else ()
        if name.startswith(LARGE) and any(len(encode(spelling)) == 1 for spelling in spellings):
            return [f"{word!r} is one piece of {name.split(' ')[0]}'s vocabulary, so a word or a name that the base has a picture of"]
    often = written_often(lower)
    return [f"{word!r} is a word or a name that people write (wordfreq: {often:.1f} on Zipf's scale)"] if often else []


def _may_be_a_name(word: str) -> bool:
    """'gandalf' is two tokens to CLIP, as a made-up word is."""
    return len(word) >= NAME and any(letter in "aeiouy" for letter in word.lower())


def _known_to_clip(word: str, piece: str) -> str:
    rank = clip_bpe.rank(piece)
    if rank is None:
        return f"{word!r} is one token of the base's own vocabulary, so a word that it has a picture of"
    kind = "an everyday word" if rank < EVERYDAY_RANK else "a word or a name"
    return f"{word!r} is one token of CLIP's vocabulary (rank {rank:,} of 49,408), so {kind} that the base has a picture of"


def written_often(word: str) -> float | None:
    """The Zipf frequency of a word that people write, where the word list of the extra `words` is installed."""
    if len(word) < LEAST_WORD or not find_spec("wordfreq"):
        return None
    from wordfreq import zipf_frequency

    found = zipf_frequency(word, "en")
    return found if found >= WRITTEN else None


@lru_cache(maxsize=1)
def thing_names() -> frozenset[str]:
    """Every word of the names that timm's word list gives to 21,000 classes of things. Its files are read without importing timm,
    which takes torch and seconds."""
    package = find_spec("timm")
    assert package and package.submodule_search_locations, "lorakit depends on it"
    lists = Path(package.submodule_search_locations[0]) / "data" / "_info"
    lemmas = dict(csv.reader((lists / "imagenet_synset_to_lemma.txt").read_text("utf-8").splitlines(), delimiter="\t"))
    names = (lemmas[synset] for synset in (lists / "imagenet21k_goog_synsets.txt").read_text("utf-8").splitlines())
    return frozenset(word for name in names for word in name.lower().replace(",", " ").split() if len(word) > 2)


def propose(word: str, tokenizers: Mapping[str, Encode] | None = None, count: int = 3) -> list[str]:
    """Words of three consonants that mean nothing and make two tokens in CLIP, and no more than three in the base's others;
    always the same ones for the same `word`."""
    encoders = with_clip(tokenizers)
    triples = ["".join(letters) for letters in itertools.permutations(CONSONANTS, 3)]
    triples.sort(key=lambda triple: hashlib.blake2b(f"{word} {triple}".encode()).hexdigest())
    good = (t for t in triples if t not in (*KNOWN, word) and t not in thing_names() and _is_short(t, encoders))
    return list(itertools.islice(good, count))


def _is_short(word: str, encoders: Mapping[str, Encode]) -> bool:
    return all(len(encode(word)) == 2 if name.startswith("CLIP") else 1 < len(encode(word)) <= 3 for name, encode in encoders.items())
