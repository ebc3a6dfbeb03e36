"""`lorakit sample`: pictures with and without the LoRA."""

from __future__ import annotations

import click

from lorakit.cli import options


@click.command("sample")
@options.project_argument
@click.option("--prompt", "prompts", multiple=True, help="Prompt to draw, or a .txt file of prompts; repeatable.")
@options.together(options.step, options.device, options.assignments)
def command(project, prompts, step, device, assignments) -> None:
    """Draw PROJECT's sample prompts with and without its LoRA, from the same fixed seeds."""
    from lorakit.project import open_project

    settings = options.settings_from(assignments)
    if prompts:
        settings["sample.prompts"] = options.paths_here(prompts)
    opened = open_project(project, settings=settings, device=device)
    if step is None:
        options.go(opened, "sample", "sample")
        return
    from lorakit.train.sample import sample_step

    with opened.locked():
        click.echo(f"samples  {sample_step(opened, step)}")
