"""Stage caption: reads what is to be seen in each selected photo, as it will be trained: upright and cropped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from lorakit import device, lookup
from lorakit.ahead import ahead
from lorakit.caption import pixels
from lorakit.caption.captioners.base import (
    CaptionerCard,
    NoCaption,
    Reader,
    as_card_says,
    card_of,
    check_readers,
    no_words,
    source_of,
)  # fmt: skip
from lorakit.caption.readings import Readings
from lorakit.console import progress, say, warn
from lorakit.errors import LorakitError, UnreadablePhoto, WeightsMissing
from lorakit.photos.images import load_crop_to_read
from lorakit.project import Project, manifest, stamps
from lorakit.record import Caption, Pixels, Record, sidecar_of
from lorakit.settings import Caption as Settings
from lorakit.text.composing import RawCaption
from lorakit.text.words import without_repeats

ON_CPU = 8  # photos at once, from where more gains nothing on a CPU
OFFLINE = "imagenet"  # the captioner whose weights come with lorakit
BY_A_PERSON = ("command line", "project.yaml")  # layers of settings
LARGEST = 64  # the same on a GPU; and results come onto the disk as a batch ends
Job = tuple[Record, Any, Pixels | None]  # a record; what `Reader.prepare` made of its crop or an `UnreadablePhoto`; its pixels
Told = tuple[str, RawCaption]  # a captioner and what it read
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
    """Let each captioner read the photos, one captioner after the other, and keep what they say together; what is known is not read."""
    if not todo:
        return
    if project.settings.caption.captioners and project.settings.caption.weights:
        say("caption   caption.weights is left aside: of several captioners each has its own, as caption.captioners: {name: FOLDER}")
    try:
        check_readers(project.settings.caption)
        done = _read_by_all(project, todo)
    except WeightsMissing as missing:
        todo = _take_offline(project, todo, missing)
        done = _read_by_all(project, todo) if todo else 0
    if done:
        say(
            f"caption   {done} of {len(todo)} answers were stopped by the limit of tokens and end with their last whole sentence, phrase or tag "
            "(caption.max_tokens)"
        )


def _read_by_all(project: Project, todo: list[Record]) -> int:
    """Returns how many photos have an answer that was stopped."""
    settings, found = project.settings.caption, dict[str, list[Told]]()
    stopped = 0
    for number, (name, weights) in enumerate(settings.readers, 1):
        is_last = number == len(settings.readers)
        left = [r for r in todo if number == 1 or r["id"] in found]
        for batch in readings_of(project, name, weights, left, {id: _tags_of(told) for id, told in found.items()}, is_last):
            results = []
            for record, reading, measured in batch:
                if not isinstance(reading, RawCaption):
                    found.pop(record["id"], None)
                    results.append(_failure(record, name, reading))
                    continue
                told = found.setdefault(record["id"], [])
                told.append((name, reading))
                if is_last:
                    results.append(_result(project, record, told, measured))
                    stopped += any(one.cut for _, one in told)
            project.manifest.keep(*results)
    return stopped


def _tags_of(told: list[Told]) -> list[str]:
    return without_repeats([tag for _, reading in told for tag in reading.tags])


def readings_of(
    project: Project, name: str, weights: str | None, todo: list[Record], told: dict[str, list[str]], takes_prompt: bool = True
) -> Iterator[list[Found]]:
    """What one captioner reads of each photo, batch by batch: from the cache what is known, then the others, which are kept there. `told`
    {record id: tags that others have found}. Of several captioners only the last is asked the user's question.

    Raises `WeightsMissing` when its weights are neither here nor to be had."""
    settings = project.settings.caption
    if not takes_prompt:
        settings = replace(settings, prompt=None, prompt_tags=None, prompt_mixed=None, prompt_sentences=None)
    kept, budget = Readings(project.cache_folder), 0 if settings.max_tokens else settings.token_budget
    keys = {r["id"]: stamps.reading(settings, r, name, weights, told.get(r["id"], ())) for r in todo}
    known = {r["id"]: kept.get(keys[r["id"]], budget) for r in todo}
    there: list[Found] = [(r, *found) for r in todo if (found := known[r["id"]])]
    if there:
        yield there
    todo = [r for r in todo if not known[r["id"]]]
    if not todo:
        return
    desk = Desk(settings, name, weights, project.device)
    with progress("caption" if len(settings.readers) == 1 else f"caption {name}", len(todo)) as shown:
        for batch in desk.read(todo, told) if project.engine.is_here else _read_elsewhere(project, desk, todo, told):
            read = [(keys[r["id"]], name, found, seen) for r, found, seen in batch if isinstance(found, RawCaption) and found.text]
            kept.keep(read, budget or settings.token_budget)
            yield batch
            shown.advance(len(batch))
    del desk
    _free_memory()


@dataclass
class Desk:
    """A captioner with its weights, opened with the first photos: in this process, or in a worker that it is sent to."""

    settings: Settings
    name: str
    weights: str | None
    device: str | None
    _opened: tuple[Reader, int] | None = None

    def read(self, records: list[Record], told: Mapping[str, list[str]] | None = None) -> Iterator[list[Found]]:
        if self._opened is None:
            place = device.choose(self.device)
            reader, card = open_reader(self.settings, self.name, self.weights, place)
            self._opened = reader, self.settings.batch_size or card.photos_at_once or fitting_batch(card, device.free_gb(place))
        reader, size = self._opened
        return read_photos(records, reader, size, told)

    def __call__(self, items: list[tuple[Record, list[str] | None]]) -> list[Found]:
        """What is read of each photo, given with the tags that others have found in it."""
        told = {record["id"]: tags for record, tags in items if tags is not None}
        found = {one[0]["id"]: one for batch in self.read([record for record, _ in items], told) for one in batch}
        return [found[record["id"]] for record, _ in items]


def _read_elsewhere(project: Project, desk: Desk, todo: list[Record], told: Mapping[str, list[str]]) -> Iterator[list[Found]]:
    """As `Desk.read` by the workers of an engine, each with a model of its own."""
    at_once = desk.settings.batch_size or card_of(desk.name).photos_at_once or LARGEST
    items = [(record, told.get(record["id"], []) if told else None) for record in sorted(todo, key=_pixels, reverse=True)]
    for (record, _), found in project.engine.each(desk, items, at_once, with_model=True):
        yield [(record, found, None) if isinstance(found, UnreadablePhoto) else (record, *found[1:])]


def open_reader(settings: Settings, name: str, weights: str | None, place: str) -> tuple[Reader, CaptionerCard]:
    """A captioner, loaded. Raises `WeightsMissing` when its weights are neither here nor to be had."""
    settings, card = replace(settings, weights=weights), card_of(name)
    if weights and not card.weights:
        say(f"caption   {name} has no weights, so caption.weights is left aside")
    if settings.precision not in ("auto", "bf16") and not card.quantises:
        say(f"caption   {name} is held as it is; caption.precision is for chat models")
    captioner = lookup.load(lookup.CAPTIONERS, name, "caption.captioner")
    source = source_of(card, weights)
    if settings.captioners:  # each has weights of its own
        source = replace(source, option=f"--captioner ...,{name}=")
    return captioner.load(source, place, as_card_says(name, card, settings)), card


def _take_offline(project: Project, todo: list[Record], missing: WeightsMissing) -> list[Record]:
    """Without a hub, and where nobody chose the captioner, the one that needs none reads the photos, for this run alone: the same words
    with a network caption them anew. Returns those that it has not read before. Raises `missing` where it was chosen."""
    settings = project.settings.caption
    if any(project.settings.origin[key] in BY_A_PERSON for key in ("caption.captioner", "caption.captioners")):
        raise missing
    warn(
        f"caption: the weights of {settings.captioner} are neither here nor to be had, so {OFFLINE} reads the photos, which is coarse; with a "
        "network the same command captions them anew, and --captioner chooses another"
    )
    project.settings = replace(project.settings, caption=replace(settings, captioner=OFFLINE, captioners=()))
    return [r for r in todo if r.get("done", {}).get("caption") != stamps.caption(project, r)]


def read_photos(records: list[Record], reader: Reader, size: int, told: Mapping[str, list[str]] | None = None) -> Iterator[list[Found]]:
    """What is read of each photo, batch by batch. The largest come first, so that too big a batch shows at once and not
    after an hour, and pictures of one size stand together. `told` {record id: tags} goes to a captioner that can be told."""
    for batch in _batches(sorted(records, key=_pixels, reverse=True), size, reader.prepare):
        prepared = [found for _, found, _ in batch if not isinstance(found, UnreadablePhoto)]
        tags = [told.get(r["id"], []) for r, found, _ in batch if not isinstance(found, UnreadablePhoto)] if told else None
        readings, size = read_in_parts(reader, prepared, size, tags)
        waiting = iter(readings)
        yield [(record, found if measured is None else next(waiting), measured) for record, found, measured in batch]


def fitting_batch(card: CaptionerCard, free_gb: float | None) -> int:
    """Photos at once: by the card's estimate on a GPU with so much memory left, else ON_CPU."""
    return ON_CPU if free_gb is None else max(1, min(LARGEST, int(card.batch_per_gb * free_gb)))


