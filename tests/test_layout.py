"""The walls of the house: imports go down only, wings do not know each other, light commands load nothing heavy."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lorakit
from lorakit import pipeline, settings
from lorakit.project import stamps

PACKAGE = Path(lorakit.__file__).parent
WINGS = ("curate", "caption", "train", "report")
# From the ground up: folders, and the few modules that lie at the root. A room may import those of the floors below, and its own.
FLOORS = [
    {"errors", "record"},
    {"ahead", "cluster", "console", "files", "lookup", "weights", "device"},
    {"settings", "photos", "text", "clip"},
    {"quality"},
    {"project"},
    {"bases"},
    {"lora_file"},
    set(WINGS),
    {"findings"},
    {"pipeline"},
    {"page"},
    {"cli"},
    {"__main__"},
]


MOST_AT_ROOT = 14  # modules beside the folders; what is more wants a room
# Pairs of rooms (a folder with all below it, or a module at the root) of which one imports the other; 14 of them are the page's, 7 the engine's and the addresses'.
MOST_ARROWS = 153


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """All that runs: what stands under `if TYPE_CHECKING` is left out."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and getattr(child.test, "id", "") == "TYPE_CHECKING"):
            yield child
            yield from statements(child)


def imports(everywhere: bool = False) -> dict[str, set[str]]:
    """{module: lorakit modules it imports when it is loaded; `everywhere`: inside functions too} (for type checkers left out)."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        if module == "__init__":
            continue
        names: set[str] = set()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in statements(tree) if everywhere else tree.body:
            if isinstance(node, ast.Import):
                names |= {a.name.removeprefix("lorakit.") for a in node.names if a.name.startswith("lorakit.")}
            elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "lorakit":
                inside = node.module.removeprefix("lorakit").lstrip(".")
                names |= {f"{inside}.{a.name}".lstrip(".") for a in node.names}
        found[module] = names
    modules = set(found)
    return {m: {n if n in modules else n.rpartition(".")[0] for n in names} - {"", m} for m, names in found.items()}


IMPORTS, EVERYWHERE = imports(), imports(everywhere=True)


def floor(module: str) -> int:
    top = module.split(".")[0]
    return next(number for number, rooms in enumerate(FLOORS) if top in rooms)


@pytest.mark.parametrize("module", sorted(IMPORTS))
def test_every_module_has_a_floor_and_imports_downwards(module):
    for other in IMPORTS[module]:
        if other.split(".")[0] == module.split(".")[0]:
            continue
        assert floor(other) <= floor(module), f"{module} imports {other}, which lies above it"
        if module.split(".")[0] in WINGS:
            assert other.split(".")[0] not in WINGS, f"{module} imports {other} of another wing"


@pytest.mark.parametrize("module", sorted(IMPORTS))
def test_no_import_inside_a_function_goes_up(module):
    for other in EVERYWHERE[module]:
        assert floor(other) <= floor(module), f"{module} imports {other}, which lies above it"


def test_few_modules_lie_outside_a_room_and_few_rooms_know_each_other():
    def room(module: str) -> str:
        return module if (PACKAGE / f"{module}.py").is_file() else module.split(".")[0]

    assert len(list(PACKAGE.glob("[!_]*.py"))) <= MOST_AT_ROOT
    arrows = {(room(module), room(other)) for module, others in EVERYWHERE.items() for other in others}
    assert len({(one, other) for one, other in arrows if one != other}) <= MOST_ARROWS


def test_nobody_but_its_verb_knows_the_page():
    """What `lorakit open` shows is a face like the command line: nothing else is built on it, nor waits for starlette."""
    assert {m for m, others in EVERYWHERE.items() if any(o.split(".")[0] == "page" for o in others)} - {"cli.open"} <= {
        m for m in EVERYWHERE if m.split(".")[0] == "page"
    }
    assert not any(other.split(".")[0] == "page" for other in IMPORTS["cli.open"])


def test_no_import_goes_in_a_circle():
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way[way.index(module) :], module))
        if module not in done:
            for other in IMPORTS.get(module, ()):
                visit(other, (*way, module))
            done.add(module)

    for module in IMPORTS:
        visit(module, ())


def test_a_stage_has_one_name_everywhere():
    for stage in pipeline.STAGES:
        assert (PACKAGE / stage.wing / f"{stage.name}.py").is_file()
        assert stage.name in settings.SECTIONS or stage.name == "check"
        assert stage.name == "scan" or callable(getattr(stamps, stage.name))
        assert stage.name in lorakit.__all__


VERBS = sorted(path.stem for path in (PACKAGE / "cli").glob("*.py") if path.stem not in ("__init__", "options"))


@pytest.mark.parametrize("words", [[], *[[verb] for verb in VERBS]], ids=lambda words: " ".join(words) or "lorakit")
def test_help_loads_nothing_heavy(words):
    code = (
        "import sys\nfrom lorakit.cli import group\n"
        f"try: group({[*words, '--help']!r}, standalone_mode=False)\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'diffusers', 'numpy', 'PIL', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--help" in done.stdout


HEAVY = {"torch", "torchvision", "transformers", "diffusers", "open_clip", "timm", "scipy", "peft", "datasets"}
PIXELS = {"numpy", "cv2", "PIL"}
LIGHT = [
    (["show"], PIXELS), (["show", "--base", "sdxl", "--all"], PIXELS), (["bases"], PIXELS), (["kinds"], PIXELS), (["captioners"], set()),
    (["trigger", "dog"], PIXELS), (["help", "run"], PIXELS), (["status", "PROJECT"], PIXELS), (["status", "PROJECT", "--json"], PIXELS),
    (["run", "-o", "PROJECT", "--trigger", "dog"], set()), (["run", "PHOTOS", "-o", "new", "--trigger", "zwx", "--captioner", "blipp"], set()),
]  # fmt: skip


@pytest.mark.parametrize(("words", "also"), LIGHT, ids=lambda given: " ".join(given) if isinstance(given, list) else "")
def test_light_commands_load_nothing_heavy(words, also, make_project, photo_folder, tmp_path):
    folder = make_project(**{"train.weights": None}).folder if "PROJECT" in words else None
    named = {"PROJECT": str(folder), "PHOTOS": str(photo_folder), "new": str(tmp_path / "new")}
    code = (
        "import sys\nfrom lorakit.cli import group\nfrom lorakit.errors import LorakitError\n"
        f"try: group({[named.get(word, word) for word in words]!r}, standalone_mode=False)\nexcept (SystemExit, LorakitError): pass\n"
        f"heavy = {HEAVY | also!r} & set(sys.modules)\nsys.exit(f'loaded {{heavy}}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr


def test_the_package_itself_loads_nothing_heavy():
    code = "import sys, lorakit; lorakit.new_project; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def code_words(path: Path) -> set[str]:
    """Names of the code and strings in it that are no prose: one word, and no docstring."""
    tree, words = ast.parse(path.read_text(encoding="utf-8")), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value.strip():
            words.add(node.value)
        elif isinstance(node, (ast.Name, ast.arg, ast.keyword, ast.Attribute, ast.FunctionDef, ast.ClassDef, ast.alias)):
            words.add(
                getattr(node, "id", None) or getattr(node, "arg", None) or getattr(node, "attr", None) or getattr(node, "name", "") or ""
            )
    return words


def test_nothing_but_its_own_file_knows_a_family_by_name():
    """A new base is one file of a family and one card. The default base, a card, has one line of its own."""
    from lorakit.project.catalog import DEFAULT_BASE

    families = PACKAGE / "bases" / "families"
    stems = [path.stem for path in families.glob("*.py") if path.stem not in ("__init__", "base")]
    word, camel = "|".join(stems), "|".join(stem.title().replace("_", "") for stem in stems)
    names = re.compile(rf"(?i:(?<![a-z])({word})(?![a-z]))|({camel})(?=[A-Z])")  # but not Anima in what is animated
    found = {
        (path.relative_to(PACKAGE).as_posix(), word)
        for path in PACKAGE.rglob("*.py")
        if path.parent != families
        for word in code_words(path)
        if names.search(word)
    }
    assert found == {("project/catalog.py", DEFAULT_BASE)}


def test_no_file_is_a_drawer_for_everything():
    names = {path.stem for path in PACKAGE.rglob("*.py")}
    assert not names & {"utils", "helpers", "common", "core", "manager", "misc"}
