"""Stage caption: reads what is to be seen in each selected photo, as it will be trained: upright and cropped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from lorakit import device, lookup
from lorakit.ahead import ahead
from lorakit.caption import pixels
from lorakit.caption.captioners.base import CaptionerCard, NoCaption, Reader, check_captioner, no_words, source_of
from lorakit.console import progress, say, warn
from lorakit.errors import LorakitError, UnreadablePhoto, WeightsMissing
from lorakit.photos.images import load_crop_to_read
from lorakit.project import Project, manifest, stamps
from lorakit.record import Caption, Pixels, Record, sidecar_of
from lorakit.text.composing import RawCaption

ON_CPU = 8  # photos at once, from where more gains nothing on a CPU
OFFLINE = "imagenet"  # the captioner whose weights come with lorakit
BY_A_PERSON = ("command line", "project.yaml")  # layers of settings
LARGEST = 64  # the same on a GPU; and results come onto the disk as a batch ends
Job = tuple[Record, Any, Pixels | None]  # a record; what `Reader.prepare` made of its crop or an `UnreadablePhoto`; its pixels
Found = tuple[Record, RawCaption | NoCaption | UnreadablePhoto, Pixels | None]


def caption(project: Project) -> None:
    """Give every selected photo `caption` = {"sentence", "tags", "by", "own", "box", "beside", "pixels"}.

    `own` when the words are those beside the photo, which `caption.existing` = keep leaves as they are; with append or
    prepend they stand in `beside` and what was read joins them. `pixels` is what was measured in the crop, against which
    the words are held. What a captioner cannot read, or has no words for, is
    named and marked as failed; the rest goes on. Raises `LorakitError` when no photo has a caption.
    """
    chosen = project.manifest.selected
    wanted = {r["id"]: stamps.caption(project, r) for r in chosen}
    todo = [r for r in chosen if r.get("done", {}).get("caption") != wanted[r["id"]]]
    keep = project.settings.caption.existing == "keep"
    own = [r for r in todo if keep and (sidecar_of(r) or {}).get("text")]
    for record, job in ahead(_measure, own):
        beside = sidecar_of(record) or {}
        words: Caption = {"sentence": beside["text"], "tags": [], "by": beside["file"], "own": True, "pixels": job.result()}
        if others := stamps.other_captions(project, record):
            words["others"] = others
        project.manifest.keep(manifest.finish(record, "caption", wanted[record["id"]], caption=words))
    _read_photos(project, [r for r in todo if r not in own])
    project.manifest.save()
    _report_missing(project)


def _read_photos(project: Project, todo: list[Record]) -> None:
    if not todo:
        return
    place = device.choose(project.device)
    try:
        reader, card = open_reader(project, place)
    except WeightsMissing as missing:
        todo = _take_offline(project, todo, missing)
        if not todo:
            return
        reader, card = open_reader(project, place)
    size = project.settings.caption.batch_size or fitting_batch(card, device.free_gb(place))
    with progress("caption", len(todo)) as shown:
        for batch in read_photos(todo, reader, size):
            project.manifest.keep(*(_result(project, *found) for found in batch))
            shown.advance(len(batch))


def open_reader(project: Project, place: str) -> tuple[Reader, CaptionerCard]:
    """The project's captioner, loaded. Raises `WeightsMissing` when its weights are neither here nor to be had."""
    settings = project.settings.caption
    check_captioner(settings.captioner, settings)
    captioner = lookup.load(lookup.CAPTIONERS, settings.captioner, "caption.captioner")
    if settings.weights and not captioner.CARD.weights:
        say(f"caption   {settings.captioner} has no weights, so caption.weights is left aside")
    return captioner.load(source_of(captioner.CARD, settings.weights), place, settings), captioner.CARD


def _take_offline(project: Project, todo: list[Record], missing: WeightsMissing) -> list[Record]:
    """Without a hub, and where nobody chose the captioner, the one that needs none reads the photos, for this run alone: the same words
    with a network caption them anew. Returns those that it has not read before. Raises `missing` where it was chosen."""
    settings = project.settings.caption
    if project.settings.origin["caption.captioner"] in BY_A_PERSON:
        raise missing
    warn(
        f"caption: the weights of {settings.captioner} are neither here nor to be had, so {OFFLINE} reads the photos, which is coarse; with a "
        "network the same command captions them anew, and --captioner chooses another"
    )
    project.settings = replace(project.settings, caption=replace(settings, captioner=OFFLINE))
    return [r for r in todo if r.get("done", {}).get("caption") != stamps.caption(project, r)]


