"""Options that several verbs share, and what they come to: a project and its changed settings."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import click

from lorakit.console import typed

if TYPE_CHECKING:
    from lorakit.cluster import Cluster
    from lorakit.project import Project

INCOMPLETE = 3  # exit code when the work is done but some photos had to be left out


def _complete(of: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """What a shell completes a name with: the bases, kinds or captioners that there are."""

    def complete(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
        from lorakit import lookup
        from lorakit.project import catalog

        known = {"base": catalog.cards, "kind": catalog.kinds, "captioner": lambda: lookup.names(lookup.CAPTIONERS)}[of]()
        names = (one if isinstance(one, str) else one.name for one in known)
        return [name for name in names if name.startswith(begun)]

    return complete


project_argument = click.argument("project", type=click.Path(path_type=Path))
out = click.option("-o", "--out", type=click.Path(path_type=Path), help="The project folder to make or to go on with.")
base = click.option("--base", shell_complete=_complete("base"), help="Base model, see `lorakit bases`.  [default: sd15]")
kind = click.option("--kind", shell_complete=_complete("kind"), help="Kind of LoRA, see `lorakit kinds`.  [default: object]")
trigger = click.option("--trigger", help="Trigger word: a rare word such as zwx.")
no_trigger = click.option("--no-trigger", is_flag=True, help="Train without a trigger word.")
class_word = click.option("--class-word", help="What the subject is: dog, woman, mug.")
captioner = click.option(
    "--captioner", shell_complete=_complete("captioner"), help="Who writes the captions, see `lorakit captioners`; several as A,B."
)
weights = click.option("--weights", help="The base's weights: a diffusers folder, a single .safetensors, or hf://owner/name.")
device = click.option("--device", help="cuda, mps or cpu.  [default: the fastest there is]")
engine = click.option(
    "--engine", type=click.Choice(["threads", "ray"]), default="threads", show_default=True,
    help="What checks, embeds, captions and cuts the photos; ray: several machines or cards.",
)  # fmt: skip
ray_address = click.option(
    "--ray-address", metavar="HOST:PORT", help="Join this Ray cluster.  [default with --engine ray: one on this machine]"
)
first = click.option("--from", "first", metavar="STAGE", default="scan", help="First stage to run.")
last = click.option("--until", "last", metavar="STAGE", help="Last stage to run.")
step = click.option("--step", type=click.IntRange(min=1), metavar="N", help="From the checkpoint of step N.  [default: the chosen one]")
no_metadata = click.option(
    "--no-metadata", is_flag=True, help="Write the LoRA file without a header: no trigger, no settings, no thumbnail."
)
from_lora = click.option(
    "--from-lora", type=click.Path(path_type=Path), metavar="FILE", help="Start from this LoRA; its rank and layers are taken over."
)
settings_file = click.option(
    "--settings-from", "settings_file", type=click.Path(path_type=Path), metavar="FILE",
    help="Take settings over from another trainer's file: sd-scripts, kohya_ss, OneTrainer, ai-toolkit, diffusers, or a LoRA's header.",
)  # fmt: skip
new = click.option("--new", "new_run", is_flag=True, help="Train from step 1, also where a finished training could go on.")
plan = click.option("--plan", is_flag=True, help="Only say what the training will be and need; nothing is loaded or written.")
vram = click.option("--vram", type=click.FloatRange(min=1), metavar="GB", help="Choose for a card of so much memory, whatever is free.")
as_json = click.option("--json", "as_json", is_flag=True, help="With --plan: for scripts.")
push_to_hub = click.option(
    "--push-to-hub", metavar="OWNER/NAME", help="Upload the finished LoRA with a model card; a new repository is private."
)
assignments = click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any setting, repeatable; see `lorakit show`.")


def default_folder(photos: str | Path) -> Path:
    """The project folder where none is given, named after the photos: `mugs-lora`."""
    from urllib.parse import unquote

    from lorakit.photos.remote import is_address, normal
    from lorakit.project.project import is_on_hub

    if is_on_hub(photos):
        return Path(f"{str(photos).partition('@')[0].rpartition('/')[2].partition(':')[0]}-lora")
    if is_address(photos):
        return Path(f"{PurePosixPath(unquote(normal(str(photos)).rstrip('/').rpartition('/')[2])).name}-lora")
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
    """Write the list that came on stdin beside the project, to be found again by the next run. Raises `LorakitError` for addresses in it."""
    from lorakit.photos.remote import check_list

    check_list(text.split("\n"), "the list on stdin")
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

    keys = {"trigger": "trigger.word", "class_word": "trigger.class_word", "captioner": "caption.captioner", "captioners": "caption.captioners",
            "weights": "train.weights"}  # fmt: skip
    if (captioner := words.pop("captioner", None)) is not None:
        several = [name.strip() for name in captioner.split(",") if name.strip()]
        words |= {"captioner": captioner if len(several) < 2 else None, "captioners": several if len(several) > 1 else []}
    without = {"export.metadata": False} if words.pop("no_metadata", False) else {}
    if words.get("weights") and not words["weights"].startswith("hf://"):
        words["weights"] = str(Path(words["weights"]).expanduser().absolute())
    found: dict[str, Any] = (
        {keys[name]: value for name, value in words.items() if value is not None} | without | parse_assignments(assignments)
    )
    return found | {key: paths_here(found[key]) for key in ("sample.prompts",) if key in found}


def paths_here(entries: Iterable[str]) -> list[str]:
    """Entries of `sample.prompts`, files among them by their whole path: the project's next command may be given elsewhere."""
    from lorakit.text.prompts import is_file

    return [str(Path(entry).expanduser().absolute()) if is_file(entry) else entry for entry in entries]


