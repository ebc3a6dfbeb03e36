"""Two readings of one photo: what cannot both be true is found, what may be is let be."""

import pytest

from lorakit.text.composing import RawCaption
from lorakit.text.contradictions import contradictions


def found(tags: str, sentence: str) -> list[tuple[str, str]]:
    return list(contradictions(RawCaption(tags=tuple(tags.split(", "))), RawCaption(sentence)))


@pytest.mark.parametrize(
    ("tags", "sentence", "words"),
    [
        ("1girl, red shirt", "A woman in a blue shirt stands by a wall.", ("red shirt", "blue shirt")),
        ("1girl, blonde hair", "A girl with long black hair smiles.", ("blonde hair", "black hair")),
        ("1boy, blue eyes", "A man with large brown eyes looks up.", ("blue eyes", "brown eyes")),
        ("2girls", "A woman sits on a bench.", ("2 female", "1 female")),
        ("1girl, solo", "Two young women sit on a bench.", ("1 female", "2 female")),
        ("1boy", "A woman sits on a bench. She smiles.", ("male", "female")),
        ("1girl, bench", "A man sits on a bench, his hat beside him.", ("female", "male")),
        ("two dogs, grass", "Three dogs run over grass.", ("2 dogs", "3 dogs")),
        ("cup, indoors", "A cup stands on a rock outdoors.", ("indoors", "outdoors")),
        ("night, car", "A car on a sunny road.", ("night", "sunny")),
        ("outdoors, 1girl", "A girl in a kitchen.", ("outdoors", "kitchen")),
    ],
)
def test_what_cannot_both_be_is_named_with_both_words(tags, sentence, words):
    assert found(tags, sentence) == [words]


@pytest.mark.parametrize(
    ("tags", "sentence"),
    [
        ("1girl, red shirt, long hair", "A woman in a red shirt stands by a wall."),
        ("1girl, red shirt", "A woman in an orange shirt."),
        ("1girl, red shirt", "A woman in a shirt with blue buttons on a green lawn."),
        ("1girl, solo", "A young woman sits. The woman smiles and holds a cup."),
        ("2girls", "A woman sits beside another woman."),
        ("2girls", "A woman sits with a group of friends."),
        ("1girl, 1boy", "A man and a woman dance. He wears a black suit, she a white dress."),
        ("solo", "A man sits."),
        ("blue eyes, blue shirt", "A cat with blue eyes beside a red shirt and a blue shirt."),
        ("indoors, window", "A kitchen with a view of a forest."),
        ("multiple dogs", "Three dogs."),
        ("cup", ""),
        ("gray cat", "A silver cat."),
        ("red light", "Blue light on a wall."),
        ("1girl, black dress", "She wears a navy dress."),
        ("dog, two bowls", "A dog with a bowl."),
    ],
)
def test_what_may_both_be_contradicts_nothing(tags, sentence):
    assert found(tags, sentence) == []
