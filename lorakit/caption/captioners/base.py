"""The contract of a captioner. A captioner is one file of this folder; its name is the file's name. A card (`joycaption.yaml`) is a
captioner too: facts of other weights for the file that its `read_by` names, and no code.

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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from lorakit import lookup
from lorakit.console import say
from lorakit.device import free_gb
from lorakit.errors import LorakitError, UnknownName
from lorakit.settings import Caption
from lorakit.text.answers import NoCaption
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
    any_folder: bool = False  # a folder of such weights need not have the marker: loading says what it lacks
    weights: bool = True  # whether it has weights that `caption.weights` may name a place of
    where: str = ""  # where its answers come from, if not from weights: "asks the server at caption.http.url"
    needs: tuple[str, ...] = ()  # packages besides lorakit's own, and ...
    extra: str = ""  # ... the extra of lorakit that brings them
    secret: str = ""  # the environment variable that holds a key
    photos_at_once: int = 0  # where its answers come from elsewhere, and this machine's memory says nothing
    quantises: bool = False  # whether `caption.precision` holds its weights in fewer bits
    prompt: str = ""  # what it is asked where nobody says: a card's own question
    own: Mapping[str, Any] = field(default_factory=dict)  # its settings of its own where nobody says, as its author recommends

    @property
    def place(self) -> str:
        """Where what it needs comes from, in a few words."""
        found = f"{self.size_gb:g} GB from {self.hub}" if self.hub else self.where or "works offline"
        wants = f"lorakit[{self.extra}]" if self.extra else ", ".join(self.needs)
        return found + (f"; wants {wants}" if wants else "") + (f"; key in ${self.secret}" if self.secret else "")


@dataclass(frozen=True)
class Reader:
    """A loaded captioner. `prepare` turns one RGB picture into what the model takes and runs in background threads;
    `read` takes a batch of those and gives one `RawCaption` for each, or `NoCaption` with a reason, in their order.
    `read_told`, where it can be told what taggers have found: the same with the tags of each photo."""

    prepare: Callable[[Image.Image], Any]
    read: Callable[[list[Any]], Sequence[RawCaption | NoCaption]]
    read_told: Callable[[list[Any], Sequence[Sequence[str]]], Sequence[RawCaption | NoCaption]] | None = None

    def __call__(self, pictures: list[Image.Image]) -> Sequence[RawCaption | NoCaption]:
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
        return Source(str(local_folder(given, "" if card.any_folder else card.marker, "--set caption.weights=")), True, card.title)
    return Source(card.hub or "", False, card.title, card.size_gb, "--set caption.weights=", otherwise, marker=card.marker)


def card_of(name: str) -> CaptionerCard:
    """What a captioner is. Raises `UnknownName` naming the nearest where there is none of this name."""
    captioner = lookup.load(lookup.CAPTIONERS, name, "caption.captioner")
    facts = lookup.facts_of(lookup.CAPTIONERS, name)
    if not facts:
        return captioner.CARD
    known = [spec.name for spec in fields(CaptionerCard)]
    for key in facts.keys() - {"read_by"}:
        if key not in known:
            raise UnknownName("key", key, known, f"the card of captioner {name}")
    said = {key: tuple(value) if isinstance(value, list) else value for key, value in facts.items() if key != "read_by"}
    return replace(captioner.CARD, **said)


def as_card_says(name: str, card: CaptionerCard, settings: Caption) -> Caption:
    """The settings, completed where they are silent by what the captioner's card asks and recommends."""
    if card.prompt and settings.question is None:
        settings = replace(settings, prompt=card.prompt)
    section = lookup.plugin_of(lookup.CAPTIONERS, name)
    own = getattr(settings, section, None)
    if card.own and is_dataclass(own) and not isinstance(own, type):
        silent = {key: value for key, value in card.own.items() if getattr(own, key) is None}
        settings = replace(settings, **{section: replace(own, **silent)})
    return settings


def check_captioner(name: str, settings: Caption) -> None:
    """Before any photo is opened: is there such a captioner, are its packages, a folder that is named and its key there? Raises `LorakitError`."""
    captioner = lookup.load(lookup.CAPTIONERS, name, "caption.captioner")
    card = card_of(name)
    if missing := [package for package in card.needs if find_spec(package) is None]:
        how = f'`pip install "lorakit[{card.extra}]"`' if card.extra else f"`pip install {' '.join(missing)}`"
        raise LorakitError(f"captioner {name}: wants {', '.join(missing)}; {how}, or choose another of `lorakit captioners`")
    if card.secret:
        secret_of(card)
    if card.quantises and settings.precision == "nf4":
        _check_nf4()
    if hasattr(captioner, "check"):
        captioner.check(settings)
    source_of(card, settings.weights)  # a folder that is named must be one; whether the hub can be reached shows when it is asked


