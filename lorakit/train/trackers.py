"""What a training tells to TensorBoard, W&B and others (`train.log_with`), through accelerate's classes for them. They only listen: one
that fails is named once and left out, the training goes on, and metrics.jsonl has all of it anyway."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lorakit.console import say, warn
from lorakit.errors import LorakitError, UnknownName
from lorakit.files import short_hash, without_folders
from lorakit.photos.decode import load_image
from lorakit.project import Project, runs
from lorakit.project.runs import Run
from lorakit.train.metrics import StepMetrics

TOLD = (
    "loss",
    "rate",
    "grad_norm",
    "seconds",
    "epoch",
    "validation",
    "leak",
    "drift",
    "memory",
    "mfu",
)  # of a line of metrics.jsonl: numbers, no names of photos
ONE_PICTURE = ("aim", "clearml")  # take a picture under a name; the others take a list
ONLINE = ("online", "shared", "run")  # modes of W&B that want a login


def check(names: Sequence[str]) -> None:
    """Raises `LorakitError` for a tracker that is not known, not installed, or not logged in to."""
    if not names:
        return
    from accelerate import tracking

    there = {str(name) for name in tracking.get_available_trackers()}
    built_in = {str(name) for name in tracking.LoggerType}
    for name in names:
        if name not in tracking.LOGGER_TYPE_TO_CLASS:
            raise UnknownName("tracker", name, list(tracking.LOGGER_TYPE_TO_CLASS), "train.log_with")
        if name in built_in and name not in there:
            raise LorakitError(f"train.log_with: {name} is not installed; `pip install {name}`, or take it out")
    if "wandb" in names:
        _check_login()


def _check_login() -> None:
    """W&B would ask for a key in the middle of the work, where nobody may sit."""
    import wandb

    if wandb.setup().settings.mode not in ONLINE:
        return
    try:
        has_login = wandb.login(prompt=False, verify=False)
    except TypeError:  # of a version that cannot be asked without a prompt
        has_login = bool(wandb.api.api_key)
    if not has_login:
        raise LorakitError("train.log_with: wandb has no login; `wandb login`, or WANDB_MODE=offline keeps it in the run's folder")


class Trackers:
    """The trackers of a run, as long as they do not fail. Its methods do nothing where there are none."""

    def __init__(self, project: Project, run: Run):
        self._at_work: dict[str, Any] = {}
        names = tuple(dict.fromkeys(project.settings.train.log_with))
        if not names:
            return
        from accelerate import PartialState, tracking

        PartialState(cpu=True)  # their messages go through its logger; it shall take no card
        facts = {key: _plain(value) for key, value in project.settings.flat().items()}
        for name in names:
            kind = tracking.LOGGER_TYPE_TO_CLASS[name]
            title = "tensorboard" if name == "tensorboard" else project.folder.name
            places = [str(run.folder)] if kind.requires_logging_directory else []
            self._try(name, lambda kind=kind, words=(title, *places), name=name: _start(kind(*words, **_options(name, run)), facts))
        if self._at_work:
            say(f"          told to {', '.join(self._at_work)} as well")

    def line(self, line: StepMetrics) -> None:
        """The numbers of a step."""
        values = {key: value for key in TOLD if (value := getattr(line, key)) is not None}
        for name, tracker in list(self._at_work.items()):
            self._try(name, lambda tracker=tracker: tracker.log(values, step=line.step) or tracker)

    def samples(self, folder: Path, step: int) -> None:
        """The pictures of a folder that were drawn at a step, `sample_0` the first; to those that take pictures."""
        for name, tracker in list(self._at_work.items()):
            if hasattr(tracker, "log_images"):
                self._try(name, lambda name=name, tracker=tracker: _show(name, tracker, folder, step) or tracker)

    def finish(self) -> None:
        for name, tracker in list(self._at_work.items()):
            self._try(name, lambda tracker=tracker: tracker.finish() or tracker)
        self._at_work = {}

    def _try(self, name: str, work: Callable[[], Any]) -> None:
        """`work` gives back the tracker, which is at work from then on; one that raises is so no longer."""
        try:
            self._at_work[name] = work()
        except Exception as error:  # of whatever kind: other people's code, of which a training must not die
            self._at_work.pop(name, None)
            why = " ".join(str(error).split())[:200] or type(error).__name__
            warn(f"train.log_with: {name} has failed ({why}); the training goes on without it, and metrics.jsonl has all of it")


@contextmanager
def listening(project: Project, run: Run) -> Iterator[Trackers]:
    """The trackers of a run, from their start to their end, however the training ends."""
    trackers = Trackers(project, run)
    try:
        yield trackers
    finally:
        trackers.finish()


def _start(tracker: Any, facts: dict[str, Any]) -> Any:
    if hasattr(tracker, "start"):  # accelerate before 1.7 starts it when it is made
        tracker.start()
    tracker.store_init_configuration(facts)
    return tracker


def _options(name: str, run: Run) -> dict[str, Any]:
    """What lets a run be one run there too, also where it goes on after it was killed, and keeps its files in the run's folder."""
    begun = max(run.saved_steps, default=0)
    own: dict[str, dict[str, Any]] = {
        "tensorboard": {"purge_step": begun + 1},
        "wandb": {
            "name": run.folder.name,
            "id": short_hash(run.facts["stamp"], run.folder.name),
            "resume": "allow",
            "dir": str(run.folder),
            "settings": {"console": "off"},  # what lorakit says names photos
        },
        "trackio": {"name": run.folder.name, "resume": "allow"},
        "swanlab": {"experiment_name": run.folder.name, "logdir": str(run.folder / "swanlab")},
        "dvclive": {"dir": str(run.folder / "dvclive"), "resume": begun > 0},
    }
    return own.get(name, {})


def _show(name: str, tracker: Any, folder: Path, step: int) -> None:
    pictures = {f"sample_{number}": picture for number, picture in enumerate(_pictures(folder))}
    if name == "tensorboard":  # [N, H, W, C]
        tracker.log_images({key: np.asarray(picture)[None] for key, picture in pictures.items()}, step=step, dataformats="NHWC")
    elif name in ONE_PICTURE:
        tracker.log_images(pictures, step=step)
    else:
        tracker.log_images({key: [picture] for key, picture in pictures.items()}, step=step)


def _pictures(folder: Path) -> Iterator[Image.Image]:
    return map(load_image, runs.drawn(folder))


def _plain(value: Any) -> Any:
    """A setting as trackers take it: number or text, of paths on this machine their last names."""
    if isinstance(value, tuple):
        return ", ".join(str(without_folders(one)) for one in value)
    return "" if value is None else without_folders(value)
