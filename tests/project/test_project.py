"""Projects: words that are kept, folders that are refused."""

import shutil
from pathlib import Path

import pytest

import lorakit
from lorakit import new_project, open_project
from lorakit.errors import LorakitError


def test_words_are_kept_and_layers_known(tmp_path, photo_folder):
    new_project(tmp_path / "p", photo_folder, base="sdxl", kind="style", trigger="zwx", settings={"train.rank": 8})
    again = open_project(tmp_path / "p")
    assert (again.card.name, again.kind.name, again.trigger, again.settings.train.rank) == ("sdxl", "style", "zwx", 8)
    assert again.settings.origin["train.rank"] == "project.yaml"
    assert again.settings.origin["train.resolution"] == "base sdxl"
    changed = open_project(tmp_path / "p", settings={"train.rank": 4})
    assert changed.settings.origin["train.rank"] == "command line"


def test_opening_changes_nothing(tmp_path, photo_folder):
    new_project(tmp_path / "p", photo_folder)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "p").iterdir()}
    open_project(tmp_path / "p")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "p").iterdir()} == before


def test_what_cannot_be_a_project_is_refused_in_words(tmp_path, photo_folder):
    with pytest.raises(LorakitError, match="no lorakit project"):
        open_project(tmp_path / "nothing")
    with pytest.raises(LorakitError, match="not empty and no lorakit project"):
        new_project(photo_folder, photo_folder)
    with pytest.raises(LorakitError, match="no such folder of photos"):
        new_project(tmp_path / "p", tmp_path / "missing")
    new_project(tmp_path / "q", photo_folder)
    with pytest.raises(LorakitError, match="there is a project already"):
        new_project(tmp_path / "q", photo_folder)


def test_a_line_that_no_scan_has_written_is_passed_over_and_kept_aside(tmp_path, photo_folder, capsys):
    lorakit.scan(new_project(tmp_path / "p", photo_folder))
    book = tmp_path / "p" / "manifest.jsonl"
    whole = book.read_bytes()
    looker = open_project(tmp_path / "p")
    line = b'{"id": "nobody", "file": "x.jpg"}\n'
    book.write_bytes(whole + line)
    looker.manifest.refresh()
    project = open_project(tmp_path / "p")
    assert "the record nobody lacks path and hash and bytes and modified" in capsys.readouterr().err
    assert lorakit.status(project)["photos"] == lorakit.status(looker)["photos"] and len(project.manifest) == 6
    lorakit.scan(project)
    project.manifest.save()
    assert book.read_bytes() == whole and book.with_suffix(".rejected").read_bytes() == line


def test_a_project_that_was_moved_or_copied_finds_what_it_has_unpacked(tmp_path, make_photo):
    """Also where no scan comes first; its former place may have gone, or be another project by now."""
    photo = make_photo("set/a.jpg", 1)
    make_photo("set/a-masklabel.png", 2)
    shutil.make_archive(str(tmp_path / "set"), "zip", photo.parent)
    lorakit.scan(new_project(tmp_path / "p", tmp_path / "set.zip"))
    shutil.copytree(tmp_path / "p", tmp_path / "copied")
    (tmp_path / "p").rename(tmp_path / "moved")
    looker = open_project(tmp_path / "copied")
    for name in ("moved", "copied"):
        project = open_project(tmp_path / name)
        lorakit.check(project)
        (record,) = open_project(tmp_path / name).manifest
        assert Path(record["path"]).is_relative_to(tmp_path / name) and Path(record["mask"]["path"]).is_relative_to(tmp_path / name)
        assert "size" in record["measures"] and str(tmp_path / "p" / "cache") not in project.manifest.path.read_text()
    looker.manifest.refresh()
    assert list(looker.manifest) == list(open_project(tmp_path / "copied").manifest)


def test_a_mistake_in_project_yaml_is_named(tmp_path, photo_folder):
    project = new_project(tmp_path / "p", photo_folder)
    path = project.folder / "project.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("base:", "bsae:"), encoding="utf-8")
    with pytest.raises(LorakitError, match="no word is called 'bsae'; did you mean 'base'"):
        open_project(project.folder)
    path.write_text("base: [", encoding="utf-8")
    with pytest.raises(LorakitError, match="not valid YAML"):
        open_project(project.folder)


def test_a_failed_opening_leaves_no_trace(tmp_path, photo_folder):
    with pytest.raises(LorakitError):
        new_project(tmp_path / "p", photo_folder, settings={"train.rnak": 8})
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(("left", "lacks"), [("", "photos and base and kind"), ("photos: [x]\n", "base and kind")])
def test_a_project_whose_words_are_cut_off_is_not_taken_for_another(make_project, left, lacks):
    project = make_project()
    (project.folder / "manifest.jsonl").write_text('{"id": "a"}\n', encoding="utf-8")
    (project.folder / "project.yaml").write_text(left, encoding="utf-8")
    with pytest.raises(LorakitError, match=f"project.yaml: lacks {lacks}, which every project"):
        open_project(project.folder)
