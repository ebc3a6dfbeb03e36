"""Stage caption: reads what is to be seen in each selected photo, as it will be trained: upright and cropped."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from lorakit import device, lookup, manifest, stamps
from lorakit.caption.captioners.base import source_of
from lorakit.console import progress, warn
from lorakit.errors import LorakitError, UnreadablePhoto
from lorakit.images import load_crop_to_read
from lorakit.manifest import Record
from lorakit.project import Project

Job = tuple[Record, Image.Image | UnreadablePhoto]


def caption(project: Project) -> None:
    """Give every selected photo `caption` = {"sentence", "tags", "by", "own"}; `own` when the words are the user's.

    Captions beside the photos are kept unless `caption.existing` is replace. What a captioner cannot read, or has no
    words for, is named and marked as failed; the rest goes on. Raises `LorakitError` when no photo has a caption.
    """
    chosen = project.manifest.selected
    wanted = {r["id"]: stamps.caption(project, r) for r in chosen}
    todo = [r for r in chosen if r.get("done", {}).get("caption") != wanted[r["id"]]]
    keep = project.settings.caption.existing == "keep"
    own = [r for r in todo if keep and r.get("sidecar", {}).get("text")]
    for record in own:
        words = {"sentence": record["sidecar"]["text"], "tags": [], "by": record["sidecar"]["file"], "own": True}
        project.manifest.keep(manifest.finish(record, "caption", wanted[record["id"]], caption=words))
    _read_photos(project, [r for r in todo if r not in own], wanted)
    project.manifest.save()
    _report_missing(project)


def _read_photos(project: Project, todo: list[Record], wanted: dict[str, str]) -> None:
    if not todo:
        return
    settings = project.settings.caption
    captioner = lookup.load(lookup.CAPTIONERS, settings.captioner, "caption.captioner")
    read = captioner.load(source_of(captioner.CARD, settings.weights), device.choose(project.device))
    with progress("caption", len(todo)) as shown:
        for batch in _batches(todo, settings.batch_size):
            readable = [(r, p) for r, p in batch if isinstance(p, Image.Image)]
            readings = read([picture for _, picture in readable], settings.max_tokens) if readable else []
            for (record, _), reading in zip(readable, readings, strict=True):
                words = {"sentence": reading.sentence, "tags": list(reading.tags), "by": settings.captioner, "own": False}
                found = manifest.finish(record, "caption", wanted[record["id"]], caption=words)
                missing = f"{settings.captioner} found no words for it"
                project.manifest.keep(found if reading.text else manifest.fail(record, "caption", missing))
            for record, error in batch:
                if isinstance(error, UnreadablePhoto):
                    project.manifest.keep(manifest.fail(record, "caption", str(error)))
            shown.advance(len(batch))


def _batches(records: list[Record], size: int) -> Iterator[list[Job]]:
    """Batches of photos with their crops; the next batch is decoded while this one is captioned."""

    def decode(record: Record) -> Job:
        try:
            return record, load_crop_to_read(record)
        except UnreadablePhoto as error:
            return record, error

    parts = [records[start : start + size] for start in range(0, len(records), size)]
    with ThreadPoolExecutor(2) as pool:
        ahead = [pool.submit(decode, r) for r in parts[0]]
        for number in range(len(parts)):
            ready, ahead = ahead, []
            if number + 1 < len(parts):
                ahead = [pool.submit(decode, r) for r in parts[number + 1]]
            yield [job.result() for job in ready]


def _report_missing(project: Project) -> None:
    chosen = project.manifest.selected
    missing = [r for r in chosen if "caption" in r.get("failed", {})]
    for record in missing:
        warn(f"{record['file']}: no caption, left out ({record['failed']['caption']})")
    if chosen and len(missing) == len(chosen):
        raise LorakitError(
            f"none of {len(chosen)} photos has a caption; put photo.txt beside each photo, or choose a captioner that "
            "writes them: --captioner imagenet works offline, `lorakit captioners` lists all"
        )
