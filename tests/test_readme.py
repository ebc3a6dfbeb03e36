"""Pages and code agree: the tree names every module, every linked file is there, every reason of a check is told."""

import ast
import json
import re
import shlex
from fnmatch import fnmatch
from pathlib import Path

import click
import pytest

import lorakit
from lorakit import lookup, pipeline
from lorakit.cli import group

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
HELD_AS = {"fp8": "fp8", "nf4": "NF4", None: "bf16"}


def test_the_tree_names_every_module_of_the_package():
    tree = CONTRIBUTING.split("## The house")[1].split("```")[1]
    named = set(re.findall(r"^  (\w+(?:\.py|/))", tree, re.MULTILINE))
    package = Path(lorakit.__file__).parent
    there = {p.name for p in package.glob("*.py")} - {"__init__.py", "__main__.py"}
    there |= {f"{p.parent.name}/" for p in package.glob("*/__init__.py")}
    assert named == there


def test_every_stage_is_in_the_table():
    rows = re.findall(r"^\| (\w+) \|", COMMANDS, re.MULTILINE)
    assert [row for row in rows if row != "stage"] == list(pipeline.NAMES)


def test_every_verb_is_on_the_page_of_commands():
    missing = [verb for verb in group.list_commands(click.Context(group)) if verb != "help" and not re.search(rf"\b{verb}\b", COMMANDS)]
    assert not missing, f"docs/commands.md: a line for {', '.join(missing)}"


def test_every_page_is_in_the_index():
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    assert {f"({page.name})" for page in (ROOT / "docs").glob("*.md") if page.name != "README.md"} <= set(re.findall(r"\(\w+\.md\)", index))


def test_the_cards_that_train_a_base_are_those_of_the_page_on_memory():
    """README's short table of precisions, by the long one of docs/memory.md with what is turned on."""
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in README.splitlines() if line.startswith("| `")]
    found = {(row[0].strip("`"), int(gb)): cell for row in rows for gb, cell in zip((6, 8, 12, 16, 24), row[3:], strict=True)}
    assert len(found) == 5 * 12
    lines = [line.strip("|\n").split(" | ") for line in (ROOT / "docs/memory.md").read_text(encoding="utf-8").splitlines()]
    told = {(cells[0].strip(), int(cells[1])): cells for cells in lines if len(cells) == 8 and cells[1].isdigit()}
    for at, cell in found.items():
        turned_on, fits = told[at][2], told[at][6] == "yes"
        held = re.search(r"base_precision=(\w+)", turned_on)
        less = " + swap" if "swap_blocks" in turned_on else " + 8-bit" if "adamw8bit" in turned_on else ""
        words = HELD_AS[held and held[1]] + less
        assert cell == (words if fits else "-"), at


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


NOTEBOOK = ROOT / "examples/lorakit.ipynb"


def test_the_notebook_is_one_and_its_python_can_be_read():
    """The keys that nbformat 4.5 asks for; its outputs are empty."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5) and {"cells", "metadata"} < set(notebook)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    for cell in notebook["cells"]:
        assert all(isinstance(line, str) for line in cell["source"]) and isinstance(cell["metadata"], dict)
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            ast.parse("".join(line for line in cell["source"] if not line.startswith("!")))


def commands() -> list[str]:
    """The `lorakit` lines of the notebook, with what its cells assign filled in."""
    cells = [cell["source"] for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    lines = [line.strip() for cell in cells for line in cell]
    given = {
        name: ast.literal_eval(value)
        for line in lines
        if (name := line.partition(" = ")[0]).isupper()
        for value in [line.partition(" = ")[2]]
    }
    filled = [re.sub(r"{(\w+)}", lambda found: given.get(found[1], found[1]), line[1:]) for line in lines]
    return [line for line in filled if line.startswith("lorakit ")]


@pytest.mark.parametrize("line", commands())
def test_every_command_of_the_notebook_parses(line):
    verb, *words = shlex.split(line)[1:]
    command = group.get_command(click.Context(group), verb)
    assert command is not None, line
    command.make_context(verb, words)


def test_an_image_is_built_of_files_that_are_there():
    """Nothing is built here: what the package is made of is let through, and the extras are its own."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    let_through = {line[1:] for line in lines if line.startswith("!")}
    assert all((ROOT / name).exists() for name in let_through)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    needed = {"lorakit", "requirements.lock", "pyproject.toml", *re.findall(r'^"(\w+)" = "lorakit/', project, re.MULTILINE)}
    needed |= set(re.findall(r'^readme = "(.+)"', project, re.MULTILINE))
    assert needed <= let_through and not any(fnmatch("lorakit", line) for line in lines[lines.index("*") + 1 :])
    extras = re.search(r"/src\[(.+?)\]", (ROOT / "Dockerfile").read_text(encoding="utf-8"))[1].split(",")
    assert all(re.search(rf"^{extra} = ", project, re.MULTILINE) for extra in extras)
