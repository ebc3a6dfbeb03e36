"""`lorakit pick`: the checkpoint that is exported."""

from __future__ import annotations

import click

from lorakit.cli import options
from lorakit.console import typed


@click.command("pick")
@options.project_argument
@click.option("--step", type=click.IntRange(1), help="The checkpoint of this step.")
@click.option("--strength", type=float, help="The strength to begin with, noted in the file.")
@click.option("--clear", is_flag=True, help="Take the last checkpoint again.")
def command(project, step, strength, clear) -> None:
    """Choose by hand which checkpoint of PROJECT's newest training becomes the LoRA file; without options, list them.

    The checkpoint stays, however many later ones are written. The next `lorakit run` or `lorakit train` draws and exports it.
    """
    from lorakit.errors import LorakitError
    from lorakit.project import by_hand, decisions, open_project

    if strength is not None and step is None or step is not None and clear:
        raise LorakitError("say which checkpoint: --step N, with --strength S if you like, or --clear for the last one")
    opened = open_project(project)
    if step is None and not clear:
        run = by_hand.training(opened)
        picked = opened.manifest.decisions.pick(run.folder.name)
        for there in run.saved_steps:
            is_picked = picked and picked["step"] == there
            click.echo(f"step {there}" + (f"  picked: {decisions.in_words('pick', picked)}" if is_picked else ""))
        return
    run, _ = by_hand.pick(opened, step, strength)
    chosen = opened.manifest.decisions.pick(run.folder.name)
    click.echo(
        f"{run.folder.name}: {decisions.in_words('pick', chosen) if chosen else 'the last checkpoint'}; `lorakit train {typed(opened.folder)}` exports it"
    )
