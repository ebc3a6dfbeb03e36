"""Where two readings of one photo cannot both be true: another colour of the same thing, another number, another sex, another setting. What
only one of them says contradicts nothing."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from lorakit.text import phrases
from lorakit.text.composing import RawCaption
from lorakit.text.words import stem

COLOURS = frozenset(
    "red orange yellow green blue purple violet pink brown black white gray grey silver gold golden blonde blond beige tan cream teal cyan turquoise "
    "aqua navy maroon crimson lavender".split()
)
# Colours that an eye may call by either name.
NEAR = (
    {"red", "orange", "maroon", "crimson", "pink"}, {"orange", "brown", "tan", "gold", "golden", "maroon", "crimson"},
    {"yellow", "gold", "golden", "blonde", "blond", "beige", "cream", "orange", "tan", "brown"},
    {"green", "teal", "cyan", "turquoise", "aqua"}, {"blue", "teal", "cyan", "turquoise", "aqua", "navy", "purple"},
    {"purple", "violet", "pink", "lavender", "navy"}, {"white", "gray", "grey", "silver", "beige", "cream", "lavender"},
    {"black", "gray", "grey", "navy", "brown"}, {"silver", "gray", "grey"}, {"blonde", "blond", "white", "silver"},
)  # fmt: skip
NOT_OF_THINGS = frozenset(
    "background tone tones light lights lighting colour color colours colors sky accent accents detail details theme".split()
)
NUMBERS = {
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "a": 1,
    "an": 1,
    "single": 1,
    "another": 1,
    "pair": 2,
    "couple": 2,
}
FEMALE = "woman women girl girls lady ladies female mother daughter sister bride queen princess".split()
MALE = "man men boy boys guy guys male gentleman gentlemen father son brother groom king prince".split()
HERS, HIS = frozenset("she her hers herself".split()), frozenset("he him his himself".split())
MANY = re.compile(r"\b(?:people|group|crowd|couple|friends|family|others?|another|both|team|children|kids|pair)\b", re.IGNORECASE)
SETTINGS = {  # (words of one, words of the other): only one of them can be true
    "place": (
        frozenset("indoors indoor kitchen bedroom bathroom office hallway classroom".split()),
        frozenset("outdoors outdoor beach forest street field desert meadow".split()),
    ),
    "time": (frozenset(("night", "midnight", "moonlight", "nighttime")), frozenset(("sunny", "daylight", "noon", "midday", "daytime"))),
}
_BOORU = re.compile(r"(\d)\+?(girl|boy)s?\b", re.IGNORECASE)


def contradictions(one: RawCaption, other: RawCaption) -> Iterator[tuple[str, str]]:
    """(words of one, words of the other) for each thing of which they say what cannot both be."""
    yield from _of_colour(_coloured(one), _coloured(other))
    of_people = list(_of_people(one, other))
    yield from of_people
    yield from _of_number(_counted(one), _counted(other))
    mine, theirs = _words(one), _words(other)
    for left, right in SETTINGS.values():
        for here, there in ((left, right), (right, left)):
            if mine & here and not mine & there and theirs & there and not theirs & here:
                yield min(mine & here), min(theirs & there)


def _words(reading: RawCaption) -> set[str]:
    return set(re.findall(r"[\w'-]+", reading.text.lower()))


def _things(reading: RawCaption) -> Iterator[list[str]]:
    """The things of a reading, each as its words with the noun at the end."""
    texts = [part.raw for part in phrases.split(reading.sentence)] + list(reading.tags)
    for text in texts:
        words: list[str] = []
        for word in [*re.findall(r"[\w'-]+|[,.;:]", text.lower()), ","]:
            is_edge = (
                word in phrases.PREPOSITIONS
                or word in phrases.JOINTS
                or word in phrases.BE
                or word in phrases.RELATIVES
                or not word[0].isalnum()
            )
            if is_edge or word in phrases.FINITE or word == "of" or (word.endswith("ing") and word not in phrases.THINGS and words):
                if words:
                    yield words
                words = []
            elif word not in phrases.POSSESSIVES and word != "the":
                words.append(word)


def _coloured(reading: RawCaption) -> dict[str, dict[str, str]]:
    """{thing: {its colour: as it is said}}."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for words in _things(reading):
        thing = words[-1]
        for colour in set(words[:-1]) & COLOURS:
            if thing not in COLOURS and thing not in NOT_OF_THINGS:
                found[stem(thing)][colour] = f"{colour} {thing}"
    return found


