"""What a person may decide of photos and of a training, checked and written as decisions; and undo."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from lorakit.console import safe, typed
from lorakit.errors import Conflict, LorakitError
from lorakit.photos import buckets
from lorakit.project import decisions, runs, stamps
from lorakit.project.decisions import Change, Decision
from lorakit.project.manifest import Manifest
from lorakit.project.project import Project
from lorakit.project.runs import Run
from lorakit.quality import verdicts
from lorakit.record import Record
from lorakit.text.cleaning import whole

MOST_STRENGTH = 10.0
OF_A_PHOTO = ("verdict", "text", "crop", "apart")


def find_photos(project: Project, names: Iterable[str]) -> list[Record]:
    """The photos of these names, as they are or as `status` prints them, with escapes. Raises `LorakitError` for a name that no photo has."""
    by_name = {safe(r["file"]): r for r in project.manifest} | {r["file"]: r for r in project.manifest}
    names = list(dict.fromkeys(names))
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise LorakitError(f"{unknown[0]}: no photo of this project is called so; `lorakit status {typed(project.folder)}` lists them")
    return [by_name[name] for name in names]


def change(record: Record, what: str, now: Any) -> Change:
    """A change of a photo, from what has been decided of it so far. What it has taken over from a copy is taken back there."""
    now = whole(now) if what == "text" and isinstance(now, str) else now
    human = record.get("human", {})
    copy = human.get("taken_from", {}).get(what)
    if copy is None or now is None:
        return {"id": copy or record["id"], "what": what, "was": human.get(what), "now": now}
    return {"id": record["id"], "what": what, "was": None, "now": now}


def crop_to(project: Project, record: Record, box: Sequence[int]) -> dict[str, list[int]]:
    """{"box", "bucket"}: the base's bucket nearest to a box that a person drew (left, top, right, bottom, in pixels of the
    upright photo), and what of the box has that shape. Raises `LorakitError` for a box that is none or lies outside."""
    width, height = _size(record)
    left, top, right, bottom = box
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise LorakitError(
            f"{record['file']}: a crop of {left},{top},{right},{bottom} does not lie in its {width} x {height} pixels; write LEFT,TOP,RIGHT,BOTTOM"
        )
    train, limits = project.settings.train, project.settings.crop
    bucket = buckets.with_enough_pixels(
        right - left, bottom - top, train.resolution, train.bucket_step, limits.max_aspect, limits.max_upscale
    )
    return check_crop(record, {"box": list(buckets.within(box, bucket)), "bucket": list(bucket)})


def check_crop(record: Record, crop: dict[str, list[int]]) -> dict[str, list[int]]:
    """The crop, if it lies inside the photo and has its bucket's shape within a pixel. Raises `LorakitError`."""
    width, height = _size(record)
    left, top, right, bottom = crop["box"]
    if not (0 <= left < right <= width and 0 <= top < bottom <= height and min(crop["bucket"]) > 0):
        raise LorakitError(f"{record['file']}: the crop {decisions.in_words('crop', crop)} does not lie in its {width} x {height} pixels")
    if not buckets.has_shape(crop["box"], crop["bucket"]):
        raise LorakitError(f"{record['file']}: the crop {decisions.in_words('crop', crop)} has not the bucket's shape")
    return crop


def _size(record: Record) -> tuple[int, int]:
    if not verdicts.is_readable(record):
        why = "it cannot be read" if record.get("measures") else "it has not been measured yet, `lorakit curate -o PROJECT` does that"
        raise LorakitError(f"{record['file']}: no crop can be set by hand, for {why}")
    size = record["measures"]["size"]
    return size["width"], size["height"]


def set_apart(photos: Iterable[Record], other: Record) -> list[Change]:
    """Changes that say that each of the photos and the other one are no copies of each other."""
    photos = list(photos)
    if any(record["id"] == other["id"] for record in photos):
        raise LorakitError(f"{other['file']}: a photo cannot be set apart from itself; name two")
    both = [(record, [other]) for record in photos] + [(other, photos)]
    return [change(one, "apart", sorted({*one.get("human", {}).get("apart", ()), *(r["id"] for r in others)})) for one, others in both]


def take_back_all(project: Project, photos: Iterable[Record]) -> list[Change]:
    """Changes that clear all that was decided of photos; photos that were set apart from them are told too."""
    photos = list(photos)
    cleared = {record["id"] for record in photos}
    changes = [change(r, what, None) for r in photos for what in OF_A_PHOTO if what in r.get("human", {})]
    for record in project.manifest.everything():
        apart = record.get("human", {}).get("apart", ())
        if record["id"] not in cleared and cleared & set(apart):
            changes.append(change(record, "apart", [id for id in apart if id not in cleared] or None))
    return changes


