"""The public names: what editors see is what is imported at run time, and the version stands in one place."""

import ast
import re
from pathlib import Path

import pytest

import lorakit

SOURCE = Path(lorakit.__file__)


def test_editors_see_the_public_names():
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {name.name: node.module for node in block.body for name in node.names}
    assert sorted(seen) == lorakit.__all__ == sorted(lorakit._HOMES)
    for name, home in lorakit._HOMES.items():
        assert seen[name] == (home if home != "lorakit" else f"lorakit.{name}.{name}")
    assert (SOURCE.parent / "py.typed").is_file()


@pytest.mark.parametrize("name", ["Project", "open_project", "walk", "scan", "review", "LorakitError"])
def test_a_public_name_is_the_thing_itself(name):
    assert getattr(lorakit, name).__name__ == name


def test_a_name_that_is_not_there_is_said():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = lorakit.trian


def test_version_stands_in_one_place():
    project = SOURCE.parents[1]
    config = (project / "pyproject.toml").read_text(encoding="utf-8")
    assert 'dynamic = ["version"]' in config and not re.search(r"^version\b", config, re.MULTILINE)
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", lorakit.__version__)
    assert f"## [{lorakit.__version__}]" in (project / "CHANGELOG.md").read_text(encoding="utf-8")
