"""Photos that lie elsewhere: in a store (fsspec's in memory, a web server, S3 as moto plays it), in tar and parquet files there. They are
read, never kept; what vanishes, changes, is refused or torn is one line and costs nothing else."""

import functools
import gzip
import io
import json
import os
import re
import shutil
import socket
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import fsspec
import pyarrow as pa
import pytest
from click.testing import CliRunner
from pyarrow import parquet

import lorakit
import lorakit.photos.remote
from lorakit import pipeline
from lorakit.cli import group
from lorakit.errors import LorakitError
from lorakit.project import open_project
from tests.conftest import QUICK, draw_photo


def jpeg(seed: int, size=(640, 512)) -> bytes:
    buffer = io.BytesIO()
    draw_photo(seed, size).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    return [jpeg(seed) for seed in range(4)]


@pytest.fixture
def memory():
    """A store in memory, empty."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    yield fs
    fs.store.clear()


def begin(tmp_path, address, name="project", **settings):
    return lorakit.new_project(tmp_path / name, address, base="tiny-random", trigger="zwx", settings={**QUICK, **settings})


def lines(project) -> dict[str, dict]:
    """{file: its line of status}."""
    return {photo["file"]: photo for photo in lorakit.status(project)["photos"]}


def wrong(project, file: str) -> list[str]:
    return [reason["reason"] for reason in lines(project)[file]["reasons"] if reason["reason"] == "unreadable"]


def kept_pictures(project) -> list[str]:
    """Photos that lie in the project, apart from the dataset that was asked for."""
    return [
        path.name
        for path in project.folder.rglob("*")
        if path.is_file() and path.read_bytes()[:3] == b"\xff\xd8\xff" and path.parent != project.dataset_folder
    ]


def test_the_whole_way_from_a_store_is_that_from_a_folder(memory, pictures, tmp_path, make_photo):
    mask = io.BytesIO()
    draw_photo(9).convert("L").save(mask, "PNG")
    everything = {f"set/a/{n}.jpg": data for n, data in enumerate(pictures)} | {
        "set/a/0.txt": b"a mug on a table, from the left", "set/a/1.txt": b"a mug", "set/a/1_mask.png": mask.getvalue(), "set/metadata.jsonl":
        json.dumps({"file_name": "a/2.jpg", "text": "a mug in the garden"}).encode(), "set/film.mp4": b"film", "set/.hidden/x.jpg": pictures[0],
        "set/b/cut.jpg": pictures[1][:9000], "set/../out.jpg": pictures[0],
    }  # fmt: skip
    for name, data in everything.items():
        memory.pipe(f"/{name}", data)
        if ".." not in name:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    settings = {"caption.captioner": "text_files", "train.masked_loss": True, "select.everything": True}
    there, here = begin(tmp_path, "memory://set", **settings), begin(tmp_path, tmp_path / "set", "here", **settings)
    for project in (there, here):
        pipeline.walk(project, last="dataset")

    def told(project):
        drop = ("scan", "project")
        return {key: value for key, value in lorakit.status(project).items() if key not in drop}

    assert told(there) == told(here)
    written = {p.name: p.read_bytes() for p in here.dataset_folder.iterdir()}
    assert {p.name: p.read_bytes() for p in there.dataset_folder.iterdir()} == written and len(written) > 4
    assert sorted(p.name for p in there.masks_folder.iterdir()) == sorted(p.name for p in here.masks_folder.iterdir()) != []
    assert there.manifest[next(iter(there.manifest))["id"]]["path"].startswith("memory://set/a/")
    assert kept_pictures(there) == []
    assert pipeline.walk(open_project(there.folder), last="dataset") == []


def test_what_changes_or_vanishes_is_told_and_costs_nothing_else(memory, pictures, tmp_path):
    for number, data in enumerate(pictures):
        memory.pipe(f"/set/{number}.jpg", data)
    project = begin(tmp_path, "memory://set")
    lorakit.scan(project)
    memory.rm("/set/0.jpg")
    memory.pipe("/set/1.jpg", jpeg(7))
    lorakit.check(project)
    assert wrong(project, "0.jpg") and wrong(project, "1.jpg") and not wrong(project, "2.jpg")
    told = {photo["file"]: photo["reasons"] for photo in lorakit.status(project)["photos"]}
    assert "no such object" in str(told["0.jpg"]) and "changed since it was scanned" in str(told["1.jpg"])
    before = {r["file"]: r["id"] for r in project.manifest}
    lorakit.scan(project)
    lorakit.check(project)
    assert sorted(lines(project)) == ["1.jpg", "2.jpg", "3.jpg"] and not wrong(project, "1.jpg")
    now = {r["file"]: r["id"] for r in project.manifest}
    assert now["1.jpg"] != before["1.jpg"] and now["2.jpg"] == before["2.jpg"]
    assert project.manifest[before["0.jpg"]]["gone"]


def test_places_that_lie_within_each_other_have_each_photo_once(memory, pictures, tmp_path):
    memory.pipe("/set/sub/0.jpg", pictures[0])
    project = begin(tmp_path, ["memory://set", "memory://set/sub"])
    lorakit.scan(project)
    assert [r["file"] for r in project.manifest] == ["set/sub/0.jpg"]


def test_a_text_that_a_store_does_not_give_now_changes_nothing(memory, pictures, tmp_path, monkeypatch):
    """Else its photo would have no words, and be captioned anew."""
    memory.pipe("/set/0.jpg", pictures[0])
    memory.pipe("/set/0.txt", b"a mug")
    project = begin(tmp_path, "memory://set")
    lorakit.scan(project)
    before = project.manifest.path.read_bytes()
    memory.pipe("/set/0.txt", b"a red mug")
    fails = memory.__class__.cat_file
    monkeypatch.setattr(lorakit.photos.remote, "PAUSE", 0)
    with monkeypatch.context() as torn:
        torn.setattr(memory.__class__, "cat_file", lambda *given, **options: (_ for _ in ()).throw(TimeoutError("the line is dead")))
        with pytest.raises(LorakitError, match=r"0\.txt: cannot be fetched .*nothing was changed"):
            lorakit.scan(project)
    assert memory.__class__.cat_file is fails and project.manifest.path.read_bytes() == before
    lorakit.scan(project)
    assert next(iter(project.manifest))["sidecar"]["text"] == "a red mug"


def tar_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def test_shards_are_read_where_they_lie(memory, pictures, tmp_path, capsys):
    a, b, c, d = pictures
    e = jpeg(5)
    memory.pipe("/set/0.tar", tar_of({"x/1.jpg": a, "x/1.txt": b"a mug, on a desk", "x/2.jpg": b, "x/2.json": b'{"caption": "a red mug"}'}))
    memory.pipe("/set/1.tar", tar_of({"3.jpg": c, "4.jpg": d})[: len(c) + 2048 + 900])
    table = pa.table({"image": [{"bytes": d, "path": "d.jpg"}, {"bytes": None, "path": "/etc/passwd"}], "text": ["a mug at night", "x"]})
    sink = io.BytesIO()
    parquet.write_table(table, sink)
    memory.pipe("/set/2.parquet", sink.getvalue())
    memory.pipe("/set/3.parquet", sink.getvalue()[:-20])
    memory.pipe("/set/4.tar", tar_of({}))
    for name, column in (("5", {"image": [{"bytes": e}]}), ("6", {"number": [1]})):
        parquet.write_table(pa.table(column), sink := io.BytesIO())
        memory.pipe(f"/set/{name}.parquet", sink.getvalue())
    project = begin(tmp_path, "memory://set")
    pipeline.walk(project, last="crop")
    said = capsys.readouterr().err
    assert said.count("4.tar: no pictures are in it") == said.count("6.parquet: no pictures are in it") == 1
    assert said.count("1.tar: torn behind its first 2 members") == 1 and said.count("3.parquet: cannot be read as a shard") == 1
    texts = {r["file"]: r.get("sidecar", {}).get("text", "") for r in project.manifest}
    assert sorted(texts) == ["0.tar/x/1.jpg", "0.tar/x/2.jpg", "1.tar/3.jpg", "2.parquet/0.000000.jpg", "5.parquet/0.000000.jpg"]
    assert "on a desk" in texts["0.tar/x/1.jpg"] and "red mug" in texts["0.tar/x/2.jpg"] and "at night" in texts["2.parquet/0.000000.jpg"]
    assert {r["hash"] for r in project.manifest} == {lorakit.photos.remote.content_hash(data) for data in (*pictures, e)}
    assert not any(wrong(project, file) for file in texts) and kept_pictures(project) == []
    assert pipeline.walk(open_project(project.folder), last="crop") == []
    assert [line.split(":")[1][-5:] for line in capsys.readouterr().err.splitlines() if "read through" in line] == ["1.tar", "rquet"]
    memory.pipe("/set/0.tar", tar_of({"x/2.jpg": b, "./x/2.jpg": a}))
    lorakit.scan(project)
    assert "0.tar/x/1.jpg" not in lines(project) and {"0.tar/x/2.jpg", "0.tar/x/2_2.jpg"} <= set(lines(project))


SIGN_IN = b"""\n<!DOCTYPE html>\n<html><body><form action="/login"><input name="p" type="password"></form></body></html>"""


class Handler(SimpleHTTPRequestHandler):
    """A web server of a folder; secret.jpg and a folder private/ are 403, for what is in `dropped` the connection ends without an answer, and in place of what is
    in `portal` comes a page to sign in. It gives no parts of a file, but of those in `torn`: of which it gives `whole` answers, then halves."""

    dropped: set[str] = set()
    portal: set[str] = set()
    moved: dict[str, str] = {}  # {end of a path: where it has moved}
    is_moved = False  # the page to sign in has an address of its own
    torn: set[str] = set()
    halved: set[str] = set()  # of these a part comes, and the connection ends
    whole = 0

    def do_GET(self):
        if self.path.endswith(("secret.jpg", "/private/")):
            self.send_error(403)
        elif self.path.endswith(tuple(self.dropped)):
            self.connection.shutdown(socket.SHUT_RDWR)
        elif self.path.endswith((*self.portal, "/login/")):
            self.sign_in()
        elif to := next((to for end, to in self.moved.items() if self.path.endswith(end)), None):
            self.send_response(302)
            self.send_header("Location", to)
            self.end_headers()
        elif self.path.endswith(tuple(self.halved)):
            self.send_response(200)
            self.send_header("Content-Length", "9999")
            self.end_headers()
            self.wfile.write(b"x" * 99)
        elif self.path.endswith(tuple(self.torn)) and "Range" in self.headers:
            self.part()
        else:
            super().do_GET()

    def do_HEAD(self):
        if self.path.endswith(("secret.jpg", "/private/")):
            self.send_error(403)
        elif self.path.endswith((*self.portal, "/login/")):
            self.sign_in()
        else:
            super().do_HEAD()

    def sign_in(self):
        is_moved = self.is_moved and not self.path.endswith("/login/")
        self.send_response(302 if is_moved else 200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        if is_moved:
            self.send_header("Location", "/login/")
        self.send_header("Content-Length", str(len(SIGN_IN)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(SIGN_IN)

    def part(self):
        with open(self.translate_path(self.path), "rb") as file:
            data = file.read()
        first, last = (int(word) for word in self.headers["Range"].removeprefix("bytes=").split("-"))
        found = data[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{first + len(found) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(found)))
        self.end_headers()
        self.wfile.write(found if Handler.whole else found[: len(found) // 2])
        Handler.whole -= bool(Handler.whole)
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def web(tmp_path):
    pytest.importorskip("aiohttp")
    (tmp_path / "web").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path / "web")))
    server.handle_error = lambda *_: None  # who asked has gone
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield tmp_path / "web", f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_web_server_that_lists_its_folders(web, pictures, tmp_path, capsys):
    folder, address = web
    (folder / "set" / "more").mkdir(parents=True)
    (folder / "set" / "private").mkdir()
    for name, data in (("a b.jpg", pictures[0]), ("more/c.jpg", pictures[1]), ("secret.jpg", pictures[2])):
        (folder / "set" / name).write_bytes(data)
    (folder / "set" / "a b.txt").write_text("a mug in the sun")
    (folder / "set" / "0.tar").write_bytes(tar_of({"d.jpg": pictures[3]}))
    project = begin(tmp_path, f"{address}/set")
    lorakit.scan(project)
    lorakit.check(project)
    assert "/private/: its photos are left out (access is refused" in capsys.readouterr().err
    assert sorted(lines(project)) == ["0.tar/d.jpg", "a b.jpg", "more/c.jpg", "secret.jpg"]
    assert [file for file in lines(project) if wrong(project, file)] == ["secret.jpg"]
    assert "access is refused" in str(lines(project)["secret.jpg"]["reasons"])
    assert next(r for r in project.manifest if r["file"] == "a b.jpg")["sidecar"]["text"] == "a mug in the sun"
    with pytest.raises(LorakitError, match="nothing lies there"):
        lorakit.scan(begin(tmp_path, f"{address}/none/", "none"))


def test_what_a_server_does_wrong_with_photos_is_said_for_what_it_is(web, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lorakit.photos.remote, "PAUSE", 0)
    folder, address = web
    (folder / "set" / "more").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "c.jpg", "more/d&e.jpg"):
        (folder / "set" / name).write_bytes(pictures[0])
    (folder / "set" / "index.html").write_text(
        "<html><a href='a.jpg'>.<a href='b.jpg'>.<a href='c.jpg'>.<a href='../set/more/'>.<a href='lost.jpg'>.</html>"
    )
    (folder / "set" / "more" / "index.html").write_text("<html><a href='../more/'>.<a href='d&amp;e.jpg'>.</html>")
    monkeypatch.setattr(Handler, "moved", {"b.jpg": "ftp://me:secret@host/b.jpg"})
    monkeypatch.setattr(Handler, "halved", {"c.jpg"})
    project = begin(tmp_path, f"{address}/set")
    lorakit.scan(project)
    assert "lost.jpg: is listed, but there is no such object" in capsys.readouterr().err
    lorakit.check(project)
    assert sorted(lines(project)) == ["a.jpg", "b.jpg", "c.jpg", "more/d&e.jpg"]
    assert [file for file in lines(project) if wrong(project, file)] == ["b.jpg", "c.jpg"]
    assert "the connection ended before all of it had come" in str(lines(project)["c.jpg"]["reasons"])
    assert not [path for path in project.folder.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]


@pytest.mark.parametrize("dropped", ["0.tar", "a.jpg", "a.txt"])
def test_a_connection_that_ends_makes_no_photo_go(web, pictures, tmp_path, monkeypatch, dropped):
    monkeypatch.setattr(lorakit.photos.remote, "PAUSE", 0)
    folder, address = web
    (folder / "set").mkdir()
    for name, data in {"a.jpg": pictures[0], "a.txt": b"a mug", "0.tar": tar_of({"d.jpg": pictures[3]})}.items():
        (folder / "set" / name).write_bytes(data)
    project = begin(tmp_path, f"{address}/set")
    lorakit.scan(project)
    before = {record["file"]: record["hash"] for record in project.manifest}
    assert len(before) == 2
    os.utime(folder / "set" / dropped, (1, 1))  # so that it is asked for again
    monkeypatch.setattr(Handler, "dropped", {dropped})
    if dropped == "a.jpg":
        lorakit.scan(project)
    else:
        with pytest.raises(LorakitError, match="nothing was changed"):
            lorakit.scan(project)
    assert {record["file"]: record["hash"] for record in open_project(project.folder).manifest} == before
    monkeypatch.undo()
    (folder / "set" / "a.jpg").write_bytes(pictures[2])
    lorakit.scan(project)
    assert lorakit.photos.remote.content_hash(pictures[2]) in {record["hash"] for record in project.manifest}, "it is asked for again"


@pytest.mark.parametrize(
    ("page", "is_moved"), [("0.tar", False), ("a.jpg", False), ("a.jpg", True), ("a.txt", True), ("0.parquet", False), ("set/", True), ("more/", False)]
)  # fmt: skip
def test_a_page_to_sign_in_is_no_shard_text_photo_or_folder(web, pictures, tmp_path, monkeypatch, capsys, page, is_moved):
    folder, address = web
    (folder / "set" / "more").mkdir(parents=True)
    table = io.BytesIO()
    parquet.write_table(pa.table({"image": [pictures[1]]}), table)
    for name, data in {"a.jpg": pictures[0], "a.txt": b"a mug", "more/b.jpg": pictures[2], "0.tar": tar_of({"d.jpg": pictures[3]}), "0.parquet": table.getvalue()}.items():  # fmt: skip
        (folder / "set" / name).write_bytes(data)
    monkeypatch.setattr(Handler, "torn", {".parquet"})
    monkeypatch.setattr(Handler, "whole", 99)
    project = begin(tmp_path, f"{address}/set")
    lorakit.scan(project)
    before = project.manifest.path.read_bytes()
    assert len(project.manifest) == 4
    with monkeypatch.context() as expired:
        expired.setattr(Handler, "portal", {page})
        expired.setattr(Handler, "is_moved", is_moved)
        for command in [lorakit.scan, lorakit.check] if page == "a.jpg" else [lorakit.scan]:
            with pytest.raises(LorakitError, match=rf"{page}: answered with a web page, not .*sign in .*nothing was changed"):
                command(project)
    assert project.manifest.path.read_bytes() == before and "torn" not in capsys.readouterr().err
    (folder / "set" / "a.jpg").write_bytes(SIGN_IN)  # a file that truly holds one
    lorakit.scan(project)
    lorakit.check(project)
    assert "no image format" in str(lines(project)["a.jpg"]["reasons"]) and len(lines(project)) == 4


@pytest.mark.parametrize("whole", [0, 1])
def test_a_connection_that_ends_within_a_parquet_shard_makes_no_photo_go(web, tmp_path, monkeypatch, whole):
    monkeypatch.setattr(lorakit.photos.remote, "PAUSE", 0)
    folder, address = web
    (folder / "set").mkdir()
    path = folder / "set" / "0.parquet"
    noise = [jpeg(seed) + os.urandom(7 << 20) for seed in range(2)]  # longer than a store reads at once
    parquet.write_table(pa.table({"image": noise}), path, row_group_size=1)
    monkeypatch.setattr(Handler, "torn", {".parquet"})
    monkeypatch.setattr(Handler, "whole", 99)
    project = begin(tmp_path, f"{address}/set")
    lorakit.scan(project)
    before = {record["file"]: record["hash"] for record in project.manifest}
    assert len(before) == 2
    os.utime(path, (1, 1))
    Handler.whole = whole
    with pytest.raises(LorakitError, match=r"0\.parquet: cannot be read .*nothing was changed"):
        lorakit.scan(project)
    Handler.whole = whole
    lorakit.photos.remote._column.cache_clear()
    lorakit.check(project)
    assert wrong(project, "0.parquet/0.000000.jpg") and wrong(project, "0.parquet/1.000000.jpg")
    Handler.whole = 99
    lorakit.check(project)
    assert {record["file"]: record["hash"] for record in open_project(project.folder).manifest} == before
    assert not any(wrong(project, file) for file in before)
    monkeypatch.setattr(Handler, "torn", set())
    os.utime(path, (2, 2))
    with pytest.raises(LorakitError, match="its server gives no parts of a file; nothing was changed"):
        lorakit.scan(project)


def test_a_new_photo_that_does_not_come_is_said_with_exit_code_3_and_tried_again(web, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(lorakit.photos.remote, "PAUSE", 0)
    folder, address = web
    (folder / "set").mkdir()
    for number, data in enumerate(pictures):
        (folder / "set" / f"{number}.jpg").write_bytes(data)
    monkeypatch.setattr(Handler, "dropped", {"1.jpg", "2.jpg"})
    words = ["curate", f"{address}/set", "-o", str(tmp_path / "project"), "--base", "tiny-random", "--until", "select"]
    words += [word for key, value in QUICK.items() for word in ("--set", f"{key}={value}")]
    done = CliRunner().invoke(group, words)
    assert done.exit_code == 3, (done.output, done.exception)
    assert "2 photos could not be had from the store and left out (1.jpg: " in done.output and "2 reject (2 unreadable)" in done.output
    monkeypatch.setattr(lorakit.photos.remote, "IN_A_ROW", 2)
    with pytest.raises(LorakitError, match="nor could the 1 photos before it; the same command goes on"):
        lorakit.check(open_project(tmp_path / "project"))
    monkeypatch.undo()
    again = CliRunner().invoke(group, words)
    assert again.exit_code == 0 and "could not be had" not in again.output, again.output
    project = open_project(tmp_path / "project")
    assert len(project.manifest.selected) == 4 and not any(wrong(project, file) for file in lines(project))


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("ftp://host/set", "ftp://host/set: nothing is read from ftp://; s3://, gs://, https://"), ("nope://bucket/set", "nothing is read from nope://"),
        ("zip://set::file:///a.zip", "nothing is read from zip://"), ("s3://bucket/a::b", "'::' makes a chain"), ("https://host/set#1", "write it as %23"),
        ("file://data/set", "three strokes: file:///data/photos"), ("file://", "names no path"), ("file:///no/such/set", "nothing lies there; is the path right"),
        ("memory://none", "nothing lies there; is the name right"), ("http://127.0.0.1:9/set/", "cannot be listed .*nothing was changed"),
    ],
)  # fmt: skip
def test_an_address_that_is_of_no_use_is_one_line_and_leaves_nothing(memory, tmp_path, address, why):
    done = CliRunner().invoke(group, ["curate", address, "-o", str(tmp_path / "project")])
    assert isinstance(done.exception, LorakitError) and re.search(why, str(done.exception)), done.exception
    assert "AWS" not in str(done.exception) and not (tmp_path / "project").exists()


def test_a_cache_that_somebody_has_prepared_outlives_a_refused_start(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "cache").symlink_to(tmp_path / "disk")
    done = CliRunner().invoke(group, ["curate", "file:///no/such/set", "-o", str(tmp_path / "project")])
    assert isinstance(done.exception, LorakitError)
    assert [path.name for path in (tmp_path / "project").iterdir()] == ["cache"] and (tmp_path / "disk").is_dir()


def test_addresses_as_file_managers_and_people_write_them(tmp_path, pictures):
    folder = tmp_path / "my photos #1"
    folder.mkdir()
    for name in ("a#1.jpg", "b?.jpg", "c%20d.jpg"):
        (folder / name).write_bytes(pictures[0] + name.encode())
    for number, address in enumerate((f"FILE://{quote(str(folder))}", f"file://localhost{folder}", f"file://{folder}")):
        project = begin(tmp_path, address, f"project_{number}")
        lorakit.scan(project)
        lorakit.check(project)
        assert sorted(lines(project)) == ["a#1.jpg", "b?.jpg", "c%20d.jpg"] and not any(wrong(project, file) for file in lines(project))
        assert project.photos == (f"file://{folder}",)
    assert open_project(project.folder).photos == project.photos
    one = begin(tmp_path, f"file://{folder}/b?.jpg", "one")
    lorakit.scan(one)
    assert sorted(lines(one)) == ["b?.jpg"]
    assert lorakit.photos.remote.normal("HTTPS://Host/Ä b%20c") == "https://host/%C3%84%20b%20c"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_folder_by_its_address_is_read_as_by_its_path(tmp_path, pictures, capsys):
    """Pipes, links, lorakit's own folders; and a photo behind a link that was replaced by one of its size and time."""
    folder, away = tmp_path / "set", tmp_path / "away"
    (folder / "sub").mkdir(parents=True)
    away.mkdir()
    size = max(map(len, pictures))
    for path, data in ((folder / "a.jpg", pictures[0]), (folder / "sub" / "b.jpg", pictures[1]), (away / "c.jpg", pictures[2])):
        path.write_bytes(data.ljust(size, b"\0"))
        os.utime(path, (1, 1))
    (folder / "link.jpg").symlink_to(away / "c.jpg")
    (folder / "away").symlink_to(away)
    (folder / "loop").symlink_to(".")
    (folder / "broken.jpg").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.jpg")
    threading.Thread(target=lambda: os.close(os.open(folder / "pipe.jpg", os.O_WRONLY)), daemon=True).start()  # so that who reads it ends
    for name in ("mine", "sub/another"):  # lorakit's
        (folder / name / "dataset").mkdir(parents=True)
        (folder / name / "dataset" / "a.jpg").write_bytes(pictures[3])
        (folder / name / "project.yaml").write_text(f"photos: [{str(folder)!r}]\nbase: tiny-random\nkind: object\n")
    mine = open_project(folder / "mine", photos=f"file://{folder}", settings=QUICK)
    lorakit.scan(mine)
    told = capsys.readouterr().err
    assert sorted(r["file"] for r in mine.manifest) == ["a.jpg", "link.jpg", "sub/b.jpg"]
    assert (
        "2 pipes, devices and broken links" in told
        and "1 lorakit project: sub/another" in told
        and "away: a link to another folder" in told
    )
    os.utime(away / "c.jpg", (1, 1))
    (away / "new").write_bytes(pictures[3].ljust(size, b"\0"))
    os.utime(away / "new", (1, 1))
    os.replace(away / "new", away / "c.jpg")
    lorakit.scan(mine)
    now = {r["file"]: r["hash"] for r in mine.manifest}
    assert now["link.jpg"] == lorakit.photos.remote.content_hash(pictures[3].ljust(size, b"\0"))


