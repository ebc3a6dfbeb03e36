"""`lorakit open`: the page where people look at photos."""

from __future__ import annotations

import click

from lorakit.cli import options


@click.command("open")
@options.project_argument
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen at.  [default: the last one, else 8713 or the next free]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; another one shows the page to others.")
@click.option("--allow-host", "allow", multiple=True, metavar="NAME", help="A further name of this machine, as browsers ask for it.")
@click.option("--read-only", is_flag=True, help="Nothing can be decided, and nothing is written into PROJECT.")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
def command(project, port, host, allow, read_only, no_browser) -> None:
    """Show PROJECT in a browser: accept and reject photos, compare copies, edit texts, watch the training, pick a checkpoint.

    The address that it prints has a token in it, without which nobody is let in. Also while a command works on PROJECT.
    """
    from lorakit.page.server import serve

    serve(project, host, port, allow, read_only, not no_browser)
