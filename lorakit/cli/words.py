"""`lorakit words`: the words of a whole set, counted and changed."""

from __future__ import annotations

import click

from lorakit.cli import options
from lorakit.console import safe, typed

pairs = {"nargs": 2, "multiple": True, "metavar": "OLD NEW"}


@click.command("words")
@options.project_argument
@click.option("--replace", **pairs, help="Put NEW in place of the words OLD.")
@click.option("--regex", **pairs, help="Put NEW in place of what the regular expression OLD finds.")
@click.option("--remove", multiple=True, metavar="PHRASE", help="Take a phrase out.")
@click.option("--blacklist", multiple=True, metavar="WORD", help="Take out every tag or phrase that has WORD in it.")
@click.option("--add", multiple=True, metavar="TAG", help="Put a tag at the end of every text.")
@click.option("--strip-syntax", is_flag=True, help="Take out what prompting tools read as commands: (x:1.3), {a|b}, <lora:x:1>, BREAK.")
@click.option("--prune", type=click.Choice(["invariants"]), help="Take out what stands in 80 % of the texts or more.")
@click.option("--preview", is_flag=True, help="Show what would change, change nothing.")
@click.option("--undo", is_flag=True, help="Take the last change of texts back.")
@click.option("--unlock", is_flag=True, help="Let texts written by hand follow captions and rules again.")
@click.option("--top", default=40, show_default=True, help="Lines of the frequency table.")
def command(project, replace, regex, remove, blacklist, add, strip_syntax, prune, preview, undo, unlock, top) -> None:
    """Count the phrases of PROJECT's texts, or change them over the whole set. Texts written by hand stay as they are."""
    from lorakit.project import open_project

    opened = open_project(project)
    rules = [f"replace: {old} => {new}" for old, new in replace] + [f"regex: {old} => {new}" for old, new in regex]
    rules += [f"remove: {p}" for p in remove] + [f"drop: {w}" for w in blacklist] + [f"add: {t}" for t in add]
    rules += ["strip: syntax"] * strip_syntax
    if undo:
        _undo(opened)
    elif rules or prune or unlock:
        _change(opened, rules, bool(prune), unlock, preview)
    else:
        _show_table(opened, top)


def _show_table(project, top: int) -> None:
    from lorakit.caption import words
    from lorakit.errors import LorakitError
    from lorakit.text import rules

    texts = words.texts(project)
    if not texts:
        raise LorakitError(f"{project.folder}: no texts yet; `lorakit caption {typed(project.folder)}` writes them")
    for phrase, count in rules.frequencies(texts)[:top]:
        click.echo(f"{count:>5}  {count / len(texts):>4.0%}  {safe(phrase)}")


def _change(project, rules: list[str], prune: bool, unlock: bool, preview: bool) -> None:
    from lorakit.caption import words

    if prune:
        found = words.invariant_phrases(project)
        rules = rules + [f"remove: {phrase}" for phrase, _ in found]
        for phrase, count in found:
            click.echo(f"remove {phrase!r}: in {count} of {len(words.texts(project))} texts")
    shown = words.preview(project, rules)
    for file, before, after in shown:
        click.echo(f"{safe(file)}\n  - {safe(before)}\n  + {safe(after)}")
    if preview:
        click.echo(f"{len(shown)} texts would change")
        return
    if unlock:
        click.echo(f"{words.unlock(project)} texts written by hand are unlocked")
    _word_again(words.with_rules(project, rules) if rules else project)


def _undo(project) -> None:
    from lorakit.caption import words

    project, count = words.undo(project)
    click.echo(f"{count} texts are again what they were")
    _word_again(project)


def _word_again(project) -> None:
    """Apply what was decided now, or say who will: a decision does not wait for a training."""
    from lorakit.errors import ProjectBusy

    try:
        options.go(project, "trigger", "dataset")
    except ProjectBusy as busy:
        click.echo(f"that is decided and kept; the texts follow with the next run, for {str(busy).partition(': ')[2].partition(';')[0]}")
