"""WD tagger: Danbooru tags for drawn pictures, read with onnxruntime (`pip install "lorakit[onnx]"`)."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lorakit.caption.captioners.base import CaptionerCard, Reader
from lorakit.errors import LorakitError
from lorakit.settings import Caption, setting
from lorakit.text.composing import RawCaption
from lorakit.weights import Source, hub_errors_in_words

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

MARKER = "selected_tags.csv"
CARD = CaptionerCard(
    title="WD EVA02-Large tagger v3",
    writes="tags",
    licence="Apache-2.0",
    hub="SmilingWolf/wd-eva02-large-tagger-v3",
    size_gb=1.3,
    batch_per_gb=4,
    marker=MARKER,
    note="for illustration and anime: hundreds of Danbooru tags",
    needs=("onnxruntime",),
    extra="onnx",
)
GENERAL, CHARACTER = "0", "4"  # the categories of selected_tags.csv; ratings (9) are left out
FACES = frozenset(
    {
        "0_0",
        "(o)_(o)",
        "+_+",
        "+_-",
        "._.",
        "<o>_<o>",
        "<|>_<|>",
        "=_=",
        ">_<",
        "3_3",
        "6_9",
        ">_o",
        "@_@",
        "^_^",
        "o_o",
        "u_u",
        "x_x",
        "|_|",
        "||_||",
    }
)


@dataclass(frozen=True)
class Settings:
    threshold: float = setting(
        0.35, "probability from which a general tag is written, as its author recommends", least=0.0, most=1.0, neutral=0.35
    )
    character_threshold: float = setting(0.85, "the same for names of characters", least=0.0, most=1.0, neutral=0.85)


def load(source: Source, device: str, settings: Caption) -> Reader:
    import numpy as np
    import onnxruntime

    own = getattr(settings, "wd_tagger", None) or Settings()
    folder = _folder(source)
    wanted = ["CUDAExecutionProvider"] if device.startswith("cuda") else []
    there = [name for name in wanted if name in onnxruntime.get_available_providers()]
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=[*there, "CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    names = read_names(folder / MARKER)
    side = entry.shape[1]
    written = session.get_outputs()[0].shape[-1]
    if isinstance(written, int) and written != len(names):
        raise LorakitError(f"{folder}: model.onnx answers with {written} numbers, {MARKER} names {len(names)}; take both from one place")

    def read(batch: list[np.ndarray]) -> list[RawCaption]:
        chances = np.asarray(session.run(None, {entry.name: np.stack(batch)})[0])
        return [RawCaption(tags=choose(row, names, own)) for row in chances]

    return Reader(lambda picture: prepare(picture, side), read)


def _folder(source: Source) -> Path:
    if source.is_local:
        return Path(source.location)
    from huggingface_hub import hf_hub_download

    with hub_errors_in_words(source):
        hf_hub_download(source.location, MARKER)
        return Path(hf_hub_download(source.location, "model.onnx")).parent


def read_names(path: Path) -> list[tuple[str, str]]:
    """[(tag in words, category)] in the order of the model's outputs."""
    with open(path, encoding="utf-8", newline="") as file:
        return [(plain_tag(row["name"]), row["category"]) for row in csv.DictReader(file)]


def plain_tag(name: str) -> str:
    """'long_hair' -> 'long hair'; faces such as ^_^ stay."""
    return name if name in FACES else name.replace("_", " ")


def prepare(picture: Image.Image, side: int) -> np.ndarray:
    """[side, side, 3] float32 BGR in 0..255, the picture on a white square, as the tagger was trained."""
    import numpy as np
    from PIL import Image

    longest = max(picture.size)
    square = Image.new("RGB", (longest, longest), (255, 255, 255))
    square.paste(picture, ((longest - picture.width) // 2, (longest - picture.height) // 2))
    sized = square.resize((side, side), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(sized, dtype=np.float32)[:, :, ::-1])


def choose(chances: np.ndarray, names: list[tuple[str, str]], settings: Settings = Settings()) -> tuple[str, ...]:  # noqa: B008  frozen
    """The tags above their category's threshold, the surest first."""
    least = {GENERAL: settings.threshold, CHARACTER: settings.character_threshold}
    sure = [
        (float(probability), name) for probability, (name, kind) in zip(chances, names, strict=True) if probability >= least.get(kind, 2.0)
    ]
    return tuple(name for _, name in sorted(sure, reverse=True))
