"""The verdicts of all photos of a project, worked out once for as long as neither a record nor a setting is another."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from lorakit.quality import verdicts
from lorakit.quality.verdicts import Reason, Verdict

if TYPE_CHECKING:
    from lorakit.project.project import Project

Found = TypeVar("Found")


def once(project: Project, what: str, work: Callable[[], Found]) -> Found:
    """What `work` finds out of all records and the settings, or has found out already."""
    known = project.manifest.memo.get(what)
    if known is None or known[0] is not project.settings:
        found = work()  # which may itself remember something
        known = project.manifest.memo[what] = project.settings, found
    return known[1]


def odd_ones(project: Project) -> dict[str, list[Reason]]:
    """`verdicts.odd_ones` of the project's photos."""
    return once(project, "odd ones", lambda: verdicts.odd_ones(list(project.manifest), project.settings))


def judge_all(project: Project) -> dict[str, Verdict]:
    """`verdicts.judge_all` of the project's photos."""
    return once(project, "verdicts", lambda: verdicts.judge_all(list(project.manifest), project.settings, odd_ones(project)))
