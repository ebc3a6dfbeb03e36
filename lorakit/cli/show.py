"""`lorakit show`: every setting as it would be used, with the layer that it came from."""

from __future__ import annotations

from pathlib import Path

import click

from lorakit.cli import options


@click.command("show")
@click.argument("project", required=False, type=click.Path(path_type=Path))
@options.together(options.base, options.kind, options.assignments)
@click.option("--all", "with_help", is_flag=True, help="With the meaning of each setting.")
def command(project, base, kind, assignments, with_help) -> None:
    """Show the settings for a base and a kind (or of PROJECT), each with the layer that its value comes from."""
    from lorakit import settings as settings_module

    settings = _resolve(project, base, kind, settings_module.parse_assignments(assignments))
    known = settings_module.known_keys()
    width = max(map(len, known))
    for key, value in settings.flat().items():
        shown = "-" if value is None else ", ".join(value) or "-" if isinstance(value, tuple) else str(value)
        line = f"{key:<{width}}  {shown:<14}  {settings.origin[key]}"
        click.echo(f"{line:<{width + 40}}{known[key][0].metadata['help']}" if with_help else line)


def _resolve(project, base, kind, changes):
    from lorakit import settings as settings_module
    from lorakit.project import catalog
    from lorakit.project.project import FILE, check_stored, read_config

    words = read_config(project.resolve()) if project else {}
    if project:
        check_stored(project.resolve(), settings_module.flatten(words["settings"]))
    card = catalog.card(base or words.get("base", catalog.DEFAULT_BASE), project)
    of_kind = catalog.kind(kind or words.get("kind", "object"), project)
    layers = [(f"base {card.name}", card.settings), (f"kind {of_kind.name}", of_kind.settings)]
    return settings_module.resolve([*layers, (FILE, words.get("settings") or {}), ("command line", changes)])
