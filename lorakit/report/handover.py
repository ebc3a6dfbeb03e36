"""The curated set and its settings for another trainer: a folder that stands by itself, so that nobody is locked in."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections import defaultdict
from pathlib import Path
from types import ModuleType

from PIL import Image

from lorakit import files, lookup
from lorakit.console import typed
from lorakit.errors import LorakitError
from lorakit.project import Project
from lorakit.record import Record
from lorakit.report.trainers.base import Handover, Subset

# What people call the trainers; kohya's own windows and OneTrainer-like front ends run sd-scripts.
ALSO_CALLED = {
    "kohya": "sd-scripts",
    "kohya-ss": "sd-scripts",
    "sdscripts": "sd-scripts",
    "ostris": "ai-toolkit",
    "aitoolkit": "ai-toolkit",
}


def hand_over(project: Project, trainer: str, out: Path | None = None) -> Path:
    """Write the pictures, texts and masks, the trainer's own settings and a README into `handover/<trainer>/` of the project,
    or into `out`. All paths in it are relative, but for weights of the user's own: it may be carried to another machine.
    Returns the folder.

    Raises `UnknownName` for a trainer, and `LorakitError` when there is no dataset yet or `out` is not empty."""
    module = lookup.load(lookup.TRAINERS, ALSO_CALLED.get(trainer.replace("_", "-").lower(), trainer).replace("-", "_"))
    photos = [record for record in project.manifest.selected if record.get("dataset")]
    if not photos:
        raise LorakitError(
            f"{project.folder}: no dataset yet to hand over; `lorakit run -o {typed(project.folder)} --until dataset` writes it"
        )
    its_words = lookup.constant(lookup.FAMILIES, project.card.family, "OTHER_TRAINERS", {})
    if name_of(module) not in its_words:
        raise LorakitError(f"{module.TITLE}: nothing is known here of how it trains {project.card.title} (family {project.card.family})")
    if out and out.exists() and (out.is_file() or any(out.iterdir())):
        raise LorakitError(f"{out}: not empty; choose a new or an empty folder for -o")
    folder = out or project.folder / "handover" / module.TITLE

    def fill(part: Path) -> None:
        copy = _copy_flat if module.TITLE == "diffusers" else _copy_by_repeats
        subsets = copy(project, photos, part)
        name = project.settings.export.name or _plain(f"{project.trigger or project.kind.name}_{project.card.name}")
        steps = project.settings.train.planned_steps(len(photos))
        handover = Handover(project, tuple(subsets), steps, name, its_words[name_of(module)])
        words = module.write(handover, part)
        missing = left_out(project, module.carried(project.settings.train, handover.words))
        files.write_text(part / "README.md", _readme(project, module, words, missing))

    files.write_folder(folder, fill)
    return folder


def name_of(module: ModuleType) -> str:
    """By which a family's file knows a trainer: the name of its own file."""
    return module.__name__.rpartition(".")[2]


def _plain(words: str) -> str:
    """A name that may stand in a path."""
    return re.sub(r"[^\w.-]+", "_", words).strip("._") or "lora"


def _copy_by_repeats(project: Project, photos: list[Record], part: Path) -> list[Subset]:
    """`images/2_zwx/` with what is to be repeated twice: kohya's way to name it; masks under the same names."""
    groups: dict[int, list[Record]] = defaultdict(list)
    for record in photos:
        groups[record.get("repeats", 1)].append(record)
    subsets, masked = [], project.settings.train.masked_loss
    for repeats, records in sorted(groups.items()):
        name = f"{repeats}_{_plain(project.trigger or project.kind.name)}"
        for record in records:
            picture = part / "images" / name / record["dataset"]["file"]
            _copy_picture(project, record, picture)
            if masked:
                _copy_mask(project, record, (part / "masks" / name / picture.name).with_suffix(".png"), picture)
        subsets.append(Subset(f"images/{name}", repeats, f"masks/{name}" if masked else None))
    folder = project.settings.train.regularisation
    if folder:
        shutil.copytree(Path(folder).expanduser(), part / "regularisation", ignore=shutil.ignore_patterns(".*"))
        subsets.append(Subset("regularisation", 1, is_regularisation=True))
    return subsets


def _copy_flat(project: Project, photos: list[Record], part: Path) -> list[Subset]:
    """`images/` with metadata.jsonl, as `datasets` reads it; what is repeated more often than the rest stands there more often."""
    least, lines = min(record.get("repeats", 1) for record in photos), []
    for record in photos:
        for number in range(round(record.get("repeats", 1) / least)):
            path = Path(record["dataset"]["file"])
            name = path.name if not number else f"{path.stem}.{number + 1}{path.suffix}"
            _copy_picture(project, record, part / "images" / name, with_text=False)
            lines.append(json.dumps({"file_name": name, "text": record["text"]}))
    files.write_text(part / "images" / "metadata.jsonl", "".join(f"{line}\n" for line in lines))
    return [Subset("images", least)]


def _copy_picture(project: Project, record: Record, to: Path, with_text: bool = True) -> None:
    source = project.dataset_folder / record["dataset"]["file"]
    if not source.is_file():
        raise LorakitError(f"{source}: gone from the dataset; `lorakit run -o {typed(project.folder)}` writes it again")
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, to)
    if with_text:
        files.write_text(to.with_suffix(".txt"), record["text"] + "\n")


def _copy_mask(project: Project, record: Record, to: Path, picture: Path) -> None:
    """A photo without a mask is learned whole: other trainers want a white one for it."""
    to.parent.mkdir(parents=True, exist_ok=True)
    if mask := (record["dataset"] or {}).get("mask"):
        shutil.copyfile(project.masks_folder / mask, to)
        return
    with Image.open(picture) as image:
        Image.new("L", image.size, 255).save(to)


def left_out(project: Project, carried: set[str]) -> list[str]:
    """The `train` settings that are not lorakit's defaults and that the other trainer does not get."""
    train = project.settings.train
    fields = [field for field in dataclasses.fields(train) if field.name not in carried]
    return [f"train.{field.name} = {value}" for field in fields if (value := getattr(train, field.name)) != field.default]


def _readme(project: Project, module, words: list[str], missing: list[str]) -> str:
    command, _, rest = "\n".join(words).partition("\n\n")
    return "\n".join([
        f"# For {module.TITLE}", "",
        f"{project.kind.title} LoRA for {project.card.title}, from lorakit. Begin it in this folder:", "",
        "```", command, "```", "", *([rest, ""] if rest else []),
        *(["These settings have no like in it, and were left out:", "", *(f"- {line}" for line in missing), ""] if missing else []),
        "The pictures are cut to their buckets' sizes already, and the texts hold the trigger.", "",
    ])  # fmt: skip