def test_members_of_a_shard_are_taken_as_those_of_a_folder(memory, pictures, tmp_path, capsys):
    members = {
        "p.jpg": pictures[0], "p.jpg.txt": b"a mug", "Q.JPG": pictures[1], "q.txt": b"a red mug", "q.caption": b"a mug, red", "C:\\r.jpg": pictures[2],
        "/s.jpg": pictures[2], "../t.jpg": pictures[2], "sub\\u.jpg": pictures[3], "sub/u.json": b'{"caption": "a mug at night"}',
    }  # fmt: skip
    memory.pipe("/set/0.tar", tar_of(members))
    folder = tmp_path / "unpacked.tar"
    folder.write_bytes(tar_of(members))
    there, here = begin(tmp_path, "memory://set"), begin(tmp_path, folder, "here")
    lorakit.scan(there)
    lorakit.scan(here)

    def told(project):
        drop = ("path", "bytes", "modified", "changed", "file")
        return sorted(
            json.dumps([r["file"].removeprefix("0.tar/"), {key: r[key] for key in r if key not in drop}], sort_keys=True)
            for r in project.manifest
        )

    assert told(there) == told(here) and len(told(there)) == 3 and "at night" in str(told(there))
    refused = [json.loads((project.folder / "scan.json").read_text())["passed_over"] for project in (there, here)]
    assert [len(names) for one in refused for reason, names in one.items() if "refused" in reason] == [3, 3]
    lorakit.scan(open_project(there.folder))  # from what was noted of the shard
    assert told(open_project(there.folder)) == told(there)


