"""`lorakit export`: the LoRA file, or one of any checkpoint."""

from __future__ import annotations

import click

from lorakit.cli import options


@click.command("export")
@options.project_argument
@options.together(options.step, options.device, options.no_metadata, options.assignments)
def command(project, step, device, no_metadata, assignments) -> None:
    """Write PROJECT's LoRA file, or with --step the one of an earlier checkpoint beside it, and check that tools load it."""
    from lorakit.project import open_project

    opened = open_project(project, settings=options.settings_from(assignments, no_metadata=no_metadata), device=device)
    if step is None:
        options.go(opened, "export", "export")
        return
    from lorakit.train.export import export_step

    with opened.locked():
        click.echo(f"LoRA     {export_step(opened, step)}")
