"""`lorakit captioners`: who can write captions."""

from __future__ import annotations

import click


@click.command("captioners")
def command() -> None:
    """List the captioners."""
    from lorakit import lookup

    for name in lookup.names(lookup.CAPTIONERS):
        card = lookup.load(lookup.CAPTIONERS, name).CARD
        click.echo(f"{name:<11} {card.title}: writes {card.writes}; {card.note}\n{'':<11} {card.place}; {card.licence}")