@pytest.mark.parametrize("name", ["0.tar", "0.tar.gz"])
def test_a_compressed_shard_is_one_line_with_the_mend(memory, pictures, tmp_path, capsys, name):
    memory.pipe("/set/a.jpg", pictures[0])
    memory.pipe(f"/set/{name}", gzip.compress(tar_of({"b.jpg": pictures[1]}), 1))
    project = begin(tmp_path, "memory://set")
    lorakit.scan(project)
    said = capsys.readouterr().err
    assert sorted(lines(project)) == ["a.jpg"] and said.count("store it as a plain .tar (gunzip)") == 1 and f"{name}" in said
    with pytest.raises(LorakitError, match="no photos in"):
        lorakit.scan(begin(tmp_path, f"memory://set/{name}", "alone"))
    assert "store it as a plain .tar (gunzip)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "address",
    [
        "https://me:hush@host/set", "https://host/a.jpg?X-Amz-Signature=hush", "s3://key:hush@bucket/set", "s3://key:hush/hush@bucket/set",
        "https://me:hush/hush@host/set", "https://me:hush#hush@host/set", "https://host/set#hush", "https://[me:hush@host/set", "https:///hush",
        "gs://bucket/a?X-Goog-Signature=hush", "https:/me:hush@host/set", "simplecache::https://me:hush@host/set",
    ],
)  # fmt: skip
def test_an_address_with_a_password_is_refused_and_written_nowhere(tmp_path, address):
    with pytest.raises(LorakitError) as raised:
        begin(tmp_path, address)
    assert "hush" not in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "project").exists()
    for words, given in (([str(tmp_path / "list.txt")], None), (["-"], address)):
        (tmp_path / "list.txt").write_text(address)
        done = CliRunner().invoke(group, ["curate", *words, "-o", str(tmp_path / "project")], input=given)
        is_list = re.search("^[^:]+://", address)
        assert done.exception and (not is_list or ("line 1: an address" in str(done.exception) and "hush" not in str(done.exception)))
        assert not is_list or not list(tmp_path.glob("project*"))


