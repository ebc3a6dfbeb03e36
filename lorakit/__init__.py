"""lorakit: a messy folder of photos in, a LoRA that works out.

    import lorakit

    project = lorakit.new_project("mug", "photos/mug", base="sd15", kind="object", trigger="zwx", class_word="mug")
    lorakit.walk(project)                      # every stage in order, or one by one:
    lorakit.scan(project); lorakit.check(project); ...

Every stage is a plain function on a project. Nothing heavy is imported before it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:  # for editors; at run time a name is imported when it is used
    from lorakit.caption.caption import caption
    from lorakit.caption.review import review
    from lorakit.caption.trigger import trigger
    from lorakit.curate.check import check
    from lorakit.curate.crop import crop
    from lorakit.curate.dataset import dataset
    from lorakit.curate.dedupe import dedupe
    from lorakit.curate.embed import embed
    from lorakit.curate.scan import scan
    from lorakit.curate.select import select
    from lorakit.errors import LorakitError
    from lorakit.pipeline import status, walk
    from lorakit.project.project import Project, new_project, open_project
    from lorakit.report.report import report
    from lorakit.train.cache import cache
    from lorakit.train.export import export
    from lorakit.train.sample import sample
    from lorakit.train.train import train

_HOMES = {
    "open_project": "lorakit.project.project", "new_project": "lorakit.project.project", "Project": "lorakit.project.project",
    "LorakitError": "lorakit.errors", "walk": "lorakit.pipeline", "status": "lorakit.pipeline",
    "scan": "lorakit.curate.scan", "check": "lorakit.curate.check", "dedupe": "lorakit.curate.dedupe",
    "embed": "lorakit.curate.embed", "select": "lorakit.curate.select", "crop": "lorakit.curate.crop",
    "dataset": "lorakit.curate.dataset",
    "caption": "lorakit", "trigger": "lorakit.caption.trigger", "review": "lorakit.caption.review",
    "cache": "lorakit.train.cache", "train": "lorakit", "sample": "lorakit.train.sample",
    "export": "lorakit.train.export", "report": "lorakit",
}  # fmt: skip
__all__ = [
    "LorakitError", "Project", "cache", "caption", "check", "crop", "dataset", "dedupe", "embed", "export", "new_project", "open_project",
    "report", "review", "sample", "scan", "select", "status", "train", "trigger", "walk",
]  # fmt: skip


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'lorakit' has no attribute {name!r}")
    import importlib

    if _HOMES[name] == "lorakit":  # a wing that is its stage when it is called
        return importlib.import_module(f"lorakit.{name}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
