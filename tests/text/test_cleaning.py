"""Texts of files as captions: lines, HTML, tags without commas, the forms of galleries."""

import pytest

from lorakit.text.cleaning import captions_in, texts_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1toy\nshort fur\nlooking at viewer\ngrass\n", ["1toy, short fur, looking at viewer, grass"]),
        ("a bear,\r\n  sitting\r\n", ["a bear, sitting"]),
        ("1girl, smile\npark, tree\n", ["1girl, smile, park, tree"]),
        ("1girl, smile\n1girl, grin\n", ["1girl, smile", "1girl, grin"]),
        ("a toy bear lying on grass\ntoy bear, grass\nphoto of my bear in the garden", ["a toy bear lying on grass", "toy bear, grass", "photo of my bear in the garden"]),
        ("A dog runs over the grass.\nA brown dog in a field.\n", ["A dog runs over the grass.", "A brown dog in a field."]),
        ("The bear sits on a bench. It is brown.\n\nWarm light falls from the left.", ["The bear sits on a bench. It is brown. Warm light falls from the left."]),
        ("a photo of a bear that sits on the wooden bench and looks at\nthe viewer", ["a photo of a bear that sits on the wooden bench and looks at the viewer"]),
        ("a long description of a bear that sits on a bench in the evening\nlight of a garden with flowers", ["a long description of a bear that sits on a bench in the evening light of a garden with flowers"]),
        ("A photo of a small bear on a bench\ngrass\noutdoors", ["A photo of a small bear on a bench, grass, outdoors"]),
        ("<p>a <b>bear</b> &amp; a cup</p>", ["a bear & a cup"]),
        ("a bear <lora:x:1>", ["a bear <lora:x:1>"]),
        ("", []),
    ],
)  # fmt: skip
def test_lines_of_a_text(text, expected):
    assert captions_in(text) == expected


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"tag_string": "1girl long_hair blue_eyes"}, ["1girl, long hair, blue eyes"]),
        ({"tags": "solo long_hair ^_^ park"}, ["solo, long hair, ^_^, park"]),
        ({"tags": ["1girl", "long hair"]}, ["1girl, long hair"]),
        ({"tags": "1girl, long hair"}, ["1girl, long hair"]),
        ({"tags": {"general": ["bear", "fur"], "species": ["toy"]}}, ["bear, fur, toy"]),
        ({"tags": {"bear": 0.4, "toy": 0.9}}, ["toy, bear"]),
        ({"tags": [{"name": "bear"}, {"name": "toy"}]}, ["bear, toy"]),
        ({"title": "IMG_0.jpg", "description": "a bear on the lawn", "url": "x"}, ["a bear on the lawn"]),
        ({"Caption": "a bear"}, ["a bear"]),
        ({"caption": "<a href='x'>a bear</a><br>on grass"}, ["a bear, on grass"]),
        ({"captions": ["a bear sits on a bench", "a toy lies on the grass"]}, ["a bear sits on a bench", "a toy lies on the grass"]),
        ({"caption_1": "a bear sits", "caption_2": "a toy lies"}, ["a bear sits", "a toy lies"]),
        ({"width": 3}, []),
    ],
)  # fmt: skip
def test_entries_of_lists_and_json(entry, expected):
    assert texts_of(entry) == expected
