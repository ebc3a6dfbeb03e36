"""The trainings: their curves as they grow, where they stand, and starting and stopping one. A run is named by its place among all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.routing import BaseRoute

from lorakit.console import safe
from lorakit.errors import LorakitError
from lorakit.page.answers import NotThere, get, post, take
from lorakit.project import runs, work
from lorakit.project.runs import Run
from lorakit.quality.judge import judge
from lorakit.quality.values import is_number

if TYPE_CHECKING:
    from lorakit.page.server import House

STOP = "stop"  # the file in a run's folder that asks a training to stop: see lorakit/train/stopping.py
MOST_READ = 8 << 20  # bytes of metrics in one answer
COLUMNS = ("step", "loss", "rate", "grad_norm", "seconds", "validation", "leak")
TOLD = ("train.steps", "train.rank", "train.learning_rate", "train.optimizer", "train.resolution", "train.batch_size")


def routes(house: House) -> list[BaseRoute]:
    return [
        get("/runs", lambda request: all_runs(house)),
        get("/runs/{n:int}/metrics", lambda request: metrics(house, request)),
        get("/runs/{n:int}/judgement", lambda request: judgement(house, request.path_params["n"])),
        post("/train", lambda sent: train(house, sent)),
        post("/stop", lambda sent: stop(house)),
    ]


def find_run(house: House, n: int) -> Run:
    """Raises `NotThere`."""
    there = runs.all_runs(house.folder)
    if not 0 <= n < len(there):
        raise NotThere("this training is no longer there")
    return there[n]


def all_runs(house: House) -> dict[str, Any]:
    """Every training, oldest first, and how the newest stands."""
    there = runs.all_runs(house.folder)
    return {"runs": [facts(run, n) for n, run in enumerate(there)], "standing": standing(house, there), "child": house.children.told()}


def facts(run: Run, n: int) -> dict[str, Any]:
    settings = run.read_settings()
    planned = run.facts.get("planned", {})
    return {
        "n": n,
        "name": run.folder.name,
        "planned": {key: planned.get(key) for key in ("steps", "sample_every", "prompts")},
        "continues": run.continues,
        "saved": run.saved_steps,
        "sampled": sampled_steps(run),
        "sampleSeconds": _seconds_of_samples(run),
        "done": sorted(run.facts["done"]),
        "settings": {key: settings[key] for key in TOLD if key in settings},
    }


def standing(house: House, there: list[Run]) -> str:
    """Derived, never stored: "training", "stopping", "starting" (nothing is trained yet), "stopped" with steps left, "done", or "none"."""
    at_work = work.find(house.folder)
    newest = there[-1] if there else None
    if at_work and at_work.get("stage") in ("cache", "train"):
        begun = newest is not None and "train" not in newest.facts["done"]
        if newest is None or not begun:
            return "starting"
        return "stopping" if (newest.folder / STOP).exists() else "training"
    child = house.children.told()
    if child.get("running") and child["words"][0] == "train":
        return "starting"  # it looks at the project before it takes the lock
    if newest is None:
        return "none"
    return "done" if "train" in newest.facts["done"] else "stopped"


def sampled_steps(run: Run) -> list[int]:
    names = (folder.name.removeprefix("step_") for folder in run.samples.glob("step_*"))
    return sorted(int(name) for name in names if name.isdecimal())


def _seconds_of_samples(run: Run) -> float:
    """How long the pictures of the newest samples took, by when they were written."""
    steps = sampled_steps(run)
    if not steps:
        return 0.0
    times = sorted(path.stat().st_mtime for path in (run.samples / f"step_{steps[-1]:06d}").glob("*.png"))
    return round((times[-1] - times[0]) * len(times) / (len(times) - 1), 1) if len(times) > 1 else 0.0


def metrics(house: House, request: Request) -> dict[str, Any]:
    """The lines of metrics.jsonl behind the byte `from` of the file `of`, as columns; {"of": another} where the file is another by
    now, from its beginning."""
    run = find_run(house, request.path_params["n"])
    start = request.query_params.get("from", "0")
    at = int(start) if start.isdecimal() and len(start) < 16 else 0
    found: dict[str, Any] = {"run": facts(run, request.path_params["n"]), "standing": standing(house, runs.all_runs(house.folder))}
    try:
        with open(run.metrics, "rb") as file:
            stat = os.fstat(file.fileno())
            of = f"{stat.st_ino}"
            if at > stat.st_size or request.query_params.get("of") != of:
                at = 0
            file.seek(at)
            whole, end, _ = file.read(MOST_READ).rpartition(b"\n")
    except FileNotFoundError:
        return found | {"of": "", "from": 0, "next": 0, "columns": {name: [] for name in COLUMNS}}
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for entry in map(_read, whole.split(b"\n")):
        if entry is not None:
            for name in COLUMNS:
                value = entry.get(name)
                columns[name].append(value if is_number(value) else None)
    return found | {"of": of, "from": at, "next": at + len(whole) + len(end), "columns": columns}


def _read(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
        return entry if isinstance(entry["step"], int) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def judgement(house: House, n: int) -> dict[str, Any]:
    """What `lorakit judge` says of it so far."""
    run = find_run(house, n)
    entries = run.read_metrics()
    if not entries:
        return {}
    found = judge(entries, run.read_settings(), run.saved_steps, run.facts.get("result", {}))
    return {"verdict": found.verdict, "best": found.best_step, "strength": found.strength, "advice": safe(found.advice)}


def train(house: House, sent: dict[str, Any]) -> dict[str, Any]:
    """Start a training, or go on with the one that stands; {"new": true}: again from step 1."""
    return house.children.start("train", *(["--new"] if take(sent, "new", bool) else []))


def stop(house: House) -> dict[str, Any]:
    """Ask the training to finish its step, write a checkpoint and leave."""
    there = runs.all_runs(house.folder)
    if standing(house, there) not in ("training", "stopping"):
        raise LorakitError("no training is at its steps now")
    Path(there[-1].folder / STOP).touch()
    return {"standing": "stopping"}
