"""Run folders: `runs/<time>/` holds one training from its settings to its report. A run is known by the fingerprint of
all that its training depends on, so the same words find the same run again, finished or not."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from lorakit import files
from lorakit.console import warn


class Run:
    """One folder of `runs/`. `facts` is run.json: {"stamp", "planned": {...}, "done": {stage: fingerprint}, "result": {...}}."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.facts: dict[str, Any] = _read_facts(folder / "run.json")

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        return self.folder / "samples"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def lora(self) -> Path | None:
        """The exported LoRA file, once it is there."""
        name = self.facts.get("result", {}).get("lora")
        return self.folder / name if files.is_plain_name(name) and (self.folder / name).is_file() else None

    def is_done(self, stage: str, stamp: str) -> bool:
        return self.facts["done"].get(stage) == stamp

    def finish(self, stage: str, stamp: str, **result: Any) -> None:
        """Mark a stage done and note what it made (file names relative to the run, figures)."""
        self.facts["done"][stage] = stamp
        self.facts.setdefault("result", {}).update(result)
        files.write_json(self.folder / "run.json", self.facts)

    def plan(self, **planned: Any) -> None:
        """Note at the start what the training is going to be: {"steps", "prompts", "seed", "sample_every"}."""
        if self.facts.get("planned") != planned:
            self.facts["planned"] = planned
            files.write_json(self.folder / "run.json", self.facts)

    @property
    def saved_steps(self) -> list[int]:
        """Steps at which there are checkpoints, rising."""
        return sorted(int(path.parent.name.split("_")[1]) for path in self.checkpoints.glob("step_*/optimizer.pt"))

    def read_metrics(self) -> list[dict[str, Any]]:
        """Lines of metrics.jsonl; a torn last line (killed run) is left out, as is, with a word, one that is torn in the middle."""
        if not self.metrics.is_file():
            return []
        entries = []
        lines = self.metrics.read_text(encoding="utf-8", errors="replace").splitlines()
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                entry = None
            if isinstance(entry, dict):
                entries.append(entry)
            elif number < len(lines):
                warn(f"{self.metrics}, line {number}: not whole; passed over")
        return entries


def _read_facts(path: Path) -> dict[str, Any]:
    """Raises `ValueError` where the file is no run's."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(facts, dict) or "stamp" not in facts or not isinstance(facts.get("done"), dict):
        raise ValueError("it lacks its stamp or what is done")
    return facts


def all_runs(project: Path) -> list[Run]:
    """Runs of a project, oldest first; one whose run.json is torn is named and left out."""
    found = []
    for path in sorted((project / "runs").glob("*/run.json")):
        try:
            found.append(Run(path.parent))
        except ValueError as error:
            warn(f"{path}: cannot be read ({error}); this run is passed over")
    return found


def find(project: Path, stamp: str) -> Run | None:
    """The newest run whose training has this fingerprint."""
    return next((run for run in reversed(all_runs(project)) if run.facts["stamp"] == stamp), None)


def start(project: Path, stamp: str) -> Run:
    """A new run folder, named by the time."""
    name = time.strftime("%Y-%m-%d_%H-%M-%S")
    folder = project / "runs" / name
    number = 2
    while folder.exists():
        folder, number = project / "runs" / f"{name}_{number}", number + 1
    files.write_folder(folder, lambda part: files.write_json(part / "run.json", {"stamp": stamp, "done": {}}))
    return Run(folder)
