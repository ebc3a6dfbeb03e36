"""`lorakit train`: from a captioned project, or from any folder of pictures and texts, to a LoRA."""

from __future__ import annotations

from pathlib import Path

import click

from lorakit.cli import options


@click.command("train")
@click.argument("project", metavar="PROJECT|FOLDER", type=click.Path())
@options.together(
    options.out, options.base, options.kind, options.weights, options.trigger, options.class_word, options.from_lora, options.settings_file, options.new,
    options.last, options.device,
    options.no_metadata, options.push_to_hub, options.plan, options.vram, options.as_json, options.assignments,
)  # fmt: skip
def command(
    project,
    out,
    base,
    kind,
    weights,
    trigger,
    class_word,
    from_lora,
    settings_file,
    new_run,
    last,
    device,
    no_metadata,
    push_to_hub,
    plan,
    vram,
    as_json,
    assignments,
) -> None:
    """Train on PROJECT, or on a FOLDER that you curated yourself: pictures with photo.txt or photo.caption beside them,
    metadata.jsonl, or kohya's 10_name sub-folders. Every readable picture of such a FOLDER is used.
    """
    options.check_plan(plan, as_json)
    from lorakit.project import open_project
    from lorakit.project.project import is_project

    settings = options.settings_from(assignments, weights=weights, trigger=trigger, class_word=class_word, no_metadata=no_metadata)
    folder = project if is_project(project) else out or options.default_folder(project)
    base, taken_over = options.take_over(settings_file, Path(folder), base, settings)
    settings = options.start_from(from_lora, Path(folder), base, settings)
    with options.nothing_left_of_a_failed_start(Path(folder)):
        if is_project(project):
            opened = open_project(project, base=base, kind=kind, settings=settings, device=device, taken_over=taken_over)
        else:
            by_hand = {"select.everything": True, "caption.captioner": "text_files"} | settings
            is_new = not is_project(folder)
            opened = open_project(
                folder, photos=project, base=base, kind=kind, settings=by_hand, device=device, create=is_new, taken_over=taken_over
            )
        opened.new_run = new_run
        if plan:
            options.show_plan(opened, vram, as_json)
            return
        opened.vram = vram
        options.check_trigger(opened, trigger, must_be=False)
        options.go(opened, "scan", last or "report", push_to_hub)
