"""Options that several verbs share, and what they come to: a project and its changed settings."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from lorakit.project import Project

INCOMPLETE = 3  # exit code when the work is done but some photos had to be left out

project_argument = click.argument("project", type=click.Path(path_type=Path))
out = click.option("-o", "--out", type=click.Path(path_type=Path), help="The project folder to make or to go on with.")
base = click.option("--base", help="Base model, see `lorakit bases`.  [default: sd15]")
kind = click.option("--kind", help="Kind of LoRA, see `lorakit kinds`.  [default: object]")
trigger = click.option("--trigger", help="Trigger word: a rare word such as zwx.")
class_word = click.option("--class-word", help="What the subject is: dog, woman, mug.")
captioner = click.option("--captioner", help="Who writes the captions, see `lorakit captioners`.")
weights = click.option("--weights", help="The base's weights: a diffusers folder, a single .safetensors, or hf://owner/name.")
device = click.option("--device", help="cuda, mps or cpu.  [default: the fastest there is]")
first = click.option("--from", "first", metavar="STAGE", default="scan", help="First stage to run.")
last = click.option("--until", "last", metavar="STAGE", help="Last stage to run.")
no_metadata = click.option(
    "--no-metadata", is_flag=True, help="Write the LoRA file without a header: no trigger, no settings, no thumbnail."
)
push_to_hub = click.option(
    "--push-to-hub", metavar="OWNER/NAME", help="Upload the finished LoRA with a model card; a new repository is private."
)
assignments = click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any setting, repeatable; see `lorakit show`.")


def default_folder(photos: str | Path) -> Path:
    """The project folder where none is given, named after the photos: `mugs-lora`."""
    from lorakit.project.project import is_on_hub

    if is_on_hub(photos):
        return Path(f"{str(photos).partition('@')[0].rpartition('/')[2].partition(':')[0]}-lora")
    return Path(f"{Path(photos).resolve().name}-lora")


def photos_from(words: tuple[str, ...], out: Path | None) -> tuple[str, ...]:
    """The PHOTOS of a command; a lone `-` is a list on stdin, which is kept beside the project for the next run."""
    from lorakit.errors import LorakitError

    if words != ("-",):
        return words
    if out is None:
        raise LorakitError("a list on stdin has no name: say where to, lorakit curate - -o PROJECT")
    return (str(keep_list(sys.stdin.buffer.read().decode("utf-8", "surrogateescape"), out)),)


def keep_list(text: str, out: Path) -> Path:
    """Write the list that came on stdin beside the project, to be found again by the next run."""
    path = out.absolute().with_name(f"{out.name}-photos.txt")
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [str(Path(line.strip()).absolute()) for line in text.split("\n") if line.strip()]
    path.write_bytes("".join(line + "\n" for line in lines).encode("utf-8", "surrogateescape"))
    return path


def together(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several options as one decorator, shown in this order."""

    def decorate(function: Any) -> Any:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def settings_from(assignments: Iterable[str], **words: Any) -> dict[str, Any]:
    """`--set` pairs and the options that are settings by another name (trigger, class_word, captioner, weights, no_metadata)."""
    from lorakit.settings import parse_assignments

    keys = {"trigger": "trigger.word", "class_word": "trigger.class_word", "captioner": "caption.captioner", "weights": "train.weights"}
    without = {"export.metadata": False} if words.pop("no_metadata", False) else {}
    if words.get("weights") and not words["weights"].startswith("hf://"):
        words["weights"] = str(Path(words["weights"]).expanduser().absolute())
    return {keys[name]: value for name, value in words.items() if value is not None} | without | parse_assignments(assignments)


def go(project: Project, first: str, last: str, push_to_hub: str | None = None) -> None:
    """Walk the stages, push the LoRA where that is asked for, and leave with 3 when photos had to be left out."""
    from lorakit import pipeline
    from lorakit.console import say

    if push_to_hub:
        from lorakit.report.hub import check_access, push

        check_access(push_to_hub)
    worked = pipeline.walk(project, first, last)
    if not worked:
        say(f"nothing to do: {project.folder} is up to date with these words")
    for line in results(project):
        click.echo(line)
    if push_to_hub:
        click.echo(f"hub      {push(project, push_to_hub)}")
    failed = sorted(r["file"] for r in project.manifest.selected if r.get("failed"))
    if failed:
        say(f"{len(failed)} chosen photos were left out: {', '.join(failed[:5])}{' ...' if len(failed) > 5 else ''}")
        sys.exit(INCOMPLETE)


def results(project: Project) -> list[str]:
    """The paths of what has been made so far, one a line."""
    from lorakit import pipeline
    from lorakit.project import runs, stamps

    lines = []
    if any(r.get("dataset") for r in project.manifest):
        lines.append(f"dataset  {project.dataset_folder}")
        run = runs.find(project.folder, stamps.train(project))
        if run and pipeline.is_run_done(project, "export") and run.lora:
            lines.append(f"LoRA     {run.lora}")
        if run and (run.samples / "final").is_dir():
            lines.append(f"samples  {run.samples / 'final'}")
    reports = [*sorted(project.folder.glob("runs/*/report.html")), project.folder / "report.html"]
    if newest := max((r for r in reports if r.is_file()), key=lambda r: r.stat().st_mtime, default=None):
        lines.append(f"report   {newest}")
    return lines
