"""Words of the whole set: rules, pruning, locks, and every change taken back."""

import pytest
from click.testing import CliRunner

import lorakit
from lorakit.caption import words
from lorakit.cli import group
from lorakit.errors import LorakitError
from lorakit.project import open_project
from lorakit.project.manifest import Manifest


@pytest.fixture
def project(make_cropped, photo_folder):
    """Six photos with captions of their own, as far as the dataset."""
    places = ("grass", "snow", "a couch", "a road", "sand", "a chair")
    for number, place in enumerate(places):
        (photo_folder / f"photo_{number}.txt").write_text(f"mug, red spoon, {place}")
    made = make_cropped()
    lorakit.walk(made, last="dataset")
    return made


def run(*arguments) -> str:
    done = CliRunner().invoke(group, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def texts(project) -> dict[str, str]:
    return {r["file"]: r["text"] for r in Manifest(project.folder).selected}


def on_disk(project) -> dict[str, str]:
    return {p.stem + ".jpg": p.read_text().strip() for p in project.dataset_folder.glob("*.txt")}


def test_table_counts_the_phrases(project):
    table = run("words", project.folder)
    assert "6  100%  red spoon" in table
    assert "1   17%  snow" in table


def test_table_without_texts_says_what_to_do(make_project):
    with pytest.raises(LorakitError, match="lorakit caption"):
        run("words", make_project("empty").folder)


@pytest.mark.parametrize(
    "options, text",
    [
        (("--replace", "spoon", "fork"), "zwx mug, red fork, grass"),
        (("--regex", r"(red) (\w+)", r"\2"), "zwx mug, spoon, grass"),
        (("--remove", "red spoon"), "zwx mug, grass"),
        (("--blacklist", "spoon"), "zwx mug, grass"),
        (("--add", "studio"), "zwx mug, red spoon, grass, studio"),
        (("--prune", "invariants"), "zwx mug, grass"),
        (("--remove", "zwx"), "zwx mug, red spoon, grass"),
    ],
)
def test_change_reaches_the_files_and_is_taken_back(project, options, text):
    before = texts(project)
    run("words", project.folder, *options)
    assert texts(project)["photo_0.jpg"] == text
    assert on_disk(project) == texts(project)
    if texts(project) != before:
        run("words", project.folder, "--undo")
        assert texts(project) == before == on_disk(project)
    assert not open_project(project.folder).settings.caption.rules or options[1] == "zwx"


def test_changes_are_taken_back_one_by_one(project):
    first = texts(project)
    run("words", project.folder, "--replace", "spoon", "fork")
    second = texts(project)
    run("words", project.folder, "--remove", "grass")
    run("words", project.folder, "--undo")
    assert texts(project) == second
    run("words", project.folder, "--undo")
    assert texts(project) == first
    with pytest.raises(LorakitError, match="nothing to undo"):
        words.undo(open_project(project.folder))


def test_preview_changes_nothing(project):
    before = texts(project)
    shown = run("words", project.folder, "--remove", "red spoon", "--preview")
    assert "- zwx mug, red spoon, grass" in shown
    assert "+ zwx mug, grass" in shown
    assert texts(project) == before
    assert not open_project(project.folder).settings.caption.rules


def test_preview_cuts_at_tokens_as_the_stage_does_not_at_letters(project):
    """75 tokens are some 300 letters: a caption that was read may be that long."""
    record = project.manifest.selected[0]
    said = "a mug on a wooden table beside a window, red spoon, seen from above, in soft evening light, with a garden behind"
    read = {**record, "caption": {"sentence": said, "tags": [], "by": "blip", "own": False}, "done": {**record["done"], "trigger": ""}}
    project.manifest.keep(read)
    lorakit.trigger(project)
    before = project.manifest[record["id"]]["text"]
    found = {file: (was, after) for file, was, after in words.preview(project, ["remove: red spoon"])}
    assert found[record["file"]] == (before, before.replace("red spoon, ", ""))
    words.with_rules(project, ["remove: red spoon"])
    lorakit.trigger(project)
    assert project.manifest[record["id"]]["text"] == found[record["file"]][1]


def test_later_photos_follow_the_rules(project, make_photo, photo_folder):
    run("words", project.folder, "--replace", "spoon", "fork")
    make_photo("late.jpg", seed=50, size=(640, 512), quality=92)
    (photo_folder / "late.txt").write_text("mug, red spoon, shelf")
    lorakit.walk(open_project(project.folder, device="cpu"), last="dataset")
    assert texts(project)["late.jpg"] == "zwx mug, red fork, shelf"


def test_text_edited_by_hand_is_locked_until_unlocked(project):
    (project.dataset_folder / "photo_0.txt").write_text("zwx mug, my own red spoon")
    run("words", project.folder, "--replace", "spoon", "fork")
    run("caption", project.folder, "--existing", "replace")
    assert texts(project)["photo_0.jpg"] == on_disk(project)["photo_0.jpg"] == "zwx mug, my own red spoon"
    assert "spoon" not in texts(project)["photo_1.jpg"]
    run("caption", project.folder, "--existing", "keep", "--unlock")
    assert texts(project)["photo_0.jpg"] == "zwx mug, red fork, grass"
    record = next(r for r in Manifest(project.folder).selected if r["file"] == "photo_0.jpg")
    assert record["former"][-1]["text"] == "zwx mug, my own red spoon"


def test_edit_by_hand_is_taken_back_too(project):
    before = texts(project)
    (project.dataset_folder / "photo_0.txt").write_text("zwx mug, a slip of the pen")
    lorakit.walk(open_project(project.folder, device="cpu"), last="dataset")
    assert texts(project)["photo_0.jpg"] == "zwx mug, a slip of the pen"
    run("words", project.folder, "--undo")
    assert texts(project) == before == on_disk(project)


def test_texts_of_another_base_are_taken_back_and_pinned(project):
    before = texts(project)
    run("caption", project.folder, "--trigger", "qmv")
    assert all("qmv" in text for text in texts(project).values())
    run("words", project.folder, "--undo")
    run("caption", project.folder, "--trigger", "zwx")
    assert texts(project) == before


def test_prune_with_the_captions(project):
    run("caption", project.folder, "--prune", "invariants")
    assert not any("red spoon" in text for text in texts(project).values())
    assert open_project(project.folder).settings.caption.rules == ("remove: red spoon",)
