"""A person's word wins over every stage, and edits in dataset/ are taken over."""

import os

import pytest

import lorakit
from lorakit import files, open_project
from lorakit.caption.review import adopt_edits, review
from lorakit.errors import LorakitError
from lorakit.project import stamps
from lorakit.project.manifest import Manifest
from lorakit.text import sidecars


@pytest.fixture
def project(make_cropped):
    made = make_cropped()
    lorakit.walk(made, last="dataset")
    return made


def find(project, file: str) -> dict:
    return next(r for r in Manifest(project.folder) if r["file"] == file)


def test_rejected_photo_is_not_chosen_and_clear_takes_it_back(project):
    review(project, ["photo_0.jpg"], verdict="reject")
    lorakit.walk(project, last="dataset")
    assert not find(project, "photo_0.jpg")["select"]["selected"]
    review(project, ["photo_0.jpg"], clear=True)
    lorakit.walk(project, last="dataset")
    assert find(project, "photo_0.jpg")["select"]["selected"]


def test_text_by_hand_gets_the_trigger_where_it_is_missing(project):
    review(project, ["photo_0.jpg", "photo_1.jpg"], text="a mug on the moon")
    review(project, ["photo_1.jpg"], text="on the moon with [trigger] itself")
    lorakit.walk(project, last="dataset")
    assert find(project, "photo_0.jpg")["text"] == "zwx mug, a mug on the moon"
    assert find(project, "photo_1.jpg")["text"] == "on the moon with zwx itself"


def test_unknown_photo_is_named(project):
    with pytest.raises(LorakitError, match="no.jpg"):
        review(project, ["photo_0.jpg", "no.jpg"], verdict="keep")
    assert not find(project, "photo_0.jpg").get("human")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_edit_in_the_dataset_is_taken_over_whatever_editor_wrote_it(project, encoding):
    (project.dataset_folder / "photo_2.txt").write_bytes("zwx mug, grün\r\n".encode(encoding))
    assert adopt_edits(project) == 1
    assert adopt_edits(project) == 0
    lorakit.walk(project, last="dataset")
    assert find(project, "photo_2.jpg")["text"] == "zwx mug, grün"


def test_texts_that_lie_as_they_did_are_not_read_again_and_every_edit_is_seen(project, monkeypatch):
    monkeypatch.setattr(files, "FRESH", -(10**12))
    read, read_text = [], sidecars.read_text
    monkeypatch.setattr(sidecars, "read_text", lambda path: read.append(path) or read_text(path))
    for _ in range(2):
        lorakit.walk(open_project(project.folder), last="dataset")
    assert len(read) == 6  # once, then noted
    path = project.dataset_folder / "photo_2.txt"
    facts, text = path.stat(), path.read_text(encoding="utf-8")
    path.write_text(text.replace("mug", "cup"), encoding="utf-8")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    lorakit.walk(open_project(project.folder), last="dataset")
    assert find(project, "photo_2.jpg")["human"]["text"] == text.strip().replace("mug", "cup")


def test_emptied_or_removed_text_file_is_written_again(project):
    before = find(project, "photo_2.jpg")["text"]
    (project.dataset_folder / "photo_2.txt").write_text("")
    (project.dataset_folder / "photo_3.txt").unlink()
    assert adopt_edits(project) == 0
    lorakit.walk(project, last="dataset")
    assert find(project, "photo_2.jpg")["text"] == before
    assert (project.dataset_folder / "photo_2.txt").read_text().strip() == before
    assert (project.dataset_folder / "photo_3.txt").is_file()


@pytest.mark.parametrize("box, read_again", [([0, 10, 600, 400], False), ([0, 0, 300, 400], True)])
def test_crop_that_is_nearly_the_same_is_not_read_again(project, box, read_again):
    record = find(project, "photo_0.jpg")
    record["caption"]["box"] = [0, 0, 600, 400]
    same = {**record, "crop": {**record["crop"], "box": [0, 0, 600, 400]}}
    other = {**record, "crop": {**record["crop"], "box": box}}
    assert (stamps.caption(project, same) != stamps.caption(project, other)) is read_again
