"""Judges a trigger word: a good one is rare, short in the base's tokens, and means nothing to the base yet."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from lorakit.caption.tokens import clip_tokens, open_clip_tokenizer
from lorakit.catalog import Card

MANY_TOKENS = 4
# CLIP's merges stand in the order of how often they were made: the first ones are everyday words, the last ones rare.
EVERYDAY_RANK = 20_000
CONSONANTS = "bcdfghjklmnpqrstvwxz"
KNOWN = {
    "sks": "a rifle: bases draw weapons for it",
    "ohwx": "in so many guides that merged models may have learned it already",
}


@dataclass(frozen=True)
class Judgement:
    verdict: Literal["good", "usable", "bad"]
    findings: tuple[str, ...]


def judge(word: str, card: Card) -> Judgement:
    """What speaks for and against a trigger word on this base."""
    pieces = clip_tokens(word)
    faults, doubts = [], []
    shown = " + ".join(piece.replace("</w>", "") for piece in pieces)
    findings = [
        f"{len(pieces)} token{'s' if len(pieces) > 1 else ''} in CLIP's tokenizer, which {card.title} reads: {shown}"
    ]
    for part in word.split():
        faults += _meaning(part)
    if len(pieces) > MANY_TOKENS:
        doubts.append(f"more than {MANY_TOKENS} tokens: each takes one of the text's places")
    if len(word) < 3:
        doubts.append("so short that it stands in other words and texts by chance")
    if word.lower() in KNOWN:
        doubts.append(f"{word.lower()!r} is known: {KNOWN[word.lower()]}")
    if any(ord(c) > 127 for c in word):
        doubts.append("letters beyond ASCII are typed and tokenized in more than one way")
    if not faults and not doubts:
        findings.append("no ordinary word and no known name")
    return Judgement("bad" if faults else "usable" if doubts else "good", (*findings, *faults, *doubts))


def _meaning(word: str) -> list[str]:
    """Why a single word has a meaning already: the tokenizer, or a list of things, knows it as one."""
    lower = word.lower()
    if lower in thing_names():
        return [f"{word!r} is the name of a thing that bases know (ImageNet)"]
    pieces = clip_tokens(lower)
    if len(pieces) > 1 or len(lower) < 3 or lower in KNOWN:
        return []
    rank = clip_rank(pieces[0])
    kind = "an everyday word" if rank < EVERYDAY_RANK else "a word or a name"
    return [
        f"{word!r} is one token of CLIP's vocabulary (rank {rank:,} of 49,408), so {kind} that the base has a picture of"
    ]


def clip_rank(token: str) -> int:
    """The token's place in CLIP's vocabulary."""
    return open_clip_tokenizer().encoder[token]


@lru_cache(maxsize=1)
def thing_names() -> frozenset[str]:
    """Every word of the names that timm's word list gives to 21,000 classes of things."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-21k-goog")
    names = (info.index_to_description(index) for index in range(info.num_classes()))
    return frozenset(word for name in names for word in name.lower().replace(",", " ").split() if len(word) > 2)


def propose(word: str, count: int = 3) -> list[str]:
    """Words of three consonants that make two tokens and mean nothing, always the same ones for the same `word`."""
    triples = ["".join(letters) for letters in itertools.permutations(CONSONANTS, 3)]
    triples.sort(key=lambda triple: hashlib.blake2b(f"{word} {triple}".encode()).hexdigest())
    good = (t for t in triples if len(clip_tokens(t)) == 2 and t not in KNOWN and t not in thing_names() and t != word)
    return list(itertools.islice(good, count))
