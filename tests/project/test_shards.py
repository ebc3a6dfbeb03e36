"""A book in parquet shards: the same records, verdicts and files as in lines, whole after any kill, and never read wrong."""

import hashlib
import json
import os
import re
import shutil
import sys
import tracemalloc
from collections import defaultdict

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lorakit import new_project, open_project, pipeline
from lorakit.caption.review import review
from lorakit.errors import LorakitError
from lorakit.project import shards
from lorakit.project.manifest import Manifest


@pytest.fixture
def small(monkeypatch):
    """Books of more than 6 photos stand in shards of some 4."""
    monkeypatch.setattr(shards, "MOST_LINES", 6)
    monkeypatch.setattr(shards, "SIZE", 4)


def records(count: int, chosen: tuple[int, ...] = ()) -> list[dict]:
    return [
        {"id": f"{n:02}", "file": f"{n:02}.jpg", "select": {"selected": n in chosen, "reason": "varied" if n in chosen else "enough"}}
        for n in range(count)
    ]


def names(folder) -> list[str]:
    return list(shards.named_by(folder / "manifest.jsonl") or {})


def in_folder(folder) -> list[str]:
    """What lies beside the manifest, but for the copy of its first line."""
    assert json.loads((folder / "manifest" / "_first_line.json").read_text(encoding="utf-8")) == lines_of(folder)[0]
    return sorted(set(os.listdir(folder / "manifest")) - {"_first_line.json"})


def lines_of(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]


def told(folder) -> list[str]:
    """Every record, in its order, as the line that it would be."""
    return [json.dumps(record) for record in Manifest(folder).everything()]


# The same photos both ways


