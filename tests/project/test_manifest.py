"""The manifest: a journal that survives a kill, and a book that a person can mend."""

import pytest

from lorakit.errors import LorakitError
from lorakit.project import manifest
from lorakit.project.manifest import Manifest


def test_kept_records_are_there_without_a_save(tmp_path):
    book = Manifest(tmp_path)
    book.keep({"id": "a", "file": "ä.jpg"})
    assert Manifest(tmp_path)["a"]["file"] == "ä.jpg"


def test_a_torn_last_journal_line_is_dropped_and_work_goes_on(tmp_path):
    book = Manifest(tmp_path)
    book.keep({"id": "a"}, {"id": "b"})
    text = book.journal.read_text(encoding="utf-8")
    book.journal.write_text(text[:-5], encoding="utf-8")
    again = Manifest(tmp_path)
    assert [r["id"] for r in again] == ["a"]
    again.keep({"id": "c"})
    assert [r["id"] for r in Manifest(tmp_path)] == ["a", "c"]


def test_save_folds_the_journal_in(tmp_path):
    book = Manifest(tmp_path)
    book.keep({"id": "a", "n": 1})
    book.save()
    book.keep({"id": "a", "n": 2})
    book.save()
    assert not book.journal.exists()
    assert Manifest(tmp_path)["a"]["n"] == 2


def test_a_broken_line_is_named_not_lost(tmp_path):
    (tmp_path / "manifest.jsonl").write_text('{"id": "a"}\n{"id": \n', encoding="utf-8")
    with pytest.raises(LorakitError, match=r"manifest\.jsonl, line 2: not a photo's record"):
        Manifest(tmp_path)


def test_file_names_that_are_no_text_survive(tmp_path):
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    book = Manifest(tmp_path)
    book.keep({"id": "a", "file": name})
    book.save()
    assert Manifest(tmp_path)["a"]["file"] == name


def test_finish_and_fail_exclude_each_other():
    failed = manifest.fail({"id": "a", "done": {"caption": "1"}}, "caption", "no words")
    assert failed["done"] == {} and failed["failed"] == {"caption": "no words"}
    done = manifest.finish(failed, "caption", "2", caption={"sentence": "x"})
    assert done["done"] == {"caption": "2"} and done["failed"] == {}


def test_gone_photos_keep_their_record(tmp_path):
    book = Manifest(tmp_path)
    book.keep({"id": "a"}, {"id": "b", "gone": True})
    assert [r["id"] for r in book] == ["a"] and len(book) == 1
    assert len(book.everything()) == 2
