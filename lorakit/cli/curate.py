"""`lorakit curate`: checks, duplicates, selection, crops."""

from __future__ import annotations

from pathlib import Path

import click

from lorakit.cli import options


@click.command("curate")
@click.argument("photos", nargs=-1, type=click.Path(path_type=Path))
@options.together(options.out, options.base, options.kind, options.last, options.assignments)
def command(photos, out, base, kind, last, assignments) -> None:
    """Judge PHOTOS and choose a varied set of good ones; `lorakit status` shows each verdict with its reason.

    PHOTOS are folders, zip or tar archives, text files that list photos, or - for such a list on stdin.
    Without PHOTOS, the folders of the project given with -o are looked at again.
    """
    from lorakit.errors import LorakitError
    from lorakit.project import is_project, open_project

    if not photos and out is None:
        raise LorakitError("name the folder of photos: lorakit curate PHOTOS -o PROJECT")
    if photos == (Path("-"),):
        if out is None:
            raise LorakitError("a list on stdin has no name: say where to, lorakit curate - -o PROJECT")
        photos = (keep_list(click.get_text_stream("stdin").read(), out),)
    out = out or Path(f"{photos[0].resolve().name}-lora")
    settings = options.settings_from(assignments)
    project = open_project(out, photos=photos or None, base=base, kind=kind, settings=settings, create=not is_project(out) and bool(photos))
    options.go(project, "scan", last or "crop")


def keep_list(text: str, out: Path) -> Path:
    """Write the list that came on stdin beside the project, to be found again by the next run."""
    path = out.absolute().with_name(f"{out.name}-photos.txt")
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [str(Path(line.strip()).absolute()) for line in text.splitlines() if line.strip()]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path
