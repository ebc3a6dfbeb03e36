"""`lorakit help`: the same as --help, as it is typed first."""

from __future__ import annotations

import click


@click.command("help")
@click.argument("verb", required=False)
@click.pass_context
def command(context, verb) -> None:
    """Show this page, or what VERB does."""
    top = context.find_root()
    if verb is None:
        click.echo(top.get_help())
        return
    _, found, _ = top.command.resolve_command(top, [verb])
    with click.Context(found, info_name=verb, parent=top) as inner:
        click.echo(found.get_help(inner))
