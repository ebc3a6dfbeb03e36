"""Taggers: booru tags for drawn pictures, read with onnxruntime (`pip install "lorakit[onnx]"`). WD where none is named; others are
known by their files, and the usual ones have cards in this folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorakit.caption.captioners.base import CaptionerCard, Reader
from lorakit.caption.tagger_files import CATEGORIES, Tag, TaggerFiles, find_files, output_of, sight_of
from lorakit.console import say
from lorakit.errors import LorakitError
from lorakit.settings import Caption, setting
from lorakit.text.answers import NoCaption
from lorakit.text.composing import RawCaption
from lorakit.text.words import COUNT_TAG, spaced_tag
from lorakit.weights import Source, hub_errors_in_words

if TYPE_CHECKING:
    import numpy as np

CARD = CaptionerCard(
    title="WD EVA02-Large tagger v3",
    writes="tags",
    licence="Apache-2.0",
    hub="SmilingWolf/wd-eva02-large-tagger-v3",
    size_gb=1.3,
    batch_per_gb=4,
    marker="selected_tags.csv",
    any_folder=True,
    note="for illustration and anime: hundreds of Danbooru tags",
    needs=("onnxruntime",),
    extra="onnx",
)
# Of a repository of the hub these are fetched, in the folder of the card's marker.
PATTERNS = ("model.onnx", "model.onnx*data", "*.csv", "*.json")
USUAL = {"general": 0.35, "character": 0.85}  # as the author of WD recommends, where neither a file nor a card nor a person says
NAMES = ("character", "copyright", "artist")  # categories that are names: a wrong one is worse than none
WRITTEN = ("general", "character", "copyright", "species")


NO_NUMBERS = "the tagger's answer is no number (NaN), which half precision brings about; take its float32 model"


def _why_no_categories(value: tuple[str, ...]) -> str | None:
    wrong = next((name for name in value if name not in CATEGORIES), None)
    return f"has {wrong!r}, and there are {', '.join(CATEGORIES)}" if wrong else None


def _why_no_table(value: tuple[str, ...]) -> str | None:
    for entry in value:
        name, _, number = entry.partition("=")
        if name not in CATEGORIES:
            return f"has {name!r}, and there are {', '.join(CATEGORIES)}"
        try:
            if not 0 <= float(number) <= 1:
                return f"gives {name} a threshold outside of 0..1"
        except ValueError:
            return f"gives {name} no number"
    return None


@dataclass(frozen=True)
class Settings:
    threshold: float | None = setting(
        None, "probability from which a tag is written; empty: as the model's files say, else 0.35", least=0.0, most=1.0, neutral=None
    )
    character_threshold: float | None = setting(
        None,
        "the same for names of characters, series and artists; empty: as the model's files say, else 0.85",
        least=0.0,
        most=1.0,
        neutral=None,
    )
    thresholds: tuple[str, ...] = setting((), "the same by category: {copyright: 0.6, artist: 0.7}", neutral=(), why_not=_why_no_table)
    categories: tuple[str, ...] = setting(
        WRITTEN,
        f"which tags are written, of {', '.join(CATEGORIES)}; of rating and quality the surest one",
        neutral=WRITTEN,
        why_not=_why_no_categories,
    )


def load(source: Source, device: str, settings: Caption) -> Reader:
    import numpy as np

    own = getattr(settings, "wd_tagger", None) or Settings()
    files = find_files(_folder(source))
    if files.model.suffix == ".safetensors":
        from lorakit.caption.timm_tagger import open_timm

        sight, predict = open_timm(files, device)
        return Reader(
            sight.prepare, lambda batch: [RawCaption(tags=choose(row, files, own)) for row in predict(np.stack([one for one, _ in batch]))]
        )
    if not any(tag.category in own.categories for tag in files.tags if tag.name):
        there = ", ".join(sorted({tag.category for tag in files.tags if tag.name}))
        raise LorakitError(
            f"{files.model.parent / files.list_name}: its tags are of the categories {there}, of which caption.wd_tagger.categories writes none"
        )
    session = _open(files, device)
    entries = session.get_inputs()
    entry = next((one for one in entries if len(one.shape) == 4), entries[0])
    sight = sight_of(files, entry.shape, entry.type)
    masks = {
        one.name: {"tensor(bool)": "bool", "tensor(int64)": "int64"}.get(one.type, "float32") for one in entries if one.name != entry.name
    }
    if unknown := [name for name in masks if "mask" not in name]:
        raise LorakitError(f"{files.model}: wants {', '.join(unknown)} besides a picture, so it is no tagger")
    output = output_of(files, [(one.name, one.shape) for one in session.get_outputs()])
    most = entry.shape[0] if isinstance(entry.shape[0], int) and entry.shape[0] > 0 else None  # some take no more at once
    to_probability = _ToProbability(output)

    def read(batch: list[tuple[np.ndarray, np.ndarray]]) -> list[RawCaption | NoCaption]:
        readings: list[RawCaption | NoCaption] = []
        for first in range(0, len(batch), most or len(batch)):
            part = batch[first : first + (most or len(batch))]
            filled = part + part[-1:] * ((most or len(part)) - len(part))
            inputs: dict[str, Any] = {entry.name: np.stack([pixels for pixels, _ in filled])}
            inputs |= {name: np.stack([mask for _, mask in filled]).astype(kind) for name, kind in masks.items()}
            chances = to_probability(_run(session, output, inputs, files).astype(np.float32).reshape(len(filled), -1)[: len(part)])
            if chances.shape[-1] != len(files.tags):
                raise LorakitError(
                    f"{files.model}: answers with {chances.shape[-1]} numbers, {files.list_name} names {len(files.tags)}; take both from one place"
                )
            readings += [RawCaption(tags=choose(row, files, own)) if np.isfinite(row).all() else NoCaption(NO_NUMBERS) for row in chances]
        return readings

    return Reader(sight.prepare, read)


def _run(session: Any, output: str, inputs: dict[str, Any], files: TaggerFiles) -> np.ndarray:
    import numpy as np
    from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

    try:
        return np.asarray(session.run([output], inputs)[0])
    except InvalidArgument as error:
        raise LorakitError(
            f"{files.model}: cannot read a picture, so it is no tagger that is known here ({' '.join(str(error).split())[:200]})"
        ) from error


class _ToProbability:
    """Some models answer with probabilities and some with what a sigmoid makes of them: known by their name, or from the first number
    that is no probability on."""

    def __init__(self, output: str):
        self.is_logits = "logit" in output.lower()

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        import numpy as np

        self.is_logits = self.is_logits or bool((numbers < -0.001).any() or (numbers > 1.001).any())  # of NaN both are false
        return 1 / (1 + np.exp(-np.clip(numbers, -60, 60))) if self.is_logits else numbers


def _open(files: TaggerFiles, device: str) -> Any:
    if find_spec("onnxruntime") is None:
        raise LorakitError(f'{files.model}: wants onnxruntime; `pip install "lorakit[onnx]"`')
    import onnxruntime

    there = onnxruntime.get_available_providers()
    wanted = ["CUDAExecutionProvider"] if device.startswith("cuda") else []
    if wanted and wanted[0] not in there:
        say("caption   this onnxruntime has no CUDA, so the tagger runs on the CPU (pip install onnxruntime-gpu in place of onnxruntime)")
    try:
        return onnxruntime.InferenceSession(
            str(files.model), providers=[*(name for name in wanted if name in there), "CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's errors have no base of their own
        line = " ".join(str(error).split())
        if "external data" in line.lower() or ".data" in line:
            line = f"a file of its weights, {files.model.name}.data, is missing beside it"
        raise LorakitError(f"{files.model}: cannot be loaded ({line[:200]})") from error


def _folder(source: Source) -> Path:
    if source.is_local:
        return Path(source.location)
    from huggingface_hub import snapshot_download

    inside = Path(source.marker).parent.as_posix()
    wanted = (*PATTERNS, f"{Path(source.location).name}.onnx", *(["*.safetensors"] if Path(source.marker).name == "tags.json" else []))
    patterns = [f"{inside}/{pattern}" if inside != "." else pattern for pattern in wanted]
    with hub_errors_in_words(source):
        return Path(snapshot_download(source.location, allow_patterns=patterns)) / inside


def choose(chances: np.ndarray, files: TaggerFiles, settings: Settings = Settings()) -> tuple[str, ...]:  # noqa: B008  frozen
    """The tags from their threshold on: how many there are, who they are and from what, then the others, the surest first."""
    sure: dict[str, list[tuple[float, str]]] = {category: [] for category in settings.categories}
    for probability, tag in zip(chances, files.tags, strict=True):
        if tag.category in sure and tag.name and (_is_one_of(tag.category) or probability >= threshold_of(tag, files, settings)):
            sure[tag.category].append((float(probability), tag.name))
    found = [
        (category, name) for category, ones in sure.items() for _, name in sorted(ones, reverse=True)[: 1 if _is_one_of(category) else None]
    ]
    order = {"character": 1, "copyright": 2, "artist": 3, "general": 4, "species": 4}
    surest = {name: -chance for ones in sure.values() for chance, name in ones}
    found.sort(key=lambda one: (0 if COUNT_TAG.fullmatch(one[1]) else order.get(one[0], 5), surest[one[1]]))
    return tuple(re.sub(r",\s*", " ", spaced_tag(name)).strip() or name for _, name in found)  # a comma would make two tags of one


def _is_one_of(category: str) -> bool:
    return category in ("rating", "quality")


def threshold_of(tag: Tag, files: TaggerFiles, settings: Settings) -> float:
    """A person's word for the category, then the author's for the tag and the category, then the usual."""
    table = dict(entry.split("=", 1) for entry in settings.thresholds)
    if tag.category in table:
        return float(table[tag.category])
    is_name = tag.category in NAMES
    given = settings.character_threshold if is_name else settings.threshold
    if given is not None:
        return given
    if tag.threshold is not None:
        return tag.threshold
    of_file = files.thresholds.get(tag.category, files.thresholds.get("character" if is_name else "general"))
    return of_file if of_file is not None else USUAL["character" if is_name else "general"]
