"""`lorakit run`: the whole way from photos to a LoRA."""

from __future__ import annotations

import click

from lorakit.cli import options


@click.command("run")
@click.argument("photos", nargs=-1, required=True)
@options.together(
    options.out, options.base, options.kind, options.trigger, options.class_word, options.captioner, options.weights,
    options.first, options.last, options.device, options.no_metadata, options.push_to_hub, options.assignments,
)  # fmt: skip
def command(
    photos, out, base, kind, trigger, class_word, captioner, weights, first, last, device, no_metadata, push_to_hub, assignments
) -> None:
    """From a folder of PHOTOS to a LoRA file and a report, in one go.

    The photos are only read. The same command again goes on where it stopped, or does nothing; a changed setting redoes
    only what it touches.
    """
    from lorakit.project import open_project
    from lorakit.project.project import is_project

    photos = options.photos_from(photos, out)
    out = out or options.default_folder(photos[0])
    words = {"trigger": trigger, "class_word": class_word, "captioner": captioner, "weights": weights, "no_metadata": no_metadata}
    settings = options.settings_from(assignments, **words)
    project = open_project(out, photos=photos, base=base, kind=kind, settings=settings, device=device, create=not is_project(out))
    options.go(project, first, last or "report", push_to_hub)
