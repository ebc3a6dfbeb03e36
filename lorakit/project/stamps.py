"""What each stage depends on, on one page. A stamp is the fingerprint of a stage's version and of the settings and
fields that it reads; where the stamp under `done` is the same, there is nothing to do. Whole sections are read by
`for_stamp`, which leaves out settings that are neutral; a stage that names its settings one by one adds a new one only
where it is not neutral, as `beside` in `caption`.

Stages of single photos take (project, record); stages that look at the whole set, or make a run, take (project)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import is_dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorakit import lookup, weights
from lorakit.files import as_fact, file_hash, hash_of_texts, short_hash
from lorakit.project import judged, runs
from lorakit.quality import verdicts
from lorakit.record import Record, mask_of, sidecar_of
from lorakit.settings import for_stamp, in_stamp, is_neutral, known_keys
from lorakit.text import prompts

if TYPE_CHECKING:
    from lorakit.project.project import Project

# Raise a number when the stage's code makes something else of the same photos and settings, and only then: every project
# redoes that stage, and what comes of it. So `report` when the page shows more, `crop` when other boxes are cut; but `train`
# (hours for a user) when the tensors differ and the former ones were wrong, never for a new setting, which says the value
# at which all is as before (`neutral` in settings.py). A check has a VERSION of its own. tests/project/test_stamps.py opens
# a project of 0.1.0 and holds that it is still done.
VERSIONS = dict.fromkeys(
    ("check", "dedupe", "embed", "select", "crop", "caption", "trigger", "dataset", "cache", "train", "sample", "export", "report"), 1
) | {"trigger": 2, "report": 3}
TOLD_AT_ONCE = 1000  # photos whose facts are in memory as text
SAME_VIEW = 0.85  # overlap of two crops of a photo from which the words for one are true of the other
# Settings of `train` that change how the work is done, not what comes out.
NOT_IN_RESULT = (
    "weights", "parts", "regularisation", "from_lora", "training_adapter", "checkpoint_every", "keep_checkpoints", "keep_best",
    "validate_every", "gradient_checkpointing", "swap_blocks", "compile", "log_with",
)  # fmt: skip
STEP_RULE = ("steps", "steps_per_photo", "min_steps", "max_steps")  # how long it is trained


def check(project: Project, record: Record) -> str:
    known, measured = project.manifest.memo, tuple(record.get("measures", ()))
    versions = known.get(("versions", measured))
    if versions is None:  # most photos have the same measures
        versions = known["versions", measured] = as_fact(_versions(measured))
    # As `_stamp`, in a tenth of its time: this is asked of every photo by every command.
    return hash_of_texts([f'["check", {VERSIONS["check"]}, {as_fact(record["hash"])}, {versions}]'])


def _versions(measured: Sequence[str]) -> dict[str, int]:
    """Of the checks that are at work; one whose extra is not installed here may have been at work elsewhere."""
    checks = {name: lookup.load(lookup.CHECKS, name) for name in lookup.names(lookup.CHECKS)}
    return {name: module.VERSION for name, module in checks.items() if name in measured or lookup.is_installed(module)}


def noted(project: Project, what: str, work: Callable[[], Any]) -> Any:
    """What `work` finds out of all records and settings alone, or what it or a former command has found out of this very book with these
    settings, decisions and checks: a value that JSON can hold."""

    def found() -> Any:
        book = project.manifest
        if not book.is_saved:
            return work()
        known = book.notes.found.setdefault("found", {})
        by = judged.once(project, "by", lambda: _by(project))
        if what not in known or known[what][0] != by:
            known[what] = [by, work()]
        return known[what][1]

    return judged.once(project, what, found)


def known(project: Project, what: str) -> Any:
    """What is `noted`; None where that is nothing, or of another book, other settings or decisions."""
    book = project.manifest
    by, value = book.notes.found.get("found", {}).get(what, (None, None)) if book.is_saved else (None, None)
    return value if by is not None and by == judged.once(project, "by", lambda: _by(project)) else None


def _by(project: Project) -> str:
    return short_hash(VERSIONS, _versions(()), project.settings.flat(), project.manifest.decisions.fingerprint())


def _once(stamp: Callable[[Project], str]) -> Callable[[Project], str]:
    """A stamp of the whole set, worked out once for as long as neither a record nor a setting is another: with 50,000 photos each
    takes a second, and several are asked for before and behind every stage."""

    @functools.wraps(stamp)
    def remembered(project: Project) -> str:
        return noted(project, stamp.__name__, lambda: stamp(project))

    return remembered


@_once
def dedupe(project: Project) -> str:
    facts = ((r["id"], r["hash"], r.get("look"), verdicts.quality(r, project.settings)) for r in project.manifest)
    apart = [(r["id"], sorted(r["human"]["apart"])) for r in project.manifest if "human" in r and r["human"].get("apart")]
    return _stamp_of_all("dedupe", for_stamp(project.settings.dedupe), facts, *([apart] if apart else []))


def embed(project: Project) -> str:
    settings = project.settings.embed
    if not settings.clip:
        return _stamp("embed", None)
    facts = [
        (r["id"], r["hash"], verdicts.judge(r, project.settings, with_embed=False).verdict, verdicts.quality(r, project.settings))
        for r in project.manifest
    ]
    return _stamp("embed", clip_identity(settings.clip), settings.aesthetic, facts)


def clip_identity(given: str) -> str:
    """A fingerprint of open_clip weights; a hub id stands for itself."""
    folder = Path(given).expanduser()
    return weights.identity(weights.Source(str(folder), True)) if folder.is_dir() else given


@_once
def select(project: Project) -> str:
    odd = judged.odd_ones(project)
    facts = (
        (
            r["id"],
            verdicts.judge(r, project.settings).verdict,
            verdicts.quality(r, project.settings, odd.get(r["id"], ())),
            r.get("look"),
            r.get("embed"),
        )  # fmt: skip
        for r in project.manifest
    )
    return _stamp_of_all("select", for_stamp(project.settings.select), facts)


def crop(project: Project, record: Record) -> str:
    train = project.settings.train
    measures, look = record["measures"], record.get("look") or {}
    faces = measures.get("faces", {}).get("boxes")
    photo = (measures["size"], measures.get("borders"), look.get("columns"), look.get("rows"), *([faces] if faces else []))
    limits = (for_stamp(project.settings.crop), project.settings.check.borders.max_share)
    by_hand = record.get("human", {}).get("crop")
    return _stamp("crop", limits, train.resolution, train.bucket_step, photo, *([by_hand] if by_hand else []))


def caption(project: Project, record: Record) -> str:
    settings = project.settings.caption
    sidecar = (sidecar_of(record) or {}).get("text") if settings.existing != "replace" else None
    if sidecar and settings.existing == "keep":
        others = other_captions(project, record)
        return _stamp("caption", sidecar, *([others] if others else []))
    beside = (sidecar, settings.existing) if sidecar else ()
    (name, weights), *more = settings.readers
    others = [(name, weights, *captioner_settings(settings, name)) for name, weights in more]
    # Where the length is left to lorakit it is stamped as it always was; an answer that was stopped counts anew when a base reads more.
    length = in_stamp(known_keys()["caption.max_tokens"][0], settings.max_tokens)
    stopped = (record.get("caption") or {}).get("cut_at")
    longer = (("longer", settings.token_budget),) if settings.max_tokens is None and stopped and settings.token_budget > stopped else ()
    box = read_box(record)  # the bucket's size does not matter to a captioner
    read_with = (record["hash"], box, name, weights, settings.question, length, *longer)
    return _stamp("caption", *read_with, *beside, *captioner_settings(settings, name), *([others] if others else []))


def reading(settings: Any, record: Record, name: str, weights: str | None, told: Sequence[str] = ()) -> str:
    """The fingerprint of what one captioner reads in a photo by the section `caption`, told these tags by others, whatever is made of it later."""
    length = (("most", settings.max_tokens),) if settings.max_tokens else ()
    facts = (record["hash"], read_box(record), name, weights, settings.question, *length, *captioner_settings(settings, name))
    return _stamp("caption", "reading", *facts, *([list(told)] if told else []))


def other_captions(project: Project, record: Record) -> list[str]:
    """Further captions that a person gave a photo, where each is a reading."""
    settings = project.settings.caption
    return (sidecar_of(record) or {}).get("others", []) if settings.several == "readings" and settings.existing == "keep" else []


def captioner_settings(settings: Any, name: str) -> tuple:
    """A captioner's own settings, as far as they are not neutral, and how its weights are held."""
    section = lookup.plugin_of(lookup.CAPTIONERS, name)
    own = getattr(settings, section, None)
    changed = for_stamp(own) if is_dataclass(own) else {}
    shared = {
        key: getattr(settings, key)
        for key in SHARED.get(section, ())
        if not is_neutral(known_keys()[f"caption.{key}"][0], getattr(settings, key))
    }
    return (*(((section, changed),) if changed else ()), *(((section, shared),) if shared else ()))


