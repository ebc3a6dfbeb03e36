"""`lorakit history`: every decision by hand, oldest first."""

from __future__ import annotations

import json

import click

from lorakit.cli import options
from lorakit.console import safe

SHOWN = 5  # photos of one decision that are named


@click.command("history")
@options.project_argument
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def command(project, as_json) -> None:
    """List all that was decided by hand in PROJECT: number, when, by what (page, command, file), and what of which photos."""
    from lorakit.project import by_hand, open_project

    found = by_hand.history(open_project(project))
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    for line in found:
        click.echo(in_a_line(line))
    if not found:
        click.echo("nothing has been decided by hand yet")


def in_a_line(line: dict) -> str:
    """`  3  2026-11-25 21:04:12  command  undoes 2: text 'a mug' -> as captioned: a.jpg`."""
    parts = []
    for (what, before, now), names in _together(line["changes"]).items():
        shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        parts.append(f"{what} {before} -> {now}: {shown}")
    if line["rules"]:
        parts += [f"rule {sign}{rule!r}" for sign, rule in _differences(line["rules"])]
    head = f"{line['n']:>4}  {line['at'][:19].replace('T', ' ')}  {line['by']:<7}"
    notes = [f"undoes {line['undoes']}"] * (line["undoes"] is not None) + [f"undone by {line['undone_by']}"] * (
        line["undone_by"] is not None
    )
    return safe(f"{head}  {'; '.join(parts) or 'nothing was left to change'}" + (f"  ({', '.join(notes)})" if notes else ""))


def _together(changes: list[dict]) -> dict[tuple[str, str, str], list[str]]:
    """{(what, was, now): names}: photos that were changed alike stand together."""
    from lorakit.project.decisions import in_words

    found: dict[tuple[str, str, str], list[str]] = {}
    names = {change["id"]: change["file"] for change in changes}
    for change in changes:
        was, now = change["was"], change["now"]
        if change["what"] == "apart":
            was, now = ([names.get(id, id) for id in value or ()] or None for value in (was, now))
        found.setdefault((change["what"], in_words(change["what"], was), in_words(change["what"], now)), []).append(change["file"])
    return found


def _differences(rules: dict) -> list[tuple[str, str]]:
    gone = [("-", rule) for rule in rules["was"] if rule not in rules["now"]]
    return gone + [("+", rule) for rule in rules["now"] if rule not in rules["was"]]
