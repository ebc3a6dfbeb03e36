"""The contract of a captioner. A captioner is one file of this folder; its name is the file's name.

CARD                                   what it is, frozen data
Settings                               if it has settings of its own: a frozen dataclass of `setting(...)`. They appear as
                                       `caption.<name>.*`, and `load` finds them as `settings.<name>`
load(source, device, settings)         loads the weights once and gives a `Reader`
check(settings)                        if something can be wrong before any photo is opened: raises `LorakitError`

Settings are kept in project.yaml, which is shared and uploaded. A key or a password is none of them: the environment
variable that holds it is named in the card, and `secret_of` reads it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from lorakit import lookup
from lorakit.errors import LorakitError
from lorakit.settings import Caption
from lorakit.text.composing import RawCaption
from lorakit.text.phrases import without_loose_end
from lorakit.weights import Source, hub_errors_in_words, load_whole, local_folder

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class CaptionerCard:
    title: str
    writes: Literal["sentence", "tags", "sentence and tags", "what is there"]
    licence: str
    hub: str | None = None
    size_gb: float = 0.0
    batch_per_gb: float = 8.0  # photos at once for each free GB of a GPU; an estimate to begin with, halved where it does not fit
    note: str = ""
    marker: str = "config.json"  # the file that every folder of its weights has
    weights: bool = True  # whether it has weights that `caption.weights` may name a place of
    where: str = ""  # where its answers come from, if not from weights: "asks the server at caption.http.url"
    needs: tuple[str, ...] = ()  # packages besides lorakit's own, and ...
    extra: str = ""  # ... the extra of lorakit that brings them
    secret: str = ""  # the environment variable that holds a key

    @property
    def place(self) -> str:
        """Where what it needs comes from, in a few words."""
        found = f"{self.size_gb:g} GB from {self.hub}" if self.hub else self.where or "works offline"
        return found + (f"; wants lorakit[{self.extra}]" if self.extra else "") + (f"; key in ${self.secret}" if self.secret else "")


@dataclass(frozen=True)
class NoCaption:
    """In place of a `RawCaption`: one photo that could not be read, and why. The others go on."""

    reason: str


@dataclass(frozen=True)
class Reader:
    """A loaded captioner. `prepare` turns one RGB picture into what the model takes and runs in background threads;
    `read` takes a batch of those and gives one `RawCaption` for each, or `NoCaption` with a reason, in their order."""

    prepare: Callable[[Image.Image], Any]
    read: Callable[[list[Any]], list[RawCaption | NoCaption]]

    def __call__(self, pictures: list[Image.Image]) -> list[RawCaption | NoCaption]:
        return self.read([self.prepare(picture) for picture in pictures])


class Captioner(Protocol):
    CARD: CaptionerCard

    @staticmethod
    def load(source: Source, device: str, settings: Caption) -> Reader: ...


def source_of(card: CaptionerCard, given: str | None) -> Source:
    """The folder (or another hub id, `owner/name`) that a user gave as `caption.weights`, else the card's hub id."""
    if not card.weights:
        return Source("", True, card.title)
    otherwise = "; or choose --captioner imagenet, which is coarse but needs no hub"
    if given and is_hub_id(given):
        return Source(given, False, given, card.size_gb, "--set caption.weights=", otherwise, marker=card.marker)
    if given:
        return Source(str(local_folder(given, card.marker, "--set caption.weights=")), True, card.title)
    return Source(card.hub or "", False, card.title, card.size_gb, "--set caption.weights=", otherwise, marker=card.marker)


def check_captioner(name: str, settings: Caption) -> None:
    """Before any photo is opened: is there such a captioner, are its packages, a folder that is named and its key there? Raises `LorakitError`."""
    captioner = lookup.load(lookup.CAPTIONERS, name, "caption.captioner")
    card = captioner.CARD
    if missing := [package for package in card.needs if find_spec(package) is None]:
        how = f'`pip install "lorakit[{card.extra}]"`' if card.extra else f"`pip install {' '.join(missing)}`"
        raise LorakitError(f"captioner {name}: wants {', '.join(missing)}; {how}, or choose another of `lorakit captioners`")
    if card.secret:
        secret_of(card)
    if hasattr(captioner, "check"):
        captioner.check(settings)
    source_of(card, settings.weights)  # a folder that is named must be one; whether the hub can be reached shows when it is asked


