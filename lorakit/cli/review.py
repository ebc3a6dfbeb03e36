"""`lorakit review`: a person's word, which wins over every check and captioner."""

from __future__ import annotations

import click

from lorakit.cli import options


@click.command("review")
@options.project_argument
@click.argument("photos", nargs=-1, required=True)
@click.option("--keep", "verdict", flag_value="keep", help="Train on these whatever the checks say.")
@click.option("--reject", "verdict", flag_value="reject", help="Leave these out.")
@click.option("--text", help="The training text, word for word.")
@click.option("--clear", is_flag=True, help="Take back what was said by hand.")
def command(project, photos, verdict, text, clear) -> None:
    """Decide by hand about PHOTOS of PROJECT, named as `lorakit status` names them; the next run follows."""
    from lorakit.caption.review import review
    from lorakit.errors import LorakitError
    from lorakit.project import open_project

    if verdict is None and text is None and not clear:
        raise LorakitError("say what to do with them: --keep, --reject, --text or --clear")
    opened = open_project(project)
    with opened.locked():
        changed = review(opened, list(photos), verdict, text, clear)
    click.echo(f"{len(changed)} photos decided by hand; `lorakit run` or `lorakit curate -o {project}` applies it")
