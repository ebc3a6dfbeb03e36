"""The order of the stages, in one table, and the walk along it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

from lorakit import device, files, findings, lookup, weights
from lorakit.caption.review import adopt_edits
from lorakit.console import say, warn
from lorakit.curate import account
from lorakit.errors import UnknownName, WeightsMissing
from lorakit.project import Project, by_hand, catalog, judged, manifest, runs, stamps
from lorakit.quality import coverage, faults, verdicts
from lorakit.record import Record, sidecar_of
from lorakit.text import prompts
from lorakit.text.composing import RawCaption
from lorakit.text.trigger_word import check_word


@dataclass(frozen=True)
class Stage:
    """A stage has one name everywhere: its file, its function, its settings section, its key under `done`."""

    name: str
    wing: str
    works_on: Literal["photos", "chosen", "run"]  # every photo, the selected ones, or the run folder


STAGES = (
    Stage("scan", "curate", "photos"),
    Stage("check", "curate", "photos"),
    Stage("dedupe", "curate", "photos"),
    Stage("embed", "curate", "photos"),
    Stage("select", "curate", "photos"),
    Stage("crop", "curate", "chosen"),
    Stage("caption", "caption", "chosen"),
    Stage("trigger", "caption", "chosen"),
    Stage("dataset", "curate", "chosen"),
    Stage("cache", "train", "chosen"),
    Stage("train", "train", "run"),
    Stage("sample", "train", "run"),
    Stage("export", "train", "run"),
    Stage("report", "report", "run"),
)
NAMES = tuple(stage.name for stage in STAGES)
VERDICTS = "noted verdicts"
TRAINING = ("cache", "train")  # want the base's weights, unless the training is done


def stage_function(name: str) -> Callable[[Project], object]:
    """The function of a stage, imported only now (the train wing needs torch)."""
    check_name(name)
    stage = STAGES[NAMES.index(name)]
    return getattr(importlib.import_module(f"lorakit.{stage.wing}.{name}"), name)


def check_name(name: str) -> None:
    if name not in NAMES:
        raise UnknownName("stage", name, list(NAMES))


def walk(project: Project, first: str = NAMES[0], last: str = NAMES[-1]) -> list[str]:
    """Run the stages from `first` to `last`; returns those that had something to do. What is decided meanwhile is taken in
    before each stage."""
    check_name(first)
    check_name(last)
    names = NAMES[NAMES.index(first) : NAMES.index(last) + 1]
    lacking = preflight(project, names)
    worked = []
    with project.locked() as work, closing(project.engine):
        remove_leavings(project)
        project.take_decisions()
        adopt_edits(project)
        begun = len(project.manifest.decisions.lines)
        for name in names:
            if lacking and name in TRAINING:
                raise lacking
            work.note_stage(name)
            if STAGES[NAMES.index(name)].wing == "train":  # it wants the memory
                project.engine.close()
            project.take_decisions()
            before, there, changes = progress_of(project, name), list(project.manifest), project.manifest.changes
            if not is_settled(project, name):
                stage_function(name)(project)
            if name == "scan" and "caption" in names:
                _check_texts_beside(project)
            after = progress_of(project, name)
            # As many photos may be others.
            has_worked = after != before or project.manifest.changes != changes and _photos(project.manifest) != _photos(there)
            if has_worked:
                worked.append(name)
            say(f"{name:<9} {_in_words(project, name, after)}{'' if has_worked else ' (nothing to do)'}")
        if worked:  # what a first look at the finished book would work out, noted for the next command
            for stage in STAGES:
                if stage.works_on == "photos":
                    _in_words(project, stage.name, progress_of(project, stage.name))
        stamps.noted(project, VERDICTS, lambda: verdicts.packed(judged.judge_all(project).values()))
        project.manifest.note()
        project.take_decisions()
        if meanwhile := len(project.manifest.decisions.lines) - begun:
            counted = "1 decision was" if meanwhile == 1 else f"{meanwhile} decisions were"
            say(f"{counted} made meanwhile; the same command again applies what came too late for its stage")
    return worked


def not_given(project: Project, first: str, last: str) -> dict[str, str]:
    """{file: why} of the photos that a walk from `first` to `last` did without, for their store did not give them."""
    from lorakit.curate import check

    return check.not_given(project) if NAMES.index(first) <= NAMES.index("check") <= NAMES.index(last) else {}


def _photos(records: Iterable[Record]) -> set[tuple[str, str]]:
    return {(r["id"], r["file"]) for r in records}


def is_settled(project: Project, name: str) -> bool:
    """Whether a stage need not even be called: its run is finished. (Stages of photos find out for themselves.)"""
    if name in ("cache", "train", "sample", "export"):
        return is_run_done(project, "train" if name == "cache" else name) and not (name == "export" and is_lora_damaged(project))
    return False


def is_lora_damaged(project: Project) -> bool:
    """Whether the LoRA file is no longer what was written; that is said."""
    run = runs.find(project.folder, stamps.train(project))
    if run is None or run.has_whole_lora():
        return False
    warn(f"{run.lora}: has changed since it was written (its checksum is another); it is written again")
    return True


def remove_leavings(project: Project) -> None:
    """Remove what a killed command left half written, where lorakit alone writes."""
    for folder in (project.dataset_folder, project.masks_folder, project.cache_folder, project.folder / "runs"):
        files.remove_parts(folder)
    for name in ("project.yaml", "manifest.jsonl"):
        (project.folder / f".{name}.part").unlink(missing_ok=True)


def preflight(project: Project, names: tuple[str, ...]) -> WeightsMissing | None:
    """Before any work: is the trigger a word, are photos, captioner and device there, can the base be trained, can its weights be had, and
    do the settings agree? Raises `LorakitError` in one line; but where only the hub's weights cannot be had, and there are stages before
    the training, returns that error for when these are done."""
    check_word(project.trigger)
    if "scan" in names and not len(project.manifest):
        from lorakit.curate.scan import check_places  # loads what reads photos

        check_places(project)
    if "caption" in names:
        _check_captioner(project)
    if project.device and any(STAGES[NAMES.index(name)].wing in ("caption", "train") for name in names):
        device.check(project.device)
    if {"train", "sample"} & set(names):
        prompts.read(project.settings.sample.prompts, project.folder, project.trigger)
    if not set(TRAINING) & set(names):
        return None
    catalog.check_family(project.card)
    if is_run_done(project, "train"):
        return None
    try:
        _check_training(project)
    except WeightsMissing as missing:
        if names[0] in TRAINING:
            raise
        say(f"train     {project.card.title}: its weights are neither here nor to be had; all before the training is done without them")
        return missing
    return None


def _check_training(project: Project) -> None:
    if "torch" not in sys.modules:
        say("train     looks at the base and its settings first (loading torch takes a moment)")
    from lorakit.train import crew, from_lora, standing  # loads torch, which a training needs anyway
    from lorakit.train.preflight import check_settings, check_single_file
    from lorakit.train.prompts import check_prompts

    crew.check(project)
    check_settings(project)
    check_prompts(project)
    weights.check_reachable(project.base_source)
    check_single_file(project)
    standing.check(project)
    from_lora.check(project)


def _check_captioner(project: Project) -> None:
    """Its name always, what it needs only where there is something to caption: a finished project asks for nothing."""
    settings = project.settings.caption
    for name, _ in settings.readers:
        lookup.check_name(lookup.CAPTIONERS, name, "caption.captioner")
    counts = progress_of(project, "caption")
    if counts["pending"] or counts["failed"] or not counts["done"]:
        from lorakit.caption.captioners.base import check_readers

        check_readers(settings)


def _check_texts_beside(project: Project) -> None:
    """As soon as it is known: a captioner that writes nothing wants words beside one photo at least. Raises `LorakitError`."""
    from lorakit.caption.captioners.base import card_of, no_words

    cards = [card_of(name) for name, _ in project.settings.caption.readers]
    records = list(project.manifest)
    if all(card.writes == "what is there" for card in cards) and not any(
        sidecar_of(r) or r.get("caption") or r.get("human", {}).get("text") for r in records
    ):
        raise no_words(len(records))


def progress_of(project: Project, name: str) -> dict[str, int]:
    """{"done", "pending", "failed"}: how many photos (or runs) a stage has finished with the present settings."""
    stage = STAGES[NAMES.index(name)]
    if stage.works_on == "run":
        done = is_run_done(project, name)
        return {"done": int(done), "pending": int(not done), "failed": 0}
    if stage.works_on == "photos" and not (name == "embed" and project.settings.embed.clip):  # which depends on files beside the project
        return dict(stamps.noted(project, f"progress of {name}", lambda: _count(project, list(project.manifest), name)))
    return _count(project, list(project.manifest) if stage.works_on == "photos" else _chosen_for(project, name), name)


def _count(project: Project, records: list[Record], name: str) -> dict[str, int]:
    failed = sum(1 for r in records if name in r.get("failed", ()))
    wanted = _stamper(project, name)
    done = sum(1 for r in records if "done" in r and r["done"].get(name) == wanted(r) and name not in r.get("failed", ()))
    return {"done": done, "pending": len(records) - done - failed, "failed": failed}


def _chosen_for(project: Project, name: str) -> list[Record]:
    """The selected photos that no earlier stage has failed on."""
    earlier = set(NAMES[: NAMES.index(name)])
    return [r for r in project.manifest.selected if not earlier & set(r.get("failed", {}))]


def _stamper(project: Project, name: str) -> Callable[[Record], str]:
    if name == "scan":
        return lambda record: record["hash"]
    if name in ("dedupe", "embed", "select"):
        stamp = getattr(stamps, name)(project)
        return lambda record: stamp
    of = getattr(stamps, name)
    return lambda record: of(project, record)


def is_run_done(project: Project, name: str) -> bool:
    """Whether the run that belongs to the present dataset and settings has this stage behind it."""
    if not project.manifest.has_dataset:
        return False
    run = runs.find(project.folder, stamps.train(project), from_step_1=project.new_run)
    if run is None or (name == "export" and not run.lora):
        return False
    return run.is_done(name, getattr(stamps, name)(project))


@manifest.uncollected()
def status(project: Project) -> dict:
    """All that `lorakit status --json` prints: one entry a photo, and the counts of every stage."""
    names = {r["id"]: r["file"] for r in project.manifest.everything()}
    run = runs.find(project.folder, stamps.train(project)) if project.manifest.has_dataset else None
    found = faults.judge(list(project.manifest), project.settings, verdicts_of(project))
    return {
        "project": str(project.folder),
        "base": project.card.name,
        "kind": project.kind.name,
        "trigger": project.trigger,
        "scan": account.read(project),
        "photos": [photo_status(record, names, found[record["id"]]) for record in project.manifest],
        "waiting": [record["file"] for record in by_hand.waiting(project.manifest)],
        "lacks": coverage.find(project.manifest.selected, project.kind, project.settings),
        "stages": {name: progress_of(project, name) for name in NAMES},
        "run": str(run.folder) if run else None,
        "lora": str(run.lora) if run and run.lora else None,
    }


def verdicts_of(project: Project) -> dict[str, verdicts.Verdict]:
    """`judged.judge_all`, which is half of what `status` takes, or what was noted of it."""

    def found() -> dict[str, verdicts.Verdict]:
        noted = stamps.known(project, VERDICTS)
        if noted is None:
            return judged.judge_all(project)
        return {record["id"]: verdict for record, verdict in zip(project.manifest, verdicts.unpacked(noted), strict=True)}

    return judged.once(project, "verdicts", found)


_NOTHING: dict[str, Any] = {}


def photo_status(record: Record, names: dict[str, str], found: verdicts.Verdict) -> dict:
    caption, inherited, trigger = record.get("caption"), record.get("inherited") or _NOTHING, record.get("trigger") or _NOTHING
    human, copy_of = record.get("human", _NOTHING), record["dedupe"].get("of") if "dedupe" in record else None
    return {
        "file": record["file"],
        "verdict": found.verdict,
        "reasons": [{"reason": r.reason, "value": r.value, "threshold": r.threshold} for r in found.reasons],
        "by_hand": found.by_hand,
        "decided": {key: value for key, value in human.items() if key not in ("apart", "taken_from")},
        "decided_of": {what: names.get(id) for what, id in human.get("taken_from", _NOTHING).items()},
        "caption_of": names.get(inherited.get("sidecar_of", "")),
        "mask_of": names.get(inherited.get("mask_of", "")),
        "duplicate_of": names.get(copy_of or ""),
        "selected": bool(record.get("select", _NOTHING).get("selected")),
        "crop": record.get("crop"),
        "caption": RawCaption(caption.get("sentence", ""), tuple(caption.get("tags", ()))).text or None if caption else None,
        "text": record.get("text"),
        "readings": record.get("readings", []),
        "agreement": trigger.get("agreement"),
        "worst": trigger.get("worst"),
        "phash": record.get("phash"),
        "failed": record.get("failed", {}),
    }


def _in_words(project: Project, name: str, counts: dict[str, int]) -> str:
    if STAGES[NAMES.index(name)].works_on == "photos" and name != "scan":  # which tells what its account says
        told = stamps.noted(project, f"told of {name}", lambda: findings.of_stage(project, name))
    else:
        told = findings.of_stage(project, name)
    told = told or f"{counts['done']} done"
    return ", ".join([told, *(f"{counts[key]} {key}" for key in ("pending", "failed") if counts[key])])
