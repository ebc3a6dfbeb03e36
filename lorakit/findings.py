"""What a stage found, in one line for the console."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from lorakit.curate import account
from lorakit.project import Project, judged
from lorakit.quality import faults, verdicts
from lorakit.record import Record

MOST = 4  # reasons, or buckets, that are named


def of_stage(project: Project, name: str) -> str | None:
    """'30 photos: 7 keep, 9 warn (5 soft, 4 bright), 14 reject (...)'; None for a stage with nothing to tell but its counts."""
    tell = {
        "scan": _scan, "check": _check, "dedupe": _dedupe, "embed": _embed, "select": _select, "crop": _crop, "caption": _caption,
        "trigger": _trigger,
    }.get(name)  # fmt: skip
    return tell(project) if tell else None


def _scan(project: Project) -> str:
    found = account.read(project)
    return found["lines"][0] if found and found.get("lines") else _photos(len(project.manifest))


def _check(project: Project) -> str:
    found = [verdicts.judge(r, project.settings, with_duplicates=False) for r in project.manifest]
    parts = []
    for verdict in verdicts.ORDER:
        these = [one for one in found if one.verdict == verdict]
        why = Counter(reason for one in these for reason in {r.reason for r in one.reasons if r.verdict == verdict})
        if these:
            parts.append(f"{len(these)} {verdict}{_in_brackets(why)}")
    return f"{_photos(len(found))}: {', '.join(parts)}" if found else "no photos"


def _dedupe(project: Project) -> str:
    found = Counter(r["dedupe"]["reason"] for r in project.manifest if r.get("dedupe", {}).get("of"))
    if not found:
        return "no copies"
    return f"{_many(found.total(), 'copy', 'copies')} left out{_in_brackets(found)}, {_photos(len(project.manifest) - found.total())} left"


def _embed(project: Project) -> str | None:
    if not project.settings.embed.clip:
        return None
    records = list(project.manifest)
    alone = {r["id"]: {x.reason for x in verdicts.judge(r, project.settings, with_embed=False).reasons} for r in records}
    new = Counter(x.reason for r in records for x in verdicts.judge(r, project.settings).reasons if x.reason not in alone[r["id"]])
    return f"{_photos(sum('embed' in r for r in records))} seen{_in_brackets(new)}"


def _select(project: Project) -> str:
    verdicts_of = judged.judge_all(project)
    chosen = project.manifest.selected
    usable = sum(verdict.verdict != "reject" for verdict in verdicts_of.values())
    found = Counter(verdicts_of[r["id"]].verdict for r in chosen)
    return f"{len(chosen)} of {_many(usable, 'usable photo')} chosen{_in_brackets(found)}"


def _crop(project: Project) -> str:
    boxes = [r["crop"] for r in project.manifest.selected if r.get("crop")]
    buckets = Counter(f"{box['bucket'][0]}x{box['bucket'][1]}" for box in boxes if box.get("bucket"))
    shown = ", ".join(f"{count} {size}" for size, count in buckets.most_common(MOST)) + (", ..." if len(buckets) > MOST else "")
    return f"{_photos(len(boxes))} in {_many(len(buckets), 'bucket')} ({shown})" if buckets else _photos(len(boxes))


def _caption(project: Project) -> str:
    found = [r["caption"] for r in project.manifest.selected if r.get("caption") and "caption" not in r.get("failed", {})]
    by = Counter("lay beside the photos" if caption["own"] else f"by {caption['by']}" for caption in found)
    return _many(len(found), "caption") + (f": {', '.join(f'{count} {who}' for who, count in by.most_common())}" if by else "")


def _trigger(project: Project) -> str:
    worded: list[Record] = [r for r in project.manifest.selected if r.get("text")]
    doubtful = Counter(reason.reason for reasons in faults.find(worded, project.settings).values() for reason in reasons)
    word = f" with {project.trigger!r}" if project.trigger else " without a trigger"
    return f"{_many(len(worded), 'text')}{word}" + (f"; to look at{_in_brackets(doubtful)}" if doubtful else "")


def _photos(count: int) -> str:
    return _many(count, "photo")


def _many(count: int, one: str, several: str = "") -> str:
    return f"{count} {one if count == 1 else several or one + 's'}"


def _in_brackets(counts: Counter[str] | Iterable[str]) -> str:
    """' (5 soft, 4 too bright)', the commonest first."""
    found = Counter(counts).most_common()
    shown = ", ".join(f"{count} {word.replace('_', ' ')}" for word, count in found[:MOST]) + (", ..." if len(found) > MOST else "")
    return f" ({shown})" if found else ""
