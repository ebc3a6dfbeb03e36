"""`lorakit run`: the whole way from photos to a LoRA."""

from __future__ import annotations

from pathlib import Path

import click

from lorakit.cli import options


@click.command("run")
@click.argument("photos", nargs=-1, type=click.Path())
@options.together(
    options.out, options.base, options.kind, options.trigger, options.no_trigger, options.class_word, options.captioner, options.weights,
    options.from_lora, options.settings_file, options.new, options.first, options.last, options.device, options.engine, options.ray_address, options.no_metadata, options.push_to_hub, options.plan, options.vram, options.as_json,
    options.assignments,
)  # fmt: skip
def command(
    photos,
    out,
    base,
    kind,
    trigger,
    no_trigger,
    class_word,
    captioner,
    weights,
    from_lora,
    settings_file,
    new_run,
    first,
    last,
    device,
    engine,
    ray_address,
    no_metadata,
    push_to_hub,
    plan,
    vram,
    as_json,
    assignments,
) -> None:
    """From a folder of PHOTOS to a LoRA file and a report, in one go.

    The photos are only read. The same command again goes on where it stopped, or does nothing; a changed setting redoes
    only what it touches. Without PHOTOS, the project given with -o goes on with its own.
    """
    from lorakit.errors import LorakitError
    from lorakit.project import open_project
    from lorakit.project.project import is_project

    options.check_plan(plan, as_json)
    if not photos and out is None:
        raise LorakitError("name the folder of photos: lorakit run PHOTOS -o PROJECT")
    if trigger and no_trigger:
        raise LorakitError(f"--trigger {trigger} or --no-trigger, not both")
    does_work = options.engine_of(engine, ray_address)
    photos = options.photos_from(photos, out)
    out = out or options.default_folder(photos[0])
    words = {"trigger": trigger, "class_word": class_word, "captioner": captioner, "weights": weights, "no_metadata": no_metadata}
    settings = options.settings_from(assignments, **words) | ({"trigger.word": None} if no_trigger else {})
    base, taken_over = options.take_over(settings_file, Path(out), base, settings)
    settings = options.start_from(from_lora, Path(out), base, settings)
    with options.nothing_left_of_a_failed_start(out):
        project = open_project(
            out,
            photos=photos or None,
            base=base,
            kind=kind,
            settings=settings,
            device=device,
            create=not is_project(out) and bool(photos),
            taken_over=taken_over,
        )
        project.new_run, project.engine = new_run, does_work or project.engine
        if plan:
            options.show_plan(project, vram, as_json)
            return
        project.vram = vram
        last = last or "report"
        options.check_trigger(project, trigger, must_be=not no_trigger and pipeline_reaches_texts(first, last))
        options.go(project, first, last, push_to_hub)


def pipeline_reaches_texts(first: str, last: str) -> bool:
    from lorakit.pipeline import NAMES

    return first in NAMES and last in NAMES and "trigger" in NAMES[NAMES.index(first) : NAMES.index(last) + 1]
