"""Cuts a caption into phrases with closed-class words alone: no model, no dictionary, a tenth of a millisecond a caption.

'a dog sitting on a couch with a red blanket' -> dog | sitting on couch | red blanket
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

ARTICLES = frozenset("a an the".split())
POSSESSIVES = frozenset("its his her their my your our".split())
DETERMINERS = ARTICLES | POSSESSIVES | frozenset("some this that these those another".split())
PRONOUNS = frozenset("it them him her me us you".split())
BE = frozenset("is are was were be being been".split())
AUXILIARIES = BE | frozenset("has have had can".split())
RELATIVES = frozenset("that which who where".split())
JOINTS = frozenset("and or but while as".split())
PREPOSITIONS = frozenset(
    "with without in on at by near under over behind beside against inside outside among between through across around along "
    "from to into onto above below beneath underneath during toward towards for off upon within alongside amid up down next "
    "front top".split()
) - {"next", "front", "top", "up", "down"}  # those only as parts of the longer ones below
LONG_PREPOSITIONS = (
    "in front of",
    "on top of",
    "next to",
    "close to",
    "out of",
    "up to",
    "in the middle of",
    "on the side of",
    "outside of",
    "inside of",
)
# Words that end in -ing and name a thing or a quality, not what somebody does.
THINGS = frozenset(
    "building painting drawing clothing ceiling ring string king wing spring morning evening wedding lighting railing "
    "earring icing topping pudding stuffing bedding rigging sibling duckling fencing flooring paneling siding engraving carving "
    "etching rendering swing sling thing something anything nothing everything during sting charming interesting striking "
    "stunning amazing outstanding imposing dining living sewing shopping parking bathing swimming".split()
)
# What somebody does to a thing: a verb even where its object follows without an article.
TRANSITIVE = frozenset(
    "wearing holding eating riding playing using reading drinking carrying watching making taking cutting cooking wielding "
    "pulling pushing throwing catching showing featuring facing hugging petting feeding chasing biting giving brushing "
    "washing driving flying displaying containing surrounding covering depicting resembling having doing".split()
)
PARTICIPLES = frozenset(
    "covered surrounded filled made parked seated dressed mounted placed lit decorated perched curled stacked lined hung "
    "attached tied wrapped topped shown seen painted engraved carved illuminated arranged piled draped folded".split()
)
FINITE = frozenset(
    "sits stands lies looks holds wears rests hangs walks runs falls plays rides smiles features faces leans lays stares shows".split()
)
SHOWN_ON = frozenset(
    "wearing wears featuring features shows having with displaying containing showing".split()
)  # the thing itself is the tag
# Phrases of these words alone say nothing about the picture.
VAGUE = frozenset(
    "background foreground front middle center side sides top bottom left right picture image photo photograph scene distance "
    "camera viewer view it one something them each other body frame what appears seems shown seen visible there".split()
)  # fmt: skip
JOINED_BY_AND = frozenset(
    "black white red green blue yellow orange brown pink purple gray grey beige gold silver golden teal tan cream light dark "
    "big small old young tall short warm cool soft hard salt pepper".split()
)  # fmt: skip
MEDIA = frozenset(
    "photo photograph picture image painting drawing illustration sketch portrait render rendering close-up closeup selfie "
    "watercolor cartoon poster engraving snapshot print shot view closeup macro screenshot".split()
)  # fmt: skip
_WORD = re.compile(r"[^\W_](?:[\w'’-]*\w)?|\w+|[^\w\s]")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'])")


@dataclass
class Phrase:
    """`raw` is the stretch of the caption, so that the phrases joined are the caption again; `tag` what it says as a
    tag ('' when it says nothing by itself); `role` orders tags."""

    raw: str
    tag: str
    role: str = "attribute"  # subject, attribute, action or medium
    words: frozenset[str] = field(default_factory=frozenset)


def split(caption: str) -> list[Phrase]:
    """The phrases of a caption of one or more sentences."""
    found: list[Phrase] = []
    for sentence in SENTENCE_END.split(caption.strip()):
        phrases = _split_sentence(sentence)
        if found and phrases:
            phrases[0].raw = " " + phrases[0].raw
            phrases[0].role = "attribute" if phrases[0].role == "subject" else phrases[0].role
        found += phrases
    return found


def joined(phrases: list[Phrase]) -> str:
    """The caption of these phrases, without what a dropped neighbour left at its ends."""
    text = " ".join("".join(p.raw for p in phrases).split())
    text = re.sub(r"\s+([,.;])", r"\1", text)
    text = re.sub(r"([,;])(?:\s*[,;])+", r"\1", text)
    text = re.sub(r"(?<=\.)\s*[,;]\s*|[,;]\s*(?=\.)", " ", text)
    return re.sub(r"^(?:[\s,;.]|(?:and|or|with)\b)+|(?:[\s,;]|\b(?:and|or|with))+$", "", text, flags=re.IGNORECASE).strip()


def without_loose_end(text: str) -> str:
    """A text whose writer had to stop in the middle: up to its last full sentence, or where it has none, without the
    phrase that was begun. A single phrase stays."""
    whole = [end.end() for end in re.finditer(r"[.!?](?=\s|$)", text)]
    if whole:
        return text[: whole[-1]]
    begun = split(text)
    return joined(begun[:-1]) if len(begun) > 1 else text


def _split_sentence(sentence: str) -> list[Phrase]:
    tokens = [(m.group(), m.start()) for m in _WORD.finditer(sentence)]
    starts = _starts([word.lower() for word, _ in tokens])
    edges = [0, *(tokens[i][1] for i in starts if i), len(sentence)]
    pieces = [sentence[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    phrases = [_phrase(piece, first=number == 0) for number, piece in enumerate(pieces) if piece]
    return _merge_copula(_take_medium(phrases))


def _starts(words: list[str]) -> list[int]:
    """Numbers of the words at which a new phrase begins."""
    starts: list[int] = []
    begun, has_verb, free = 0, False, False  # free: the verb's own preposition may still come
    number = 0
    while number < len(words):
        word, before = words[number], words[number - 1] if number else ""
        length = _long_preposition(words, number)
        has_content = any(w not in _EMPTY for w in words[begun:number])
        verb = _is_verb(words, number)
        preposition = length or word in PREPOSITIONS
        opens = (
            (word in ",;:." and word != before)
            or (word in JOINTS and not (before in JOINED_BY_AND and words[number + 1 : number + 2] and words[number + 1] in JOINED_BY_AND))
            or (has_content and (word in RELATIVES or (word in AUXILIARIES and before not in RELATIVES)))
            or (has_content and verb and before not in AUXILIARIES)
            or (has_content and preposition and not (has_verb and free))
        )
        if opens and has_content:
            starts.append(number)
            begun, has_verb, free = number, False, False
        if verb:
            has_verb, free = True, True
        elif word not in DETERMINERS and not word.endswith("ly"):  # its preposition, or its object
            free = False
        number += length or 1
    return starts


def _long_preposition(words: list[str], number: int) -> int:
    """How many words the preposition of several words takes that begins here, 0 where there is none."""
    for text in LONG_PREPOSITIONS:
        parts = text.split()
        if words[number : number + len(parts)] == parts:
            return len(parts)
    return 0


def _is_verb(words: list[str], number: int) -> bool:
    """Whether a word says what somebody does: 'a dog running', not 'a running dog' and not 'a building'."""
    word = words[number]
    before = words[number - 1] if number else ""
    after = words[number + 1] if number + 1 < len(words) else ""
    if word in PARTICIPLES:
        return after in PREPOSITIONS or after in ("of", "up", "", ",", ".") and before not in DETERMINERS
    if not (re.fullmatch(r"[a-z]{2,}ing", word) or word in FINITE) or word in THINGS or before in DETERMINERS:
        return False
    closed = after in PREPOSITIONS or after in DETERMINERS or after in JOINTS or after in ("", ",", ".", "up", "down", "next", "out", "of")
    return word in TRANSITIVE or before in AUXILIARIES or closed or after.endswith("ly")


_EMPTY = DETERMINERS | AUXILIARIES | RELATIVES | JOINTS | PREPOSITIONS | frozenset(",;:.") | frozenset(["of"])


def _phrase(raw: str, first: bool) -> Phrase:
    words = _WORD.findall(raw)
    lower = [w.lower() for w in words]
    start = 0
    while start < len(words) and (lower[start] in ",;:." or lower[start] in JOINTS | RELATIVES | AUXILIARIES):
        start += 1
    is_action = start < len(words) and _is_verb(lower, start)
    attached = (
        not is_action
        and start + 1 < len(words)
        and lower[start] in ("on", "in", "around", "to", "from")
        and lower[start + 1] in POSSESSIVES
    )
    length = 0 if is_action else _long_preposition(lower, start) or int(start < len(words) and lower[start] in PREPOSITIONS)
    place = length > 0
    start += length
    if is_action and lower[start] in SHOWN_ON:
        start, is_action = start + 1, False
    if lower[-1:] and lower[-1] in PRONOUNS:  # 'parked in front of it' -> 'parked'
        words = words[: max((n for n in range(start, len(words)) if _is_verb(lower, n)), default=start) + 1]
    kept = [w for w in words[start:] if w.lower() not in ARTICLES | POSSESSIVES and w not in '.,;:!?"']
    says = {w.lower() for w in kept} - VAGUE - _EMPTY
    bare = {w.lower() for w in kept} <= {"background", "foreground"} or not says
    tag = "" if bare or attached else _as_tag(kept)
    role = "subject" if first and not place else "action" if is_action else "attribute"
    return Phrase(raw, tag, role, frozenset(w.lower() for w in kept))


def _as_tag(words: list[str]) -> str:
    """Words as a tag: in lower case but for names (FLUX, Eiffel Tower)."""
    text = " ".join(words)
    is_name = text[1:2].isupper() or any(word[0].isupper() for word in words[1:])
    return text if is_name else text[0].lower() + text[1:]


def _take_medium(phrases: list[Phrase]) -> list[Phrase]:
    """'a black and white photo of a dog' says two things: a dog, and a black and white photo. The raw text stays whole."""
    result = []
    for phrase in phrases:
        head, of, rest = phrase.tag.partition(" of ")
        if of and head.split()[-1].lower() in MEDIA and rest.strip():
            medium = "close-up" if head.lower() in ("close-up", "closeup", "close-up view", "close-up shot") else head
            phrase.tag, phrase.role = rest.strip(), "subject"
            result += [
                phrase,
                Phrase("", "" if set(medium.lower().split()) <= VAGUE else medium, "medium", phrase.words),
            ]
        else:
            result.append(phrase)
    return result


def _merge_copula(phrases: list[Phrase]) -> list[Phrase]:
    """'The background is blurred' is one tag, 'blurred background'."""
    for before, phrase in zip(phrases, phrases[1:], strict=False):
        words = _WORD.findall(phrase.raw.lower())
        if (
            words[:1]
            and words[0] in BE
            and phrase.role != "action"
            and 0 < len(phrase.tag.split()) <= 3
            and words[1] not in DETERMINERS | SHOWN_ON
        ):
            noun = " ".join(w for w in _WORD.findall(before.raw.lower()) if w not in DETERMINERS and w not in ",;:.")
            before.tag, phrase.tag = f"{phrase.tag} {noun}".strip(), ""
    return phrases
