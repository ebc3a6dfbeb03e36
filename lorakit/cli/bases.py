"""`lorakit bases`: the base models that there are cards for."""

from __future__ import annotations

import click


@click.command("bases")
def command() -> None:
    """List the base models."""
    from lorakit.project import catalog

    for card in catalog.cards():
        ready = "" if card.is_built else f"  [family {card.family} cannot be trained yet]"
        where = f"{card.size_gb:g} GB from {card.hub}" if card.hub else card.note or "comes with lorakit"
        click.echo(f"{card.name:<14} {card.title:<40} {where}; {card.licence}; {card.min_vram_gb:g} GB of VRAM{ready}")
