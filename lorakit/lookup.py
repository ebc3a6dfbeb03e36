"""The folder is the table: a name in a YAML file or on the command line is the name of a file in a folder of the
package, imported only when it is asked for. A card there (`joycaption.yaml`) is a name too: what its `read_by` names does its work."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import sys
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from lorakit.errors import LorakitError, UnknownName

PACKAGE = Path(__file__).parent
PLUGINS = "LORAKIT_PLUGINS"  # further folders laid out as the package is, such as MINE/caption/captioners/http.py
CHECKS, CAPTIONERS, FAMILIES, TRAINERS = "curate/checks", "caption/captioners", "bases/families", "report/trainers"
SINGULAR = {CHECKS: "check", CAPTIONERS: "captioner", FAMILIES: "family", TRAINERS: "trainer"}


@cache
def names(folder: str) -> tuple[str, ...]:
    """Names of the plug-ins and cards in a folder of the package such as `curate/checks`, sorted."""
    return tuple(sorted({*_files(folder), *_card_files(folder)}))


@cache
def modules(folder: str) -> tuple[str, ...]:
    """Names of the plug-ins that are files of their own, sorted."""
    return tuple(sorted(_files(folder)))


def places(folder: str) -> list[Path]:
    """Where plug-ins of a folder lie: in the package, in the folders that the environment names in LORAKIT_PLUGINS, and in
    those of `add_folder`."""
    given = [Path(place).expanduser() / folder for place in os.environ.get(PLUGINS, "").split(os.pathsep) if place]
    return [PACKAGE / folder, *(place for place in given if place.is_dir()), *_further.get(folder, ())]


@cache
def _files(folder: str) -> dict[str, Path]:
    files = (file for place in places(folder) for file in place.glob("*.py"))
    return {file.stem: file for file in files if file.stem not in ("__init__", "base")}


@cache
def _card_files(folder: str) -> dict[str, Path]:
    return {file.stem: file for place in places(folder) for file in place.glob("*.yaml")}


def facts_of(folder: str, name: str) -> dict[str, Any]:
    """What the card of a name says; nothing for a plug-in without one."""
    return dict(_facts(folder, name))


@cache
def _facts(folder: str, name: str) -> dict[str, Any]:
    path = _card_files(folder).get(name)
    if path is None or name in _files(folder):
        return {}
    try:
        facts = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise LorakitError(f"{path}: not valid YAML ({' '.join(str(error).split())}); mend it or remove it") from None
    if not isinstance(facts, dict) or facts.get("read_by") not in _files(folder):
        raise LorakitError(f"{path}: its read_by must name one of {', '.join(sorted(_files(folder)))}")
    return facts


def plugin_of(folder: str, name: str) -> str:
    """The plug-in that does the work of a name: itself, or what its card's `read_by` names."""
    return name if name in _files(folder) else _facts(folder, name).get("read_by", name)


_further: dict[str, list[Path]] = {}


def add_folder(folder: str, place: Path) -> None:
    """Let plug-ins of `folder` (such as `FAMILIES`) lie in `place` too, as if they were in the package: `load` imports them
    under the names of its folder."""
    _further.setdefault(folder, []).append(place)
    forget()


def remove_folder(folder: str, place: Path) -> None:
    """Undo `add_folder`; what was loaded from it stays loaded."""
    _further[folder].remove(place)
    forget()


def forget() -> None:
    """Look into the folders anew: their files, or LORAKIT_PLUGINS, have changed."""
    for found in (names, modules, _files, _card_files, _facts, _module):
        found.cache_clear()
    importlib.invalidate_caches()


def constant(folder: str, name: str, constant: str, default: Any = None) -> Any:
    """A constant at the top of a plug-in's file that is written out in full, read without importing the file: families take
    torch and diffusers along. `default` where there is no such plug-in, or no such constant in it."""
    path = _files(folder).get(name)
    for node in _parsed(path.read_text(encoding="utf-8")).body if path else ():
        if isinstance(node, ast.Assign) and [target.id for target in node.targets if isinstance(target, ast.Name)] == [constant]:
            return ast.literal_eval(node.value)
    return default


@lru_cache(maxsize=64)
def _parsed(text: str) -> ast.Module:
    """Parsed once while it is the same: who asks after a constant asks all plug-ins of a folder, for several."""
    return ast.parse(text)


def defines(folder: str, name: str, thing: str) -> bool:
    """Whether a plug-in's file has a class or function `thing` at its top, without importing what it imports."""
    tree = _parsed(_files(folder)[name].read_text(encoding="utf-8"))
    return any(isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == thing for node in tree.body)


def load(folder: str, name: str, where: str = "") -> ModuleType:
    """Import the plug-in behind `name` in `folder`. Raises `UnknownName` when there is no such file."""
    check_name(folder, name, where)
    return _module(folder, plugin_of(folder, name))


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
