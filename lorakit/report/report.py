"""Stage report: one HTML file that needs no other, with what was kept and why, what was trained and which file to use."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from lorakit import __version__, files
from lorakit.project import Project, runs, stamps
from lorakit.project.runs import Run
from lorakit.report.answers import first_screen
from lorakit.report.photo_part import photo_part
from lorakit.report.training_part import training_part


def report(project: Project) -> Path:
    """Write `report.html` into the run folder (before any training: into the project). Returns its path."""
    run = runs.find(project.folder, stamps.train(project)) if any(r.get("dataset") for r in project.manifest) else None
    path = (run.folder if run else project.folder) / "report.html"
    stamp = stamps.report(project)
    if run and run.is_done("report", stamp) and path.is_file():
        return path
    files.write_text(path, render(project, run))
    if run:
        run.finish("report", stamp)
    return path


def render(project: Project, run: Run | None) -> str:
    """The page as text."""
    import jinja2

    def part(name: str) -> str:
        return (resources.files("lorakit.report") / name).read_text(encoding="utf-8")

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(part), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    photos, training = photo_part(project), training_part(project, run)
    screen = first_screen(project, run, photos, training)
    return environment.get_template("page.html").render(version=__version__, project=project, screen=screen, photos=photos, **training)
