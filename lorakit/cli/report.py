"""`lorakit report`: the page that shows what was kept, what was learned and which file to use."""

from __future__ import annotations

import click

from lorakit.cli import options


@click.command("report")
@options.project_argument
@options.assignments
def command(project, assignments) -> None:
    """Write PROJECT's report, one HTML file that needs no other."""
    from lorakit.project import open_project

    options.go(open_project(project, settings=options.settings_from(assignments)), "report", "report")
