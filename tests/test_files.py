"""Files and folders appear whole or not at all."""

import pytest

from lorakit import files
from lorakit.caption.readings import Readings
from lorakit.errors import os_error_in_words
from lorakit.project.decisions import Decisions
from lorakit.project.manifest import Manifest
from lorakit.text.composing import RawCaption


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def half(part):
        part.write_text("half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        files.write_whole(path, half)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def torn_by_safetensors(part):
    raise type("SafetensorError", (Exception,), {})("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    "name", ["whole", "folder", "until", "tensors", "manifest.journal", "manifest.jsonl", "decisions.jsonl", "readings.jsonl"]
)
def test_a_write_for_which_there_is_no_room_names_its_file_and_the_mend(tmp_path, name):
    """Python's error of a write has no name in it. A limit of a file's size is the nearest thing to a full disk that needs no disk."""
    resource = pytest.importorskip("resource")
    path, much = tmp_path / name, "x" * 5000

    def until():
        with files.until_whole(path) as part:
            part.write_text(much)

    book = Manifest(tmp_path)
    ways = {
        "whole": lambda: files.write_text(path, much),
        "folder": lambda: files.write_folder(path, lambda part: (part / "one").write_text(much)),
        "until": until,
        "tensors": lambda: files.write_whole(path, torn_by_safetensors),
        "manifest.journal": lambda: book.keep({"id": "a", "text": much}),
        "manifest.jsonl": lambda: book.replace([{"id": "a", "text": much}]),
        "decisions.jsonl": lambda: Decisions(tmp_path, {}).append([{"id": "a", "what": "text", "was": None, "now": much}], "command"),
        "readings.jsonl": lambda: Readings(tmp_path).keep([("key", "me", RawCaption(much), None)], 75),
    }
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError) as error:
            ways[name]()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    line = os_error_in_words(error.value)
    assert line.startswith(f"{path}: ") and ("ulimit -f" in line or "the disk is full" in line) and "goes on from here" in line
    ways[name]() if name != "tensors" else None
    assert name == "tensors" or (path.exists() and path.stat().st_size > 40)


def test_a_failed_folder_does_not_appear(tmp_path):
    def half(part):
        (part / "one").write_text("1")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        files.write_folder(tmp_path / "step_1", half)
    assert not (tmp_path / "step_1").exists()
    files.write_folder(tmp_path / "step_1", lambda part: (part / "one").write_text("1"))
    assert (tmp_path / "step_1" / "one").read_text() == "1"


def test_hashes_tell_content_apart(tmp_path):
    for name, content in (("a", b"x" * 3_000_000), ("b", b"x" * 3_000_000), ("c", b"x" * 2_999_999 + b"y")):
        (tmp_path / name).write_bytes(content)
    assert files.file_hash(tmp_path / "a") == files.file_hash(tmp_path / "b") != files.file_hash(tmp_path / "c")
    assert files.short_hash({"a": 1, "b": 2}) == files.short_hash({"b": 2, "a": 1}) != files.short_hash({"a": 2, "b": 1})
