"""What the report shows of a training: pictures, curves, photos that never fit, the file and its checks, settings, the command."""

from __future__ import annotations

import json
import shlex
import struct
from pathlib import Path
from typing import Any, cast

import numpy as np
import yaml

from lorakit import settings as settings_module
from lorakit.errors import UnreadablePhoto
from lorakit.files import without_folders
from lorakit.photos.decode import load_image
from lorakit.photos.images import data_uri, thumbnail
from lorakit.project import Project, stamps
from lorakit.project.project import FILE
from lorakit.project.runs import Run
from lorakit.quality.judge import Judgement, judge, never_fit
from lorakit.quality.values import is_number
from lorakit.report.charts import Mark, Series, chart, smooth

PAIR, SMALL = 512, 224  # pixels of the longer side: of base and LoRA beside each other, and of a picture in a table
MOST_GRIDS = 3
MOST_COLUMNS = 10  # of the timeline, evenly spread
HARD, CERTAIN, VISITS = 0.25, 3.5, 4  # a photo's loss over the set's, its standard errors, and the least visits, to name it
MOST_HARD, MOST_PHOTOS = 6, 1500
TOOL_NAMES = {"comfyui": "ComfyUI", "a1111": "A1111", "forge": "Forge", "diffusers": "diffusers"}
BY_HAND = (FILE, "command line")  # layers that a person wrote
OWN_OPTION = {"trigger.word": "--trigger", "trigger.class_word": "--class-word", "train.weights": "--weights"}


def training_part(project: Project, run: Run | None) -> dict[str, Any]:
    """All that the page says of the training; empty parts before there is one."""
    metrics = run.read_metrics() if run else []
    result: dict[str, Any] = dict.fromkeys(("steps", "modules", "lora", "bytes")) | (run.facts.get("result", {}) if run else {})
    judgement = judge(metrics, run.read_settings(), run.saved_steps, result, stamps.exported_step(project)) if run and metrics else None
    visits = sorted((result.get("visits") or {}).values())
    return {
        "run": run,
        "result": result,
        "judgement": judgement,
        "held_out": run.facts.get("planned", {}).get("held_out", []) if run else [],
        "is_validated": any(is_number(entry.get("validation")) for entry in metrics),
        "lora_size": f"{result['bytes'] / 2**20:.1f} MB" if result["bytes"] else "",
        "pairs": pairs(run, result.get("prompts", [])) if run else [],
        "grids": strength_grids(run) if run else [],
        "timeline": timeline(run, result) if run else None,
        "loss_chart": loss_chart(metrics, judgement),
        "leak_chart": chart(
            [_of(metrics, "leak", "the class word alone"), _of(metrics, "drift", "something else", "second")],
            label="leak by step",
            is_low=True,
            from_zero=True,
        ),
        "strength_chart": strength_chart(result.get("strengths") or {}, judgement),
        "time_chart": time_chart(metrics),
        "pace": pace(metrics),
        "split": split(metrics),
        "visits": (visits[0], visits[-1]) if visits else None,
        "hard": hard_photos(metrics, result),
        "checks": checks(run, result) if run else [],
        "settings": (rows := setting_rows(project)),
        "changed": [row for row in rows if row[1] != row[2]],
        "command": command(project),
    }


# Pictures


def pairs(run: Run, prompts: list[str]) -> list[tuple[str, str, str]]:
    """[(prompt, picture without the LoRA, picture with it)], both of one size."""
    folder = run.samples / "final"
    found = [(prompt, folder / f"{n}_base.png", folder / f"{n}_lora.png") for n, prompt in enumerate(prompts)]
    return [(prompt, file_uri(base, PAIR), file_uri(lora, PAIR)) for prompt, base, lora in found if base.is_file() and lora.is_file()]


def timeline(run: Run, result: dict[str, Any]) -> dict[str, Any] | None:
    """{"columns": [words], "rows": [(prompt, [picture or ''])]}: the base, the samples by step, and the chosen checkpoint last. None
    where nothing was drawn while training."""
    steps = {int(f.name.split("_")[1]): f for f in run.samples.glob("step_*") if f.name.split("_")[1].isdecimal()}
    prompts = run.facts.get("planned", {}).get("prompts") or result.get("prompts", [])
    if not steps or not prompts:
        return None
    shown = sorted(steps)
    if len(shown) > MOST_COLUMNS:
        shown = [shown[round(n * (len(shown) - 1) / (MOST_COLUMNS - 1))] for n in range(MOST_COLUMNS)]
    final, drawn = run.samples / "final", result.get("prompts", [])
    rows = []
    for number, prompt in enumerate(prompts):
        at = drawn.index(prompt) if prompt in drawn else None
        ends = [final / f"{at}_{name}.png" for name in ("base", "lora")]
        places = [ends[0], *(steps[step] / f"{number}.png" for step in shown), ends[1]]
        rows.append((prompt, [file_uri(path, SMALL) if path.is_file() else "" for path in places]))
    return {"columns": ["base", *(f"step {step}" for step in shown), "final"], "rows": rows}


