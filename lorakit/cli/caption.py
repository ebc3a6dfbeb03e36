"""`lorakit caption`: captions, trigger word, dataset folder."""

from __future__ import annotations

import click

from lorakit.cli import options


@click.command("caption")
@options.project_argument
@options.together(
    options.captioner,
    options.trigger,
    options.class_word,
    options.base,
    options.kind,
    options.last,
    options.device,
    options.engine,
    options.ray_address,
    options.assignments,
)
@click.option(
    "--existing",
    type=click.Choice(["keep", "replace", "append", "prepend"]),
    help="What becomes of captions beside the photos.",
)
@click.option("--strict/--no-strict", default=None, help="Leave out photos whose text has a fault (exit code 3).")
@click.option("--unlock", is_flag=True, help="Let texts written by hand follow captions and rules again.")
@click.option("--prune", type=click.Choice(["invariants"]), help="Take out what stands in 80 % of the texts or more.")
@click.option("--compare", "compared", metavar="A,B", help="Only write a page on which to choose between captioners, blind.")
@click.option("--count", type=click.IntRange(min=1), default=12, show_default=True, help="With --compare: of so many photos.")
def command(
    project,
    captioner,
    trigger,
    class_word,
    base,
    kind,
    last,
    device,
    engine,
    ray_address,
    assignments,
    existing,
    strict,
    unlock,
    prune,
    compared,
    count,
) -> None:
    """Caption the chosen photos of PROJECT, place the trigger word, and write the dataset folder."""
    from lorakit.project import open_project

    settings = options.settings_from(assignments, captioner=captioner, trigger=trigger, class_word=class_word)
    does_work = options.engine_of(engine, ray_address)
    settings |= {key: value for key, value in (("caption.existing", existing), ("caption.strict", strict)) if value is not None}
    opened = open_project(project, base=base, kind=kind, settings=settings, device=device)
    opened.engine = does_work or opened.engine
    if compared:
        _compare(opened, compared, count)
        return
    options.check_trigger(opened, trigger, must_be=False)
    if unlock:
        _unlock(opened)
    if prune:
        opened = _pruned(opened)
        opened.engine = does_work or opened.engine
    options.go(opened, "scan", last or "dataset")


def _compare(project, compared: str, count: int) -> None:
    from lorakit import pipeline
    from lorakit.caption.compare import compare

    names = [name.strip() for name in compared.split(",") if name.strip()]
    pipeline.walk(project, last="crop")
    with project.locked():
        click.echo(f"compare  {compare(project, names, count)}")


def _unlock(project) -> None:
    from lorakit.caption import words
    from lorakit.caption.review import adopt_edits

    with project.locked():
        adopt_edits(project)  # first: an edit that has not been seen yet is unlocked as well
    click.echo(f"{words.unlock(project)} texts written by hand are unlocked")


def _pruned(project):
    from lorakit import pipeline
    from lorakit.caption import words

    pipeline.walk(project, last="trigger")
    project, found = words.prune(project)
    for phrase, count in found:
        click.echo(f"remove {phrase!r}: it stood in {count} texts")
    return project
