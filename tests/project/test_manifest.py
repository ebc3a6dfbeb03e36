"""The manifest: a journal that survives a kill, and a book that a person can mend."""

import pytest

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


@pytest.mark.parametrize("name", ["manifest.jsonl", "manifest.journal"])
@pytest.mark.parametrize(
    "line",
    ['{"id": ', "[1]", '{"id": 3}', "[" * 100_000, '{"id": "x", "dataset": {"file": "../../x.png"}}',
     '{"id": "x", "dataset": {"file": "/x.png"}}', '{"id": "x", "dataset": {"file": "x.png", "mask": "../x.png"}}',
     '{"id": "x", "text": 5}', '{"id": "x", "measures": "x"}', '{"id": "x", "measures": {"size": null}}', '{"id": "x", "done": []}',
     '{"id": "x", "dedupe": {"of": "a"}}', '{"id": "x", "look": {"phash": "zz", "colours": "", "columns": "", "rows": ""}}',
     '{"id": "x", "crop": {"box": "x", "bucket": [8, 8]}}', '{"id": "x", "crop": {"box": [0, 0, 8, 8], "bucket": [1000000, 1000000]}}',
     '{"id": "x", "crop": {"box": [0, 0, 8, 8], "bucket": [0, -1]}}', '{"id": "x", "crop": {"box": [0, 0, 8, 8]}}',
     '{"id": "x", "dataset": {"file": "C:x.png"}}', '{"id": "x", "dataset": {"file": ".."}}', '{"id": "x", "dataset": {"file": 3}}'],
)  # fmt: skip
def test_a_line_that_is_no_record_is_named_and_kept_aside(tmp_path, capsys, name, line):
    """So are names that would lead out of the project, whose files it writes and removes."""
    (tmp_path / name).write_text(f'{{"id": "a"}}\n{line}\n{{"id": "b"}}\n', encoding="utf-8")
    book = Manifest(tmp_path)
    assert [r["id"] for r in book] == ["a", "b"] and f"{name}, line 2: " in capsys.readouterr().err
    book.keep({"id": "c"})
    assert (tmp_path / "manifest.rejected").read_text(encoding="utf-8") == line + "\n"
    assert [r["id"] for r in Manifest(tmp_path)] == ["a", "b", "c"] and not capsys.readouterr().err


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


def test_a_manifest_that_is_no_text_any_more_is_written_anew(tmp_path):
    manifest = Manifest(tmp_path)
    manifest.replace([{"id": "a", "file": "a.jpg"}])
    manifest.path.write_bytes(manifest.path.read_bytes() + b"\xb3\n")
    manifest.save()
    assert [record["id"] for record in Manifest(tmp_path)] == ["a"]


def test_who_only_looks_on_takes_in_what_others_write_and_is_told_of_which_photos(tmp_path):
    """A line in the journal, a whole manifest, a decision, a photo that comes; what is being written is waited for."""
    writer = Manifest(tmp_path)
    writer.keep({"id": "a", "file": "a.jpg"}, {"id": "b", "file": "b.jpg"})
    looker = Manifest(tmp_path)
    assert looker.refresh() == set()
    before = looker["a"]
    writer.keep({"id": "b", "file": "b.jpg", "text": "new"})
    assert looker.refresh() == {"b"} and looker["b"]["text"] == "new" and looker["a"] is before
    writer.save()
    assert looker.refresh() == set()  # the same records in another file
    writer.decide([{"id": "a", "what": "verdict", "was": None, "now": "keep"}], "command")
    assert looker.refresh() == {"a"} and looker["a"]["human"] == {"verdict": "keep"}
    writer.keep({"id": "c", "file": "c.jpg"})
    with open(writer.journal, "a", encoding="utf-8") as file:
        file.write('{"id": "d", "fi')
    assert looker.refresh() == {"c"} and [r["id"] for r in looker] == ["a", "b", "c"]
    with open(writer.journal, "a", encoding="utf-8") as file:
        file.write('le": "d.jpg"}\n')
    assert looker.refresh() == {"d"}


def test_a_decision_of_a_copy_is_laid_over_the_photo_that_takes_it_over(tmp_path):
    """Also when only what a decision touches is laid anew."""
    book = Manifest(tmp_path)
    book.keep(
        {"id": "a", "file": "a.jpg", "dedupe": {"of": None, "takes": [{"id": "b", "what": ["text"]}]}},
        {"id": "b", "file": "b.jpg", "dedupe": {"of": "a", "reason": "burst", "distance": 3}},
    )
    book.decide([{"id": "b", "what": "text", "was": None, "now": "said of the copy"}], "command")
    assert book["a"]["human"] == {"text": "said of the copy", "taken_from": {"text": "b"}}
    book.decide([{"id": "b", "what": "text", "was": "said of the copy", "now": None}], "command")
    assert "text" not in book["a"].get("human", {})