def no_words(photos: int) -> LorakitError:
    """What to do where no photo has a caption and nobody writes one."""
    return LorakitError(
        f"none of {photos} photos has a caption; put photo.txt beside each photo, or choose a captioner that "
        "writes them: --captioner imagenet works offline, `lorakit captioners` lists all"
    )


def secret_of(card: CaptionerCard) -> str:
    """The key that the environment holds. Raises `LorakitError` where it is not there; it is never read from settings."""
    found = os.environ.get(card.secret, "").strip()
    if not found:
        raise LorakitError(f"{card.title}: wants a key in the environment: export {card.secret}=... (it does not belong into project.yaml)")
    return found


def is_hub_id(given: str) -> bool:
    """Whether `given` reads as owner/name and is no folder here."""
    owner, slash, name = given.partition("/")
    return bool(owner.strip(".~") and slash and name) and "/" not in name and "\\" not in given and not Path(given).exists()


def load_model(source: Source, device: str) -> tuple[Any, Any]:
    """(model, processor) of an image-to-text model; bf16 (on older cards fp16) on CUDA, else fp32. Remote code is never run."""
    import torch
    import transformers

    dtype = torch.float32
    if device.startswith("cuda"):  # cards before Ampere know bf16 only by emulation
        dtype = torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    # The processor's backend is pinned: otherwise captions would depend on whether torchvision is installed.
    pinned = {"backend": "pil"} if int(transformers.__version__.split(".")[0]) >= 5 else {"use_fast": False}
    with hub_errors_in_words(source):
        processor: Any = transformers.AutoProcessor.from_pretrained(source.location, trust_remote_code=False)
        processor.image_processor = transformers.AutoImageProcessor.from_pretrained(source.location, trust_remote_code=False, **pinned)
        model = load_whole(transformers.AutoModelForImageTextToText, source.location, dtype=dtype, trust_remote_code=False)
    return model.to(device).eval(), processor


def pixels_of(processor: Any) -> Callable[[Image.Image], Any]:
    """A `prepare` for models that see every picture at one size: RGB picture -> [3, height, width] tensor."""

    def prepare(picture: Image.Image):
        return processor.image_processor(images=[picture], return_tensors="pt")["pixel_values"][0]

    return prepare


def written_texts(model: Any, processor: Any, ids: Any, most: int) -> list[str]:
    """The texts of generated token ids [n, length]; one that was stopped by the limit of `most` new tokens, and so in the
    middle of a phrase or a word, ends where its last phrase does."""
    texts = processor.batch_decode(ids, skip_special_tokens=True)
    cut = are_cut(model, processor, ids, most)
    return [without_loose_end(text) if is_cut else text for text, is_cut in zip(texts, cut, strict=True)]


def are_cut(model: Any, processor: Any, ids: Any, most: int) -> list[bool]:
    """Which rows of generated token ids [n, length] the limit of `most` new tokens has stopped."""
    config, tokenizer = model.generation_config, processor.tokenizer
    stops = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    ends = {*stops, tokenizer.eos_token_id, tokenizer.sep_token_id}
    # BART's family writes the end itself into the last place that is left, so there it says nothing.
    forced = config.forced_eos_token_id is not None and ids.shape[1] > most
    return [last != tokenizer.pad_token_id and (forced or last not in ends) for last in ids[:, -1].tolist()]


def without_prompt(text: str, prompt: str) -> str:
    """What the model wrote itself: BLIP and some chat models repeat the prompt before their answer."""
    text = " ".join(text.split())
    return text[len(prompt) :].lstrip(" :,") if prompt and text.lower().startswith(prompt.lower()) else text
