"""`lorakit review`: a person's word, which wins over every check and captioner."""

from __future__ import annotations

import click

from lorakit.cli import options
from lorakit.console import safe, typed


@click.command("review")
@options.project_argument
@click.argument("photos", nargs=-1, required=True)
@click.option("--keep", "verdict", flag_value="keep", help="Train on these whatever the checks say.")
@click.option("--reject", "verdict", flag_value="reject", help="Leave these out.")
@click.option("--text", help="The training text, word for word.")
@click.option("--crop", metavar="L,T,R,B", help="Cut this box out, in pixels of the upright photo; the nearest bucket is taken.")
@click.option("--apart", metavar="OTHER", help="These and the photo OTHER are no copies of each other.")
@click.option("--clear", is_flag=True, help="Take back all that was said by hand.")
def command(project, photos, verdict, text, crop, apart, clear) -> None:
    """Decide by hand about PHOTOS of PROJECT, named as `lorakit status` names them; the next run follows.

    This never waits for a training. `lorakit undo PROJECT` takes it back.
    """
    from lorakit.caption.review import review
    from lorakit.errors import LorakitError
    from lorakit.project import decisions, open_project

    if (verdict, text, crop, apart) == (None, None, None, None) and not clear:
        raise LorakitError("say what to do with them: --keep, --reject, --text, --crop, --apart or --clear")
    opened = open_project(project)
    changed = review(opened, list(photos), verdict, text, clear, _box(crop) if crop else None, apart)
    for record in changed if crop else ():
        click.echo(f"{safe(record['file'])}: crop {decisions.in_words('crop', record['human']['crop'])}")
    place = typed(opened.folder)
    click.echo(f"{len(changed)} photos decided by hand; `lorakit run -o {place}` or `lorakit curate -o {place}` applies it")


def _box(text: str) -> tuple[int, ...]:
    from lorakit.errors import LorakitError

    try:
        left, top, right, bottom = (int(word) for word in text.split(","))
    except ValueError:
        raise LorakitError(f"--crop {text}: write four whole numbers, LEFT,TOP,RIGHT,BOTTOM, like 0,40,512,552") from None
    return left, top, right, bottom
