"""What a training is going to be, told before any weight is loaded: photos, texts, steps, disk and the memory of the card."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lorakit import device
from lorakit.project import Project, runs, stamps
from lorakit.record import Record
from lorakit.text import clip_bpe
from lorakit.train import going_on, rungs
from lorakit.train.export import DTYPES
from lorakit.train.preflight import check_settings, plan_in_words
from lorakit.train.resolutions import at_every_resolution
from lorakit.train.rungs import COSTS, MARGIN, Fit
from lorakit.weights import quiet_libraries

SHOWN = 5  # texts, and photos of a kind
CLIP_BUDGET = 75  # tokens, of 77 positions
CHECKPOINT_PARTS = 3  # the adapter and AdamW's two moments, all in fp32


def plan(project: Project, vram: float | None = None) -> dict[str, Any]:
    """All that `--plan --json` prints. Loads no weights and writes nothing into the project."""
    check_settings(project)
    quiet_libraries()
    settings = project.settings.train
    where = project.device or device.available()[0]
    photos = [r for r in project.manifest.selected if r.get("dataset")]
    found = rungs.fit(rungs.base_of(project), settings, rungs.budget_of(where, vram), rungs.free_settings(project))
    return {
        "project": str(project.folder),
        "base": project.card.name,
        "photos": photos_of(project, photos),
        "texts": texts_of(project, photos),
        "steps": steps_of(project, photos),
        "disk": disk_of(project, found.need.adapter),
        "memory": {"device": where if vram is None else f"a card of {vram:g} GB", **memory_of(found)},
        "time": None,  # not measured yet
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
    """Token counts are CLIP's; T5's budget is told of by the words, of which it takes about as many."""
    budget = project.settings.caption.token_budget
    counted = sorted(((len(clip_bpe.tokens(r["text"])), r["text"]) for r in photos), reverse=True)
    return {
        "budget": budget,
        "first": [r["text"] for r in photos[:SHOWN]],
        "longest": {"tokens": counted[0][0], "text": counted[0][1]} if counted else None,
        "past_budget": [text for tokens, text in counted if tokens > budget],
        "past_clip": sum(tokens > CLIP_BUDGET for tokens, _ in counted),
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


def memory_of(found: Fit) -> dict[str, Any]:
    need = found.need
    parts = {"weights": need.weights - need.away, "adapter": need.adapter, "optimizer": need.optimizer, "activations": need.activations}
    return {
        **{name: round(value, 2) for name, value in parts.items()},
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
        yield f"          longest: {texts['longest']['tokens']} of {texts['budget']} tokens: {texts['longest']['text']}"
        yield from _some("past the token limit", texts["past_budget"])
        yield f"steps     {steps['sum']}"
        if since := steps["goes_on_from"]:
            yield f"          goes on from step {since['step']} of {since['run']}; --new begins at step 1"
    yield f"disk      the file about {disk['file']:g} MB, a checkpoint about {disk['checkpoint']:g} MB, {disk['kept'] or 'all'} kept"
    yield from memory_in_words(plan["memory"])
    yield "time      not measured yet"


def memory_in_words(memory: dict[str, Any]) -> Iterator[str]:
    parts = ", ".join(f"{name} {memory[name]:.2f}" for name in ("weights", "adapter", "optimizer", "activations"))
    away = f" ({memory['in_machine_memory']:.2f} GB more wait in the machine's memory)" if memory["in_machine_memory"] else ""
    yield f"memory    {parts}: about {memory['peak']:.2f} GB{away}"
    for rung in memory["rungs"]:
        yield f"          {rung['setting']}={rung['value']}: {rung['cost']}"
    if memory["rungs"]:
        yield "          none of these is on by itself yet: " + " ".join(f"--set {r['setting']}={r['value']}" for r in memory["rungs"])
    yield from (f"          not taken: {why}" for why in memory["skipped"])
    if memory["budget"] is None:
        yield f"          no card asked for; name one with --vram 12 ({memory['device']})"
        return
    fits = "fits" if memory["is_enough"] else "DOES NOT FIT"
    yield f"          x {MARGIN:g} = {memory['needed']:.2f} GB of {memory['budget']:.2f} GB on {memory['device']}: {fits} (predicted, not measured)"
    if not memory["is_enough"]:
        yield "          what is left: a lower train.rank, train.targets=attention, a smaller train.resolution"


def _some(what: str, entries: list[str]) -> Iterator[str]:
    if entries:
        more = f", and {len(entries) - SHOWN} more" if len(entries) > SHOWN else ""
        yield f"          {what}: {', '.join(entries[:SHOWN])}{more}"
