"""What the report shows of the photos: the chosen set with its crops and texts, the copies, the rejected ones, and the words."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from lorakit.errors import LorakitError
from lorakit.photos.images import data_uri, thumbnail
from lorakit.photos.photo import read_photo
from lorakit.photos.remote import Remote, place_of
from lorakit.project import Project, by_hand
from lorakit.quality import coverage, faults, in_words, verdicts
from lorakit.record import Record
from lorakit.text import phrases
from lorakit.text.words import split_tags, without

# A folder of thousands must not make a page that no browser opens: what is beyond is counted.
SHOWN_CHOSEN = 120
SHOWN_OF_A_REASON = 24
SHOWN_GROUPS = 60  # of copies
SHOWN_COPIES = 8  # of one photo
SHOWN_WORDS = 24


@dataclass(frozen=True)
class Cell:
    """One photo in a gallery. `frame` is left, top, width and height of its crop in percent."""

    file: str
    picture: str  # a data address; '' where it cannot be shown
    size: str
    verdict: str  # keep, warn or reject
    by_hand: bool
    reasons: list[str]
    failed: dict[str, str]
    kind: int = 0  # number of the filter chip that shows it
    note: str = ""


def photo_part(project: Project) -> dict[str, Any]:
    """All that the page says of photos."""
    records = list(project.manifest)
    judged = faults.judge(records, project.settings)
    chosen, side = worst_first(project.manifest.selected, judged), project.settings.report.thumbnail
    shown = [chosen_photo(r, judged[r["id"]], 2 * side) for r in chosen[:SHOWN_CHOSEN]]
    return {
        "counts": {name: sum(1 for v in judged.values() if v.verdict == name) for name in ("keep", "warn", "reject")},
        "total": len(records),
        "waiting": [record["file"] for record in by_hand.waiting(project.manifest)],
        "lacks": coverage.find(chosen, project.kind, project.settings),
        "chosen_count": len(chosen),
        "chosen": shown,
        "by_name": {photo["cell"].file: photo["cell"] for photo in shown},
        "is_scored": any((r.get("trigger") or {}).get("agreement") is not None for r in chosen),
        "copies": copies_part(records, judged, side),
        "rejected": rejected_part(records, judged, side),
        "words": word_frequencies([r["text"] for r in chosen if r.get("text")], project),
    }


def worst_first(chosen: list[Record], judged: dict[str, verdicts.Verdict]) -> list[Record]:
    """The texts that a person should look at come first: those that fit their photo worst, where open_clip has scored
    them; else those with faults."""
    return sorted(chosen, key=lambda r: ((r.get("trigger") or {}).get("agreement", 1.0), not judged[r["id"]].reasons))


def chosen_photo(record: Record, verdict: verdicts.Verdict, side: int) -> dict[str, Any]:
    """A photo of the set with its text."""
    trigger, crop = record.get("trigger") or {}, record.get("crop")
    return {
        "cell": cell(record, verdict, side),
        "text": record.get("text") or "",
        "words_by": (record.get("caption") or {}).get("by", ""),
        "agreement": trigger.get("agreement"),
        "worst": trigger.get("worst"),
        "tokens": trigger.get("tokens"),
        "facets": [(tag, sure) for tag, sure in (record.get("facets") or {}).values() if tag],
        "bucket": " x ".join(map(str, crop["bucket"])) if crop else "",
        "frame": crop_frame(record),
    }


def rejected_part(records: list[Record], judged: dict[str, verdicts.Verdict], side: int) -> dict[str, Any]:
    """{"count", "chips": [(words, count)], "cells"}: rejected photos that are no copies, the commonest reason first."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        verdict = judged[record["id"]]
        is_copy, is_chosen = record.get("dedupe", {}).get("of"), record.get("select", {}).get("selected")  # chosen: see `waiting`
        if verdict.verdict == "reject" and not is_copy and not is_chosen:
            groups[_main_reason(verdict)].append(record)
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    return {
        "count": sum(map(len, groups.values())),
        "chips": [(in_words.name(reason), len(group)) for reason, group in ordered],
        "cells": [
            cell(record, judged[record["id"]], side, kind)
            for kind, (_, group) in enumerate(ordered)
            for record in group[:SHOWN_OF_A_REASON]
        ],
    }


def _main_reason(verdict: verdicts.Verdict) -> str:
    if verdict.by_hand:
        return "by_hand"
    return next((r.reason for r in verdict.reasons if r.verdict == "reject"), "other")


