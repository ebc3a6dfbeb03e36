"""Run folders: `runs/<time>/` holds one training from its settings to its report. A run is known by the fingerprint of
all that its training depends on, so the same words find the same run again, finished or not."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from lorakit import files
from lorakit.console import warn
from lorakit.errors import LorakitError
from lorakit.quality.values import MOST, is_number
from lorakit.text.lines import split_lines

FACTS = "run.json"
# The fingerprint, and what was true from the start, once more, written once and never again: run.json is written often.
STAMP, BEGUN = "stamp", "begun.json"
NO_NUMBERS = ("nan", "inf", "infinity")  # as other writers of metrics put them into strings; or they write null
NUMBERS = {"epoch", "rate", "grad_norm", "seconds", "validation", "leak", "drift", "memory", "mfu"}  # beside step and loss
LOOKED_AT, SHOWN = 1 << 16, 8  # bytes of a file that is none, and keys of its first line that are told


class Run:
    """One folder of `runs/`. `facts` is run.json: {"stamp", "planned": {...}, "rungs": {setting: value}, "done": {stage: fingerprint},
    "result": {...}}; and "taught": `stamps.taught`, "chance": how it is drawn (see train/going_on.py), "continues": {"run", "step", "steps"} of one that goes on from another, "from_lora":
    {"file", "identity", "hash"} of one that started from a file."""

    def __init__(self, folder: Path):
        """Raises `ValueError` when run.json cannot be read and the run has no copy of its fingerprint."""
        self.folder = folder
        self.facts: dict[str, Any] = _read_facts(folder)

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

    def has_whole_lora(self) -> bool:
        """Whether the LoRA file is there, byte for byte as it was written. (lorakit 0.1.0 noted no checksum.)"""
        expected = self.facts.get("result", {}).get("lora_sum")
        return self.lora is not None and expected in (None, files.file_hash(self.lora))

    def is_done(self, stage: str, stamp: str) -> bool:
        return self.facts["done"].get(stage) == stamp

    def finish(self, stage: str, stamp: str, **result: Any) -> None:
        """Mark a stage done and note what it made (file names relative to the run, figures)."""
        self.facts["done"][stage] = stamp
        self.note(**result)

    def note(self, **result: Any) -> None:
        """Note what was made of the training beside its stages."""
        self.facts.setdefault("result", {}).update(result)
        files.write_json(self.folder / FACTS, self.facts)

    def plan(self, **planned: Any) -> None:
        """Note at the start what the training is going to be: {"steps", "prompts", "seed", "sample_every"}."""
        if self.facts.get("planned") != planned:
            self.facts["planned"] = planned
            files.write_json(self.folder / FACTS, self.facts)

    @property
    def continues(self) -> dict[str, Any]:
        """{"run": the one that this goes on from, "step": after which, "steps": in all}; empty where it began at step 1."""
        found = self.facts.get("continues")
        whole = isinstance(found, dict) and all(isinstance(found.get(key), int) for key in ("step", "steps"))
        return found if isinstance(found, dict) and whole else {}

    @property
    def rungs(self) -> dict[str, Any] | None:
        """The settings that were chosen for the card's memory, not by a person; None where none were looked for."""
        return self.facts.get("rungs")

    def keep_rungs(self, rungs: dict[str, Any]) -> None:
        self.facts["rungs"] = rungs
        files.write_json(self.folder / FACTS, self.facts)

    @property
    def saved_steps(self) -> list[int]:
        """Steps at which there are checkpoints, rising."""
        names = (path.parent.name.removeprefix("step_") for path in self.checkpoints.glob("step_*/optimizer.pt"))
        return sorted(int(name) for name in names if name.isdecimal())

    def reopen(self) -> None:
        """The training and what was made of it count as not done: the last checkpoint turned out to be damaged."""
        self.facts["done"] = {}
        files.write_json(self.folder / FACTS, self.facts)

    def read_metrics(self) -> list[dict[str, Any]]:
        """Lines of metrics.jsonl, each a `StepMetrics` as JSON."""
        return [entry for entry in read_metrics(self.metrics) if isinstance(entry.get("photos"), list)] if self.metrics.is_file() else []

    def read_settings(self) -> dict[str, Any]:
        """The resolved settings it was trained with, {"train.rank": 32, ...}; {} where they were not written."""
        return read_settings(self.folder)


