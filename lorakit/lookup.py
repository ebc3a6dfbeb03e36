"""The folder is the table: a name in a YAML file or on the command line is the name of a file in a folder of the
package, imported only when it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

from lorakit.errors import UnknownName

PACKAGE = Path(__file__).parent
PLUGINS = "LORAKIT_PLUGINS"  # further folders laid out as the package is, such as MINE/caption/captioners/http.py
CHECKS, CAPTIONERS, FAMILIES, TRAINERS = "curate/checks", "caption/captioners", "bases/families", "report/trainers"
SINGULAR = {CHECKS: "check", CAPTIONERS: "captioner", FAMILIES: "family", TRAINERS: "trainer"}


@cache
def names(folder: str) -> tuple[str, ...]:
    """Names of the plug-ins in a folder of the package such as `curate/checks`, sorted."""
    files = (file for place in places(folder) for file in place.glob("*.py"))
    return tuple(sorted({f.stem for f in files if f.stem not in ("__init__", "base")}))


def places(folder: str) -> list[Path]:
    """Where plug-ins of a folder lie: in the package, and in the folders that the environment names in LORAKIT_PLUGINS."""
    further = [Path(place).expanduser() / folder for place in os.environ.get(PLUGINS, "").split(os.pathsep) if place]
    return [PACKAGE / folder, *(place for place in further if place.is_dir())]


def load(folder: str, name: str, where: str = "") -> ModuleType:
    """Import the plug-in `name` of `folder`. Raises `UnknownName` when there is no such file."""
    check_name(folder, name, where)
    return _module(folder, name)


def check_name(folder: str, name: str, where: str = "") -> None:
    if name not in names(folder):
        raise UnknownName(SINGULAR[folder], name, list(names(folder)), where)


@cache  # Python's own look-up takes ten times as long, and checks are asked for a record each
def _module(folder: str, name: str) -> ModuleType:
    package = importlib.import_module(f"lorakit.{folder.replace('/', '.')}")
    package.__path__ = [str(place) for place in places(folder)]  # lorakit's own come first
    return importlib.import_module(f"{package.__name__}.{name}")


def is_installed(module: ModuleType) -> bool:
    """Whether the packages are there that a plug-in NEEDS besides lorakit's own; they come with its EXTRA."""
    return _are_there(getattr(module, "NEEDS", ()))


@cache
def _are_there(packages: tuple[str, ...]) -> bool:
    return all(importlib.util.find_spec(name) for name in packages)


def make_callable(package: str) -> None:
    """Let the wing `lorakit.<name>`, when it is called, be its stage of the same name: `lorakit.train(project)`. Without
    this, importing anything of the wing would hide the stage behind the package."""
    stage = package.rsplit(".", 1)[-1]

    class Wing(ModuleType):
        def __call__(self, project):
            return getattr(importlib.import_module(f"{package}.{stage}"), stage)(project)

    sys.modules[package].__class__ = Wing
