"""Texts cut to the tokens that a base reads: at a phrase, never inside one."""

import pytest

from lorakit.bases import tokens


def words(most):
    return lambda text: len(text.split()) <= most


@pytest.mark.parametrize(
    ("text", "style", "most", "kept", "cut"),
    [
        ("zwx mug, red wall, wooden table", "tags", 6, "zwx mug, red wall, wooden table", []),
        ("zwx mug, red wall, wooden table", "tags", 4, "zwx mug, red wall", ["wooden table"]),
        ("zwx mug, red wall, wooden table", "tags", 0, "zwx mug", ["red wall", "wooden table"]),  # one phrase is always left
        ("a zwx mug on a table with a red spoon", "sentences", 7, "a zwx mug on a table", ["with a red spoon"]),
    ],
)
def test_a_text_is_cut_at_a_phrase(text, style, most, kept, cut):
    assert tokens.fit(text, style, words(most)) == (kept, cut)


def test_the_tokenizer_that_takes_most_counts():
    counter = tokens.Counter({"letters": list, "words": str.split})
    assert counter.count("zwx mug") == 7


def test_without_t5s_tokenizer_its_count_is_an_estimate_that_errs_upwards():
    assert tokens.Counter({}, estimated=True).count("five words are in here") == 7


def test_tokenizers_of_a_folder_without_any(tmp_path):
    (tmp_path / "tokenizer").mkdir()
    assert tokens.tokenizers_of(tmp_path) == tokens.tokenizers_of(None) == {}
