"""A training text while it is written: its tokens, what is wrong with it and where, what lies past the limit; and words to offer."""

from __future__ import annotations

import csv
import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from lorakit.bases import tokens
from lorakit.caption import words as set_words
from lorakit.caption.trigger import reword
from lorakit.console import safe
from lorakit.errors import LorakitError
from lorakit.page.answers import take
from lorakit.page.index import Index
from lorakit.project import Project, runs
from lorakit.quality import faults, in_words
from lorakit.quality.verdicts import Reason
from lorakit.record import Record
from lorakit.text import rules
from lorakit.text.cleaning import whole
from lorakit.text.words import whole_word

if TYPE_CHECKING:
    from lorakit.page.server import House

OWN_LIST = "words.csv"  # in the project's folder, a word or tag first in each line: offered while a text is written
MOST_OFFERED = 5000
MOST_OF_OWN = 200_000
MOST_TEXT = 20_000

COUNT_EVERY = 60.0  # seconds

_commons: WeakKeyDictionary[Index, tuple[float, list[tuple[str, int]]]] = WeakKeyDictionary()
_counters: dict[Any, tokens.Counter] = {}
_loading = threading.Lock()


def look(house: House, sent: dict[str, Any]) -> dict[str, Any]:
    """What is to be said of a text of a photo that is being written: {"trained": as it would be trained on, "tokens", "budget",
    "estimated", "past": the place from which it is not read any more, "faults": [[reason, words, [[from, to]]]]}."""
    text = whole(take(sent, "text", str))[:MOST_TEXT]
    with house.index.held() as project:
        record = house.index.record(project, take(sent, "id", str))
    counter, settings = _counter_of(project), project.settings
    budget = settings.caption.token_budget
    trained = _as_trained(record, project, text, counter)
    found = faults.find([trained], settings).get(record["id"], []) if trained.get("caption") else []
    common = _common(house, project)
    marks = [[reason.reason, safe(in_words.in_words(reason)), _places(text, reason)] for reason in found]
    marks += [["in_every_text", f"in nearly every text: {phrase}", spans] for phrase, _ in common if (spans := _spans(text, phrase))]
    worded = trained.get("text", text)
    added = max(0, counter.count(worded) - counter.count(text))  # by a trigger that is put in
    return {
        "trained": worded,
        "tokens": {name: len(encode(worded)) for name, encode in counter.encoders.items()} or {"about": counter.count(worded)},
        "budget": budget,
        "estimated": counter.estimated,
        "past": _past(text, counter, budget - added),
        "faults": marks,
    }


def _common(house: House, project: Project) -> list[tuple[str, int]]:
    """Phrases of nearly every text, counted anew now and then: a large set takes a second."""
    counted_at, found = _commons.get(house.index, (-COUNT_EVERY, []))
    if time.monotonic() - counted_at > COUNT_EVERY:
        found = set_words.invariant_phrases(project)
        _commons[house.index] = time.monotonic(), found
    return found


def _as_trained(record: Record, project: Project, text: str, counter: tokens.Counter) -> Record:
    """The record as stage trigger would word it with this text by hand."""
    written: Record = {**record, "human": {**record.get("human", {}), "text": " ".join(text.split())}}
    return reword(written, project.settings, counter.count) if record.get("caption") else {**written, "text": text}


def _places(text: str, reason: Reason) -> list[list[int]]:
    """Where in the text the words stand that a fault names."""
    named = reason.value if isinstance(reason.value, (list, tuple)) else [reason.value, reason.threshold]
    return [span for word in named if isinstance(word, str) and word for span in _spans(text, word)]


def _spans(text: str, phrase: str) -> list[list[int]]:
    return [[found.start(), found.end()] for found in whole_word(phrase).finditer(text)]


def _past(text: str, counter: tokens.Counter, budget: int) -> int | None:
    """The place of the first word that does not fit into the budget any more; None where all does."""
    if counter.count(text) <= budget:
        return None
    starts = [found.start() for found in re.finditer(r"\S+", text)]
    low, high = 0, len(starts)
    while low < high:  # the most words that fit
        middle = (low + high + 1) // 2
        end = starts[middle] if middle < len(starts) else len(text)
        low, high = (middle, high) if counter.count(text[:end].rstrip()) <= budget else (low, middle - 1)
    return starts[low] if low < len(starts) else None


def _counter_of(project: Project) -> tokens.Counter:
    """The base's tokenizers; an estimate until they are loaded, which a thread does."""
    key = (project.card.name, project.settings.train.weights, project.settings.caption.token_budget)
    if key not in _counters and _loading.acquire(blocking=False):

        def load() -> None:
            try:
                _counters[key] = tokens.counter_for(project)
            except (LorakitError, OSError):
                _counters[key] = tokens.Counter({}, estimated=True)
            finally:
                _loading.release()

        thread = threading.Thread(target=load, name="tokenizer", daemon=True)
        thread.start()
        thread.join(0.3)  # most are there in less
    return _counters.get(key) or tokens.Counter({}, estimated=True)


def phrases_of(house: House) -> dict[str, Any]:
    """Words to offer while a text is written: [[phrase, in how many texts]], the set's own first."""
    with house.index.held() as project:
        chosen = project.manifest.selected
        counts = Counter(dict(rules.frequencies([r["text"] for r in chosen if r.get("text")])))
        seen = {facet[0] for r in chosen for facet in (r.get("facets") or {}).values() if facet and facet[0]}
    found = dict(counts.most_common(MOST_OFFERED))
    for word in (*sorted(seen), *_own_list(house)):
        found.setdefault(word, 0)
    return {"phrases": [[phrase, count] for phrase, count in found.items()]}


def _own_list(house: House) -> Iterator[str]:
    path = house.folder / OWN_LIST
    if not path.is_file():
        return
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        try:
            for number, line in enumerate(csv.reader(file)):
                if number >= MOST_OF_OWN:
                    return
                if line and line[0].strip():
                    yield line[0].strip().replace("_", " ")
        except csv.Error:
            return


def visits_of(house: House) -> dict[str, Any]:
    """{id: [mean loss of the steps that a photo was in, visits]} of the newest training."""
    run = next(reversed(runs.all_runs(house.folder)), None)
    if run is None:
        return {"visits": {}}
    losses: dict[str, float] = defaultdict(float)
    visits: Counter[str] = Counter()
    for entry in run.read_metrics():
        for name in entry["photos"]:
            losses[name] += entry["loss"]
            visits[name] += 1
    with house.index.held() as project:
        ids = {r["file"]: r["id"] for r in project.manifest}
    return {"visits": {ids[name]: [round(losses[name] / count, 5), count] for name, count in visits.items() if name in ids}}