# Settings of the section `caption` that only some captioners read. Where a server stands does not change what its model says.
SHARED = {"vlm": ("precision",), "server": ("model",)}


def read_box(record: Record) -> list | None:
    """The crop that is to be captioned; where it is nearly the one that was, that one: another base cuts a little
    differently, and its words stay true."""
    now = record["crop"]["box"] if record.get("crop") else None
    read = (record.get("caption") or {}).get("box")
    return read if now and read and overlap(now, read) >= SAME_VIEW else now


def overlap(a: list, b: list) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0, width) * max(0, height)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def trigger(project: Project, record: Record) -> str:
    human, wanted = record.get("human", {}).get("text"), project.settings.caption
    clip = wanted.clip or project.settings.embed.clip
    words = (wanted.style, wanted.token_budget, wanted.omit, wanted.omit_of_thing, wanted.rules, wanted.strict, clip, wanted.min_facet)
    # Captions of people keep their words since `omit_own` exists; what was worded before stays as it is until something else changes.
    own = ("omit_own",) if wanted.omit_own and (record.get("caption") or {}).get("own") else ()
    return _stamp("trigger", for_stamp(project.settings.trigger), words, record.get("caption"), human, *own, *_as_taught(project))


def _as_taught(project: Project) -> tuple:
    """The order and tags of quality that a base was taught with; nothing where it has none."""
    wanted, keys = project.settings.caption, ("tag_order", "lead_tags", "quality_tags")
    return tuple((key, getattr(wanted, key)) for key in keys if not is_neutral(known_keys()[f"caption.{key}"][0], getattr(wanted, key)))