def check_readers(settings: Caption) -> None:
    """The same of all captioners that are to read the photos, and that what they are asked can be asked. Raises `LorakitError`."""
    names = [name for name, _ in settings.readers]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise LorakitError(f"caption.captioners: {twice} stands in it twice; each captioner reads a photo once")
    for name, weights in settings.readers:
        check_captioner(name, replace(settings, weights=weights))
    if "{tags}" in (settings.question or "") and len(names) == 1:
        raise LorakitError(
            "caption.prompt asks with {tags}, and no tagger reads before: --captioner wd_tagger,qwen3_vl lets one captioner tell the next"
        )


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


def load_model(source: Source, device: str, precision: str = "bf16") -> tuple[Any, Any]:
    """(model, processor) of an image-to-text model; bf16 (on older cards fp16) on CUDA, else fp32; its layers in int8 or NF4 where
    `precision` says so, or the card's memory does. Remote code is never run."""
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
    held = held_as(precision, source, free_gb(device) if device.startswith("cuda") else None)
    if held != "bf16":
        from lorakit.bases.quantised import replace_layers

        replace_layers(model, held, dtype)
    return model.to(device).eval(), processor


SHARES = {"bf16": 1.0, "int8": 0.56, "nf4": 0.34}  # of the weights' GB, with embeddings and norms that stay as they are
BESIDE_WEIGHTS = 1.5  # GB for one photo and what torch keeps


def in_memory(card: CaptionerCard) -> str:
    """'about 10 GB of a card, 6 in int8, 5 in nf4': an estimate by the size of the files; '' where none is held."""
    if not card.quantises:
        return ""
    whole, *fewer = [f"{card.size_gb * share + BESIDE_WEIGHTS:.0f}" for share in SHARES.values()]
    return f"about {whole} GB of a card" + "".join(f", {gb} in {name}" for name, gb in zip(list(SHARES)[1:], fewer, strict=True))


def held_as(precision: str, source: Source, free: float | None) -> str:
    """bf16, int8 or nf4: what is asked for, else the first that fits into `free` GB of a card. An estimate by the size of the files."""
    if precision != "auto" or free is None:
        return "bf16" if precision == "auto" else precision
    whole = source.size_gb or sum(path.stat().st_size for path in Path(source.location).glob("*.safetensors")) / 1e9
    known = [name for name in SHARES if name != "nf4" or find_spec("bitsandbytes")]
    held = next((name for name in known if whole * SHARES[name] + BESIDE_WEIGHTS <= free), known[-1])
    if held != "bf16":
        say(
            f"caption   {whole:.1f} GB of weights and {free:.1f} GB free: they are held in {held} (--set caption.precision=bf16 holds them as they are)"
        )
    return held


def _check_nf4() -> None:
    if find_spec("bitsandbytes") is None:
        raise LorakitError('caption.precision = nf4 needs bitsandbytes: pip install "lorakit[4bit]"; or take int8, which needs nothing')


def pixels_of(processor: Any) -> Callable[[Image.Image], Any]:
    """A `prepare` for models that see every picture at one size: RGB picture -> [3, height, width] tensor."""

    def prepare(picture: Image.Image):
        return processor.image_processor(images=[picture], return_tensors="pt")["pixel_values"][0]

    return prepare


ONE_SENTENCE = 75  # tokens that a captioner of one sentence may write where nobody says; it ends by itself long before


def written_texts(model: Any, processor: Any, ids: Any, most: int) -> list[tuple[str, bool]]:
    """(text, whether it was stopped) of generated token ids [n, length]; one that was stopped by the limit of `most` new tokens, and so
    in the middle of a phrase or a word, ends where its last phrase does."""
    texts = processor.batch_decode(ids, skip_special_tokens=True)
    cut = are_cut(model, processor, ids, most)
    return [(without_loose_end(text) if is_cut else text, is_cut) for text, is_cut in zip(texts, cut, strict=True)]


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
