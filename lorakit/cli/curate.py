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

    Without PHOTOS, the folders of the project given with -o are looked at again.
    """
    from lorakit.errors import LorakitError
    from lorakit.project import is_project, open_project

    if not photos and out is None:
        raise LorakitError("name the folder of photos: lorakit curate PHOTOS -o PROJECT")
    out = out or Path(f"{photos[0].resolve().name}-lora")
    settings = options.settings_from(assignments)
    project = open_project(out, photos=photos or None, base=base, kind=kind, settings=settings, create=not is_project(out) and bool(photos))
    options.go(project, "scan", last or "crop")
