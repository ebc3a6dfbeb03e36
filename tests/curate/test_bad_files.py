"""Files that no one should have in a photo folder: none hangs, fills the memory, stops the others or is passed over in silence."""

import os
import shutil
import struct
import sys
import threading
import time
import tracemalloc
import zlib

import pytest

import lorakit
from lorakit import new_project, open_project, pipeline
from lorakit.cli import group
from lorakit.curate.check import measure
from lorakit.errors import LorakitError, UnreadablePhoto
from lorakit.photos import decode, photo
from tests.conftest import draw_photo

try:
    import resource
except ImportError:  # Windows
    resource = None

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")


def status_of(tmp_path) -> dict[str, dict]:
    """{file: its entry in status} of tmp_path/photos, looked at anew."""
    folder = tmp_path / "project"
    project = open_project(folder) if folder.exists() else new_project(folder, tmp_path / "photos", settings={"select.least": 1})
    pipeline.walk(project, last="crop")
    return {found["file"]: found for found in pipeline.status(project)["photos"]}


def first_reason(found: dict) -> tuple[str, str]:
    return found["verdict"], found["reasons"][0]["reason"]


def bomb(side: int) -> bytes:
    """A small PNG that is black and `side` x `side`."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    row = bytes(1 + (side + 7) // 8)
    deflate = zlib.compressobj(1)
    data = b"".join(deflate.compress(row) for _ in range(side)) + deflate.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@POSIX
def test_bomb_is_refused_without_unpacking_it(tmp_path, make_photo):
    make_photo("good.jpg", 1)
    (tmp_path / "photos" / "bomb.png").write_bytes(bomb(30_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = status_of(tmp_path)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * (1 if sys.platform == "darwin" else 1024)
    assert first_reason(found["bomb.png"]) == ("reject", "too_many_pixels") and found["good.jpg"]["verdict"] == "keep"
    assert grown < 400 << 20, "its pixels would be 858 MB"


def test_large_files_are_refused_unread(tmp_path, make_photo):
    good = make_photo("good.jpg", 1)
    folder = tmp_path / "photos"
    with open(folder / "text.jpg", "wb") as file:
        file.write(b"no photo " * 1000)
        file.truncate(100 << 20)
    shutil.copy(good, folder / "long.jpg")
    os.truncate(folder / "long.jpg", decode.MAX_BYTES + 1)
    tracemalloc.start()
    assert measure(folder / "text.jpg")["measures"]["damaged"]["unreadable"] == "not_an_image"
    assert measure(folder / "long.jpg")["measures"]["damaged"]["unreadable"] == "too_many_bytes"
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


@POSIX
def test_links_to_devices_and_pipes_of_any_name_do_not_hang(tmp_path, make_photo):
    make_photo("good.jpg", 1)
    folder = tmp_path / "photos"
    for name in ("zero.jpg", "zero", "good.txt", "metadata.jsonl", "good_mask.png", "t.parquet"):
        os.symlink("/dev/zero", folder / name)
    for name in ("pipe.png", "pipe", "good.caption", "metadata.csv", "p.arrow"):
        os.mkfifo(folder / name)
    found = status_of(tmp_path)
    assert {name: first_reason(entry) for name, entry in found.items() if entry["reasons"]} == {
        "zero.jpg": ("reject", "not_an_image"),
        "pipe.png": ("reject", "not_an_image"),
    }
    assert found["good.jpg"]["verdict"] == "keep" and found["good.jpg"]["caption"] is None


@POSIX
@pytest.mark.parametrize("place", ["/dev/zero", "pipe"])
def test_device_or_pipe_as_photos_is_one_line(tmp_path, place):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LorakitError, match="a pipe or a device"):
        lorakit.scan(new_project(tmp_path / "project", tmp_path / place))


@POSIX
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_is_said_and_read_once_it_may(tmp_path, make_photo, capsys):
    make_photo("good.jpg", 1)
    locked, closed = make_photo("locked.jpg", 2), make_photo("closed/c.jpg", 3).parent
    locked.chmod(0)
    closed.chmod(0)
    try:
        found = status_of(tmp_path)
        assert first_reason(found["locked.jpg"]) == ("reject", "unreadable") and set(found) == {"good.jpg", "locked.jpg"}
        assert "closed: its photos are left out" in capsys.readouterr().err
    finally:
        locked.chmod(0o600)
        closed.chmod(0o700)
    assert {name: entry["verdict"] for name, entry in status_of(tmp_path).items()} == dict.fromkeys(
        ("good.jpg", "locked.jpg", "closed/c.jpg"), "keep"
    )


@POSIX
def test_photo_that_could_not_be_opened_is_tried_again(tmp_path, make_photo):
    make_photo("good.jpg", 1)
    elsewhere = tmp_path / "disk" / "b.jpg"
    os.symlink(elsewhere, tmp_path / "photos" / "b.jpg")
    assert first_reason(status_of(tmp_path)["b.jpg"]) == ("reject", "unreadable")
    elsewhere.parent.mkdir()
    draw_photo(2).save(elsewhere)
    assert status_of(tmp_path)["b.jpg"]["verdict"] == "keep"


def test_files_that_come_and_go_while_they_are_read(tmp_path, make_photo):
    """Another program writes, cuts and removes a photo all the while: it is measured or refused, nothing else."""
    path = make_photo("a.jpg", 1)
    whole, stop = path.read_bytes(), threading.Event()

    def disturb():
        while not stop.is_set():
            path.write_bytes(whole)
            path.write_bytes(whole[: len(whole) // 2])
            path.unlink()

    writer = threading.Thread(target=disturb)
    writer.start()
    seen = set()
    try:
        for number in range(20_000):
            try:
                photo.read_photo(path)
                seen.add("read")
            except UnreadablePhoto as error:
                seen.add(error.reason)
            time.sleep(0)  # on a busy machine, the other thread gets no turn for long
            if number > 150 and len(seen) > 1:
                break
    finally:
        stop.set()
        writer.join()
    assert seen <= {"read", "unreadable", "empty", "damaged", "not_an_image"} and len(seen) > 1


def test_photo_that_goes_between_listing_and_reading(tmp_path, make_photo, monkeypatch):
    from lorakit.curate import scan

    make_photo("a.jpg", 1), make_photo("b.jpg", 2)
    listed = scan.look_into

    def list_then_remove(place, project):
        found = listed(place, project)
        (tmp_path / "photos" / "b.jpg").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(scan, "look_into", list_then_remove)
    assert set(status_of(tmp_path)) == {"a.jpg"}


@POSIX
def test_odd_names_stay_on_one_line_of_status(tmp_path, make_photo):
    from click.testing import CliRunner

    first = make_photo("new\nline.jpg", 1)
    shutil.copy(first, first.with_name("z\x1b[31m.jpg"))
    status_of(tmp_path)
    output = CliRunner().invoke(group, ["status", str(tmp_path / "project")]).output
    assert r"new\nline.jpg" in output and output.count(r"z\x1b[31m.jpg") == 2 and "\x1b" not in output
    assert [line.split()[1] for line in output.splitlines()[:2]] == ["reject", "keep"]