def take_over(
    path: Path | None, out: Path, base: str | None, given: dict[str, Any]
) -> tuple[str | None, tuple[str, dict[str, Any]] | None]:
    """(the base, the settings of --settings-from with their origin). A base that is named, or that the project has, goes before the file's;
    of another family, it has nothing from the file's weights."""
    if path is None:
        return base, None
    from lorakit.console import say
    from lorakit.project import catalog
    from lorakit.project.project import is_project, read_config
    from lorakit.report.settings_from.file import take

    found = take(path)
    name = base or (read_config(out)["base"] if is_project(out) else None)
    settings = found.settings
    if name and found.card and (card := catalog.card(name, out)).family != found.card.family:
        found.fit_to_another(card)
    for line in found.lines():
        say(f"settings  {line}")
    if name is None and found.card is None:
        say(f"settings  {path.name} does not tell its base; {catalog.DEFAULT_BASE} is taken, --base names another")
    over = [f"{key}={given[key]}" for key in settings if key in given and given[key] != settings[key]]
    if over:
        say(f"settings  the command's own go before: {', '.join(over)}")
    return name or (found.card.name if found.card else None), (found.origin, settings)


def engine_of(name: str, address: str | None) -> Cluster | None:
    """What does the work on many photos; None: threads, as the project has them. Raises `LorakitError` where it is not installed."""
    from lorakit.cluster import Cluster, check_installed, check_reachable
    from lorakit.errors import LorakitError

    if name == "threads":
        if address:
            raise LorakitError(f"--ray-address {address}: wants --engine ray")
        return None
    check_installed()
    if address:
        check_reachable(address)
    return Cluster(address)


def start_from(path: Path | None, out: Path, base: str | None, given: dict[str, Any]) -> dict[str, Any]:
    """The settings `given`, before them those that the LoRA file of --from-lora decides for the base of the project."""
    if path is None:
        return given
    from lorakit.console import say
    from lorakit.project import catalog
    from lorakit.project.project import is_project, read_config
    from lorakit.train import from_lora

    name = base or (read_config(out)["base"] if is_project(out) else catalog.DEFAULT_BASE)
    card = catalog.card(name, out)
    catalog.check_family(card)
    decided = from_lora.settings_of(path, card.family)
    say(f"start     {from_lora.in_words(path, decided)}")
    return decided | given


def show_plan(project: Project, vram: float | None, as_json: bool) -> None:
    """What a training is going to be, instead of it."""
    import json

    from lorakit.train.plan import in_words, plan

    project.vram = vram
    found = plan(project)
    for line in [json.dumps(found, indent=1, ensure_ascii=False)] if as_json else in_words(found):
        click.echo(line)


def check_plan(plan: bool, as_json: bool) -> None:
    """Raises `LorakitError` for an option of a plan without one."""
    from lorakit.errors import LorakitError

    if as_json and not plan:
        raise LorakitError("--json is for --plan")


def go(project: Project, first: str, last: str, push_to_hub: str | None = None) -> None:
    """Walk the stages, push the LoRA where that is asked for, and leave with 3 when photos had to be left out."""
    from lorakit.console import say

    say(f"project   {project.folder} ({project.card.name}, {project.kind.name})")  # at once: what comes next may load torch
    from lorakit import pipeline

    if push_to_hub:
        from lorakit.report.hub import check_access, push

        check_access(push_to_hub)
    worked = pipeline.walk(project, first, last)
    if not worked:
        say(f"nothing to do: {project.folder} is up to date with these words")
    for line in results(project, last):
        click.echo(line)
    if push_to_hub:
        click.echo(f"hub      {push(project, push_to_hub)}")
    failed = sorted(r["file"] for r in project.manifest.selected if r.get("failed"))
    if failed:
        say(f"{len(failed)} chosen photos were left out: {', '.join(failed[:5])}{' ...' if len(failed) > 5 else ''}")
    if absent := pipeline.not_given(project, first, last):
        file, why = next(iter(absent.items()))
        many = "1 photo" if len(absent) == 1 else f"{len(absent)} photos"
        say(f"{many} could not be had from the store and left out ({file}: {why}); the same command tries again")
    for line in next_commands(project, last):
        say(line)
    if failed or absent:
        sys.exit(INCOMPLETE)
    if last != "report" and pipeline.progress_of(project, last)["pending"]:
        say(f"{last} is not finished: `lorakit status {typed(project.folder)}` says how far each stage has come")
        sys.exit(INCOMPLETE)


