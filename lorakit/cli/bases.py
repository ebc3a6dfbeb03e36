"""`lorakit bases`: the base models that there are cards for, by family."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lorakit.project.catalog import Card

OWN = "For trying out"  # what is on no hub


@click.command("bases")
def command() -> None:
    """List the base models by family, the newest first: date, download, memory of the card, licence and place."""
    from lorakit.project import catalog

    groups: dict[str, list[Card]] = {}
    for card in sorted(catalog.cards(), key=lambda card: (card.size_gb, card.name)):
        groups.setdefault(title_of(card), []).append(card)
    by_age = sorted(groups, key=lambda title: (title != OWN, max(card.released for card in groups[title])), reverse=True)
    for title in by_age:
        click.echo(title)
        for card in groups[title]:
            click.echo(f"  {in_words(card)}")
    click.echo(
        "memory is predicted, not measured; which to choose: docs/bases.md; what a training takes: lorakit train PROJECT --plan --vram 12"
    )


def title_of(card: Card) -> str:
    from lorakit import lookup

    return lookup.constant(lookup.FAMILIES, card.family, "TITLE", card.family) if not card.comes_along else OWN


def in_words(card: Card) -> str:
    where = f"{card.hub}{' (accept its licence there first)' if card.gated else ''}" if card.hub else card.note or card.title
    memory = f"from {card.min_vram_gb:g} GB of VRAM" if card.min_vram_gb else "any machine"
    ready = "" if card.is_built else f"  [family {card.family} cannot be trained yet]"
    return f"{card.name:<15} {card.released or '-':<8} {card.size_gb:>5g} GB  {memory:<19} {card.licence:<35} {where}{ready}"
