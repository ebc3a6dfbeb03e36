"""The manifest: a journal that survives a kill, and a book that a person can mend."""

import json
import os

import pytest

from lorakit.project import manifest, notes
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


def records_of(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]


def test_lines_that_did_not_change_are_taken_over_as_a_person_wrote_them(tmp_path):
    """And all others are written; also those that a killed run had only in its journal, and those that are new."""
    by_hand = '{"id":"b",   "file":"\u00e4.jpg"}'
    (tmp_path / "manifest.jsonl").write_bytes(f'{{"id": "a", "text": "old"}}\n{by_hand}\n{{"id": "c"}}\n'.encode())
    (tmp_path / "manifest.journal").write_text('{"id": "c", "text": "of a killed run"}\n', encoding="utf-8")
    book = Manifest(tmp_path)
    book.keep({**book["a"], "text": "new"}, {"id": "d"})
    book.save()
    lines = (tmp_path / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines == ['{"id": "a", "text": "new"}', by_hand, '{"id": "c", "text": "of a killed run"}', '{"id": "d"}']
    assert not book.journal.exists()


@pytest.mark.parametrize("gap", ["\n", "  \n", '{"id": "a"}\n', "no record\n"])
def test_lines_are_not_taken_over_where_they_are_not_one_a_record(tmp_path, gap):
    (tmp_path / "manifest.jsonl").write_text(
        f'{{"id": "a", "text": "x"}}\n{gap}{{"id": "b", "text": "old"}}\n{{"id": "c"}}\n', encoding="utf-8"
    )
    book = Manifest(tmp_path)
    book.keep({"id": "b", "text": "new"})
    book.save()
    assert [(r["id"], r.get("text")) for r in records_of(tmp_path)][1:] == [("b", "new"), ("c", None)]
    assert [r["id"] for r in Manifest(tmp_path)] == ["a", "b", "c"]


def test_what_somebody_else_wrote_meanwhile_is_not_mixed_in(tmp_path):
    Manifest(tmp_path).replace([{"id": "a", "file": "a.jpg"}, {"id": "b", "file": "b.jpg"}])
    book = Manifest(tmp_path)
    (tmp_path / "manifest.jsonl").write_text('{"id": "z"}\n{"id": "y"}\n', encoding="utf-8")
    book.keep({**book["b"], "text": "mine"})
    book.save()
    assert records_of(tmp_path) == [{"id": "a", "file": "a.jpg"}, {"id": "b", "file": "b.jpg", "text": "mine"}]


def test_a_save_with_nothing_to_save_writes_nothing(tmp_path):
    book = Manifest(tmp_path)
    book.replace([{"id": "a"}, {"id": "b"}])
    before = os.stat(book.path)
    for again in (book, Manifest(tmp_path)):
        again.replace([{"id": "a"}, {"id": "b"}])
        again.save()
    assert (os.stat(book.path).st_ino, os.stat(book.path).st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_records_of_a_whole_set_are_kept_at_once_and_a_kill_before_loses_only_them(tmp_path, monkeypatch):
    book = Manifest(tmp_path)
    book.replace([{"id": "a"}, {"id": "b"}])
    book.keep({"id": "a", "text": "in the journal"})
    monkeypatch.setattr(manifest.files, "write_whole", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        book.keep_all([{"id": "b", "text": "lost"}])
    monkeypatch.undo()
    again = Manifest(tmp_path)
    assert again["a"]["text"] == "in the journal" and "text" not in again["b"]
    again.keep_all([{**r, "repeats": 2} for r in again])
    assert records_of(tmp_path) == [{"id": "a", "text": "in the journal", "repeats": 2}, {"id": "b", "repeats": 2}]


def test_a_journal_that_was_removed_while_it_was_written_is_begun_anew(tmp_path):
    book = Manifest(tmp_path)
    book.keep({"id": "a"})
    book.journal.unlink()
    book.keep({"id": "b"})
    assert [r["id"] for r in Manifest(tmp_path)] == ["b"] and [r["id"] for r in book] == ["a", "b"]


def noted(folder) -> dict:
    return Manifest(folder).notes.found


def test_notes_count_for_the_very_bytes_of_the_book_alone(tmp_path):
    book = Manifest(tmp_path)
    book.replace([{"id": "a", "text": "x"}, {"id": "b"}])
    book.notes.found["found"] = {"stamp": ["by", "1"]}
    book.note()
    assert noted(tmp_path) == {"found": {"stamp": ["by", "1"]}, "sound": True}
    path, kept = tmp_path / "cache" / "book.json", (tmp_path / "cache" / "book.json").read_bytes()
    for damage in (b"", b"[]", b"{", kept.replace(b'"1"', b'"2"'), kept.replace(b"true", b"null"), b'{"of": 3, "found": {}}'):
        path.write_bytes(damage)
        assert noted(tmp_path) == {}
    path.write_bytes(kept)
    line = book.path.read_bytes()
    book.path.write_bytes(line.replace(b'"x"', b"555"))
    assert noted(tmp_path) == {} and [r["id"] for r in Manifest(tmp_path)] == ["b"]  # of another kind, although it was sound once
    book.path.write_bytes(line)
    assert noted(tmp_path) != {}
    (tmp_path / "manifest.journal").write_text('{"id": "b", "text": "y"}\n', encoding="utf-8")
    assert not Manifest(tmp_path).is_saved


def test_notes_of_another_version_of_the_code_do_not_count(tmp_path, monkeypatch):
    book = Manifest(tmp_path)
    book.replace([{"id": "a"}])
    book.note()
    assert noted(tmp_path)["sound"]
    monkeypatch.setattr(notes, "code", lambda: "other")
    assert noted(tmp_path) == {}


def test_records_share_what_is_the_same_line_and_nothing_else(tmp_path):
    measures = [{"m": {"n": 1}}, {"m": {"n": 1.0}}, {"m": {"n": True}}, {"m": {"n": 1}}, {"m": {"n": None}}]
    text = "".join(json.dumps({"id": str(number), "measures": found, "failed": {}}) + "\n" for number, found in enumerate(measures))
    text += '{"id": "5", "measures": {"m": {"n": NaN}}}\n'
    (tmp_path / "manifest.jsonl").write_text(text, encoding="utf-8")
    book = Manifest(tmp_path)
    assert book["0"]["measures"]["m"] is book["3"]["measures"]["m"] and book["0"]["failed"] is book["1"]["failed"]
    book.keep_all([dict(r) for r in book])
    assert book.path.read_text(encoding="utf-8") == text