def dataset(project: Project, record: Record) -> str:
    return _stamp(
        "dataset", record["hash"], record.get("crop"), record.get("text"), for_stamp(project.settings.dataset), *mask(project, record)
    )


def cache(project: Project, record: Record) -> str:
    train = project.settings.train
    readings = (train.shuffle_tags, train.keep_tags, train.tag_dropout, train.caption_variants, train.seed)
    if lead := project.settings.caption.lead_tags:  # they stay in front
        readings = (*readings, lead)
    read = readings if train.shuffle_tags or train.tag_dropout else None
    preserved = train.preservation > 0 and ("three others", project.settings.trigger.class_word)
    facts = (picture(record), record.get("text"), read, preserved, weights.identity(project.base_source))
    return _stamp("cache", *facts, *mask(project, record), *_readings(record))


def _readings(record: Record) -> tuple:
    return (("readings", record["readings"]),) if record.get("readings") else ()


def picture(record: Record) -> str:
    """The fingerprint of a photo's crop: what its latents are made from."""
    return short_hash(record["hash"], record.get("crop"))


def mask(project: Project, record: Record) -> tuple:
    """What the mask of a photo is made from; nothing where none is asked for."""
    return (("mask", (mask_of(record) or {}).get("hash")),) if project.settings.train.masked_loss else ()


def train(project: Project) -> str:
    settings = {key: value for key, value in for_stamp(project.settings.train).items() if key not in NOT_IN_RESULT}
    return _stamp("train", settings, _taught_photos(project), weights.identity(project.base_source), *_taught_beside(project))


def taught(project: Project) -> dict[str, Any]:
    """What a training is made of, by which a later one that goes on from it is known: `by` is the fingerprint of the base and of all
    settings but how long, `photos` has one fingerprint a photo with its text."""
    settings = {key: value for key, value in for_stamp(project.settings.train).items() if key not in (*NOT_IN_RESULT, *STEP_RULE)}
    by = _stamp("train", settings, weights.identity(project.base_source), *_taught_beside(project))
    return {"by": by, "photos": [short_hash(*facts) for facts in _taught_photos(project)]}


def _taught_photos(project: Project) -> list[tuple]:
    chosen = [r for r in project.manifest.selected if r.get("dataset")]
    return [(picture(r), r.get("text"), r.get("repeats", 1), *mask(project, r), *_readings(r)) for r in chosen]


