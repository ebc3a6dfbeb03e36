"""`lorakit undo`: decisions taken back, and brought back."""

from __future__ import annotations

import click

from lorakit.cli import options
from lorakit.console import typed


@click.command("undo")
@options.project_argument
@click.argument("number", type=int, required=False)
@click.option("--redo", is_flag=True, help="Bring back what was last undone.")
def command(project, number, redo) -> None:
    """Take back the last decision by hand in PROJECT, or the one with this NUMBER in `lorakit history`; the next run follows.

    Again takes back the one before. The number of an undo brings its decision back. Nothing is ever removed from the history.
    """
    from lorakit.cli.history import in_a_line
    from lorakit.errors import LorakitError
    from lorakit.project import by_hand, open_project

    if redo and number is not None:
        raise LorakitError("--redo brings back what was last undone; to bring another one back, give the number of its undo alone")
    opened = open_project(project)
    _, written = by_hand.undo(opened, number, redo)
    line = next(line for line in by_hand.history(opened) if line["n"] == written["n"])
    click.echo(in_a_line(line))
    place = typed(opened.folder)
    click.echo(f"`lorakit run -o {place}` or `lorakit curate -o {place}` applies it")
