"""Stage trigger: words each caption in the base's style, by the set's rules, and puts the trigger word into it once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lorakit.bases import tokens
from lorakit.caption.sight import open_sight
from lorakit.console import say, typed
from lorakit.project import Project, manifest, stamps
from lorakit.quality import faults
from lorakit.record import Former, Record, Trigger
from lorakit.settings import Settings
from lorakit.text import facets, quality_tags, rules
from lorakit.text.composing import RawCaption, compose
from lorakit.text.placing import keep_trigger, place_trigger
from lorakit.text.trigger_word import check_word

SHOWN = 5  # phrases and faults that are named one by one


def trigger(project: Project) -> None:
    """Give every captioned photo its `text`, and `trigger` = the words and rules it was made with, its tokens, and the
    phrases that were cut to fit; where `caption.clip` names weights, `facets` and `trigger.agreement` too. A former text is
    kept in `former`. A text written by hand is changed only where the trigger is missing or stands more than once. Raises
    `LorakitError` for a trigger that could not be found again."""
    check_word(project.trigger)
    check_rules(project.settings)
    change = 1 + max((entry["change"] for r in project.manifest for entry in r.get("former", ())), default=0)
    stamp = {r["id"]: stamps.trigger(project, r) for r in project.manifest.selected}
    ready = [r for r in project.manifest.selected if r.get("caption") and "caption" in r.get("done", {})]
    todo = [r for r in ready if r["done"].get("trigger") != stamp[r["id"]]]
    if todo:
        count, sight = tokens.counter_for(project).count, open_sight(project, todo)
        found = sight.facets(todo) if sight else {}
        todo: list[Record] = [{**r, "facets": found.get(r["id"])} for r in todo]
        worded = [note_former(r, reword(r, project.settings, count), change) for r in todo]
        worded = (
            sight.score(worded, (project.trigger, *project.settings.caption.lead_tags, *project.settings.caption.quality_tags))
            if sight
            else worded
        )
        project.manifest.keep(*(manifest.finish(r, "trigger", stamp[r["id"]]) for r in worded))
        report(project)
    if project.settings.caption.strict:
        _fail_faulty(project)
    project.manifest.save()


def check_rules(settings: Settings) -> None:
    """Raises for a rule or a family of words that does not exist, before anything is worded."""
    for rule in settings.caption.rules:
        rules.check(rule)
    rules.family_words(settings.caption.omit, "caption.omit")
    rules.family_words(settings.caption.omit_of_thing, "caption.omit_of_thing")
    rules.family_words(settings.caption.describe, "caption.describe")


def reword(record: Record, settings: Settings, count: Callable[[str], int]) -> Record:
    """The record of a captioned photo with its training text, and what that was made with."""
    before, by_hand = record.get("trigger", {}), record.get("human", {}).get("text")
    word = settings.trigger.word
    former = tuple(before.get("words", ()))
    text, cut = word_text(record, settings, count, former)
    made_with: Trigger = {
        "words": list(dict.fromkeys([*former, *([word] if word else [])])),
        "human": by_hand,
        "rules": list(settings.caption.rules),
        "tokens": count(text),
        "cut": cut,
    }
    worded: Record = {**record, "text": text, "trigger": made_with}
    worded.pop("readings", None)
    others = () if by_hand is not None else record["caption"].get("others", ())
    readings = dict.fromkeys(_word_own(other, settings, former) for other in others)
    if more := [reading for reading in readings if reading and reading != text]:
        worded["readings"] = more
    return worded


def word_text(record: Record, settings: Settings, count: Callable[[str], int], former: tuple[str, ...]) -> tuple[str, list[str]]:
    """(text, phrases cut to fit the base's tokens)."""
    found, by_hand = record["caption"], record.get("human", {}).get("text")
    trigger, wanted = settings.trigger, settings.caption
    place = (trigger.word, trigger.class_word, wanted.style, trigger.teaches)
    if by_hand is not None:
        return keep_trigger(by_hand, *place, former=former), []
    if found["own"]:
        return _word_own(found["sentence"], settings, former), []
    reading = facets.joined(RawCaption(found["sentence"], tuple(found["tags"])), record.get("facets"), wanted.min_facet)
    lead, behind = listed_tags(settings)
    if lead or behind:
        reading = replace(reading, tags=quality_tags.without_listed(reading.tags, (*lead, *behind)))
    body = _by_rules(compose(reading, wanted.style, wanted.tag_order), settings)
    beside = found.get("beside")
    if beside:
        own = keep_trigger(beside["text"], None, None, wanted.style, former=(*former, trigger.word) if trigger.word else former)
        body = ", ".join(part.strip(" ,.") for part in ((own, body) if beside["first"] else (body, own)))
    front, back = quality_tags.missing(body, lead, behind)

    def whole(part: str) -> str:
        return quality_tags.around(place_trigger(part, *place), front, back, wanted.style)

    body, cut = tokens.fit(body, wanted.style, lambda part: count(whole(part)) <= wanted.token_budget)
    return whole(body), cut


def listed_tags(settings: Settings) -> tuple[list[str], list[str]]:
    """`caption.lead_tags` and `caption.quality_tags`, without those that a rule of the set takes out."""
    wanted = settings.caption
    taking = tuple(rule for rule in wanted.rules if not rule.startswith("add:"))
    lead, behind = ([tag for tag in tags if rules.apply(tag, taking, "tags")] for tags in (wanted.lead_tags, wanted.quality_tags))
    return lead, behind


def _word_own(caption: str, settings: Settings, former: tuple[str, ...]) -> str:
    """A caption that a person wrote, with the trigger and by the set's rules."""
    trigger, wanted = settings.trigger, settings.caption
    place = (trigger.word, trigger.class_word, wanted.style, trigger.teaches)
    text = keep_trigger(caption, *place, former=former)
    return keep_trigger(_by_rules(text, settings, with_families=wanted.omit_own), *place)


def _by_rules(text: str, settings: Settings, with_families: bool = True) -> str:
    """`text` without the families of words to omit, and after the set's rules."""
    wanted, protected = settings.caption, protected_words(settings)
    if not with_families:
        return rules.apply(text, wanted.rules, wanted.style, protected)
    omitted = rules.family_words(wanted.omit, "caption.omit")
    if omitted:
        text = rules.drop_words(text, omitted, wanted.style, protected)
    of_thing = rules.family_words(wanted.omit_of_thing, "caption.omit_of_thing")
    if of_thing:
        text = rules.drop_words(text, of_thing, wanted.style, protected, of_thing=True)
    return rules.apply(text, wanted.rules, wanted.style, protected)


def protected_words(settings: Settings) -> tuple[str, ...]:
    """Trigger and class word: no rule takes them out of a text."""
    return tuple(word for word in (settings.trigger.word, settings.trigger.class_word) if word)


def spared_words(settings: Settings) -> tuple[str, ...]:
    """What may stand in every text: these, and the tags that are asked for in every text."""
    return (*protected_words(settings), *settings.caption.lead_tags, *settings.caption.quality_tags)


def note_former(before: Record, after: Record, change: int) -> Record:
    """`after` with the text that it replaces, and with what that was made, under the number of this change; a change that
    was taken back is former no longer."""
    text = before.get("text")
    if text is None or text == after["text"]:
        return after
    made_with, now = before.get("trigger", {}), after["trigger"]
    former = before.get("former", [])
    if former and (former[-1]["text"], former[-1]["human"], former[-1]["rules"]) == (after["text"], now["human"], now["rules"]):
        return {**after, "former": former[:-1]}
    entry: Former = {"change": change, "text": text, "human": made_with.get("human"), "rules": made_with.get("rules", [])}
    return {**after, "former": [*former, entry]}


def report(project: Project) -> None:
    """Say what a person should look at before training: phrases in nearly every text, and texts with faults."""
    settings = project.settings
    records = [r for r in project.manifest.selected if r.get("text")]
    for phrase, count in rules.invariants([r["text"] for r in records], spared_words(settings), settings.caption.describe)[:SHOWN]:
        say(
            f"trigger   {phrase!r} stands in {count} of {len(records)} texts, so it belongs to the concept and is better left unsaid: "
            f"`lorakit words {typed(project.folder)} --prune invariants`"
        )
    if longest := max((r["trigger"]["tokens"] for r in records if r.get("trigger")), default=0):
        about = "about " if tokens.counter_for(project).estimated else ""
        say(f"trigger   the longest text takes {about}{longest} of {settings.caption.token_budget} tokens")
    _say_what_own_captions_lose(records, settings)
    found = faults.find(records, settings)
    if any(reason.reason == "prompt_syntax" for reasons in found.values() for reason in reasons):
        say(
            "trigger   what prompting tools read as commands is trained as letters: "
            f"`lorakit words {typed(project.folder)} --strip-syntax` takes it out"
        )
    faulty = sorted((r for r in records if r["id"] in found), key=_score)
    for record in faulty[:SHOWN]:
        say(f"trigger   {record['file']}: {', '.join(f'{reason.reason} {reason.value}' for reason in found[record['id']])}")
    if len(found) > SHOWN:
        say(f"trigger   {len(found)} texts to look at; `lorakit status {typed(project.folder)}` lists them all")


def _say_what_own_captions_lose(records: list[Record], settings: Settings) -> None:
    """Captions of people from which families of words are left out, as they asked for."""
    own = [r for r in records if r.get("caption", {}).get("own")] if settings.caption.omit_own else []
    changed = [r for r in own if _by_rules(r["caption"]["sentence"], settings) != _by_rules(r["caption"]["sentence"], settings, False)]
    if changed:
        families = ", ".join((*settings.caption.omit, *settings.caption.omit_of_thing))
        say(f"trigger   {len(changed)} captions of yours lose words of the families {families} (caption.omit_own)")


def _score(record: Record) -> float:
    """Texts that fit their photo worst come first."""
    return record.get("trigger", {}).get("agreement", 1.0)


def _fail_faulty(project: Project) -> None:
    """With caption.strict a text with a fault leaves its photo out, which ends in exit code 3."""
    for id, reasons in faults.find(project.manifest.selected, project.settings).items():
        why = ", ".join(f"{reason.reason} {reason.value}" for reason in reasons)
        project.manifest.keep(manifest.fail(project.manifest[id], "trigger", f"caption.strict: {why}"))
