"""project.yaml: a person's comments stay, reading writes nothing, a mistake is named with its line."""

import pytest
import yaml

from lorakit import new_project, open_project
from lorakit.errors import LorakitError
from lorakit.project import config

BY_HAND = """\
# my mugs
photos:
  - PHOTOS   # from the phone
base: "sd15"
kind: object
settings:
  train:
    rank: 8  # small enough
  trigger.word: zwx
  caption.rules: []   # none yet
"""


@pytest.fixture
def by_hand(tmp_path, photo_folder):
    path = tmp_path / "p" / "project.yaml"
    path.parent.mkdir()
    path.write_text(BY_HAND.replace("PHOTOS", str(photo_folder)), encoding="utf-8")
    return path


def test_comments_order_and_nesting_stay(by_hand):
    project = open_project(by_hand.parent, settings={"train.rank": 16, "train.learning_rate": 1e-5, "trigger.word": "on"})
    with project.locked():
        pass
    text = by_hand.read_text(encoding="utf-8")
    for comment in ("# my mugs", "# from the phone", "# small enough", "# none yet"):
        assert comment in text
    assert 'base: "sd15"' in text and "rank: 16" in text
    stored = yaml.safe_load(text)["settings"]
    assert stored["train"] == {"rank": 16} and stored["trigger.word"] == "on"
    again = open_project(by_hand.parent)
    assert (again.settings.train.learning_rate, again.trigger) == (1e-5, "on")


def test_nothing_is_written_by_opening_nor_by_a_refused_command(by_hand):
    before = by_hand.read_bytes()
    open_project(by_hand.parent, settings={"train.rank": 16})
    with pytest.raises(LorakitError):
        open_project(by_hand.parent, settings={"train.rank": 0})
    assert by_hand.read_bytes() == before


def test_the_same_words_again_leave_the_file_alone(by_hand):
    before = by_hand.read_bytes(), by_hand.stat().st_mtime_ns
    with open_project(by_hand.parent, settings={"train.rank": 8, "trigger.word": "zwx"}, base="sd15").locked():
        pass
    assert (by_hand.read_bytes(), by_hand.stat().st_mtime_ns) == before


@pytest.mark.parametrize(
    ("old", "new", "line", "what"),
    [
        ("rank: 8", "rank: many", 8, "train.rank = 'many' is not a whole number"),
        ("rank: 8", "rnak: 8", 8, "no setting is called 'train.rnak'"),
        ("trigger.word: zwx", "export.name: ../x", 9, "export.name = '../x' is a path"),
        ('"sd15"', "sd51", 4, "no base is called 'sd51'"),
        ("kind: object", "kind: objekt", 5, "no kind is called 'objekt'"),
        ("kind: object", "kidn: object", 5, "no word is called 'kidn'"),
        ("kind: object", "kind: [1]", 5, "is no name"),
    ],
)
def test_a_mistake_is_named_with_its_line(by_hand, old, new, line, what):
    by_hand.write_text(by_hand.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(LorakitError) as error:
        open_project(by_hand.parent)
    assert f"{by_hand}, line {line}: " in str(error.value) and what in str(error.value)


@pytest.mark.parametrize("text", ["- a\n- b\n", "12", "photos: 3\n", "settings: x\n", "\x00", "base: {", "a: 2024-13-45", "é"])
def test_whatever_stands_in_it_is_one_line(by_hand, text):
    by_hand.write_bytes(text.encode("latin-1"))
    with pytest.raises(LorakitError, match="project.yaml"):
        open_project(by_hand.parent)


def test_an_empty_file_and_one_of_comments_are_projects_with_defaults(by_hand):
    by_hand.write_text("# nothing yet\n", encoding="utf-8")
    with open_project(by_hand.parent, kind="style").locked():
        pass
    assert by_hand.read_text(encoding="utf-8") == "# nothing yet\nkind: style\n"


@pytest.mark.parametrize("name", ["../x", "a/b", "a\\b", "..", ".", "", "x" * 201, "ö" * 101, "CON", "nul.v1", "a\nb", ".hidden", "a:b"])
def test_an_export_name_that_is_no_name_is_refused_at_the_start(tmp_path, photo_folder, name):
    with pytest.raises(LorakitError, match="export.name = "):
        new_project(tmp_path / "p", photo_folder, settings={"export.name": name})
    assert not (tmp_path / "p").exists()


def test_usual_export_names_are_taken(tmp_path, photo_folder):
    for number, name in enumerate(["zwx", "my mug v1.2", "zwx.safetensors", "кружка"]):
        assert new_project(tmp_path / str(number), photo_folder, settings={"export.name": name}).settings.export.name == name


def test_where_tells_the_place_of_dotted_and_nested_settings(by_hand):
    assert [config.where(by_hand, key)[-7:] for key in ("train.rank", "trigger.word")] == [", line 8"[-7:], ", line 9"[-7:]]
    assert config.where(by_hand, "train.seed") == str(by_hand)
