"""`lorakit grid`: prompts by strengths in one picture."""

from __future__ import annotations

import click

from lorakit.cli import options


@click.command("grid")
@options.project_argument
@click.option(
    "--prompt", "prompts", multiple=True, help="Prompt to draw, repeatable.  [default: the samples', with and without the trigger]"
)
@click.option("--strengths", default="0,0.4,0.7,1", show_default=True, help="Strengths of the LoRA; 0 is the base.")
@click.option("--with", "others", multiple=True, metavar="FILE:0.5", help="Another LoRA beside it, at this strength; repeatable.")
@options.together(options.step, options.device, options.assignments)
def command(project, prompts, strengths, others, step, device, assignments) -> None:
    """Draw one picture with PROJECT's prompts as rows and strengths of its LoRA as columns."""
    from lorakit.errors import LorakitError
    from lorakit.project import open_project
    from lorakit.train.grid import grid
    from lorakit.train.stacked import parse

    try:
        numbers = [float(word) for word in strengths.split(",")]
    except ValueError:
        raise LorakitError(f"--strengths {strengths}: write numbers with commas, like 0,0.4,0.7,1") from None
    opened = open_project(project, settings=options.settings_from(assignments), device=device)
    with opened.locked():
        click.echo(f"grid     {grid(opened, prompts, numbers, step, [parse(words) for words in others])}")