def _of_colour(mine: Mapping[str, Mapping[str, str]], theirs: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, str]]:
    for thing in mine.keys() & theirs.keys():
        here, there = mine[thing], theirs[thing]
        if not any(a == b or any({a, b} <= group for group in NEAR) for a in here for b in there):
            yield here[min(here)], there[min(there)]


def _counted(reading: RawCaption) -> dict[str, set[int]]:
    """{thing: the numbers of it that are said}; people are counted by themselves."""
    found: dict[str, set[int]] = defaultdict(set)
    for words in _things(reading):
        number = NUMBERS.get(words[0], int(words[0]) if words[0].isdigit() and len(words[0]) < 3 else None)
        thing = next((word for word in words[1:] if stem(word) != word), None)  # several of it, so it has its plural
        if number and number > 1 and thing and thing not in (*FEMALE, *MALE):
            found[stem(thing)].add(number)
    return found


def _of_number(mine: Mapping[str, set[int]], theirs: Mapping[str, set[int]]) -> Iterator[tuple[str, str]]:
    for thing in mine.keys() & theirs.keys():
        if not mine[thing] & theirs[thing]:
            yield f"{min(mine[thing])} {thing}s", f"{min(theirs[thing])} {thing}s"


def _of_people(one: RawCaption, other: RawCaption) -> Iterator[tuple[str, str]]:
    """Another sex, where each of them knows but one; else another number of one sex."""
    mine, theirs = _people(one), _people(other)
    said = [{sex: count for sex, count in people.items() if count} for people in (mine, theirs)]
    if said[0] and said[1] and not said[0].keys() & said[1].keys():
        yield min(said[0]), min(said[1])
        return
    for sex in said[0].keys() & said[1].keys():
        here, there = said[0][sex], said[1][sex]
        texts = (one, other)
        fewer = texts[0] if here < there else texts[1]
        if here != there and not MANY.search(fewer.text) and min(here, there) >= 1:
            yield f"{here} {sex}", f"{there} {sex}"


def _people(reading: RawCaption) -> dict[str, int]:
    """{'female': how many at least are named, 'male': ...}: by booru tags, else by the sentence that names the most."""
    found = {"female": 0, "male": 0}
    for number, kind in _BOORU.findall(" ".join(reading.tags)):
        sex = "female" if kind.lower() == "girl" else "male"
        found[sex] = max(found[sex], int(number))
    for sentence in phrases.SENTENCE_END.split(reading.sentence):
        words = re.findall(r"[\w'-]+", sentence.lower())
        for sex, names, pronouns in (("female", FEMALE, HERS), ("male", MALE, HIS)):
            count = sum(_number_before(words, place) for place, word in enumerate(words) if word in names)
            found[sex] = max(found[sex], count, int(bool(set(words) & pronouns)))
    for tag in reading.tags:
        for sex, names in (("female", FEMALE), ("male", MALE)):
            found[sex] = max(found[sex], int(bool(set(tag.lower().split()) & set(names))))
    return found


def _number_before(words: list[str], place: int) -> int:
    """How many a noun speaks of: 'two young women' is 2, 'a woman' 1, 'the woman' nobody new but one."""
    before = words[max(0, place - 4) : place]
    for word in reversed(before):
        if word in NUMBERS:
            return NUMBERS[word]
        if word.isdigit():
            return int(word)
        if word in ("and", "with", "the", "of"):
            break
    return (
        2
        if words[place] in ("women", "girls", "ladies", "men", "boys", "guys", "gentlemen")
        else 1
        if not before or "the" not in before
        else 0
    )
