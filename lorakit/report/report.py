"""Stage report: one HTML file that needs no other, with what was kept and why, what was trained and which file to use."""

from __future__ import annotations

import re
from collections import defaultdict
from importlib import resources
from pathlib import Path
from typing import Any

from PIL import Image

from lorakit import __version__, files
from lorakit.errors import UnreadablePhoto
from lorakit.photos.images import data_uri, thumbnail
from lorakit.photos.photo import read_photo
from lorakit.project import Project, by_hand, runs, stamps
from lorakit.project.runs import Run
from lorakit.quality import coverage, faults, verdicts
from lorakit.quality.judge import judge
from lorakit.record import Record
from lorakit.report.charts import loss_curve

SHOWN_OF_A_REASON = 60  # thumbnails of one reason; a folder of thousands must not make a page of gigabytes
SHOWN_CHOSEN = 200


def report(project: Project) -> Path:
    """Write `report.html` into the run folder (before any training: into the project). Returns its path."""
    run = runs.find(project.folder, stamps.train(project)) if any(r.get("dataset") for r in project.manifest) else None
    path = (run.folder if run else project.folder) / "report.html"
    stamp = stamps.report(project)
    if run and run.is_done("report", stamp) and path.is_file():
        return path
    files.write_text(path, render(project, run))
    if run:
        run.finish("report", stamp)
    return path