def drawn(folder: Path, ending: str = ".png") -> list[Path]:
    """The pictures `<n><ending>` of a folder of samples, by number: those that lorakit drew. Whatever else lies there is somebody's own."""
    numbers = {path: path.name.removesuffix(ending) for path in folder.glob(f"*{ending}")}
    return sorted((path for path, n in numbers.items() if re.fullmatch("[0-9]{1,9}", n)), key=lambda path: int(numbers[path]))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl that have a step and a loss, by step. A torn last line (killed run) is left out, as are, with a word, lines
    that say something else, values that are no numbers, and what a later line has trained again (see `_as_trained_last`)."""
    lines = split_lines(path.read_text(encoding="utf-8-sig", errors="replace").rstrip("\r\n"))
    entries, passed, odd = [], [], []
    for number, line in enumerate(lines, 1):
        if entry := _read_entry(line, odd, number):
            entries.append(entry)
        elif line.strip() and number < len(lines):
            passed.append(number)
    if passed and entries:  # else it is no such file, which is for whoever asked to say
        more = f", and {len(passed) - 1} more" if len(passed) > 1 else ""
        warn(f"{path}, line {passed[0]}{more}: not whole, or without a step and a loss; passed over")
    if odd:
        warn(f"{path}, {odd[0]}{f', and {len(odd) - 1} more' if len(odd) > 1 else ''}: no number; left out")
    return _as_trained_last(path, entries)


def read_any_metrics(path: Path) -> list[dict[str, Any]]:
    """As `read_metrics` a file that somebody names. Raises `LorakitError` with what was found where no line can be judged."""
    with open(path, "rb") as file:
        is_text = b"\0" not in (head := file.read(LOOKED_AT))
    if is_text and (entries := read_metrics(path)):
        return entries
    if not head.strip():
        found = "it is empty"
    elif not is_text:
        found = "it is no text"
    else:
        first = next((line for line in split_lines(head.decode("utf-8-sig", "replace")) if line.strip()), "").strip()
        keys = [*told] if isinstance(told := _json_or_none(first), dict) else []
        found = f"its first line has {', '.join(map(str, keys[:SHOWN]))}" if keys else f"it begins with {first[:40]!r}"
    raise LorakitError(
        f"{path}: no line has a step and a loss ({found}); a metrics.jsonl of lorakit, in PROJECT/runs/TIME/, has one JSON object a line, such as "
        '{"step": 1, "loss": 0.123}'
    )


def _json_or_none(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _read_entry(line: str, odd: list[str], number: int) -> dict[str, Any] | None:
    """`odd` is told of values that are left out."""
    try:
        entry = json.loads(line)
        entry["loss"] = _loss(entry["loss"])
        step = entry["step"]
        if isinstance(step, bool) or not 0 <= step < MOST or step != int(step):
            return None
        entry["step"] = int(step)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    for key in NUMBERS & entry.keys():
        if not is_number(entry[key]):
            value = entry.pop(key)
            if not _says_no_number(value):
                odd.append(f"line {number}, {key} {str(value)[:20]!r}")
    if not isinstance(entry.get("split", {}), dict) or not all(map(is_number, entry.get("split", {}).values())):
        odd.append(f"line {number}, split")
        del entry["split"]
    names = entry.get("photos", [])
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        entry["photos"] = []
    return entry


def _says_no_number(value: Any) -> bool:
    """Whether it is what writers of metrics put where there is none."""
    return value is None or value != value or (isinstance(value, str) and value.lstrip("+-").lower() in NO_NUMBERS)


def _loss(value: Any) -> float:
    """As it was written; NaN for what stands for no number, and infinite where nothing can be reckoned with it. Raises `TypeError` for
    anything else."""
    if _says_no_number(value):
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError
    return math.inf if abs(value) > MOST else value


def _as_trained_last(path: Path, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By step, each once. Where the lines go back to a step that had been (a training went on from a checkpoint), what stood from there on
    was given up, and the later lines hold. Where they go back to the beginning, they are another training's, and the last is meant."""
    steps = [entry["step"] for entry in entries]
    if len(set(steps)) == len(steps):
        return sorted(entries, key=lambda entry: entry["step"])  # nothing comes twice, in whatever order it was written
    kept: list[dict[str, Any]] = []
    trainings = 1
    for entry in entries:
        if kept and entry["step"] < kept[-1]["step"]:
            while kept and kept[-1]["step"] >= entry["step"]:
                kept.pop()
            trainings += not kept
        if kept and entry["step"] == kept[-1]["step"]:  # told once more
            kept[-1] = kept[-1] | entry
        else:
            kept.append(entry)
    if trainings > 1:
        warn(f"{path}: holds {trainings} trainings, one behind the other; read is the last, of {len(kept)} steps")
    return kept


