"""`lorakit caption`: captions, trigger word, dataset folder."""

from __future__ import annotations

import click

from lorakit.cli import options


@click.command("caption")
@options.project_argument
@options.together(
    options.captioner, options.trigger, options.class_word, options.base, options.kind, options.last, options.device, options.assignments
)
def command(project, captioner, trigger, class_word, base, kind, last, device, assignments) -> None:
    """Caption the chosen photos of PROJECT, place the trigger word, and write the dataset folder."""
    from lorakit.project import open_project

    settings = options.settings_from(assignments, captioner=captioner, trigger=trigger, class_word=class_word)
    options.go(open_project(project, base=base, kind=kind, settings=settings, device=device), "scan", last or "dataset")
