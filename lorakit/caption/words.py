"""What a person changes in the words of a whole set: rules, pruning, locks, and taking the last change back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import cast

from lorakit.bases import tokens
from lorakit.caption.trigger import protected_words, reword, spared_words
from lorakit.errors import LorakitError, ProjectBusy
from lorakit.project import Project, by_hand, decisions, manifest, stamps
from lorakit.project.decisions import Change
from lorakit.record import Human, Record, Trigger
from lorakit.settings import Settings
from lorakit.text import rules


def texts(project: Project) -> list[str]:
    return [r["text"] for r in project.manifest.selected if r.get("text")]


def invariant_phrases(project: Project) -> list[tuple[str, int]]:
    """[(phrase, in how many texts)] of what stands in nearly every text."""
    return rules.invariants(texts(project), spared_words(project.settings), project.settings.caption.describe)


def with_rules(project: Project, new: list[str]) -> Project:
    """The project with these rules after its own, decided and written to its project.yaml. Raises for a rule that cannot be
    read."""
    for rule in new:
        rules.check(rule)
    project.decide(rules=[*project.settings.caption.rules, *new])
    return project


def prune(project: Project) -> tuple[Project, list[tuple[str, int]]]:
    """The project with a rule `remove` for every phrase in nearly all texts, and those phrases."""
    found = invariant_phrases(project)
    return (with_rules(project, [f"remove: {phrase}" for phrase, _ in found]) if found else project), found


def preview(project: Project, new: list[str]) -> list[tuple[str, str, str]]:
    """[(photo, text before, text after)] of the texts that rules would change. Changes nothing."""
    return [(r["file"], r["text"], after) for r, after in reworded(project, [*project.settings.caption.rules, *new])]


def reworded(project: Project, all_rules: Sequence[str]) -> list[tuple[Record, str]]:
    """[(record, its text)] of the photos whose text would be another one under these rules in place of the set's own. Changes nothing;
    raises for a rule that cannot be read."""
    for rule in all_rules:
        rules.check(rule)
    changed = replace(project.settings, caption=replace(project.settings.caption, rules=tuple(all_rules)))
    count = tokens.counter_for(project).count  # what does not fit into the base's budget is cut, as in the stage
    texts = ((r, reword(r, changed, count)["text"]) for r in _worded(project))
    return [(record, after) for record, after in texts if after != record["text"]]


def reworded_by_hand(project: Project, records: Sequence[Record], new: Sequence[str]) -> list[tuple[Record, str, str]]:
    """[(record, text before, text after)] of single photos whose text would be another one after these rules: texts by hand, which no
    rule of the set changes. Changes nothing; raises for a rule that cannot be read."""
    for rule in new:
        rules.check(rule)
    style, protected, found = project.settings.caption.style, protected_words(project.settings), []
    for record in records:
        human = record.get("human", {}).get("text")
        before = record.get("text") if human is None else human
        if before and (after := rules.apply(before, tuple(new), style, protected)) != before:
            found.append((record, before, after))
    return found


def unlock(project: Project) -> int:
    """Let texts written by hand follow the captions and rules again; they stay in `former`. Returns how many."""
    locked = [r for r in project.manifest.selected if r.get("human", {}).get("text") is not None]
    project.decide([by_hand.change(record, "text", None) for record in locked])
    return len(locked)


def undo(project: Project) -> tuple[Project, int]:
    """Take the last change of texts back, whatever brought it: its rules go, and each text is again what it was, pinned by
    hand where no rule brings it back. That is one decision. Returns the project and the number of texts. Raises when there is
    nothing to take back.

    While others are at work in the project the texts stay, and the next run words them so."""
    changes = [entry["change"] for r in project.manifest.selected for entry in r.get("former", ())[-1:]]
    if not changes:
        raise LorakitError(f"{project.folder}: no text has been changed yet, so there is nothing to undo")
    touched = [r for r in project.manifest.selected if r.get("former") and r["former"][-1]["change"] == max(changes)]
    earlier = touched[0]["former"][-1]["rules"]
    settings = replace(project.settings, caption=replace(project.settings.caption, rules=tuple(earlier)))
    count = tokens.counter_for(project).count
    pinned = [by_hand.change(r, "text", _former_human(r, settings, count)) for r in touched]
    project.decide(pinned, rules=earlier, undoes=_taken_back(project, pinned, earlier))
    with suppress(ProjectBusy), project.locked():
        project.manifest.keep(*(_restored(project, project.manifest[r["id"]]) for r in touched))
        project.manifest.save()
    return project, len(touched)


def _former_human(record: Record, settings: Settings, count: Callable[[str], int]) -> str | None:
    """What has to be decided of the text of a photo for its former text to come back."""
    entry = record["former"][-1]
    human = _without_text(record.get("human", {}))
    if entry["human"] is not None:
        human["text"] = entry["human"]
    return entry["human"] if reword({**record, "human": human}, settings, count)["text"] == entry["text"] else entry["text"]


def _taken_back(project: Project, changes: list[Change], earlier: list[str]) -> int | None:
    """The number of the decision that is undone by this, where the last change of texts was one."""
    of_texts = (d for d in project.manifest.decisions.standing() if "rules" in d or any(c["what"] == "text" for c in d["changes"]))
    found = next(of_texts, None)
    if found is None:
        return None
    inverse, of_rules = decisions.inverse(found)
    wanted = {c["id"]: c["now"] for c in changes if c["was"] != c["now"]}
    same = wanted == {c["id"]: c["now"] for c in inverse} and all(c["what"] == "text" for c in inverse)
    return found["n"] if same and (of_rules["now"] if of_rules else list(project.settings.caption.rules)) == earlier else None


def _restored(project: Project, record: Record) -> Record:
    """The record with its former text, which stays when the stage is run again."""
    *former, entry = record["former"]
    return _stamped(project, {**record, "former": former, "text": entry["text"]})


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