class _Numbers(yaml.SafeLoader):
    """YAML 1.1 takes 1e-05, as JSON and Python write it, for a word."""


_Numbers.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789"))


def read_settings(folder: Path) -> dict[str, Any]:
    """What settings.yaml in a run's folder says."""
    try:
        said = yaml.load((folder / "settings.yaml").read_text(encoding="utf-8"), _Numbers)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return said if isinstance(said, dict) else {}


def _read_facts(folder: Path) -> dict[str, Any]:
    """What run.json says; where it is torn, what is known without it. Raises `ValueError` where that is nothing."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        parts = (
            (facts.get("done"), facts.get("result", {}), facts.get("planned", {}), facts.get("rungs", {}))
            if isinstance(facts, dict)
            else (None,)
        )
        if not all(isinstance(part, dict) for part in parts) or not isinstance(facts.get("stamp"), str):
            raise ValueError("it lacks its stamp or what is done")
    except (ValueError, RecursionError) as error:
        stamp = _read_stamp(folder)
        if not stamp:  # of lorakit 0.1.0
            raise ValueError("nested too deeply" if isinstance(error, RecursionError) else str(error)) from None
        warn(f"{folder / FACTS}: cannot be read; its training goes on from the checkpoints, and what was made of it is made again")
        return {"stamp": stamp, "done": {}, **_read_begun(folder)}
    return facts


def _read_begun(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / BEGUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _read_stamp(folder: Path) -> str | None:
    try:
        return (folder / STAMP).read_text(encoding="utf-8").strip() or None
    except (OSError, ValueError):
        return None


def all_runs(project: Path) -> list[Run]:
    """Runs of a project, oldest first; one whose run.json is lost is named and left out."""
    found = []
    for path in sorted((project / "runs").glob(f"*/{FACTS}")):
        try:
            found.append(Run(path.parent))
        except ValueError as error:
            warn(f"{path}: cannot be read ({error}); this run is passed over")
    return found


def find(project: Path, stamp: str, from_step_1: bool = False) -> Run | None:
    """The newest run whose training has this fingerprint; with `from_step_1` of those that go on from no other."""
    return next((run for run in reversed(all_runs(project)) if run.facts["stamp"] == stamp and not (from_step_1 and run.continues)), None)


def start(project: Path, stamp: str, facts: Mapping[str, Any] = {}, fill_in: Callable[[Path], None] | None = None) -> Run:  # noqa: B006
    """A new run folder, named by the time; with `facts` in its run.json and what `fill_in` writes, at once or not at all."""
    name = time.strftime("%Y-%m-%d_%H-%M-%S")
    folder = project / "runs" / name
    number = 2
    while folder.exists():
        folder, number = project / "runs" / f"{name}_{number}", number + 1

    def fill(part: Path) -> None:
        if fill_in:
            fill_in(part)
        files.write_json(part / FACTS, {"stamp": stamp, "done": {}, **facts})
        files.write_json(part / BEGUN, dict(facts))
        files.write_text(part / STAMP, f"{stamp}\n")

    files.write_folder(folder, fill)
    return Run(folder)
