"""`lorakit captioners`: who can write captions."""

from __future__ import annotations

import click


@click.command("captioners")
def command() -> None:
    """List the captioners."""
    from lorakit import lookup

    for name in lookup.names(lookup.CAPTIONERS):
        card = lookup.load(lookup.CAPTIONERS, name).CARD
        where = f"{card.size_gb:g} GB from {card.hub}" if card.hub else "works offline"
        click.echo(f"{name:<11} {card.title}: writes {card.writes}; {card.note}\n{'':<11} {where}; {card.licence}")
