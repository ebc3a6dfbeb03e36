"""The CLIP tokenizer of `mini`: a small byte-level vocabulary, so that any trigger word has tokens of its own."""

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

LENGTH = 48  # tokens of a prompt, start and end included
START, END = "<|startoftext|>", "<|endoftext|>"
WORD_SUFFIX = "</w>"
CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def train_tokenizer(captions, folder, merges=480):
    """Learns merges from the captions and saves a CLIPTokenizer in `folder`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = alphabet + [letter + WORD_SUFFIX for letter in alphabet]
    learnt = learn_merges(captions, alphabet, len(letters) + merges)
    words = letters + ["".join(pair) for pair in learnt] + [START, END]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(words))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in learnt))
    tokenizer = CLIPTokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=LENGTH)
    tokenizer.save_pretrained(folder)
    return tokenizer


def learn_merges(captions, alphabet, size):
    """Pairs of the byte-pair encoding, most frequent first."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=WORD_SUFFIX))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CLIP_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, end_of_word_suffix=WORD_SUFFIX, show_progress=False)
    tokenizer.train_from_iterator(captions, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in merges]