def draw(folder, count: int) -> None:
    """Photos, copies of some, texts and a mask beside some, a damaged file and a name that is no text."""
    folder.mkdir()
    for number in range(count):
        chance = np.random.default_rng(number - (number % 7 == 6))
        pixels = chance.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        path = folder / f"{number:03}.jpg"
        Image.fromarray(pixels).resize((88, 64 + 8 * (number % 3)), Image.Resampling.BICUBIC).save(path, quality=85)
        path.with_suffix(".txt").write_text(f"a mug, number {number}", encoding="utf-8")
    (folder / "bad.jpg").write_bytes((folder / "000.jpg").read_bytes()[:400])
    (folder / "masks").mkdir()
    Image.new("L", (88, 64), 255).save(folder / "masks" / "003.png")
    if sys.platform == "linux":
        shutil.copy(folder / "001.jpg", os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg"))
    for path in folder.rglob("*.*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))


WORDS = {
    "check.size.min_side": 8, "select.count": 9, "select.least": 1, "dedupe.distance": 8, "caption.captioner": "text_files",
    "train.resolution": 64, "train.bucket_step": 16,
}  # fmt: skip


def change(photos, folder, step: int) -> None:
    """What happens between two commands: another folder, a person's word, a limit, an edited text."""
    if step == 1:
        (photos / "002.jpg").rename(photos / "zz.jpg")
        (photos / "005.jpg").unlink()
        shutil.copy(photos / "008.jpg", photos / "0000.jpg")
        Image.fromarray(np.random.default_rng(99).integers(0, 256, (80, 90, 3), dtype=np.uint8)).save(photos / "004b.jpg", quality=90)
        for name in ("zz.jpg", "0000.jpg", "004b.jpg"):
            os.utime(photos / name, (1_700_000_000, 1_700_000_000))
    project = open_project(folder)
    if step == 2:
        chosen = next(r["file"] for r in project.manifest.selected)
        other = next(r["file"] for r in project.manifest if not r["select"]["selected"] and not r["dedupe"]["of"])
        review(project, [chosen], "reject")
        review(project, [other], "keep", text="zwx, by hand")
    if step == 3:
        text = min((folder / "dataset").glob("*.txt"))
        text.write_text("zwx, another text", encoding="utf-8")


def look(folder) -> tuple:
    status = json.dumps(pipeline.status(open_project(folder))).replace(str(folder), "")
    dataset = {path.name: path.read_bytes() for path in sorted((folder / "dataset").iterdir())}
    records = [re.sub(r'"changed": \d+', "", line) for line in told(folder)]  # when the file was made, which no test can set
    return records, dataset, status


def test_records_dataset_and_status_are_those_of_lines(tmp_path, monkeypatch):
    seen = []
    for most in (1000, 6):
        monkeypatch.setattr(shards, "MOST_LINES", most)
        monkeypatch.setattr(shards, "SIZE", 8)
        photos, folder = tmp_path / "photos", tmp_path / f"most_{most}"
        shutil.rmtree(photos, ignore_errors=True)
        draw(photos, 30)
        new_project(folder, photos, base="tiny-random", trigger="zwx", class_word="mug", settings=WORDS)
        for step in range(4):
            change(photos, folder, step)
            wanted = {"settings": {"check.exposure.max_clipped": 0.2}} if step == 3 else {}
            pipeline.walk(open_project(folder, **wanted), last="dataset")
            seen.append(look(folder))
        assert pipeline.walk(open_project(folder), last="dataset") == []
        assert bool(names(folder)) == (most == 6) and seen[-1] == look(folder)
    for lines, parquet in zip(seen[:4], seen[4:], strict=True):
        assert lines == parquet
    assert seen[0] != seen[1] != seen[2] != seen[3]
    chosen = [record["id"] for record in Manifest(folder).everything() if record["select"]["selected"]]  # one has gone
    assert [line["id"] for line in lines_of(folder)[1:]] == chosen and len(chosen) == 10
    assert Manifest(folder).notes.found["sound"]
    (folder / "cache" / "book.json").unlink()
    assert look(folder) == seen[-1]  # without what was noted


EVEN_ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["\udce9.jpg", "null", "x" * 70_000]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
KEYS = [
    "file",
    "path",
    "bytes",
    "modified",
    "hash",
    "phash",
    "text",
    "measures",
    "look",
    "done",
    "failed",
    "dedupe",
    "crop",
    "x",
    "=",
    "look.x",
]
PARTS = st.dictionaries(
    st.sampled_from(["scan", "size", "", "id", "a.b", "c=d", "phash"]), EVEN_ODD | st.sampled_from(["0", "1"]), max_size=3
)
RECORDS = st.dictionaries(st.sampled_from(KEYS), EVEN_ODD | PARTS | st.sampled_from(["0", "1"]), max_size=6)


@settings(max_examples=30, deadline=None)
@given(st.lists(RECORDS, min_size=1, max_size=4))
def test_whatever_stands_in_a_record_comes_back(tmp_path_factory, found):
    """Types, the order of keys and what is absent too; also what lorakit never writes."""
    folder = tmp_path_factory.mktemp("any")
    rows = [(str(n), {"id": str(n), **record}) for n, record in enumerate(found)] + [("in a line", None)]
    back = shards.read(folder / "manifest.jsonl", shards.write(folder / "manifest.jsonl", rows), defaultdict(dict))
    assert [(id, json.dumps(record)) for id, record in back] == [(id, json.dumps(record)) for id, record in rows]


# What is written


def test_a_book_moves_over_with_its_next_write_and_stays(tmp_path, small):
    lines = [json.dumps({**record, "human": {"verdict": "keep"}}) for record in records(9, (2, 5))]  # as 0.1.0 had it
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "manifest.journal").write_text('{"id": "03", "file": "of a killed run"}\n', encoding="utf-8")
    book = Manifest(tmp_path)
    assert not names(tmp_path)
    book.save()
    assert [line.get("id") for line in lines_of(tmp_path)] == [None, "02", "05"] and not book.journal.exists()
    again = Manifest(tmp_path)
    assert [r["id"] for r in again] == [f"{n:02}" for n in range(9)] and again["03"]["file"] == "of a killed run"
    assert again["08"]["human"] == {"verdict": "keep"}
    again.replace([again["00"], again["02"]])
    assert names(tmp_path) and [r["id"] for r in Manifest(tmp_path)] == ["00", "02"]
    assert in_folder(tmp_path) == names(tmp_path) and len(names(tmp_path)) == 1


def test_only_shards_of_which_something_changed_are_written(tmp_path, small):
    book = Manifest(tmp_path)
    book.replace(records(20, (1, 9)))
    before = names(tmp_path)
    assert len(before) == 5
    book.keep({**book["09"], "text": "of a chosen one"})  # in a line
    book.save()
    assert names(tmp_path) == before and [line.get("text") for line in lines_of(tmp_path)] == [None, None, "of a chosen one"]
    for again in (lambda: book, lambda: Manifest(tmp_path)):
        again = again()
        again.keep({**again["13"], "repeats": again["13"].get("repeats", 0) + 1})
        again.save()
        now = names(tmp_path)
        assert [one == other for one, other in zip(before, now)] == [True, True, True, False, True]
        before = now
    book = Manifest(tmp_path)
    rows = book.everything()
    book.replace([*rows[:6], {"id": "05b", "file": "05b.jpg"}, *rows[6:]])  # between others
    now = names(tmp_path)
    assert [one == other for one, other in zip(before, now, strict=True)] == [True, False, True, True, True]
    again = Manifest(tmp_path)
    again.keep_all([{**again["09"], "select": {"selected": False, "reason": "enough"}}])  # out of the lines, into its shard
    assert [one == other for one, other in zip(now, names(tmp_path), strict=True)] == [True, True, False, True, True]
    assert sorted(names(tmp_path)) == in_folder(tmp_path)
    assert [r["id"] for r in Manifest(tmp_path)][5:8] == ["05", "05b", "06"]


def test_an_id_that_is_no_text_stays_in_a_line(tmp_path, small):
    Manifest(tmp_path).replace([{"id": "\udce9", "file": "\udce9.jpg"}, *records(9, (2,))])
    assert [line.get("id") for line in lines_of(tmp_path)] == [None, "\udce9", "02"]
    book = Manifest(tmp_path)
    assert len(book) == 10 and book["\udce9"]["file"] == "\udce9.jpg" and book.is_saved
    book.keep_all([{**book["\udce9"], "repeats": 2}])
    assert Manifest(tmp_path)["\udce9"]["repeats"] == 2


def test_a_block_that_grows_is_cut_in_time(monkeypatch):
    monkeypatch.setattr(shards, "SIZE", 4)
    ids = [f"{n:03}" for n in range(10)]
    blocks = list(shards.cut(ids, ()))
    for n in range(40):
        blocks = list(shards.cut(sorted([*ids, *(f"002.{m:03}" for m in range(n))]), {block[0] for block in blocks}))
    assert [len(block) for block in blocks] and max(map(len, blocks)) <= 8 and sum(map(len, blocks)) == 49 and len(blocks) < 16
    assert list(shards.cut([], ())) == []


# A kill between any two writes


def killed_at(count: int, work) -> bool:
    """Do `work` in a child that ends without a word before the file operation of this number. Returns whether it came so far."""
    child = os.fork()
    if not child:
        done = 0

        def hook(event, facts):
            nonlocal done
            writes = event == "open" and isinstance(facts[2], int) and facts[2] & (os.O_WRONLY | os.O_RDWR)
            if event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir") or writes:
                done += 1
                if done == count:
                    os._exit(9)

        try:
            sys.addaudithook(hook)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("former", [0, 5, 8])
def test_a_kill_leaves_the_old_or_the_new(tmp_path, small, former):
    """Of the first book, of one that moves over, and of one that stands in shards; and the next save leaves nothing behind."""
    start, folder = tmp_path / "start", tmp_path / "copy"
    start.mkdir()
    if former:
        Manifest(start).replace(records(former, (1, 2)))
    old = told(start)

    def work():
        book = Manifest(folder)
        book.replace([{**r, "repeats": 2} if r["id"] in ("03", "09") else r for r in records(10, (2, 9))])

    shutil.copytree(start, folder)
    work()
    new, ways, count = told(folder), set(), 0
    while True:
        count += 1
        shutil.rmtree(folder)
        shutil.copytree(start, folder)
        if not killed_at(count, work):
            break
        now = told(folder)
        assert now in (old, new), f"operation {count}"
        ways.add(now == new)
        work()
        assert told(folder) == new and sorted(names(folder)) == in_folder(folder)
    assert ways == {False, True} and count > 8


def test_what_a_killed_move_left_goes_with_a_save_of_lines(tmp_path, small):
    shards.begin(tmp_path / "manifest.jsonl")
    shards.write(tmp_path / "manifest.jsonl", [("a", {"id": "a"})])
    (tmp_path / "manifest" / f".{'0' * 32}.parquet.part").write_bytes(b"half")
    Manifest(tmp_path).replace(records(2))
    assert not (tmp_path / "manifest").exists() and len(told(tmp_path)) == 2


# Damage, and what others put there


def renamed(folder, old: str, data: bytes) -> None:
    """A shard of this content under the name that it wants, as nobody's disk does it."""
    name = f"{hashlib.blake2b(data, digest_size=16).hexdigest()}.parquet"
    (folder / "manifest" / name).write_bytes(data)
    path = folder / "manifest.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace(old, name), encoding="utf-8")


def table(folder, name: str) -> pyarrow.Table:
    return pyarrow.parquet.read_table(folder / "manifest" / name)


def written(table: pyarrow.Table) -> bytes:
    pyarrow.parquet.write_table(table, buffer := pyarrow.BufferOutputStream())
    return buffer.getvalue().to_pybytes()


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


def without(folder, name: str) -> None:
    """The mend that is named: the shard is taken out of the first line."""
    first, *rest = lines_of(folder)
    del first["shards"][name]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (first, *rest)), encoding="utf-8")


