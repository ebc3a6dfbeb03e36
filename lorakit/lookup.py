"""The folder is the table: a name in a YAML file or on the command line is the name of a file in a folder of the
package, imported only when it is asked for."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from lorakit.errors import UnknownName

PACKAGE = Path(__file__).parent
CHECKS, CAPTIONERS, FAMILIES, TRAINERS = "curate/checks", "caption/captioners", "bases/families", "report/trainers"
SINGULAR = {CHECKS: "check", CAPTIONERS: "captioner", FAMILIES: "family", TRAINERS: "trainer"}


@cache
def names(folder: str) -> tuple[str, ...]:
    """Names of the plug-ins in a folder of the package such as `curate/checks`, sorted."""
    return tuple(sorted(_files(folder)))


@cache
def _files(folder: str) -> dict[str, Path]:
    places = (PACKAGE / folder, *_further.get(folder, ()))
    return {file.stem: file for place in places for file in place.glob("*.py") if file.stem not in ("__init__", "base")}


_further: dict[str, list[Path]] = {}


def add_folder(folder: str, place: Path) -> None:
    """Let plug-ins of `folder` (such as `FAMILIES`) lie in `place` too, as if they were in the package: `load` imports them
    under the names of its folder."""
    _further.setdefault(folder, []).append(place)
    _package(folder).__path__.append(str(place))
    _forget()


def remove_folder(folder: str, place: Path) -> None:
    """Undo `add_folder`; what was loaded from it stays loaded."""
    _further[folder].remove(place)
    _package(folder).__path__.remove(str(place))
    _forget()


def _package(folder: str) -> ModuleType:
    return importlib.import_module(f"lorakit.{folder.replace('/', '.')}")


def _forget() -> None:
    for found in (names, _files, _module):
        found.cache_clear()
    importlib.invalidate_caches()


def constant(folder: str, name: str, constant: str, default: Any = None) -> Any:
    """A constant at the top of a plug-in's file that is written out in full, read without importing the file: families take
    torch and diffusers along. `default` where there is no such plug-in, or no such constant in it."""
    path = _files(folder).get(name)
    for node in ast.parse(path.read_text(encoding="utf-8")).body if path else ():
        if isinstance(node, ast.Assign) and [target.id for target in node.targets if isinstance(target, ast.Name)] == [constant]:
            return ast.literal_eval(node.value)
    return default


def load(folder: str, name: str, where: str = "") -> ModuleType:
    """Import the plug-in `name` of `folder`. Raises `UnknownName` when there is no such file."""
    if name not in names(folder):
        raise UnknownName(SINGULAR[folder], name, list(names(folder)), where)
    return _module(f"lorakit.{folder.replace('/', '.')}.{name}")


_module = cache(importlib.import_module)  # Python's own look-up takes ten times as long, and checks are asked for a record each


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
