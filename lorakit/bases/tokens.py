"""How many tokens a text takes in the base's own tokenizers, and texts cut to what the base reads, at a phrase."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from lorakit.errors import LorakitError
from lorakit.text import clip_bpe, phrases
from lorakit.text.words import split_tags
from lorakit.weights import INDEX, local_folder, without_own_code

if TYPE_CHECKING:
    from lorakit.project import Project
    from lorakit.project.catalog import Card

CLIP_BUDGET = 75  # of CLIP's 77 positions, two are for start and end
LARGE = ("T5", "Qwen2", "Llama")  # how the classes of the tokenizers begin that read more than CLIP
TOKENS_A_WORD = 1.4  # an estimate, where none of these is at hand


@dataclass(frozen=True)
class Counter:
    """`encoders` are functions text -> token strings, by the tokenizer's name. `estimated` when that of T5 or of the language model is not at hand."""

    encoders: dict[str, Callable[[str], list[str]]]
    estimated: bool = False

    def count(self, text: str) -> int:
        """Tokens in the tokenizer that takes most."""
        if self.estimated:
            return math.ceil(len(text.split()) * TOKENS_A_WORD)
        return max(len(encode(text)) for encode in self.encoders.values())


def counter_for(project: Project) -> Counter:
    """The tokenizers that limit a text of this base: all CLIPs, or where the budget is larger, T5 beside them or a language model."""
    try:
        source = project.base_source
        source = source.rest or source if source.configs else source  # a single file has no tokenizers
        folder = Path(source.location) if source.is_local else cached_folder(source.location)
    except LorakitError:
        folder = None  # the weights are missing, which is no hindrance to captions
    return _counter(folder, project.settings.caption.token_budget)


def folder_of(card: Card, given: str | None = None) -> Path | None:
    """Where a base's tokenizers lie: in the folder that is given, beside its card, or in the hub's cache; None = nowhere here."""
    if given:
        return local_folder(given, "model_index.json", "--weights")
    if card.folder:
        return card.path.parent / card.folder
    return cached_folder(card.hub or "")


def tokenizers_of(folder: Path | None) -> dict[str, Callable[[str], list[str]]]:
    """{'CLIP (tokenizer)': text -> its tokens, 'T5 (tokenizer_3)': ...} of a diffusers folder, as far as they are there."""
    there = sorted(folder.glob("tokenizer*")) if folder and folder.is_dir() else []
    kinds = {path: tokenizer_class(path) for path in there if path.is_dir()}
    found = [(name, path) for path, kind in kinds.items() for name in ("CLIP", *LARGE) if kind.startswith(name)]
    return {f"{name} ({path.name})": load_tokenizer(path) for name, path in found}


@lru_cache(maxsize=4)
def _counter(folder: Path | None, budget: int) -> Counter:
    wanted = LARGE if budget > CLIP_BUDGET else ("CLIP",)
    encoders = {name: encode for name, encode in tokenizers_of(folder).items() if name.startswith(wanted)}
    if encoders:
        return Counter(encoders)
    return Counter({}, estimated=True) if wanted is LARGE else Counter({"CLIP (of open_clip)": clip_bpe.tokens})


def cached_folder(hub: str) -> Path | None:
    """Where the hub's cache holds this base, None where it does not, or where no place on the hub is known ('')."""
    if not hub:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(hub, index) for index in INDEX)
    return next((Path(path).parent for path in found if isinstance(path, str)), None)


def tokenizer_class(folder: Path) -> str:
    path = folder / "tokenizer_config.json"
    return json.loads(path.read_text(encoding="utf-8")).get("tokenizer_class", "") if path.is_file() else ""


def load_tokenizer(folder: Path) -> Callable[[str], list[str]]:
    whole = folder / "tokenizer.json"
    if whole.is_file():  # at once, where transformers takes seconds to import
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_file(str(whole))
        except Exception as error:  # the library raises nothing narrower
            raise LorakitError(f"{whole}: cannot be read as a tokenizer ({error})") from None
        tokenizer.no_padding()  # a file may ask to fill every text up to 77 tokens, or to cut it there
        tokenizer.no_truncation()
        return lambda text: tokenizer.encode(text, add_special_tokens=False).tokens
    from transformers import AutoTokenizer

    with without_own_code(str(folder)):
        slow = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return lambda text: slow.tokenize(text)


def fit(text: str, style: str, fits: Callable[[str], bool]) -> tuple[str, list[str]]:
    """(`text` without its last phrases until it `fits`, what was cut). Never ends inside a word or a phrase."""
    cut: list[str] = []
    parts = split_tags(text) if style == "tags" else [part.raw for part in phrases.split(text)]
    while len(parts) > 1 and not fits(text):
        cut.insert(0, parts.pop().strip(" ,.;"))
        text = ", ".join(parts) if style == "tags" else phrases.joined([phrases.Phrase(raw, "") for raw in parts])
    return text, [part for part in cut if part]