DAMAGE = {
    "flipped": lambda folder, name, path: path.write_bytes(flipped(path.read_bytes(), 99)),
    "cut": lambda folder, name, path: path.write_bytes(path.read_bytes()[:-9]),
    "empty": lambda folder, name, path: path.write_bytes(b""),
    "missing": lambda folder, name, path: path.unlink(),
    "another's": lambda folder, name, path: path.write_bytes(written(pyarrow.table({"x": [1]}))),
    "no parquet": lambda folder, name, path: renamed(folder, name, b"PAR1"),
    "another's, in its name": lambda folder, name, path: renamed(folder, name, written(pyarrow.table({"x": [1]}))),
    "a number for a text": lambda folder, name, path: renamed(folder, name, written(table(folder, name).set_column(0, "id", pyarrow.array([1, 2, 3, 4])))),
    "a key without column": lambda folder, name, path: renamed(folder, name, written(table(folder, name).drop_columns("select"))),
    "no id": lambda folder, name, path: renamed(
        folder, name, written(table(folder, name).set_column(0, "id", pyarrow.array([None] * 4, pyarrow.string())))
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", DAMAGE)
def test_a_shard_that_is_not_what_was_written_is_named_and_its_mend(tmp_path, small, how):
    Manifest(tmp_path).replace(records(12, (5,)))
    name = names(tmp_path)[1]
    DAMAGE[how](tmp_path, name, tmp_path / "manifest" / name)
    name = names(tmp_path)[1]
    left = sorted(os.listdir(tmp_path / "manifest"))
    with pytest.raises(LorakitError) as error:
        Manifest(tmp_path)
    assert f"{tmp_path / 'manifest' / name}: " in str(error.value) and name[:8] in str(error.value).split("take ")[1]
    assert "\n" not in str(error.value) and left == sorted(os.listdir(tmp_path / "manifest"))
    without(tmp_path, name)
    book = Manifest(tmp_path)
    assert [r["id"] for r in book] == ["00", "01", "02", "03", "08", "09", "10", "11", "05"]  # 05 stood in a line
    book.replace(records(12, (5,)))
    assert [r["id"] for r in Manifest(tmp_path)] == [r["id"] for r in records(12)]


def test_a_first_line_that_is_damaged_gone_or_newer_is_said(tmp_path, small):
    Manifest(tmp_path).replace(records(12, (5,)))
    path = tmp_path / "manifest.jsonl"
    whole = path.read_bytes()
    first, rest = whole.split(b"\n", 1)
    cases = {
        b"": "lacks its first line",
        rest: "lacks its first line",
        first[:30] + b"\n" + rest: "line 1: damaged",
        flipped(whole, 3): "lacks its first line",
        whole.replace(b'": 4', b'": null', 1): "line 1: damaged",
        whole.replace(names(tmp_path)[0].encode(), b"../../x.parquet"): "line 1: damaged",
        b'{"shards": 3, "format": 1}\n' + rest: "line 1: damaged",
        whole.replace(b'"format": 1', b'"format": 2'): "written by a newer lorakit",
    }
    for data, said in cases.items():
        path.write_bytes(data)
        with pytest.raises(LorakitError, match=said):
            Manifest(tmp_path)
    path.unlink()
    with pytest.raises(LorakitError, match="lacks its first line"):
        Manifest(tmp_path)
    copy = (tmp_path / "manifest" / "_first_line.json").read_bytes()
    path.write_bytes(copy + rest)
    assert len(Manifest(tmp_path)) == 12 and path.read_bytes() == whole
    Manifest(tmp_path).save()
    (tmp_path / "manifest" / "_first_line.json").write_bytes(b"another's")
    Manifest(tmp_path).save()
    assert (tmp_path / "manifest" / "_first_line.json").read_bytes() == copy
    (tmp_path / "manifest" / "_first_line.json").unlink()
    for data, said in ((rest, "lacks its first line.*put it back, or move"), (first[:30] + b"\n" + rest, "has no copy: take it out")):
        path.write_bytes(data)
        with pytest.raises(LorakitError, match=said):
            Manifest(tmp_path)
    (tmp_path / "manifest").rename(tmp_path / "away")
    path.unlink()
    assert len(Manifest(tmp_path)) == 0


@pytest.mark.parametrize("count", [12, 3])
def test_a_first_line_that_names_no_shards_is_said_and_written_anew(tmp_path, small, capsys, count):
    """The lines below it are those of what was chosen; the photos of its shards are looked at anew."""
    Manifest(tmp_path).replace(records(12, (5, 9)))
    path = tmp_path / "manifest.jsonl"
    rest = path.read_bytes().split(b"\n", 1)[1]
    path.write_bytes(b'{"shards": {}, "format": 1}\n' + rest)
    capsys.readouterr()
    book = Manifest(tmp_path)
    assert [r["id"] for r in book] == ["05", "09"] and not book.is_saved
    assert "3 shards lie in manifest/ that its first line does not name" in capsys.readouterr().err
    book.keep({**book["05"], "text": "by hand"})
    assert Manifest(tmp_path)["05"]["text"] == "by hand" and b"by hand" not in path.read_bytes()
    book.replace(records(count, (1,)))
    assert told(tmp_path) == [json.dumps(record) for record in records(count, (1,))] and Manifest(tmp_path).is_saved
    assert bool(names(tmp_path)) == (count > 6) == (tmp_path / "manifest").is_dir()
    assert not count > 6 or sorted(names(tmp_path)) == in_folder(tmp_path)


def test_a_record_of_a_shard_that_cannot_be_is_passed_over_and_kept_aside(tmp_path, small, capsys):
    Manifest(tmp_path).replace(records(8))
    name = names(tmp_path)[0]
    changed = table(tmp_path, name)
    select = [*changed["select"].to_pylist()[:2], '"x"', *changed["select"].to_pylist()[3:]]
    renamed(tmp_path, name, written(changed.set_column(changed.column_names.index("select"), "select", pyarrow.array(select))))
    book = Manifest(tmp_path)
    said = capsys.readouterr().err
    assert "row 3: not a photo's record (select is of another kind)" in said and len(book) == 7
    book.keep({"id": "new"})
    assert json.loads((tmp_path / "manifest.rejected").read_text(encoding="utf-8"))["id"] == "02"
    assert len(Manifest(tmp_path)) == 8 and not capsys.readouterr().err


# A person, and those who look on


def test_a_line_counts_before_a_shard_and_a_line_that_is_gone_is_said(tmp_path, small, capsys):
    Manifest(tmp_path).replace(records(12, (5, 9)))
    path = tmp_path / "manifest.jsonl"
    first, five, nine = path.read_text(encoding="utf-8").splitlines()
    by_hand = '{"id":"03",  "file":"by hand.jpg"}'
    path.write_text(f"{first}\n{by_hand}\n{five}\n", encoding="utf-8")
    book = Manifest(tmp_path)
    assert book["03"]["file"] == "by hand.jpg" and not book.is_saved
    assert [r["id"] for r in book] == [f"{n:02}" for n in range(12) if n != 9]
    assert "1 photo" in capsys.readouterr().err
    book.save()
    again = Manifest(tmp_path)
    assert again["03"]["file"] == "by hand.jpg" and len(lines_of(tmp_path)) == 2 and again.is_saved and not capsys.readouterr().err
    five = five.replace(": ", ":  ")
    path.write_text(f"{path.read_text(encoding='utf-8').splitlines()[0]}\n{five}\n", encoding="utf-8")
    again = Manifest(tmp_path)
    again.keep({**again["00"], "repeats": 3})
    again.save()
    assert path.read_text(encoding="utf-8").splitlines()[1] == five  # as it was written by hand


def test_notes_count_for_shards_too(tmp_path, small):
    book = Manifest(tmp_path)
    book.replace(records(12, (5,)))
    book.notes.found["found"] = {"stamp": ["by", "1"]}
    book.note()
    again = Manifest(tmp_path)
    assert again.notes.found == {"found": {"stamp": ["by", "1"]}, "sound": True} and again.is_saved and told(tmp_path) == told(tmp_path)
    again.keep_all([{**again["00"], "repeats": 3}])
    assert Manifest(tmp_path).notes.found == {}


@pytest.mark.parametrize("in_shards", [False, True])
def test_who_looks_on_does_not_hold_a_book_twice(tmp_path, monkeypatch, in_shards):
    """What it reads again and has already, it has once; a line that a person wrote in is one that is new."""
    monkeypatch.setattr(shards, "MOST_LINES", 10 if in_shards else 10_000)
    monkeypatch.setattr(shards, "SIZE", 100)
    writer = Manifest(tmp_path)
    writer.replace([{**record, "embed": {"vector": [n + k / 7 for k in range(40)]}} for n, record in enumerate(records(400))])
    writer.decide([{"id": "07", "what": "verdict", "was": None, "now": "keep"}], "command")
    tracemalloc.start()
    try:
        looker = Manifest(tmp_path)
        book = tracemalloc.get_traced_memory()[0]
        before = looker["07"]
        writer.keep({**writer["12"], "repeats": 3})
        writer.save()
        assert looker.refresh() == {"12"} and looker["07"] is before
        assert tracemalloc.get_traced_memory()[0] < 1.5 * book
    finally:
        tracemalloc.stop()


def test_who_looks_on_sees_a_book_move_over_and_reads_what_is_new(tmp_path, small, monkeypatch):
    writer = Manifest(tmp_path)
    writer.replace(records(5))
    looker = Manifest(tmp_path)
    writer.replace(records(14, (3,)))
    assert len(looker.refresh()) == 10 and [r["id"] for r in looker] == [r["id"] for r in writer]  # nine new, one chosen
    before = looker["00"]
    read = []
    monkeypatch.setattr(shards, "read", lambda *facts, known=shards.read: read.append(facts[1]) or known(*facts))
    writer.keep({**writer["12"], "text": "in the journal"})
    assert looker.refresh() == {"12"} and not read
    writer.save()
    assert looker.refresh() == set() and looker["12"]["text"] == "in the journal" and looker["00"] is before
    assert read == [names(tmp_path)[-1]]
    (tmp_path / "manifest" / names(tmp_path)[0]).unlink()
    assert looker.refresh() == set()
    writer.keep({**writer["13"], "text": "x"})
    assert looker.refresh() == {"13"}  # what it has read it knows
    with pytest.raises(LorakitError, match="missing, with 3 photos"):
        Manifest(tmp_path)
    looker.keep_all([{**looker["13"], "text": "y"}])  # whole again
    assert [r["id"] for r in Manifest(tmp_path)] == [r["id"] for r in records(14)]


def test_a_book_replaced_while_it_is_read_is_read_again(tmp_path, small, monkeypatch):
    writer = Manifest(tmp_path)
    writer.replace(records(12))
    read = shards.read

    def slow(*facts):
        monkeypatch.setattr(shards, "read", read)
        writer.keep_all([{**r, "repeats": 2} for r in writer])
        return read(*facts)

    monkeypatch.setattr(shards, "read", slow)
    assert {r["repeats"] for r in Manifest(tmp_path)} == {2}
