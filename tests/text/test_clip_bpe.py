"""CLIP's tokens without open_clip are open_clip's own."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorakit.text import clip_bpe

TEXTS = [
    "", " ", "a", "zwx", "ZWX mug", "a photo of a dog's bone, it's 3.5 m", "naïve café — “quoted” …", "日本の 柴犬 zwx狗", "&lt;b&gt; R&amp;D", "𝔷𝔴𝔵",
    "ﬁne ﬂour", "tab\tand\nline", "emoji 🐕‍🦺!!", "<start_of_text> x <end_of_text>", "!<start_of_text>", "I'LL 'S 're", "x\x1b[31m y", "Ünïcödé İstanbul ß",
    "a_b-c (zwx:1.3) {x|y}", "antidisestablishmentarianism" * 3, "١٢٣ Ⅷ", "\u00a0no\u200bbreak", "mojibake Ã©tÃ©",
]  # fmt: skip


@pytest.fixture(scope="module")
def theirs():
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    return lambda text: [tokenizer.decoder[number] for number in tokenizer.encode(text)]


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokens_are_those_of_open_clip(theirs, text):
    assert clip_bpe.tokens(text) == theirs(text)


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=40))
def test_of_any_text(theirs, text):
    assert clip_bpe.tokens(text) == theirs(text)


def test_the_vocabulary_is_open_clip_s():
    from open_clip.tokenizer import SimpleTokenizer

    assert clip_bpe.vocabulary() == SimpleTokenizer().encoder
    assert clip_bpe.rank("dog</w>") == SimpleTokenizer().encoder["dog</w>"] and clip_bpe.rank("zwxzwx") is None


def test_words_of_things_are_those_of_timm():
    from timm.data import ImageNetInfo

    from lorakit.caption.trigger_words import thing_names

    info = ImageNetInfo("imagenet-21k-goog")
    names = (info.index_to_description(index) for index in range(info.num_classes()))
    assert thing_names() == {word for name in names for word in name.lower().replace(",", " ").split() if len(word) > 2}


@pytest.mark.parametrize("text", ["zwx mug", "", "a b " * 60, "Naïve 日本 🐕"])
def test_a_base_s_tokenizer_says_what_transformers_says(text):
    from transformers import AutoTokenizer

    from lorakit.bases.tokens import load_tokenizer

    folder = Path(__file__).parents[2] / "models" / "mini" / "weights" / "tokenizer"  # its file asks for padding
    assert load_tokenizer(folder)(text) == AutoTokenizer.from_pretrained(folder).tokenize(text)


def test_nothing_heavy_is_loaded_for_it():
    code = "import sys; from lorakit.text import clip_bpe; clip_bpe.tokens('a dog'); sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