def copies_part(records: list[Record], judged: dict[str, verdicts.Verdict], side: int) -> dict[str, Any]:
    """{"count", "chips", "groups"}: each kept photo with the copies that were left out in its favour."""
    shown, groups = {r["id"]: r for r in records}, defaultdict(list)
    for record in records:
        if of := record.get("dedupe", {}).get("of"):
            groups[of].append(record)
    kinds = Counter(record["dedupe"]["reason"] for group in groups.values() for record in group).most_common()
    number = {reason: kind for kind, (reason, _) in enumerate(kinds)}
    found = [
        {
            "kept": replace(cell(shown[of], judged[of], side), reasons=[]),
            "copies": [_copy_cell(shown[of], r, judged[r["id"]], side, number[r["dedupe"]["reason"]]) for r in group[:SHOWN_COPIES]],
            "kinds": sorted({number[r["dedupe"]["reason"]] for r in group}),
            "more": max(0, len(group) - SHOWN_COPIES),
        }
        for of, group in list(groups.items())[:SHOWN_GROUPS]
        if of in shown
    ]
    return {
        "count": sum(map(len, groups.values())),
        "chips": [(in_words.name(reason), count) for reason, count in kinds],
        "groups": found,
        "more": max(0, len(groups) - SHOWN_GROUPS),
    }


def _copy_cell(kept: Record, record: Record, verdict: verdicts.Verdict, side: int, kind: int) -> Cell:
    """Of a copy nothing matters but that it is one, and why the other was kept."""
    alone = replace(verdict, reasons=tuple(reason for reason in verdict.reasons if reason.reason == record["dedupe"]["reason"]))
    return cell(record, alone, side, kind, why_kept(kept, record))


def cell(record: Record, verdict: verdicts.Verdict, side: int, kind: int = 0, note: str = "") -> Cell:
    size = record.get("measures", {}).get("size")
    return Cell(
        file=record["file"],
        picture=picture_uri(place_of(record), side),
        size=f"{size['width']} x {size['height']}" if size else "",
        verdict=verdict.verdict,
        by_hand=verdict.by_hand,
        reasons=[in_words.in_words(reason) for reason in verdict.reasons],
        failed=record.get("failed", {}),
        kind=kind,
        note=note,
    )


def crop_frame(record: Record) -> tuple[float, ...] | None:
    """Left, top, width and height of the crop, in percent of the photo; None where it is the whole of it."""
    if not record.get("crop"):
        return None
    size, (left, top, right, bottom) = record["measures"]["size"], record["crop"]["box"]
    if right - left >= size["width"] and bottom - top >= size["height"]:
        return None
    shares = left / size["width"], top / size["height"], (right - left) / size["width"], (bottom - top) / size["height"]
    return tuple(round(100 * share, 2) for share in shares)


def why_kept(kept: Record, copy: Record) -> str:
    """In what the kept photo is better than its copy."""
    better = []
    for word, check, measure in (
        ("px wide", "size", "width"),
        ("JPEG quality", "compression", "jpeg_quality"),
        ("sharpness", "sharpness", "sharpness"),
    ):
        ours, theirs = (r.get("measures", {}).get(check, {}).get(measure) for r in (kept, copy))
        if ours is not None and theirs is not None and ours > theirs:
            better.append(f"{word} {theirs:.3g} (kept: {ours:.3g})" if word != "px wide" else f"{theirs} px wide (kept: {ours})")
    return "; ".join(better) or "as good as the kept one"


def picture_uri(path: Path | Remote, side: int) -> str:
    """A thumbnail as a data address, '' where the file cannot be shown."""
    try:
        return data_uri(thumbnail(Image.fromarray(read_photo(path).colours), side))
    except LorakitError:  # also of a store that wants a new sign-in: the report is of what was done before
        return ""


def word_frequencies(texts: list[str], project: Project) -> list[tuple[str, int, float]]:
    """[(phrase, texts that have it, share of them in percent)], the commonest first; trigger and class word left out."""
    trigger, is_tags = project.settings.trigger, project.settings.caption.style == "tags"
    counts: Counter[str] = Counter()
    for text in texts:
        bare = without(text, trigger.word) if trigger.word else text
        parts = split_tags(bare) if is_tags else [phrase.tag for phrase in phrases.split(bare)]
        counts.update({" ".join(part.lower().split()) for part in parts} - {"", (trigger.class_word or "").lower()})
    return [(word, count, round(100 * count / len(texts), 1)) for word, count in counts.most_common(SHOWN_WORDS)]
