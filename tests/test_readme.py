"""README and disk agree: the tree names every module, and every linked file is there."""

import re
from pathlib import Path

import lorakit
from lorakit import pipeline

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
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
