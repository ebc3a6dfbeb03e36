"""`lorakit trigger`: is this a good trigger word?"""

from __future__ import annotations

import sys

import click

from lorakit.cli import options


@click.command("trigger")
@click.argument("word")
@options.base
@options.weights
def command(word, base, weights) -> None:
    """Judge WORD as a trigger before training with it, by the base's tokenizers and lists of words, and propose better
    ones. Exit code 1 for a bad one."""
    from lorakit.bases import tokens
    from lorakit.caption import trigger_words
    from lorakit.project import catalog
    from lorakit.text.trigger_word import check_word

    check_word(word)
    card = catalog.card(base or catalog.DEFAULT_BASE)
    tokenizers = tokens.tokenizers_of(tokens.folder_of(card, weights))
    found = trigger_words.judge(word, card, tokenizers)
    click.echo(f"{word}: {found.verdict}")
    for line in found.findings:
        click.echo(f"  {line}")
    if found.verdict != "good":
        click.echo(f"  better: {', '.join(trigger_words.propose(word, tokenizers))}")
    sys.exit(0 if found.verdict != "bad" else 1)