def test_a_store_that_is_not_installed(tmp_path):
    if not shutil.which("gcloud"):
        try:
            import gcsfs  # noqa: F401
        except ImportError:
            with pytest.raises(LorakitError, match=r"lorakit\[gcs\]"):
                lorakit.scan(begin(tmp_path, "gs://bucket/set", "gs"))


@pytest.fixture
def s3(monkeypatch):
    """An S3 server of this machine, with a bucket."""
    server_module, s3fs = pytest.importorskip("moto.server"), pytest.importorskip("s3fs")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "not-a-real-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-real-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    s3fs.S3FileSystem.clear_instance_cache()
    fs = s3fs.S3FileSystem()
    fs.mkdir("bucket")
    yield fs
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_s3(s3, pictures, tmp_path):
    s3.pipe("bucket/set/a b.jpg", pictures[0])
    s3.pipe("bucket/set/a b.txt", b"a mug in the sun")
    s3.pipe("bucket/set/0.tar", tar_of({"d.jpg": pictures[3]}))
    project = begin(tmp_path, "s3://bucket/set", **{"caption.captioner": "text_files", "select.everything": True})
    pipeline.walk(project, last="crop")
    assert sorted(lines(project)) == ["0.tar/d.jpg", "a b.jpg"] and not any(wrong(project, file) for file in lines(project))
    s3.pipe("bucket/set/a b.jpg", pictures[1])
    pipeline.walk(project, last="crop")
    assert {r["hash"] for r in project.manifest} == {lorakit.photos.remote.content_hash(pictures[n]) for n in (1, 3)}
    for path in project.folder.rglob("*"):
        if path.is_file():
            assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in path.read_bytes()
    with pytest.raises(LorakitError, match="nothing lies there"):
        lorakit.scan(begin(tmp_path, "s3://other/set", "other"))
