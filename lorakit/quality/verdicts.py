"""Verdicts, derived from stored measures and present settings whenever they are read: a changed threshold opens no photo."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from lorakit import lookup
from lorakit.errors import LorakitError
from lorakit.record import Record
from lorakit.settings import Settings

SMALL_FOR_ANY = 512  # pixels of the shorter side
ORDER = {"keep": 0, "warn": 1, "reject": 2}
MOST_KNOWN = 1 << 18  # photos whose reasons are kept in memory
MOST_LIMITS = 8
PLAIN = (str, int, float, bool, type(None))  # what a reason may speak of and be noted


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a photo is not simply kept: one word, the number that was measured and the number that it was held against."""

    verdict: Literal["warn", "reject"]
    reason: str
    value: Any
    threshold: Any


@dataclass(frozen=True, slots=True)
class Verdict:
    """keep, warn or reject, with every reason for it; `by_hand` when a person has decided."""

    verdict: str
    reasons: tuple[Reason, ...]
    by_hand: bool = False


@dataclass(slots=True)
class _Alone:
    """What a photo's measures say of it without its set: the verdict, and its quality for a base's resolution."""

    measures: dict[str, Any]  # held, so that nothing else gets their id
    by: _Limits
    verdict: Verdict
    resolution: int = 0
    quality: float = 0.0


@dataclass(slots=True)
class _Limits:
    """The checks that are there, each with its limits: {name: (judge, settings)}."""

    settings: Any
    checks: tuple[str, ...]
    judges: dict[str, tuple[Any, Any]]


_KEEP = Verdict("keep", ())
_NOTHING: dict[str, Any] = {}
# By the id of the measures themselves, which no one changes once they stand in a record.
_known: dict[int, _Alone] = {}
_limits: dict[int, _Limits] = {}  # by the id of the settings; a page compares two at once


def judge(record: Record, settings: Settings, with_duplicates: bool = True, with_embed: bool = True) -> Verdict:
    """The verdict on a photo. `with_duplicates=False` judges it alone, as `dedupe` needs it; `with_embed=False` by what
    was known before `embed`."""
    alone = _alone(record, settings).verdict
    found, human = record.get("dedupe"), record.get("human", _NOTHING)
    is_copy = with_duplicates and found and found.get("of") and found["of"] not in human.get("apart", ())
    embedded = with_duplicates and with_embed and record.get("embed")
    by_hand = human.get("verdict")
    if not is_copy and not embedded and not by_hand:
        return alone
    reasons = list(alone.reasons)
    if is_copy and found:
        reasons.append(Reason("reject", found["reason"], found["distance"], settings.dedupe.distance))
    if embedded:
        reasons += _embed_reasons(record, settings)
    return Verdict(by_hand or _worst(reasons), tuple(reasons), by_hand is not None)


def _worst(reasons: Sequence[Reason]) -> str:
    return max((reason.verdict for reason in reasons), key=ORDER.__getitem__, default="keep")


def _alone(record: Record, settings: Settings) -> _Alone:
    """Of one photo alone; it is asked for many times over, and is another only where measures or limits are others."""
    measures: dict[str, Any] = record.get("measures", _NOTHING)
    known = _known.get(id(measures))
    if known is not None and known.measures is measures:
        by = known.by
        if by.settings is settings.check and by.checks is lookup.names(lookup.CHECKS):
            return known
    limits = _limits_of(settings)
    reasons = tuple(_reasons_of(record, measures, limits))
    if len(_known) >= MOST_KNOWN:
        _known.clear()
    known = _known[id(measures)] = _Alone(measures, limits, Verdict(_worst(reasons), reasons) if reasons else _KEEP)
    return known


def _limits_of(settings: Settings) -> _Limits:
    checks, held = lookup.names(lookup.CHECKS), _limits.get(id(settings.check))
    if held is None or held.settings is not settings.check or held.checks is not checks:
        judges = {name: (lookup.load(lookup.CHECKS, name).judge, getattr(settings.check, name)) for name in checks}
        if len(_limits) >= MOST_LIMITS:
            _limits.clear()
        held = _limits[id(settings.check)] = _Limits(settings.check, checks, judges)
    return held


def _reasons_of(record: Record, measures: dict[str, Any], limits: _Limits) -> list[Reason]:
    reasons: list[Reason] = []
    name = ""
    try:
        for name, found in measures.items():
            if name in limits.judges:
                judge, its_limits = limits.judges[name]
                reasons.extend(judge(found, its_limits))
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # by a hand or a bad disk: no code writes such
        raise LorakitError(
            f"manifest.jsonl: what is measured of {record['file']} under {name} cannot be read ({error!r}); "
            "remove the line of this photo, and it is looked at anew"
        ) from None
    return reasons


