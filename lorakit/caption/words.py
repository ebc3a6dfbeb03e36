"""What a person changes in the words of a whole set: rules, pruning, locks, and taking the last change back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from lorakit.caption.trigger import protected_words, reword
from lorakit.errors import LorakitError
from lorakit.project import Project, manifest, open_project, stamps
from lorakit.record import Human, Record, Trigger
from lorakit.text import rules


def texts(project: Project) -> list[str]:
    return [r["text"] for r in project.manifest.selected if r.get("text")]


def invariant_phrases(project: Project) -> list[tuple[str, int]]:
    """[(phrase, in how many texts)] of what stands in nearly every text."""
    return rules.invariants(texts(project), protected_words(project.settings), project.settings.caption.describe)


def with_rules(project: Project, new: list[str]) -> Project:
    """The project with these rules after its own, written to its project.yaml. Raises for a rule that cannot be read."""
    for rule in new:
        rules.check(rule)
    return _with_settings(project, {"caption.rules": [*project.settings.caption.rules, *new]})


def prune(project: Project) -> tuple[Project, list[tuple[str, int]]]:
    """The project with a rule `remove` for every phrase in nearly all texts, and those phrases."""
    found = invariant_phrases(project)
    return (with_rules(project, [f"remove: {phrase}" for phrase, _ in found]) if found else project), found


def preview(project: Project, new: list[str]) -> list[tuple[str, str, str]]:
    """[(photo, text before, text after)] of the texts that rules would change. Changes nothing."""
    wanted = project.settings.caption
    changed = replace(project.settings, caption=replace(wanted, rules=(*wanted.rules, *new)))
    found = []
    for record in _worded(project):
        after = reword(record, changed, len)["text"]
        if after != record["text"]:
            found.append((record["file"], record["text"], after))
    return found


def unlock(project: Project) -> int:
    """Let texts written by hand follow the captions and rules again; they stay in `former`. Returns how many."""
    locked = [r for r in project.manifest.selected if r.get("human", {}).get("text") is not None]
    for record in locked:
        human = _without_text(record["human"])
        project.manifest.keep({**record, "human": human})
    project.manifest.save()
    return len(locked)


def undo(project: Project) -> tuple[Project, int]:
    """Take the last change of texts back: its rules go, and each text is again what it was, pinned by hand where no
    rule brings it back. Returns the project and the number of texts. Raises when there is nothing to take back."""
    changes = [entry["change"] for r in project.manifest.selected for entry in r.get("former", ())[-1:]]
    if not changes:
        raise LorakitError(f"{project.folder}: no text has been changed yet, so there is nothing to undo")
    touched = [r for r in project.manifest.selected if r.get("former") and r["former"][-1]["change"] == max(changes)]
    earlier = touched[0]["former"][-1]["rules"]
    project = _with_settings(project, {"caption.rules": earlier})
    project.manifest.keep(*(_restored(project, record) for record in touched))
    project.manifest.save()
    return project, len(touched)


def _restored(project: Project, record: Record) -> Record:
    """The record with its former text, which stays when the stage is run again."""
    *former, entry = record["former"]
    human = _without_text(record.get("human", {}))
    if entry["human"] is not None:
        human["text"] = entry["human"]
    restored: Record = {**record, "human": human, "former": former}
    if reword(restored, project.settings, len)["text"] != entry["text"]:
        restored["human"] = {**human, "text": entry["text"]}
    return _stamped(project, {**restored, "text": entry["text"]})


def _without_text(human: Human) -> Human:
    """What a person decided besides the text."""
    return cast("Human", {key: value for key, value in human.items() if key != "text"})


def _stamped(project: Project, record: Record) -> Record:
    """The record as stage trigger would leave it, were it run now."""
    made_with: Trigger = {
        **record["trigger"],
        "human": record.get("human", {}).get("text"),
        "rules": list(project.settings.caption.rules),
    }
    record = {**record, "trigger": made_with}
    return manifest.finish(record, "trigger", stamps.trigger(project, record))


def _worded(project: Project) -> list[Record]:
    return [r for r in project.manifest.selected if r.get("text") is not None and r.get("caption") and r.get("trigger")]


def _with_settings(project: Project, changed: Mapping[str, Any]) -> Project:
    return open_project(project.folder, settings=changed, device=project.device)
