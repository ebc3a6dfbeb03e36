"""How well each text fits its photo: the cosine of open_clip's image and text vectors. Optional, since its weights are
not part of lorakit: `--set caption.clip=FOLDER` names a folder with open_clip_config.json and the weights."""

from __future__ import annotations

from pathlib import Path

from lorakit import device
from lorakit.console import track
from lorakit.errors import LorakitError, UnreadablePhoto
from lorakit.images import load_crop_to_read
from lorakit.manifest import Record
from lorakit.project import Project
from lorakit.wording import without_word

CONFIG = "open_clip_config.json"


def measure(project: Project, records: list[Record]) -> list[Record]:
    """The records with `trigger.agreement`, -1..1, where `caption.clip` names weights; the same records where not."""
    given = project.settings.caption.clip
    if not given:
        return records
    score = load(given, device.choose(project.device))
    return [_scored(record, score, project) for record in track(records, "agreement", len(records))]


def _scored(record: Record, score, project: Project) -> Record:
    text = (
        without_word(record["text"], project.trigger) if project.trigger else record["text"]
    )  # open_clip knows no zwx
    try:
        value = score(load_crop_to_read(record), text)
    except UnreadablePhoto:
        return record
    return {**record, "trigger": {**record["trigger"], "agreement": round(value, 3)}}


def load(given: str, where: str):
    """A function (picture, text) -> cosine. Raises `LorakitError` for a folder that holds no open_clip model."""
    import open_clip
    import torch

    folder = Path(given).expanduser().resolve()
    if not (folder / CONFIG).is_file():
        raise LorakitError(
            f"caption.clip={given}: no {CONFIG} in it; give a folder as `hf download laion/CLIP-ViT-B-32-laion2B-s34B-b79K` makes it"
        )
    model, prepare = open_clip.create_model_from_pretrained(f"local-dir:{folder}", device=where)
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")

    @torch.inference_mode()
    def score(picture, text: str) -> float:
        seen = model.encode_image(prepare(picture)[None].to(where), normalize=True)
        said = model.encode_text(tokenize([text]).to(where), normalize=True)
        return float((seen * said).sum())

    return score
