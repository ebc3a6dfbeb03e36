"""`lorakit status`: every photo with its verdict and reasons, every stage with its counts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from lorakit.cli import options
from lorakit.console import safe, typed

WIDEST = 60  # column of names; longer ones push their own line aside
WORST = 5  # texts that are named as fitting their photo worst
STYLES = {"keep": "green", "warn": "yellow", "reject": "red"}


@click.command("status")
@options.project_argument
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(project, as_json) -> None:
    """Show PROJECT's photos with verdict, reasons and text, and how far each stage has come."""
    from lorakit import pipeline
    from lorakit.project import open_project

    found = pipeline.status(open_project(project))
    if as_json:
        click.echo(json.dumps(found, indent=1))
    elif sys.stdout.isatty():
        show_table(found)
    else:
        show_lines(found)


def show_lines(found: dict) -> None:
    """One line a photo, for files and pipes."""
    width = min(WIDEST, max((len(photo["file"]) for photo in found["photos"]), default=0))
    lines = []
    for photo in found["photos"]:
        parts = [why(photo), photo["text"] or ""]
        line = f"{photo['file']:<{width}}  {photo['verdict']:<6}  {'chosen' if photo['selected'] else '-':<6}  {' | '.join(p for p in parts if p)}"
        lines.append(safe(line).rstrip())
    if lines:  # at once: to write each by itself takes as long as to judge it
        click.echo("\n".join(lines))
    for line in [*(f"lacks: {line}" for line in found["lacks"]), *worst_texts(found), *by_hand(found)]:
        click.echo(line)
    click.echo(stage_line(found))
    if found["lora"]:
        click.echo(safe(f"LoRA: {found['lora']}"))


def worst_texts(found: dict) -> list[str]:
    """The texts that fit their photo worst, where open_clip has scored them."""
    scored = sorted((p for p in found["photos"] if p["agreement"] is not None), key=lambda p: p["agreement"])
    return [safe(f"fits worst: {p['agreement']:.2f}  {p['file']}: {p['worst'] or p['text']}") for p in scored[:WORST]]


def by_hand(found: dict) -> list[str]:
    """What was decided of a copy and holds for the kept photo, and what no run has applied yet."""
    taken = [
        f"by hand: {photo['file']} takes over the {what} that was given its copy {name}"
        for photo in found["photos"]
        for what, name in photo["decided_of"].items()
    ]
    taken += [
        f"beside: {photo['file']} has the {what} that lies beside its copy {photo[f'{what}_of']}"
        for photo in found["photos"]
        for what in ("caption", "mask")
        if photo.get(f"{what}_of")
    ]
    waiting = found["waiting"]
    named = ", ".join(waiting[:WORST]) + (" ..." if len(waiting) > WORST else "")
    return [
        safe(line)
        for line in taken
        + [f"by hand: decided and not applied yet, `lorakit run -o {typed(Path(found['project']))}` does it: {named}"] * bool(waiting)
    ]


def stage_line(found: dict) -> str:
    counts = [
        f"{name} {c['done']}/{sum(c.values())}" + (f" ({c['failed']} failed)" if c["failed"] else "") for name, c in found["stages"].items()
    ]
    return "stages: " + ", ".join(counts)


def show_table(found: dict) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table("photo", "verdict", "why", "chosen", "text", title=f"{found['base']}, {found['kind']}", title_justify="left")
    for photo in found["photos"]:
        style = STYLES[photo["verdict"]]
        verdict = f"[{style}]{photo['verdict']}[/]" + (" (by hand)" if photo["by_hand"] else "")
        table.add_row(
            escape(safe(photo["file"])),
            verdict,
            escape(safe(why(photo))),
            "yes" if photo["selected"] else "",
            escape(safe(photo["text"] or "")),
        )
    console.print(table)
    for line in [*(f"lacks:  {line}" for line in found["lacks"]), *worst_texts(found), *by_hand(found)]:
        console.print(line, highlight=False, markup=False)
    console.print(stage_line(found), highlight=False)
    if found["lora"]:
        console.print(safe(f"LoRA:   {found['lora']}"), highlight=False, soft_wrap=True)


def why(photo: dict) -> str:
    """'blurry 0.07 (0.1); near_duplicate 12 (64) of a.jpg'."""
    parts = [f"{r['reason']} {r['value']}" + ("" if r["threshold"] is None else f" ({r['threshold']})") for r in photo["reasons"]]
    if photo["duplicate_of"]:
        parts[-1] += f" of {photo['duplicate_of']}"
    return "; ".join(parts + [f"{stage} failed: {message}" for stage, message in photo["failed"].items()])
