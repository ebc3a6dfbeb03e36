"""`lorakit handover`: the curated set and its settings for another trainer."""

from __future__ import annotations

from pathlib import Path

import click

from lorakit.cli import options


@click.command("handover")
@options.project_argument
@click.option("--to", "trainer", required=True, help="sd-scripts (also called kohya), ai-toolkit or diffusers.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="Folder to write; a new or an empty one.  [default: PROJECT/handover/TRAINER]"
)
@options.assignments
def command(project, trainer, out, assignments) -> None:
    """Write PROJECT's pictures, texts, masks and settings for another trainer, with a README that says how to begin.

    All paths in the folder are relative, so it may be carried to another machine.
    """
    from lorakit.project import open_project
    from lorakit.report.handover import hand_over

    opened = open_project(project, settings=options.settings_from(assignments))
    with opened.locked():
        click.echo(f"handover {hand_over(opened, trainer, out)}")