def read_photos(records: list[Record], reader: Reader, size: int) -> Iterator[list[Found]]:
    """What is read of each photo, batch by batch. The largest come first, so that too big a batch shows at once and not
    after an hour, and pictures of one size stand together."""
    for batch in _batches(sorted(records, key=_pixels, reverse=True), size, reader.prepare):
        prepared = [found for _, found, _ in batch if not isinstance(found, UnreadablePhoto)]
        readings, size = read_in_parts(reader, prepared, size)
        waiting = iter(readings)
        yield [(record, found if measured is None else next(waiting), measured) for record, found, measured in batch]


def fitting_batch(card: CaptionerCard, free_gb: float | None) -> int:
    """Photos at once: by the card's estimate on a GPU with so much memory left, else ON_CPU."""
    return ON_CPU if free_gb is None else max(1, min(LARGEST, int(card.batch_per_gb * free_gb)))


def _pixels(record: Record) -> float:
    left, top, right, bottom = record["crop"]["box"]
    return (right - left) * (bottom - top)


def read_in_parts(reader: Reader, prepared: list, size: int) -> tuple[list[RawCaption | NoCaption], int]:
    """The readings of a batch in its order, and the part size that fitted into memory: where `size` does not, it is
    halved and the reading goes on. Raises `LorakitError` when not even one photo fits."""
    readings: list[RawCaption | NoCaption] = []
    while len(readings) < len(prepared):
        part = prepared[len(readings) : len(readings) + size]
        try:
            readings += reader.read(part)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(part) == 1:
                raise LorakitError("caption: not even one photo fits into memory; choose a smaller captioner, or --device cpu") from error
            size = len(part) // 2
            error.__traceback__ = None  # it holds on to the tensors of the batch
            _free_memory()
            say(f"caption   out of memory: going on with {size} photos at once (--set caption.batch_size={size})")
    return readings, size


def is_out_of_memory(error: Exception) -> bool:
    """Whether torch could not get memory, on whichever device."""
    words = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, (RuntimeError, MemoryError)) and (
        isinstance(error, MemoryError) or any(part in str(error).lower() for part in words)
    )


def _free_memory() -> None:
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def _result(project: Project, record: Record, found: RawCaption | NoCaption | UnreadablePhoto, measured: Pixels | None) -> Record:
    """The record with what was read, or with why nothing was."""
    settings = project.settings.caption
    if isinstance(found, UnreadablePhoto):
        return manifest.fail(record, "caption", str(found))
    if isinstance(found, NoCaption):
        return manifest.fail(record, "caption", f"{settings.captioner}: {found.reason}")
    if not found.text:
        return manifest.fail(record, "caption", f"{settings.captioner} found no words for it")
    words: Caption = {
        "sentence": found.sentence, "tags": list(found.tags), "by": settings.captioner, "own": False, "box": record["crop"]["box"],
        "pixels": measured,
    }  # fmt: skip
    if settings.existing in ("append", "prepend") and (beside := (sidecar_of(record) or {}).get("text")):
        words["beside"] = {"text": beside, "first": settings.existing == "append"}
    return manifest.finish(record, "caption", stamps.caption(project, {**record, "caption": words}), caption=words)


def _batches(records: list[Record], size: int, prepare: Callable) -> Iterator[list[Job]]:
    """Batches of photos with their prepared crops; the next two batches are made ready while one is read."""

    def make_ready(record: Record) -> Job:
        try:
            crop = load_crop_to_read(record)
            return record, prepare(crop), pixels.measure(crop)
        except UnreadablePhoto as error:
            return record, error, None

    jobs = ahead(make_ready, records, 3 * size)
    while batch := [job.result() for _, job in islice(jobs, size)]:
        yield batch


def _measure(record: Record) -> Pixels | None:
    try:
        return pixels.measure(load_crop_to_read(record))
    except UnreadablePhoto:
        return None


def _report_missing(project: Project) -> None:
    chosen = project.manifest.selected
    missing = [r for r in chosen if "caption" in r.get("failed", {})]
    for record in missing:
        warn(f"{record['file']}: no caption, left out ({record['failed']['caption']})")
    if chosen and len(missing) == len(chosen):
        raise no_words(len(chosen))
