"""Pages and code agree: the tree names every module, every linked file is there, every reason of a check is told."""

import ast
import re
from pathlib import Path

import pytest

import lorakit
from lorakit import lookup, pipeline

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tree_names_every_module_of_the_package():
    tree = README.split("## The house")[1].split("```")[1]
    named = set(re.findall(r"^  (\w+(?:\.py|/))", tree, re.MULTILINE))
    package = Path(lorakit.__file__).parent
    there = {p.name for p in package.glob("*.py")} - {"__init__.py", "__main__.py"}
    there |= {f"{p.parent.name}/" for p in package.glob("*/__init__.py")}
    assert named == there


def test_every_stage_is_in_the_table():
    rows = re.findall(r"^\| (\w+) \|", README, re.MULTILINE)
    assert [row for row in rows if row != "stage"] == list(pipeline.NAMES)


def test_links_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def reasons(source: str) -> set[str]:
    """The words that a check gives as its reasons: the second argument of `Reason(...)`."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return {word for call in calls if getattr(call.func, "id", "") == "Reason" for word in words_of(call.args[1])}


def words_of(node: ast.expr) -> set[str]:
    if isinstance(node, ast.IfExp):
        return words_of(node.body) | words_of(node.orelse)
    return {node.value} if isinstance(node, ast.Constant) else set()


@pytest.mark.parametrize("check", lookup.names(lookup.CHECKS))
def test_every_check_has_a_row_in_the_docs(check):
    rows = [line for line in (ROOT / "docs/curation.md").read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    told = set(re.findall(r"`(\w+)`", " ".join(row.split("|")[1] for row in rows)))
    source = (Path(lorakit.__file__).parent / lookup.CHECKS / f"{check}.py").read_text(encoding="utf-8")
    missing = sorted(reasons(source) - told)
    assert not missing, f"docs/curation.md: a row for {', '.join(missing)} of the check {check} is missing in the table of reasons"
