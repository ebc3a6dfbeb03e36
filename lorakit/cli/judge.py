"""`lorakit judge`: what a training's curve says, and what to change."""

from __future__ import annotations

from pathlib import Path

import click

from lorakit.console import safe

BY = {"pictures": "the pictures", "validation": "the validation", "loss": "the loss"}


@click.command("judge")
@click.argument("training", metavar="PROJECT|METRICS", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object in place of words.")
def command(training, as_json) -> None:
    """Say whether PROJECT's newest training learned, which step was best and what to change; or the one of a metrics.jsonl."""
    from lorakit.project import by_hand, open_project, runs, stamps
    from lorakit.quality import judge

    if training.is_file():
        found = judge.judge(runs.read_any_metrics(training), runs.read_settings(training.parent))
    else:
        project = open_project(training)
        run = by_hand.training(project)
        lines = run.read_metrics()
        if not lines and run.metrics.is_file() and run.metrics.stat().st_size:
            runs.read_any_metrics(run.metrics)  # which says what stands there
        found = judge.judge(lines, run.read_settings(), run.saved_steps, run.facts.get("result"), stamps.exported_step(project))
    if as_json:
        click.echo(found.as_json())
        return
    for finding in found.findings:
        click.echo(safe(f"{finding.verdict:<12} {finding.words}"))
    if found.best_step and found.best_by:
        click.echo(f"{'best':<12} the checkpoint of step {found.best_step}, by {BY[found.best_by]}")
    if found.strength and found.strength_by:
        low, high = found.strength
        click.echo(f"{'strength':<12} {low:g} to {high:g}, by {BY[found.strength_by]} at each strength")
    click.echo(safe(f"{'advice':<12} {found.advice}"))
