"""`lorakit completion`: the script by which a shell completes verbs and options."""

from __future__ import annotations

import click


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context, shell) -> None:
    """Print the script that completes `lorakit` in SHELL, for its start-up file: eval "$(lorakit completion bash)"."""
    from click.shell_completion import get_completion_class

    script = get_completion_class(shell)
    click.echo(script(context.find_root().command, {}, "lorakit", "_LORAKIT_COMPLETE").source())