def _taught_beside(project: Project) -> tuple:
    """Regularisation photos and the LoRA that is started from, by their content: they may be moved."""
    folder, start = project.settings.train.regularisation, started_from(project)
    others = (weights.identity(weights.Source(str(Path(folder).expanduser()), True)),) if folder else ()
    if adapter := project.settings.train.training_adapter:
        others += ("training adapter", weights.identity(weights.Source(str(Path(adapter).expanduser()), True)))
    all_learned = ("all learned",) if project.settings.train.hold_out and project.settings.train.validate_every == 0 else ()
    return (*others, *all_learned, *([("from_lora", start)] if start else []))


def started_from(project: Project) -> str | None:
    """The fingerprint of the LoRA file that the training starts from; where the file is gone, that of a run which started from it."""
    given = project.settings.train.from_lora
    if not given:
        return None
    path = Path(given).expanduser()
    if path.is_file():
        return weights.identity(weights.Source(str(path), True))
    noted = [run.facts.get("from_lora") or {} for run in reversed(runs.all_runs(project.folder))]
    return next((facts["identity"] for facts in noted if facts.get("file") == path.name and "identity" in facts), path.name)


def sample(project: Project) -> str:
    step = exported_step(project)
    return _stamp(
        "sample",
        train(project),
        _sample_settings(project),
        for_stamp(project.settings.trigger),
        *([step] if step is not None else []),
    )


def _sample_settings(project: Project) -> dict[str, Any]:
    """Of a file of prompts what is in it; of prompts that nobody gave the tags of quality, which stand in them."""
    given, wanted = project.settings.sample.prompts, project.settings.caption
    quality = () if given else (wanted.lead_tags, wanted.quality_tags)
    made_with = {"quality": quality} if any(quality) else {}
    return for_stamp(project.settings.sample) | {"prompts": prompts.contents(given, project.folder)} | made_with


def export(project: Project) -> str:
    settings = {key: value for key, value in for_stamp(project.settings.export).items() if key != "checkpoint"}  # part of what is chosen
    chosen = pick(project) or exported_step(project)
    return _stamp("export", train(project), settings, for_stamp(project.settings.trigger), *([chosen] if chosen is not None else []))


def exported_step(project: Project) -> int | None:
    """The step whose checkpoint is drawn with and exported: the one that a person picked, else `export.checkpoint`; None:
    the last, as it always was before there was a choice."""
    picked = pick(project)
    return picked["step"] if picked else project.settings.export.checkpoint


def pick(project: Project) -> dict[str, Any] | None:
    """{"step", "strength"} that a person picked of the training that belongs to the present settings and dataset."""
    if not project.manifest.decisions.has_picks:
        return None
    run = runs.find(project.folder, train(project))
    return project.manifest.decisions.pick(run.folder.name) if run else None


def report(project: Project) -> str:
    shown = [{key: r.get(key) for key in ("id", "file", "select", "crop", "text", "trigger", "dedupe", "human")} for r in project.manifest]
    verdicts_ = [verdict.verdict for verdict in judged.judge_all(project).values()]
    facts = (shown, verdicts_, project.settings.flat_for_stamp(), sample(project), export(project))
    return _stamp("report", *facts, *_grids(project))


def _grids(project: Project) -> list[str]:
    """Of the pictures that `lorakit grid` has made of this training; none where there are none."""
    run = runs.find(project.folder, train(project))
    return [file_hash(path) for path in sorted(run.samples.glob("grid*.png"))] if run else []


def _stamp(stage: str, *facts: Any) -> str:
    return short_hash(stage, VERSIONS[stage], *facts)


def _stamp_of_all(stage: str, limits: Any, facts: Iterable[Any], *more: Any) -> str:
    """`_stamp(stage, limits, list(facts), *more)`, without the whole text in memory at once."""

    def texts() -> Iterator[str]:
        yield as_fact([stage, VERSIONS[stage], limits])[:-1] + ", ["
        rest, gap = iter(facts), ""
        while some := list(islice(rest, TOLD_AT_ONCE)):
            yield gap + as_fact(some)[1:-1]
            gap = ", "
        yield "]" + "".join(f", {as_fact(fact)}" for fact in more) + "]"

    return hash_of_texts(texts())