def strength_grids(run: Run) -> list[dict[str, Any]]:
    """[{"of": words, "columns": [words], "rows": [(prompt, [picture])]}] of what `lorakit grid` has made, the chosen checkpoint's first;
    {"of", "sheet": picture} of one whose cells were not kept."""
    sheets = sorted(run.samples.glob("grid*.png"), key=lambda path: (path.stem != "grid", -path.stat().st_mtime))
    return [_strength_grid(sheet) for sheet in sheets[:MOST_GRIDS]]


def _strength_grid(sheet: Path) -> dict[str, Any]:
    try:
        told = json.loads(sheet.with_suffix(".json").read_text(encoding="utf-8"))
        columns, cells = [str(words) for words in told["columns"]], sheet.with_suffix("")
        rows = [
            (str(prompt), [file_uri(cells / f"{y}_{x}.png", SMALL) for x in range(len(columns))])
            for y, prompt in enumerate(told["prompts"])
        ]
        of = [f"step {told['step']}"] if told.get("step") else []
        of += [f"with {name} at {strength:g}" for name, strength in (told.get("with") or {}).items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # of a version that kept no cells, or by a hand
        return {"of": sheet.stem.removeprefix("grid").strip("-"), "sheet": file_uri(sheet, 2 * PAIR)}
    return {"of": ", ".join(of), "columns": columns, "rows": rows}


def file_uri(path: Path, side: int) -> str:
    """A picture of the run as a data address, '' where it is damaged."""
    try:
        return data_uri(thumbnail(load_image(path), side), quality=88)
    except UnreadablePhoto:
        return ""


# Curves


def loss_chart(metrics: list[dict[str, Any]], judgement: Judgement | None) -> str:
    """The loss of every step, its smoothed course, the validation, and the rate at the right; with the judged moments marked."""
    loss = _of(metrics, "loss", "each step", "raw")
    smoothed = smooth(loss.values, max(5, len(loss.values) // 15)).tolist() if loss.values else []
    course = Series("smoothed", loss.steps, smoothed, look="course")
    marks = []
    if judgement:
        marks = [Mark(f.since_step, f.verdict.replace("_", " ")) for f in judgement.findings if f.since_step is not None]
        marks += [Mark(judgement.best_step, f"best: step {judgement.best_step}")] if judgement.best_step else []
    series = [loss, course, _of(metrics, "validation", "held out", "held-out"), _of(metrics, "rate", "learning rate", "second", "right")]
    return chart(series, marks, "loss by step")


def strength_chart(strengths: dict[str, float], judgement: Judgement | None) -> str:
    """The validation at each strength of the finished LoRA, the range to use marked."""
    points = sorted((float(strength), loss) for strength, loss in strengths.items())
    found = judgement.strength if judgement else None
    marks = [Mark(found[0], f"from {found[0]:g}"), Mark(found[1], f"to {found[1]:g}")] if found else []
    line = Series("validation", [strength for strength, _ in points], [loss for _, loss in points], look="held-out")
    return chart([line], marks, "validation by strength", is_low=True)


def time_chart(metrics: list[dict[str, Any]]) -> str:
    """Seconds of every step, and the memory where it was measured."""
    seconds = _of(metrics, "seconds", "seconds a step", "course")
    return chart([seconds, _of(metrics, "memory", "memory, GB", "second", "right")], label="seconds a step", is_low=True)


def pace(metrics: list[dict[str, Any]]) -> str:
    """'1.4 s a step, 3 min in all'."""
    seconds = _of(metrics, "seconds", "").values
    if not len(seconds):
        return ""
    total = float(np.sum(seconds))
    whole = f"{total / 3600:.1f} h" if total >= 5400 else f"{total / 60:.0f} min" if total >= 90 else f"{total:.0f} s"
    photos = float(np.mean([len(entry.get("photos") or ()) for entry in metrics]))
    rate = photos / float(np.median(seconds)) if np.median(seconds) else 0.0
    return f"{float(np.median(seconds)):.3g} s a step, {rate:.2g} pictures a second, {whole} in all"


def split(metrics: list[dict[str, Any]]) -> str:
    """'forward 40 %, backward 52 %, optimizer 6 %, data 2 %; 38 % of what the card can do': of the steps' time, where it was measured."""
    parts = [entry["split"] for entry in metrics if isinstance(entry.get("split"), dict)]
    sums = {part: float(sum(one.get(part, 0.0) for one in parts)) for part in ("forward", "backward", "optimizer", "data")}
    if not (whole := sum(sums.values())):
        return ""
    words = ", ".join(f"{part} {100 * seconds / whole:.0f} %" for part, seconds in sums.items())
    shares = _of(metrics, "mfu", "").values
    return words + (f"; {100 * float(np.median(shares)):.0f} % of what the card can do" if len(shares) else "")


def _of(metrics: list[dict[str, Any]], key: str, name: str, look: str = "course", axis: Any = "left") -> Series:
    there = [e for e in metrics if is_number(e.get(key))]
    return Series(name, [e["step"] for e in there], [e[key] for e in there], axis, look)


def hard_photos(metrics: list[dict[str, Any]], result: dict[str, Any]) -> list[tuple[str, float, int]]:
    """[(file, by how much its loss is above the set's, visits)] of photos that never fit, the worst first: by what was measured at the
    end of the training, or where it was not, by its course."""
    if result.get("fit"):
        visits = result.get("visits") or {}
        return [(name, ratio - 1, visits.get(name, 0)) for name, ratio in never_fit(result)[:MOST_HARD]]
    return hard_by_course(metrics)


def hard_by_course(metrics: list[dict[str, Any]]) -> list[tuple[str, float, int]]:
    """As `hard_photos`. A step's loss over the smoothed one is laid to the photos of its batch by least squares, so that batches of
    several photos do."""
    entries = [e for e in metrics if e.get("photos") and is_number(e["loss"])]
    names = sorted({name for entry in entries for name in entry["photos"]})
    if len(entries) < 30 or not 3 <= len(names) <= MOST_PHOTOS:
        return []
    losses = np.array([entry["loss"] for entry in entries], dtype=float)
    excess = losses / np.maximum(smooth(losses.tolist(), max(9, len(losses) // 8)), 1e-12) - 1
    at = {name: number for number, name in enumerate(names)}
    normal, sums, visits = np.zeros((len(names), len(names))), np.zeros(len(names)), np.zeros(len(names), dtype=int)
    for entry, value in zip(entries, excess):
        index, counts = np.unique([at[name] for name in entry["photos"]], return_counts=True)
        share = counts / counts.sum()
        normal[np.ix_(index, index)] += np.outer(share, share)
        sums[index] += share * value
        visits[index] += counts
    inverse = np.linalg.inv(normal + 1e-3 * np.eye(len(names)))
    found = inverse @ sums
    misfit = max(1e-9, float(excess @ excess - found @ sums)) / max(1, len(entries) - len(names))
    errors = np.sqrt(np.maximum(0, misfit * np.diag(inverse)))
    order = np.argsort(-found)
    hard = [n for n in order if found[n] > max(HARD, CERTAIN * errors[n]) and visits[n] >= VISITS]
    return [(names[n], float(found[n]), int(visits[n])) for n in hard[:MOST_HARD]]


# The file


def checks(run: Run, result: dict[str, Any]) -> list[tuple[str, int, int]]:
    """[(tool, keys that it loads, keys in the file)], as the export has found them."""
    total, loaded = count_keys(run.lora) if run.lora else None, cast("dict[str, int]", result.get("loaded") or {})
    return [(TOOL_NAMES.get(tool, tool), int(count), total) for tool, count in loaded.items()] if total else []


def count_keys(path: Path) -> int | None:
    """Tensors in a .safetensors file, by its header; None where that cannot be read."""
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length)) if length < 1 << 27 else {}
    except (OSError, ValueError, struct.error):
        return None
    return len(header.keys() - {"__metadata__"}) or None


# Settings


def setting_rows(project: Project) -> list[tuple[str, str, str, str]]:
    """[(setting, value, default, layer)], those that a person set first, then those of kind and base, then the defaults."""
    defaults = settings_module.resolve([]).flat()
    rows = [
        (key, _as_said(value), _as_said(defaults.get(key)), project.settings.origin[key]) for key, value in project.settings.flat().items()
    ]
    order = {FILE: 0, "command line": 0, "default": 3}
    return sorted(rows, key=lambda row: (order.get(row[3], 1 if row[3].startswith("kind") else 2), row[0]))


def _as_said(value: Any) -> str:
    value = without_folders(value)
    return "-" if value is None or value == () else ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def command(project: Project) -> str:
    """The `lorakit run` that does all of it again; of paths on this machine their last names."""
    words = ["lorakit", "run", *(str(without_folders(str(place))) for place in project.photos), "-o", project.folder.name]
    words += ["--base", project.card.name, "--kind", project.kind.name]
    for key, value in project.settings.flat().items():
        if project.settings.origin[key] not in BY_HAND:
            continue
        if key in OWN_OPTION and value is not None:
            words += [OWN_OPTION[key], str(without_folders(value))]
        elif key in OWN_OPTION:
            words += ["--no-trigger"] if key == "trigger.word" else []
        else:
            words += ["--set", f"{key}={_as_yaml(without_folders(value))}"]
    return shlex.join(words)


def _as_yaml(value: Any) -> str:
    """As `--set` reads it again."""
    if isinstance(value, str) and yaml.safe_load(value) == value:
        return value
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
