"""Folders that lie as they did are not scanned again; whatever is another there, or in what a scan has noted, is seen."""

import json
import os
import sys

import pytest

from lorakit import files, open_project, pipeline
from lorakit.caption.review import review
from lorakit.curate import scan


@pytest.fixture
def walked(curated, photo_folder, monkeypatch):
    """A walked project with a text, a sub-folder and a link beside its photos. Files count as settled at once."""
    monkeypatch.setattr(files, "FRESH", -(10**12))
    (photo_folder / "photo_0.txt").write_text("a mug on a table", encoding="utf-8")
    (photo_folder / "more").mkdir()
    (photo_folder / "photo_1.jpg").rename(photo_folder / "more" / "photo_1.jpg")
    return curated("select")


@pytest.fixture
def looked(monkeypatch):
    """The places that are looked into, as they are."""
    places, look_into = [], scan.look_into
    monkeypatch.setattr(scan, "look_into", lambda place, project: places.append(place) or look_into(place, project))
    return places


def walk(folder, **settings):
    project = open_project(folder, settings=settings)
    pipeline.walk(project, last="select")
    return project


def test_nothing_is_looked_at_where_nothing_has_changed(walked, looked, capsys):
    book = walked.manifest.path.read_bytes()
    account = (walked.folder / "scan.json").read_bytes()
    for _ in range(2):
        walk(walked.folder)
    assert looked == [] and walked.manifest.path.read_bytes() == book and (walked.folder / "scan.json").read_bytes() == account
    assert "scan      6 photos, 1 with a caption (1 from .txt files) (nothing to do)" in capsys.readouterr().err


def test_what_later_stages_and_a_person_do_does_not_let_it_be_scanned_again(walked, looked):
    review(open_project(walked.folder), ["photo_2.jpg"], verdict="reject")
    walk(walked.folder, **{"select.count": 3, "check.size.min_side": 300})
    assert len(walk(walked.folder).manifest.selected) == 3 and looked == []


def rewrite(path, data: bytes) -> None:
    """With its former times, as a copy that keeps them leaves it."""
    facts = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


CHANGES = [
    lambda place: rewrite(place / "photo_0.txt", b"a cup on a table"),  # of the same size and times
    lambda place: (place / "photo_3.caption").write_text("another mug", encoding="utf-8"),
    lambda place: (place / "photo_0.txt").unlink(),
    lambda place: rewrite(place / "photo_3.jpg", (place / "photo_3.jpg").read_bytes()[:-1] + b"x"),
    lambda place: (place / "more" / "metadata.jsonl").write_text('{"file_name": "photo_1.jpg", "text": "x"}\n', encoding="utf-8"),
    lambda place: (place / "photo_3.jpg").rename(place / "other.jpg"),
    lambda place: (place / "more").rename(place / "3_more"),
    lambda place: (place / "3_more" / "photo_1.jpg").rename(place / "photo_1.jpg"),
    lambda place: (place / "photo_2.jpg").unlink(),
]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no time of the last change of a file's facts there")
def test_every_change_of_a_folder_is_seen_and_leaves_the_book_that_a_full_scan_makes(walked, looked):
    for number, change in enumerate(CHANGES, 1):
        change(walked.photos[0])
        book = [dict(r) for r in walk(walked.folder).manifest]
        assert len(looked) == 2 * number - 1
        (walked.folder / "cache" / "book.json").unlink()
        assert [dict(r) for r in walk(walked.folder).manifest] == book


def test_a_book_or_account_that_others_changed_is_made_anew(walked, looked):
    path = walked.manifest.path
    path.write_text(path.read_text(encoding="utf-8").replace('"file": "photo_0.jpg"', '"file": "another name.jpg"'), encoding="utf-8")
    assert "photo_0.jpg" in {r["file"] for r in walk(walked.folder).manifest} and len(looked) == 1
    walk(walked.folder)
    assert len(looked) == 1
    account = walked.folder / "scan.json"
    account.write_text(account.read_text(encoding="utf-8").replace("6 photos", "7 photos"), encoding="utf-8")
    walk(walked.folder)
    assert len(looked) == 2 and json.loads(account.read_text(encoding="utf-8"))["lines"][0].startswith("6 photos")


def test_a_setting_that_a_scan_reads_is_seen(walked, looked):
    assert len(walk(walked.folder, **{"scan.recursive": False}).manifest) == 5 and looked


def test_what_a_killed_scan_left_is_taken_up(walked, looked):
    (walked.folder / "cache" / "scan.jsonl").write_text("", encoding="utf-8")
    walk(walked.folder)
    assert looked and not (walked.folder / "cache" / "scan.jsonl").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="links want rights there")
def test_where_a_scan_warns_or_cannot_read_it_is_tried_each_time(walked, looked, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (walked.photos[0] / "link").symlink_to(tmp_path / "elsewhere")
    for times in (1, 2):
        walk(walked.folder)
        assert len(looked) == times
    (walked.photos[0] / "link").unlink()
    (walked.photos[0] / "broken.jpg").symlink_to(tmp_path / "nowhere.jpg")
    for times in (3, 4):
        walk(walked.folder)
        assert len(looked) == times


def test_files_so_fresh_that_a_change_might_not_show_are_read_again(walked, looked, monkeypatch):
    monkeypatch.setattr(files, "FRESH", 10**12)
    (walked.photos[0] / "photo_0.txt").write_text("a new text", encoding="utf-8")
    for times in (1, 2):
        walk(walked.folder)
        assert len(looked) == times
