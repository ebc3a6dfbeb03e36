"""What a person decided: never lost, never in the way, always to be taken back."""

import json
import subprocess
import sys

import pytest

from lorakit.errors import Conflict, LorakitError
from lorakit.project.decisions import Decisions
from lorakit.project.manifest import Manifest


def verdict(id: str, was, now) -> dict:
    return {"id": id, "what": "verdict", "was": was, "now": now}


def human(folder, id: str) -> dict | None:
    return Manifest(folder)[id].get("human")


WRITER = """
import sys
from pathlib import Path
from lorakit.project.decisions import Decisions
book = Decisions(Path(sys.argv[1]))
for n in range(int(sys.argv[2])):
    book.append([{"id": f"p{n}", "what": "text", "was": None, "now": f"text {n}"}], "page")
print("done")
"""


def test_200_decisions_of_another_process_survive_a_run_that_saves_in_a_loop(tmp_path):
    book = Manifest(tmp_path)
    book.replace([{"id": f"p{n}", "file": f"{n}.jpg"} for n in range(200)])
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), "200"], stdout=subprocess.PIPE)
    saves = 0
    while writer.poll() is None or saves == 0:
        book.keep(*({**record, "measures": {"size": {"n": saves}}} for record in book))
        book.save()
        saves += 1
    assert writer.communicate()[0].strip() == b"done" and saves > 5
    again = Manifest(tmp_path)
    assert [again[f"p{n}"]["human"] for n in range(200)] == [{"text": f"text {n}"} for n in range(200)]
    assert again["p7"]["measures"] == {"size": {"n": saves - 1}}
    assert [line["n"] for line in again.decisions.lines] == list(range(1, 201))
    assert len(book.take_decisions()) == 200 and book["p9"]["human"] == {"text": "text 9"}


def test_decisions_of_several_processes_at_once_are_all_there(tmp_path):
    code = WRITER.replace('f"p{n}"', 'f"{sys.argv[3]}{n}"')
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), "20", name]) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert [line["n"] for line in Decisions(tmp_path).lines] == list(range(1, 61))


@pytest.mark.parametrize("kept", [1, 20, -2])
def test_torn_last_line_is_set_aside_once_and_never_glued_to_the_next(tmp_path, kept, capsys):
    book = Decisions(tmp_path)
    book.append([verdict("a", None, "keep")], "command")
    whole = book.path.read_bytes()
    book.append([verdict("b", None, "keep")], "command")
    book.path.write_bytes(book.path.read_bytes()[: len(whole) + kept if kept > 0 else kept])
    torn = book.path.read_bytes()[len(whole) :]
    again = Decisions(tmp_path)
    assert again.of("a") == {"verdict": "keep"} and again.of("b") is None
    assert capsys.readouterr().err.count("its last line is torn") == 1
    assert book.path.read_bytes() == whole and (tmp_path / "decisions.torn").read_bytes() == torn + b"\n"  # nothing is lost
    again.append([verdict("c", None, "reject")], "command")
    last = Decisions(tmp_path)
    assert [line["n"] for line in last.lines] == [1, 2] and last.of("c") == {"verdict": "reject"}
    assert not capsys.readouterr().err  # it is said once


def test_a_line_that_another_is_writing_is_left_to_him(tmp_path, capsys):
    book = Decisions(tmp_path)
    book.append([verdict("a", None, "keep")], "command")
    whole = book.path.read_bytes()
    other = Decisions(tmp_path)
    with other.locked():
        book.path.write_bytes(whole + b'{"n": 2, ')
        assert Decisions(tmp_path).of("a") == {"verdict": "keep"}
    assert book.path.read_bytes() == whole + b'{"n": 2, ' and not capsys.readouterr().err


def test_a_whole_line_that_only_lacks_its_end_counts(tmp_path):
    book = Decisions(tmp_path)
    book.append([verdict("a", None, "keep")], "command")
    book.path.write_bytes(book.path.read_bytes().rstrip(b"\n"))
    again = Decisions(tmp_path)
    again.append([verdict("a", "keep", "reject")], "command")
    assert Decisions(tmp_path).of("a") == {"verdict": "reject"} and len(book.path.read_bytes().splitlines()) == 2


@pytest.mark.parametrize(
    "line",
    [
        "[]", "7", "{}", '{"n": 2, "changes": [{"id": "a", "what": "verdict", "was": null, "now": "maybe"}]}', "\x00\x00",
        '{"n": 2, "changes": [{"id": "a", "what": "crop", "was": null, "now": {"box": [0, 0, 9], "bucket": [64, 64]}}]}',
        '{"n": 2, "undoes": 2, "changes": []}', "[" * 2000,
    ],
)  # fmt: skip
def test_a_line_that_is_no_decision_costs_itself_alone(tmp_path, line, capsys):
    book = Decisions(tmp_path)
    book.append([verdict("a", None, "keep")], "command")
    with open(book.path, "a") as file:
        file.write(line + "\n")
    Decisions(tmp_path).append([verdict("b", None, "keep")], "command")
    again = Decisions(tmp_path)
    assert again.of("a") == again.of("b") == {"verdict": "keep"}
    assert "line 2: no decision can be read there" in capsys.readouterr().err


