"""Stage dataset: writes the curated folder, `dataset/`: upright crops, their texts and metadata.jsonl, ready for any
trainer and for `datasets.load_dataset("imagefolder", data_dir=...)`; and beside it `masks/`, where masks are asked for."""

from __future__ import annotations

import io
import json
import re
from functools import partial
from pathlib import Path

from PIL import Image

from lorakit import files
from lorakit.console import track, warn
from lorakit.errors import UnreadablePhoto
from lorakit.photos.images import load_crop, load_mask_crop
from lorakit.project import Project, manifest, stamps
from lorakit.record import Record

LONGEST = 180  # bytes of a name in dataset/; 255 is what most file systems take


def dataset(project: Project) -> None:
    """Write `photo.png` (or jpg) and `photo.txt` for every selected photo that has a text, and `metadata.jsonl`.

    Names never collide, also where upper and lower case are the same. What lorakit wrote for photos that are no longer
    chosen is removed from `dataset/`; the photos themselves are never touched.
    """
    project.dataset_folder.mkdir(exist_ok=True)
    chosen = [r for r in project.manifest.selected if r.get("text") is not None and "trigger" in r.get("done", {})]
    _clear_dropped(project, {r["id"] for r in chosen})  # first: of a photo that was replaced, the new one takes the name
    names = give_names(chosen)
    todo = [r for r in chosen if not _is_written(project, r, names[r["id"]])]
    cut = partial(cut_all, ending=project.settings.dataset.format, masked=project.settings.train.masked_loss)
    for record, found in track(project.engine.each(cut, todo), "dataset", len(todo)):
        if isinstance(found, UnreadablePhoto):
            warn(f"{record['file']}: left out of the dataset ({found})")
            project.manifest.keep(manifest.fail(_taken_out(project, record), "dataset", str(found)))
        else:
            project.manifest.keep(_write(project, record, names[record["id"]], *found))
    _write_metadata(project)
    project.manifest.save()


def _is_written(project: Project, record: Record, name: str) -> bool:
    found = record.get("dataset")
    if not found or record["done"].get("dataset") != stamps.dataset(project, record) or Path(found["file"]).stem != name:
        return False
    picture = project.dataset_folder / found["file"]
    if found.get("mask") and not (project.masks_folder / found["mask"]).is_file():
        return False
    return picture.is_file() and picture.with_suffix(".txt").is_file()


def cut_all(records: list[Record], ending: str, masked: bool) -> list[tuple[bytes, bytes | None] | UnreadablePhoto]:
    """(the crop, its mask) of each photo as the files that are to be written."""
    return [_cut(record, ending, masked) for record in records]


def _cut(record: Record, ending: str, masked: bool) -> tuple[bytes, bytes | None] | UnreadablePhoto:
    try:
        picture, mask = load_crop(record), load_mask_crop(record) if masked else None
    except UnreadablePhoto as error:
        return error
    return _encoded(picture, ending), _encoded(mask) if mask else None


def _encoded(picture: Image.Image, ending: str = "") -> bytes:
    buffer = io.BytesIO()
    if ending == "jpg":
        picture.save(buffer, "JPEG", quality=95, subsampling=0)
    else:
        picture.save(buffer, "PNG", **({"compress_level": 4} if ending else {}))
    return buffer.getvalue()


def _write(project: Project, record: Record, name: str, picture: bytes, mask: bytes | None) -> Record:
    path = project.dataset_folder / f"{name}.{project.settings.dataset.format}"
    former = record["dataset"]["file"] if record.get("dataset") else path.name
    if former != path.name and Path(former).stem == name:  # else it is another photo's by now
        _remove(project, former)
    files.write_whole(path, lambda part: part.write_bytes(picture))
    files.write_text(path.with_suffix(".txt"), record["text"] + "\n")
    found = {"file": path.name, "text": record["text"]}
    if mask:
        found["mask"] = f"{name}.png"
        project.masks_folder.mkdir(exist_ok=True)
        files.write_whole(project.masks_folder / found["mask"], lambda part: part.write_bytes(mask))
    else:
        (project.masks_folder / f"{name}.png").unlink(missing_ok=True)
    return manifest.finish(record, "dataset", stamps.dataset(project, record), dataset=found)


def give_names(records: list[Record]) -> dict[str, str]:
    """{id: file name without ending}, no two alike whatever their case: a.jpg and a.png become a and a_2. A photo that
    was written before keeps its name; of several with one, in a book that was edited by hand, the first."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for record in records:
        if record.get("dataset") and (name := Path(record["dataset"]["file"]).stem).lower() not in taken:
            names[record["id"]] = name
            taken.add(name.lower())
    for record in records:
        if record["id"] in names:
            continue
        plain = re.sub(r"[^\w.-]+", "_", Path(record["file"]).with_suffix("").as_posix().replace("/", "_")).strip("._")
        plain = files.short_name(plain or "photo", LONGEST)
        name, number = plain, 1
        while name.lower() in taken:
            number += 1
            name = f"{plain}_{number}"
        taken.add(name.lower())
        names[record["id"]] = name
    return names


def _clear_dropped(project: Project, chosen: set[str]) -> None:
    """Remove the dataset files of photos that are no longer chosen. Files that lorakit did not write stay."""
    for record in project.manifest.everything():
        if record.get("dataset") and record["id"] not in chosen:
            project.manifest.keep(_taken_out(project, record))


def _taken_out(project: Project, record: Record) -> Record:
    """The record without the files that were written for it, which are removed: a training takes all that has some."""
    if not record.get("dataset"):
        return record
    _remove(project, record["dataset"]["file"])
    return {**record, "dataset": None, "done": {stage: stamp for stage, stamp in record["done"].items() if stage != "dataset"}}


def _remove(project: Project, name: str) -> None:
    path = project.dataset_folder / name
    path.unlink(missing_ok=True)
    path.with_suffix(".txt").unlink(missing_ok=True)
    (project.masks_folder / f"{path.stem}.png").unlink(missing_ok=True)


def _write_metadata(project: Project) -> None:
    lines = [
        json.dumps(
            {"file_name": r["dataset"]["file"], "text": r["dataset"]["text"], "source": r["file"]}
            | ({"readings": r["readings"]} if r.get("readings") else {}),
            ensure_ascii=True,
        )
        for r in project.manifest
        if r.get("dataset")
    ]
    files.write_text(project.dataset_folder / "metadata.jsonl", "".join(line + "\n" for line in lines))
