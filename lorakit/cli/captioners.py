"""`lorakit captioners`: who can write captions."""

from __future__ import annotations

import click


@click.command("captioners")
def command() -> None:
    """List the captioners: what they write, for what they are good, where they come from, their licence and memory."""
    from lorakit import lookup
    from lorakit.caption.captioners.base import card_of, in_memory

    names = lookup.names(lookup.CAPTIONERS)
    width = max(map(len, names))
    for name in names:
        card = card_of(name)
        click.echo(f"{name:<{width}} {card.title}: writes {card.writes}; {card.note}")
        click.echo(f"{'':<{width}} {'; '.join(part for part in (card.place, card.licence, in_memory(card)) if part)}")
