"""What a training is going to be, told before any weight is loaded: photos, texts, steps, disk and the memory of the card."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from lorakit import console, device
from lorakit.bases import tokens
from lorakit.project import Project, runs, stamps
from lorakit.record import Record
from lorakit.train import crew, going_on, pace, rungs, standing
from lorakit.train.export import DTYPES
from lorakit.train.preflight import check_settings, plan_in_words
from lorakit.train.resolutions import at_every_resolution
from lorakit.train.rungs import COSTS, MARGIN, Fit
from lorakit.weights import quiet_libraries

SHOWN = 5  # texts, and photos of a kind
CHECKPOINT_PARTS = 3  # the adapter and AdamW's two moments, all in fp32


def plan(project: Project) -> dict[str, Any]:
    """All that `--plan --json` prints. Loads no weights and writes nothing into the project."""
    check_settings(project)
    quiet_libraries()
    settings = project.settings.train
    where, vram = project.device or device.available()[0], project.vram
    photos = [r for r in project.manifest.selected if r.get("dataset")]
    base = rungs.base_of(project)
    found = rungs.fit(base, standing.of_one_card(project), rungs.budget_of(where, vram), rungs.free_settings(project))
    would = [] if found.is_enough else list(standing.suggestions(base, found))
    return {
        "project": str(project.folder),
        "base": project.card.name,
        "photos": photos_of(project, photos),
        "texts": texts_of(project, photos),
        "steps": steps_of(project, photos),
        "disk": disk_of(project, found.need.adapter),
        "memory": {"device": where if vram is None else f"a card of {vram:g} GB", **memory_of(found), "would_fit": would},
        "time": time_of(project, where, found, photos),
        **({"processes": crew.shares(settings)} if crew.count() > 1 else {}),
    }


def photos_of(project: Project, photos: list[Record]) -> dict[str, Any]:
    sizes: dict[str, int] = {}
    entries = []
    for record in photos:
        (width, height), (left, top, right, bottom) = record["crop"]["bucket"], record["crop"]["box"]
        size = record["measures"]["size"]
        sizes[f"{width}x{height}"] = sizes.get(f"{width}x{height}", 0) + 1
        cut = 1 - (right - left) * (bottom - top) / (size["width"] * size["height"])
        entries.append({"file": record["file"], "enlarged": round(width / (right - left), 2), "cut": round(cut, 3)})
    return {"count": len(photos), "buckets": dict(sorted(sizes.items())), "each": entries}


def texts_of(project: Project, photos: list[Record]) -> dict[str, Any]:
    """Tokens as the base's own tokenizers count them, that of the largest text encoder; `estimated` where T5's is not at hand."""
    budget, counter = project.settings.caption.token_budget, tokens.counter_for(project)
    counted = sorted(((counter.count(r["text"]), r["text"]) for r in photos), reverse=True)
    return {
        "budget": budget,
        "first": [r["text"] for r in photos[:SHOWN]],
        "longest": {"tokens": counted[0][0], "text": counted[0][1]} if counted else None,
        "past_budget": [text for count, text in counted if count > budget],
        "estimated": counter.estimated,
    }


def steps_of(project: Project, photos: list[Record]) -> dict[str, Any] | None:
    settings = project.settings.train
    if not photos:
        return None
    known = runs.find(project.folder, stamps.train(project))
    found = None if known else going_on.find(project, stamps.taught(project), len(photos))
    steps = found[2] if found else going_on.steps_of(project, known, len(photos)) if known else settings.planned_steps(len(photos))
    seen = at_every_resolution(project, photos)
    since = {"run": found[0].folder.name, "step": found[1]} if found else None
    return {"steps": steps, "goes_on_from": since, "sum": plan_in_words(settings, seen, steps, bool(settings.regularisation))}


def disk_of(project: Project, adapter: float) -> dict[str, float]:
    """MB, about: of the file, of one checkpoint (as AdamW's), of all that are kept at once (0 kept: all are)."""
    kept, width = project.settings.train.keep_checkpoints, DTYPES[project.settings.export.precision].itemsize
    file, one = (adapter * 1024 * parts for parts in (width / 4, CHECKPOINT_PARTS))
    return {"file": round(file, 1), "checkpoint": round(one, 1), "kept": kept, "checkpoints": round(one * max(1, kept), 1)}


def time_of(project: Project, where: str, found: Fit, photos: list[Record]) -> dict[str, Any] | None:
    """Of a training with these settings on this device: {"device", "seconds_a_step", "seconds"}; None where it was never measured, as
    on a card that is not here."""
    of_all = dataclasses.replace(found.settings, batch_size=project.settings.train.batch_size)
    as_run = dataclasses.replace(project, settings=dataclasses.replace(project.settings, train=of_all))
    measured = pace.known(as_run, where) if project.vram is None and photos else None
    if measured is None:
        return None
    steps = project.settings.train.planned_steps(len(photos))
    return {"device": measured["device"], "seconds_a_step": measured["seconds"], "seconds": measured["seconds"] * steps}


def memory_of(found: Fit) -> dict[str, Any]:
    need = found.need
    return {
        **{name: round(value, 2) for name, value in need.parts.items()},
        "in_machine_memory": round(need.away, 2),
        "peak": round(need.peak, 2),
        "needed": round(need.card, 2),
        "budget": None if found.budget is None else round(found.budget, 2),
        "rungs": [{"setting": key, "value": value, "cost": COSTS[key]} for key, value in found.rungs.items()],
        "skipped": list(found.skipped),
        "is_enough": found.is_enough,
    }


def in_words(plan: dict[str, Any]) -> Iterator[str]:
    """The plan as lines."""
    photos, texts, steps, disk = (plan[key] for key in ("photos", "texts", "steps", "disk"))
    yield f"plan      {plan['project']} on {plan['base']}; nothing is loaded or written"
    if not photos["count"]:
        yield "photos    no dataset yet: `lorakit curate` and `lorakit caption` first; then photos, texts and steps are known too"
    else:
        yield f"photos    {photos['count']} in " + ", ".join(f"{size}: {count}" for size, count in photos["buckets"].items())
        enlarged = sorted((e for e in photos["each"] if e["enlarged"] > 1), key=lambda e: -e["enlarged"])
        cut = sorted((e for e in photos["each"] if e["cut"] > 0.1), key=lambda e: -e["cut"])
        yield from _some("enlarged", [f"{e['file']} x{e['enlarged']:g}" for e in enlarged])
        yield from _some("cut by more than a tenth", [f"{e['file']} {e['cut']:.0%}" for e in cut])
        yield from (f"{'texts' if n == 0 else '':<10}{text}" for n, text in enumerate(texts["first"]))
        about = "about " if texts["estimated"] else ""
        yield f"          longest: {about}{texts['longest']['tokens']} of {texts['budget']} tokens: {texts['longest']['text']}"
        yield from _some("past the token limit", texts["past_budget"])
        yield f"steps     {steps['sum']}"
        if since := steps["goes_on_from"]:
            yield f"          goes on from step {since['step']} of {since['run']}; --new begins at step 1"
    yield f"disk      the file about {disk['file']:g} MB, a checkpoint about {disk['checkpoint']:g} MB, {disk['kept'] or 'all'} kept"
    if "processes" in plan:
        yield from processes_in_words(plan["processes"])
    yield from memory_in_words(plan["memory"])
    yield from time_in_words(plan["time"])


def processes_in_words(found: dict[str, Any]) -> Iterator[str]:
    fewest, most = found["each"]
    each = f"{most}" if fewest == most else f"{fewest} or {most}"
    yield f"processes {crew.shared_in_words(found)}: each takes {each}, {found['at_once']} at a time; memory is that of one card"
    yield from crew.idle_in_words(found)


def time_in_words(time: dict[str, Any] | None) -> Iterator[str]:
    if time is None:
        yield "time      not measured yet"
    else:
        each = f"{time['seconds_a_step']:.2g} s a step, as measured here in an earlier training ({time['device']})"
        yield f"time      about {console.duration(time['seconds'])}, samples not counted: {each}"


def memory_in_words(memory: dict[str, Any]) -> Iterator[str]:
    shown = ("weights", "adapter", "optimizer", "activations", "gradient_sum")
    parts = ", ".join(f"{name.replace('_', ' ')} {memory[name]:.2f}" for name in shown if name in memory)
    away = f" ({memory['in_machine_memory']:.2f} GB more wait in the machine's memory)" if memory["in_machine_memory"] else ""
    yield f"memory    {parts}: about {memory['peak']:.2f} GB{away}"
    for rung in memory["rungs"]:
        yield f"          turned on {rung['setting']}={rung['value']}: {rung['cost']}"
    yield from (f"          not taken: {why}" for why in memory["skipped"])
    if memory["budget"] is None:
        yield f"          no card asked for; name one with --vram 12 ({memory['device']})"
        return
    fits = "fits" if memory["is_enough"] else "DOES NOT FIT"
    yield f"          x {MARGIN:g} = {memory['needed']:.2f} GB of {memory['budget']:.2f} GB on {memory['device']}: {fits} (predicted, not measured)"
    if not memory["is_enough"]:
        would = "; or ".join(memory["would_fit"]) or "nothing but a smaller base"
        yield f"          what would fit, by the same count: {would}"


def _some(what: str, entries: list[str]) -> Iterator[str]:
    if entries:
        more = f", and {len(entries) - SHOWN} more" if len(entries) > SHOWN else ""
        yield f"          {what}: {', '.join(entries[:SHOWN])}{more}"
