"""Prompts for samples: files of them, options as sd-scripts writes them, and lines that are none."""

import pytest

from lorakit.errors import LorakitError
from lorakit.text.prompts import Prompt, read

PLACE = "sample.prompts, entry 1"


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("a zwx mug", Prompt("a zwx mug")),
        ("a [trigger] mug on {trigger} sand", Prompt("a zwx mug on zwx sand")),
        ("a mug --n [trigger], blurry, low quality --w 768", Prompt("a mug", "zwx, blurry, low quality", 768)),
        ("a mug --w 512 --h 768 --d 0 --s 30 --g 7.5", Prompt("a mug", None, 512, 768, 0, 30, 7.5)),
        ("a mug --l 5 --N bad --D 18446", Prompt("a mug", "bad", seed=18446, guidance=5.0)),
        ("well-made mug -- a photo, no--what", Prompt("well-made mug -- a photo, no--what")),
        ("a mug, 20--30 years --n  ", Prompt("a mug, 20--30 years")),
    ],
)
def test_options_are_read_as_sd_scripts_writes_them(line, wanted, tmp_path):
    assert read([line], tmp_path, "zwx") == [wanted]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("a mug --w 500", "--w 500: sides are multiples of 8 here, as 496 or 504"),
        ("a mug --w wide", "--w wide: the width is a whole number, 1 or more"),
        ("a mug --s 0", "the steps is a whole number"),
        ("a mug --d -1", "--d -1: the seed is a whole number"),
        ("a mug --g much", "--g much: the guidance is a number"),
        ("a mug --g nan", "the guidance is a number"),
        ("a mug --ss euler_a", "no option is called --ss; there are --n negative"),
        ("a mug --width 512", "no option is called --width"),
        ("a mug --g 3 --l 4", "--l says the guidance once more"),
        ("--n ugly", "has options and no prompt"),
        ("gone.txt", "no such file"),
    ],
)
def test_a_line_that_is_none_is_named(line, why, tmp_path):
    with pytest.raises(LorakitError, match=why) as error:
        read([line], tmp_path, "zwx")
    assert "\n" not in str(error.value)


def test_a_file_has_one_prompt_a_line_and_its_faults_have_line_numbers(tmp_path):
    (tmp_path / "prompts.txt").write_text("\ufeff# mugs\n\n  a [trigger] mug --d 3\nein Krug aus Böhmen\n", encoding="utf-8")
    assert read(["prompts.txt", "one more"], tmp_path, "zwx") == [
        Prompt("a zwx mug", seed=3),
        Prompt("ein Krug aus Böhmen"),
        Prompt("one more"),
    ]
    (tmp_path / "prompts.txt").write_text("# mugs\na mug\na mug --h 100\n")
    with pytest.raises(LorakitError, match=r"prompts.txt, line 3: --h 100: sides are multiples of 16 here, as 96 or 112"):
        read([str(tmp_path / "prompts.txt")], tmp_path, "zwx", size_step=16)
    (tmp_path / "prompts.txt").write_text("# none yet\n")
    with pytest.raises(LorakitError, match="has no prompts"):
        read(["prompts.txt"], tmp_path, "zwx")


def test_a_placeholder_wants_a_trigger(tmp_path):
    with pytest.raises(LorakitError, match="entry 1: has .trigger. in it, and the project has none"):
        read(["a [trigger] mug"], tmp_path, None)
