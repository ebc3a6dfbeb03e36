"""The words of the whole set: counted, and changed by rules that later photos follow, or in the texts of some photos by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.routing import BaseRoute

from lorakit import files
from lorakit.caption import words
from lorakit.caption.trigger import spared_words
from lorakit.console import safe
from lorakit.errors import Conflict, LorakitError, ProjectBusy
from lorakit.page.answers import get, post, take, take_list
from lorakit.project import Project, by_hand
from lorakit.text import rules
from lorakit.text.cleaning import whole

if TYPE_CHECKING:
    from lorakit.page.server import House

SHOWN_PHRASES = 1500
SHOWN_CHANGES = 300
MOST_RULES = 2000


def routes(house: House) -> list[BaseRoute]:
    return [
        get("/words", lambda request: table(house)),
        post("/words/look", lambda sent: look(house, sent)),
        post("/words/save", lambda sent: save(house, sent)),
    ]


def table(house: House) -> dict[str, Any]:
    """Every phrase with the number of its texts, the rules that hold, and phrases that stand in nearly every text."""
    with house.index.held() as project:
        texts, settings = words.texts(project), project.settings
    phrases = rules.frequencies(texts)  # a second for a large set: nobody waits for it
    common = rules.invariants(texts, spared_words(settings), settings.caption.describe)
    return {"texts": len(texts), "phrases": phrases[:SHOWN_PHRASES], "rules": list(settings.caption.rules), "common": common}


def look(house: House, sent: dict[str, Any]) -> dict[str, Any]:
    """Which texts would be others, all counted and the first shown, and a mark of them all for `save`. {"rules": all that shall hold}
    for the whole set; {"rules": those to apply, "ids"} for the texts of some photos, by hand."""
    with house.index.held() as project:
        pass  # as it stands now; others may decide while this counts
    found = _changes(house, project, sent)
    shown = [[id, safe(name), before, after] for id, name, before, after in found[:SHOWN_CHANGES]]
    return {"count": len(found), "shown": shown, "mark": _mark(found)}


def save(house: House, sent: dict[str, Any]) -> dict[str, Any]:
    """Do what `look` has shown, as one decision. The texts of the whole set follow with a command that is started here, or with the one
    that is at work."""
    mark = take(sent, "mark", str)
    with house.index.held() as project:
        found = _changes(house, project, sent)
        if _mark(found) != mark:
            raise Conflict("the texts have changed since this was shown; nothing was changed, look again")
        if "ids" in sent:
            changes = [by_hand.change(project.manifest[id], "text", after) for id, _, _, after in found]
            project.decide(changes, "page")
            house.index.laid(id for id, *_ in found)
            return {"count": len(found), "follows": ""}
        project.decide(by="page", rules=_rules(sent))
    try:
        house.children.start("run", "--from", "trigger", "--until", "dataset")
        return {"count": len(found), "follows": "now"}
    except ProjectBusy:
        return {"count": len(found), "follows": "later"}


Found = list[tuple[str, str, str, str]]  # id, name, text before, text after


def _changes(house: House, project: Project, sent: dict[str, Any]) -> Found:
    new = _rules(sent)
    if len(new) > MOST_RULES:
        raise LorakitError(f"more than {MOST_RULES} rules")
    if "ids" in sent:
        records = [house.index.record(project, id) for id in dict.fromkeys(take_list(sent, "ids", str))]
        return [(r["id"], r["file"], before, after) for r, before, after in words.reworded_by_hand(project, records, new)]
    return [(r["id"], r["file"], r["text"], after) for r, after in words.reworded(project, new)]


def _rules(sent: dict[str, Any]) -> list[str]:
    return [whole(rule) for rule in take_list(sent, "rules", str)]


def _mark(found: Found) -> str:
    return files.short_hash([(id, before, after) for id, _, before, after in found])
