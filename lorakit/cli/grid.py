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
    """Draw one picture with PROJECT's prompts as rows and strengths of its LoRA as columns; the report takes it in."""
    from lorakit.console import say
    from lorakit.errors import LorakitError
    from lorakit.project import open_project
    from lorakit.report.report import report
    from lorakit.train.grid import grid
    from lorakit.train.stacked import parse

    try:
        numbers = [float(word) for word in strengths.split(",")]
    except ValueError:
        raise LorakitError(f"--strengths {strengths}: write numbers with commas, like 0,0.4,0.7,1") from None
    opened = open_project(project, settings=options.settings_from(assignments), device=device)
    with opened.locked():
        click.echo(f"grid     {grid(opened, prompts, numbers, step, [parse(words) for words in others])}")
        if step is None and not others and (best := other_best(opened)):
            say(f"grid      by the curve the checkpoint of step {best} is better; it is drawn too (--step N draws one alone)")
            click.echo(f"grid     {grid(opened, prompts, numbers, best)}")
        click.echo(f"report   {report(opened)}")  # whose strength and checkpoint are those that the pictures show


def other_best(project) -> int | None:
    """The checkpoint that the curve prefers to the one that is exported, so that the pictures of both can be held against each other."""
    from lorakit.quality.judge import judge
    from lorakit.train.picked import exported_step
    from lorakit.train.trained import begun_run

    run = begun_run(project)
    best = judge(run.read_metrics(), run.read_settings(), run.saved_steps).best_step
    return None if best == exported_step(project, run) else best