def _embed_reasons(record: Record, settings: Settings) -> Iterator[Reason]:
    found, limits = record.get("embed") or {}, settings.embed
    if limits.apart and (found.get("apart") or 0.0) >= limits.apart:
        yield Reason("reject", "other_subject", found["apart"], limits.apart)
    cosine = found.get("cosine")
    if found.get("of") and cosine is not None and cosine >= limits.same:
        yield Reason("warn", "same_meaning", cosine, limits.same)


def judge_all(records: list[Record], settings: Settings, odd: Mapping[str, Sequence[Reason]] | None = None) -> dict[str, Verdict]:
    """{record id: verdict} of a whole set, with what is odd about a photo among the others (`odd`, where that is known already)."""
    odd = odd_ones(records, settings) if odd is None else odd
    return {r["id"]: add_warnings(judge(r, settings), odd.get(r["id"], ())) for r in records}


def packed(found: Iterable[Verdict]) -> list[Any] | None:
    """Verdicts as JSON can hold them, [all that differ, which of them each is]; None where a check speaks of a value that JSON would
    change."""
    number: dict[str, int] = {}
    which = []
    for verdict in found:
        if not all(type(held) in PLAIN for r in verdict.reasons for held in (r.value, r.threshold)):
            return None
        text = json.dumps([verdict.verdict, verdict.by_hand, [[r.verdict, r.reason, r.value, r.threshold] for r in verdict.reasons]])
        which.append(number.setdefault(text, len(number)))
    return [[json.loads(text) for text in number], which]


def unpacked(kept: list[Any]) -> Iterator[Verdict]:
    """The verdicts that were `packed`, in their order."""
    all_different = [Verdict(verdict, tuple(Reason(*reason) for reason in reasons), by_hand) for verdict, by_hand, reasons in kept[0]]
    return (all_different[number] for number in kept[1])


def odd_ones(records: list[Record], settings: Settings) -> dict[str, list[Reason]]:
    """{record id: in what a photo is unlike the rest of its set}, by the checks that compare. Rejected photos count for
    nothing and get nothing."""
    good = [r for r in records if is_readable(r) and judge(r, settings).verdict != "reject"]
    found: dict[str, list[Reason]] = defaultdict(list)
    for name in lookup.names(lookup.CHECKS):
        if compare := getattr(lookup.load(lookup.CHECKS, name), "odd_ones", None):
            measures = {r["id"]: r["measures"][name] for r in good if name in r["measures"]}
            for id, reason in compare(measures, getattr(settings.check, name)).items():
                found[id].append(reason)
    return dict(found)


def add_warnings(verdict: Verdict, reasons: Sequence[Reason]) -> Verdict:
    """The verdict with further reasons to warn; they never outdo a person's word."""
    if not reasons:
        return verdict
    worst = "warn" if verdict.verdict == "keep" and not verdict.by_hand else verdict.verdict
    return replace(verdict, verdict=worst, reasons=(*verdict.reasons, *reasons))


def are_apart(one: Record, other: Record) -> bool:
    """Whether a person has said that two photos are no copies of each other."""
    return other["id"] in one.get("human", {}).get("apart", ()) or one["id"] in other.get("human", {}).get("apart", ())


def is_readable(record: Record) -> bool:
    return "size" in record.get("measures", _NOTHING)


def quality(record: Record, settings: Settings, odd: Sequence[Reason] = ()) -> float:
    """0..1: pixels (up to twice the wanted side), sharpness, and a fifth off for every warning, also those of `odd_ones`."""
    if not is_readable(record):
        return 0.0
    alone = _alone(record, settings)
    if odd:
        return _quality(alone, settings, len(odd))
    if alone.resolution != settings.train.resolution:
        alone.resolution, alone.quality = settings.train.resolution, _quality(alone, settings, 0)
    return alone.quality


def _quality(alone: _Alone, settings: Settings, odd: int) -> float:
    measures = alone.measures
    side = min(measures["size"]["width"], measures["size"]["height"])
    pixels = min(1.0, side / (2 * settings.train.resolution))
    sharp = measures["sharpness"]["sharpness"]
    # `pixels` says already how small a photo is for a large base; only what is small for any base counts a second time
    warnings = sum(not (reason.reason == "small" and side >= SMALL_FOR_ANY) for reason in alone.verdict.reasons) + odd
    return round(pixels**0.5 * (0.5 if sharp is None else 0.2 + 0.8 * sharp) * 0.8**warnings, 4)


def worth_among_copies(record: Record) -> float:
    """Which of several copies of one picture is the best to keep: pixels, less those that compression has cost."""
    measures = record.get("measures", {})
    if not is_readable(record):
        return 0.0
    pixels = measures["size"]["width"] * measures["size"]["height"]
    quality = measures.get("compression", {}).get("jpeg_quality") or 100
    return pixels * (0.5 + quality / 200) * (0.5 + 0.5 * (measures["sharpness"]["sharpness"] or 0.0))
