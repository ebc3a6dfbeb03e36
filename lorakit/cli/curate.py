"""`lorakit curate`: checks, duplicates, selection, crops."""

from __future__ import annotations

import click

from lorakit.cli import options


@click.command("curate")
@click.argument("photos", nargs=-1, type=click.Path())
@options.together(options.out, options.base, options.kind, options.last, options.engine, options.ray_address, options.assignments)
def command(photos, out, base, kind, last, engine, ray_address, assignments) -> None:
    """Judge PHOTOS and choose a varied set of good ones; `lorakit status` shows each verdict with its reason.

    PHOTOS are folders, photos, zip or tar archives, parquet files, datasets of the hub (hf://owner/name), addresses in
    object stores (s3://bucket/prefix, gs://, https://), text files that list photos, or - for such a list on stdin.
    Without PHOTOS, the folders of the project given with -o are looked at again.
    """
    from lorakit.errors import LorakitError
    from lorakit.project import open_project
    from lorakit.project.project import is_project

    if not photos and out is None:
        raise LorakitError("name the folder of photos: lorakit curate PHOTOS -o PROJECT")
    does_work = options.engine_of(engine, ray_address)
    photos = options.photos_from(photos, out)
    out = out or options.default_folder(photos[0])
    settings = options.settings_from(assignments)
    with options.nothing_left_of_a_failed_start(out):
        is_new = not is_project(out) and bool(photos)
        project = open_project(out, photos=photos or None, base=base, kind=kind, settings=settings, create=is_new)
        project.engine = does_work or project.engine
        options.go(project, "scan", last or "crop")
