"""Which checkpoint of a training is drawn with and exported: the one that a person picked, the one that `export.checkpoint`
names, or the last."""

from __future__ import annotations

from lorakit.console import say, typed
from lorakit.errors import LorakitError
from lorakit.project import Project, decisions, stamps
from lorakit.project.runs import Run


def exported_step(project: Project, run: Run) -> int:
    """The step whose checkpoint counts. Raises `LorakitError` when it is not there."""
    chosen, there = stamps.exported_step(project), run.saved_steps
    if chosen is None:
        return there[-1]
    picked, named = stamps.pick(project), project.settings.export.checkpoint
    if picked and named not in (None, chosen):
        say(
            f"export    step {chosen} was picked by hand and goes before export.checkpoint={named}; `lorakit pick {typed(project.folder)} --clear` takes that back"
        )
    if chosen not in there:
        mend = f"lorakit pick {typed(project.folder)} --step N" if picked else "--set export.checkpoint=N"
        raise LorakitError(
            f"{run.folder.name}: no checkpoint of step {chosen} is kept, which is the one to export; there are {', '.join(map(str, there))}: {mend}"
        )
    return chosen


def picked_steps(project: Project, run: Run) -> set[int]:
    """Steps of this run whose checkpoints stay, as they stand on the disk now: somebody may have picked one meanwhile."""
    book = decisions.Decisions(project.folder)
    ever = {change["now"]["step"] for line in book.lines for change in line["changes"] if change["id"] == run.folder.name and change["now"]}
    return ever | {project.settings.export.checkpoint or 0}