def next_commands(project: Project, last: str) -> list[str]:
    """What may come after a walk that ended at `last`, one command a line."""
    from lorakit import pipeline

    place, wing = typed(project.folder), pipeline.STAGES[pipeline.NAMES.index(last)].wing
    if last == "dataset" or wing == "caption":
        words = [f"lorakit words {place}", f"lorakit train {place}"]
    elif wing == "curate":
        named = "" if project.trigger else " --trigger zwx"
        words = [f"lorakit status {place}", f"lorakit caption {place}{named}"]
    elif last == "report" and pipeline.is_run_done(project, "export"):
        words = [f"lorakit grid {place}"]
    else:
        return []
    return [f"next      {word}" for word in words]


@contextmanager
def nothing_left_of_a_failed_start(folder: Path) -> Iterator[None]:
    """A command that is refused before it has found a photo leaves no folder behind, unless it has read something for the next try."""
    from lorakit.errors import LorakitError

    folder = folder.expanduser().absolute()
    was_there, was_project, cache = folder.is_dir(), (folder / "project.yaml").exists(), folder / "cache"
    had_cache = os.path.lexists(cache)
    try:
        yield
    except (LorakitError, OSError):
        if not was_project and folder.is_dir() and {path.name for path in folder.iterdir()} <= {"project.yaml", ".lock", "cache"}:
            if not had_cache:  # a link to a disk that is larger, say, which somebody has made
                if any(path.is_file() and path.stat().st_size for path in cache.rglob("*")):
                    raise
                shutil.rmtree(cache, ignore_errors=True)
            for path in folder.iterdir():
                if path != cache:
                    path.unlink()
            if not was_there:
                folder.rmdir()
        raise


def check_trigger(project: Project, given: str | None, must_be: bool) -> None:
    """Before hours are spent: a project is not trained without a trigger, or with a bad one, by oversight. Raises `LorakitError` that
    says how to go on all the same."""
    from lorakit.errors import LorakitError
    from lorakit.text.trigger_word import check_word

    check_word(given)
    if given:
        from lorakit.bases import tokens
        from lorakit.caption import trigger_words

        tokenizers = tokens.tokenizers_of(tokens.folder_of(project.card))
        found = trigger_words.judge(given, project.card, tokenizers)
        if found.verdict == "bad":
            better = ", ".join(trigger_words.propose(given, tokenizers))
            better = f" Better: {better}." if better else ""
            raise LorakitError(
                f"--trigger {given!r} is a bad one: {found.faults[0]}.{better} To take it all the same: --set trigger.word={given!r}"
            )
    elif must_be and not project.trigger and not any(project.folder.glob("runs/*")):
        raise LorakitError(
            "no trigger: without one the base cannot tell what it learned from what it knew. Name a rare word with --trigger zwx "
            "(`lorakit trigger WORD` judges it), or go on with --no-trigger"
        )


def results(project: Project, last: str) -> list[str]:
    """The paths of what has been made and is up to date after a walk that ended at `last`, one a line."""
    from lorakit import pipeline
    from lorakit.project import runs, stamps

    lines = []
    written = [r for r in project.manifest.everything() if r.get("dataset")]
    is_fresh = not pipeline.progress_of(project, "dataset")["pending"] and {r["id"] for r in written} <= {
        r["id"] for r in project.manifest.selected
    }
    if written and is_fresh:
        lines.append(f"dataset  {project.dataset_folder}")
        run = runs.find(project.folder, stamps.train(project))
        if run and pipeline.is_run_done(project, "export") and run.lora:
            lines.append(f"LoRA     {run.lora}")
        if run and (run.samples / "final").is_dir():
            lines.append(f"samples  {run.samples / 'final'}")
    if last != "report" and not pipeline.is_run_done(project, "report"):
        return lines
    reports = [*sorted(project.folder.glob("runs/*/report.html")), project.folder / "report.html"]
    if newest := max((r for r in reports if r.is_file()), key=lambda r: r.stat().st_mtime, default=None):
        lines.append(f"report   {newest}")
    return lines