def test_kill_while_appending_leaves_a_readable_file(tmp_path):
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), "100000"])
    path = tmp_path / "decisions.jsonl"
    while not path.exists() or path.stat().st_size < 2000:
        assert writer.poll() is None
    writer.kill()
    writer.wait()
    book = Decisions(tmp_path)
    count = len(book.lines)
    assert count > 5 and [line["n"] for line in book.lines] == list(range(1, count + 1))
    book.append([verdict("z", None, "keep")], "command")  # the lock went with the process
    assert len(Decisions(tmp_path).lines) == count + 1


def test_who_decided_on_what_is_no_longer_so_is_refused(tmp_path):
    one, two = Manifest(tmp_path), Manifest(tmp_path)
    one.replace([{"id": "a", "file": "a.jpg"}])
    two = Manifest(tmp_path)
    one.decide([verdict("a", None, "keep")], "page")
    with pytest.raises(Conflict, match=r"a\.jpg: its verdict is keep by now, no longer as judged"):
        two.decide([verdict("a", None, "reject")], "command")
    assert two["a"]["human"] == {"verdict": "keep"} and len(Decisions(tmp_path).lines) == 1


def test_stages_neither_write_nor_lose_a_persons_word(tmp_path):
    book = Manifest(tmp_path)
    book.replace([{"id": "a", "file": "a.jpg"}])
    before = book["a"]
    book.decide([verdict("a", None, "keep")], "page")
    book.keep({**before, "text": "a mug"})  # a record that was taken before the decision
    assert book["a"]["human"] == {"verdict": "keep"}
    book.keep({**book["a"], "human": {"verdict": "reject"}})
    book.save()
    assert human(tmp_path, "a") == {"verdict": "keep"} and "human" not in book.path.read_text()


OLD = [
    {"id": "a", "file": "a.jpg", "human": {"verdict": "keep", "text": "ä"}},
    {"id": "b", "file": "b.jpg", "human": {}},
    {"id": "c", "file": "c.jpg"},
]


@pytest.mark.parametrize("first", ["keep", "save", "decide"])
def test_what_an_older_manifest_held_becomes_the_first_lines_once(tmp_path, first):
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(record) + "\n" for record in OLD))
    reader = Manifest(tmp_path)
    assert [r.get("human") for r in reader] == [{"verdict": "keep", "text": "ä"}, {}, None]
    assert not (tmp_path / "decisions.jsonl").exists(), "reading writes nothing"
    book = Manifest(tmp_path)
    {"keep": lambda: book.keep(book["c"]), "save": book.save, "decide": lambda: book.decide([verdict("c", None, "reject")], "command")}[
        first
    ]()
    assert [r.get("human") for r in Manifest(tmp_path)][:2] == [{"verdict": "keep", "text": "ä"}, {}]
    book.save()
    again = Manifest(tmp_path)
    assert [r.get("human") for r in again][:2] == [{"verdict": "keep", "text": "ä"}, {}]
    assert "human" not in again.path.read_text() and len(again.decisions.lines) == 2 + (first == "decide")
    assert reader.take_decisions() is not None and [r.get("human") for r in reader][:2] == [{"verdict": "keep", "text": "ä"}, {}]
    again.decide([verdict("a", "keep", None)], "command")
    assert human(tmp_path, "a") == {"text": "ä"}


def test_gone_photos_keep_their_decisions(tmp_path):
    book = Manifest(tmp_path)
    book.replace([{"id": "a", "file": "a.jpg"}])
    book.decide([verdict("a", None, "keep")], "command")
    book.replace([])
    book.replace([{"id": "a", "file": "moved/a.jpg"}])
    assert book["a"]["human"] == human(tmp_path, "a") == {"verdict": "keep"}


def test_a_file_that_was_put_back_by_a_person_is_read_anew(tmp_path):
    book = Decisions(tmp_path)
    book.append([verdict("a", None, "keep")], "command")
    before = book.path.read_bytes()
    book.append([verdict("a", "keep", "reject")], "command")
    book.path.write_bytes(before)
    book.refresh()
    assert book.of("a") == {"verdict": "keep"}


def test_no_decision_is_written_that_could_not_be_read(tmp_path):
    with pytest.raises(ValueError):
        Decisions(tmp_path).append([verdict("a", None, "maybe")], "command")
    with pytest.raises(ValueError):
        Decisions(tmp_path).append([verdict("a", None, "keep")], "stage")
    with pytest.raises(LorakitError, match="no decision has the number 3"):
        Decisions(tmp_path).find(3)
    assert not (tmp_path / "decisions.jsonl").exists()