def render(project: Project, run: Run | None) -> str:
    """The page as text."""
    import jinja2

    template = (resources.files("lorakit.report") / "page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(version=__version__, project=project, **photo_part(project), **run_part(project, run))


def photo_part(project: Project) -> dict[str, Any]:
    """Counts, the chosen set, rejected photos by reason, copies beside the photo that was kept."""
    side = project.settings.report.thumbnail
    records = list(project.manifest)
    judged = faults.judge(records, project.settings)
    shown = {r["id"]: r for r in records}
    rejected: dict[str, list] = defaultdict(list)
    copies: dict[str, list] = defaultdict(list)
    for record in records:
        verdict = judged[record["id"]]
        if of := record.get("dedupe", {}).get("of"):
            copies[of].append(record)
        elif verdict.verdict == "reject" and not record.get("select", {}).get("selected"):  # not both: see `waiting`
            rejected[_main_reason(verdict)].append(record)
    chosen = worst_first(project.manifest.selected, judged)
    return {
        "counts": {name: sum(1 for v in judged.values() if v.verdict == name) for name in ("keep", "warn", "reject")},
        "total": len(records),
        "waiting": [record["file"] for record in by_hand.waiting(project.manifest)],
        "chosen_count": len(chosen),
        "chosen": [photo_card(r, judged[r["id"]], side) for r in chosen[:SHOWN_CHOSEN]],
        "rejected": {
            reason: {"count": len(group), "photos": [photo_card(r, judged[r["id"]], side) for r in group[:SHOWN_OF_A_REASON]]}
            for reason, group in sorted(rejected.items(), key=lambda item: -len(item[1]))
        },
        "copies": [
            {
                "kept": photo_card(shown[of], judged[of], side),
                "others": [(photo_card(r, judged[r["id"]], side), why_kept(shown[of], r)) for r in group],
            }
            for of, group in list(copies.items())[:SHOWN_OF_A_REASON]
            if of in shown
        ],
        "copies_count": sum(map(len, copies.values())),
        "token_budget": project.settings.caption.token_budget,
        "lacks": coverage.find(chosen, project.kind, project.settings),
    }


def worst_first(chosen: list[Record], judged: dict[str, verdicts.Verdict]) -> list[Record]:
    """The texts that a person should look at come first: those that fit their photo worst, where open_clip has scored
    them; else those with faults."""
    return sorted(chosen, key=lambda r: ((r.get("trigger") or {}).get("agreement", 1.0), not judged[r["id"]].reasons))


def _main_reason(verdict: verdicts.Verdict) -> str:
    if verdict.by_hand:
        return "by hand"
    return next((r.reason for r in verdict.reasons if r.verdict == "reject"), "other")


def photo_card(record: Record, verdict: verdicts.Verdict, side: int) -> dict[str, Any]:
    """What the page shows of one photo."""
    size = record.get("measures", {}).get("size")
    return {
        "file": record["file"],
        "picture": picture_uri(Path(record["path"]), side),
        "size": f"{size['width']} x {size['height']}" if size else "",
        "verdict": "by hand: " + verdict.verdict if verdict.by_hand else verdict.verdict,
        "reasons": [(r.reason, r.value, r.threshold) for r in verdict.reasons],
        "text": record.get("text") or "",
        "words_by": (record.get("caption") or {}).get("by", ""),
        "agreement": (record.get("trigger") or {}).get("agreement"),
        "tokens": (record.get("trigger") or {}).get("tokens"),
        "facets": [(tag, sure) for tag, sure in (record.get("facets") or {}).values() if tag],
        "bucket": " x ".join(map(str, record["crop"]["bucket"])) if record.get("crop") else "",
        "frame": crop_frame(record),
        "failed": record.get("failed", {}),
    }


def crop_frame(record: Record) -> tuple[float, ...] | None:
    """Left, top, width and height of the crop, in percent of the photo."""
    if not record.get("crop"):
        return None
    size, (left, top, right, bottom) = record["measures"]["size"], record["crop"]["box"]
    shares = left / size["width"], top / size["height"], (right - left) / size["width"], (bottom - top) / size["height"]
    return tuple(round(100 * share, 2) for share in shares)


def why_kept(kept: Record, copy: Record) -> str:
    """In what the kept photo is better than its copy."""
    better = []
    for word, check, measure in (
        ("wide", "size", "width"),
        ("of JPEG quality", "compression", "jpeg_quality"),
        ("sharp", "sharpness", "sharpness"),
    ):
        ours, theirs = (r.get("measures", {}).get(check, {}).get(measure) for r in (kept, copy))
        if ours is not None and theirs is not None and ours > theirs:
            better.append(f"{word} {ours} over {theirs}")
    return "kept, being " + "; ".join(better) if better else "kept: in all that is measured as good"


def picture_uri(path: Path, side: int) -> str:
    """A thumbnail as a data address, '' where the file cannot be shown."""
    try:
        return data_uri(thumbnail(Image.fromarray(read_photo(path).colours), side))
    except UnreadablePhoto:
        return ""


def run_part(project: Project, run: Run | None) -> dict[str, Any]:
    """The training: curve, samples, the file, the settings with their layers."""
    metrics = run.read_metrics() if run else []
    result: dict[str, Any] = dict.fromkeys(("steps", "modules", "lora", "bytes")) | (run.facts.get("result", {}) if run else {})
    settings = [(key, _without_folders(value), project.settings.origin[key]) for key, value in project.settings.flat().items()]
    return {
        "run": run,
        "result": result,
        "lora_size": f"{result['bytes'] / 2**20:.1f} MB" if result["bytes"] else "",
        "curve": loss_curve(metrics),
        "judgement": judge(metrics, run.read_settings(), run.saved_steps, result) if run and metrics else None,
        "visits": sorted(result.get("visits", {}).items(), key=lambda item: item[1]),
        "steps": sample_steps(run) if run else [],
        "finals": final_samples(run, result.get("prompts", [])) if run else [],
        "settings": settings,
    }


def _without_folders(value: Any) -> Any:
    """The page is passed on: of a path on this machine, its last name."""
    return re.split(r"[/\\]", value.rstrip("/\\"))[-1] if isinstance(value, str) and re.match(r"[/~\\]|[A-Za-z]:[/\\]", value) else value


def sample_steps(run: Run) -> list[tuple[int, list[str]]]:
    """[(step, pictures)] of the samples drawn while training."""
    folders = sorted(run.samples.glob("step_*"))
    return [(int(f.name.split("_")[1]), [file_uri(p) for p in sorted(f.glob("*.png"))]) for f in folders]


def final_samples(run: Run, prompts: list[str]) -> list[tuple[str, str, str]]:
    """[(prompt, picture without the LoRA, picture with it)]."""
    folder = run.samples / "final"
    pairs = [(prompt, folder / f"{n}_base.png", folder / f"{n}_lora.png") for n, prompt in enumerate(prompts)]
    return [(prompt, file_uri(base), file_uri(lora)) for prompt, base, lora in pairs if base.is_file() and lora.is_file()]


def file_uri(path: Path) -> str:
    with Image.open(path) as image:
        return data_uri(thumbnail(image, 384), quality=88)