def _pixels(record: Record) -> float:
    left, top, right, bottom = record["crop"]["box"]
    return (right - left) * (bottom - top)


def read_in_parts(
    reader: Reader, prepared: list, size: int, told: list[list[str]] | None = None
) -> tuple[list[RawCaption | NoCaption], int]:
    """The readings of a batch in its order, and the part size that fitted into memory: where `size` does not, it is
    halved and the reading goes on. Raises `LorakitError` when not even one photo fits."""
    readings: list[RawCaption | NoCaption] = []
    while len(readings) < len(prepared):
        part = prepared[len(readings) : len(readings) + size]
        try:
            if told and reader.read_told:
                readings += reader.read_told(part, told[len(readings) : len(readings) + size])
            else:
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


def _failure(record: Record, name: str, found: NoCaption | UnreadablePhoto) -> Record:
    return manifest.fail(record, "caption", str(found) if isinstance(found, UnreadablePhoto) else f"{name}: {found.reason}")


def _result(project: Project, record: Record, told: list[Told], measured: Pixels | None) -> Record:
    """The record with what was read by one captioner or several: their sentences one after the other, then their tags."""
    settings = project.settings.caption
    by = " + ".join(name for name, _ in told)
    sentence = " ".join(dict.fromkeys(reading.sentence for _, reading in told if reading.sentence))
    tags = _tags_of(told)
    if not sentence and not tags:
        return manifest.fail(record, "caption", f"{by} found no words for it")
    words: Caption = {"sentence": sentence, "tags": tags, "by": by, "own": False, "box": record["crop"]["box"], "pixels": measured}
    if len(told) > 1:
        words["readings"] = [{"by": name, "sentence": reading.sentence, "tags": list(reading.tags)} for name, reading in told]
    if any(reading.cut for _, reading in told):
        words["cut_at"] = settings.token_budget
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