def pick(project: Project, step: int | None, strength: float | None = None, by: str = "command") -> tuple[Run, Decision | None]:
    """Decide which checkpoint of the newest training is drawn with and exported, and the strength to begin with; without a
    step, the last one again. Returns the run and the decision, None when it was so already. Raises `LorakitError` when
    there is no such checkpoint."""
    if strength is not None and not -MOST_STRENGTH <= strength <= MOST_STRENGTH:  # nan is neither
        raise LorakitError(f"--strength {strength}: is no strength of a LoRA; 0.7 to 1 is usual")
    run = training(project)
    if step is not None and step not in run.saved_steps:
        there = ", ".join(map(str, run.saved_steps)) or "none yet"
        raise LorakitError(
            f"{run.folder.name}: there is no checkpoint of step {step}; there are: {there} (train.keep_checkpoints=0 keeps all)"
        )
    now = None if step is None else {"step": step, "strength": strength}
    was = project.manifest.decisions.pick(run.folder.name)
    return run, project.decide([{"id": run.folder.name, "what": "pick", "was": was, "now": now}], by)


def training(project: Project) -> Run:
    """The training that belongs to the present settings and dataset, else the newest, finished or not."""
    found = runs.find(project.folder, stamps.train(project)) if any(r.get("dataset") for r in project.manifest) else None
    newest = found or next(reversed(runs.all_runs(project.folder)), None)
    if newest is None:
        raise LorakitError(f"{project.folder}: nothing has been trained yet; `lorakit train {typed(project.folder)}` does that")
    return newest


def undo(project: Project, number: int | None = None, redo: bool = False, by: str = "command") -> tuple[Decision, Decision]:
    """Take the newest decision that stands back, or the one of this number; with `redo`, bring back what was last undone.
    Returns that decision and its inverse, which was written. Raises `LorakitError` when there is none, and `Conflict` when
    what it changed has been changed again since."""
    book = project.manifest.decisions
    found = book.find(number) if number is not None else book.last_to_redo() if redo else book.last_to_undo()
    if found is None:
        why = "nothing has been undone since the last decision" if redo else "no decision stands that could be taken back"
        raise LorakitError(f"{project.folder}: {why}; `lorakit history {typed(project.folder)}` lists all")
    if later := book.undone_by(found["n"]):
        how = f"lorakit undo {typed(project.folder)} {later}"
        raise LorakitError(f"decision {found['n']} was taken back by {later} already; `{how}` brings it back")
    changes, rules = decisions.inverse(found)
    try:
        if rules and list(project.settings.caption.rules) not in (rules["was"], rules["now"]):
            raise Conflict("the rules of words are others by now")
        written = project.decide(changes, by, rules=rules and rules["now"], undoes=found["n"])
    except Conflict as error:
        since = ", ".join(str(line["n"]) for line in book.lines if line["n"] > found["n"] and _touches(line, found))
        hint = f" (it was changed again by {since}: take that back first)" if since else ""
        raise Conflict(f"decision {found['n']} cannot be taken back{hint}: {error}") from None
    assert written is not None
    return found, written


def _touches(line: Decision, other: Decision) -> bool:
    """Whether two decisions are about the same thing."""
    both = {(c["id"], c["what"]) for c in line["changes"]} & {(c["id"], c["what"]) for c in other["changes"]}
    return bool(both) or ("rules" in line and "rules" in other)


def waiting(book: Manifest) -> list[Record]:
    """Photos of which something is decided that no run has applied yet."""
    return [record for record in book if waits(record)]


def waits(record: Record) -> bool:
    """Whether no run has applied yet what is decided of a photo."""
    human, chosen = record.get("human", {}), bool(record.get("select", {}).get("selected"))
    verdict = human.get("verdict")
    if chosen and verdict == "reject" or verdict == "keep" and "select" in record and not chosen and verdicts.is_readable(record):
        return True
    if not chosen:
        return False
    worded = record.get("trigger")
    another_crop = (
        human.get("crop") and record.get("crop") and human["crop"]["bucket"] == record["crop"]["bucket"] and human["crop"] != record["crop"]
    )
    return bool(another_crop) or bool(worded and human.get("text") != worded.get("human"))


def history(project: Project) -> list[dict[str, Any]]:
    """Every decision, oldest first, with the photos' names: {"n", "at", "by", "undoes", "undone_by", "changes", "rules"}."""
    book, named = project.manifest.decisions, project.manifest.name_of
    undone = {line["undoes"]: line["n"] for line in book.lines}
    return [
        {
            **{key: line[key] for key in ("n", "at", "by", "undoes")},
            "undone_by": undone.get(line["n"]),
            "changes": [{"file": named(c["id"]), **c} for c in line["changes"]],
            "rules": line.get("rules"),
        }
        for line in book.lines
    ]
