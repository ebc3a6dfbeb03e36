"""`lorakit kinds`: the kinds of LoRA."""

from __future__ import annotations

import click


@click.command("kinds")
def command() -> None:
    """List the kinds of LoRA and the photos that each wants."""
    from lorakit.project import catalog

    for kind in catalog.kinds():
        click.echo(f"{kind.name:<11} teaches {kind.teaches}\n{'':<11} photos: {kind.photos}")
