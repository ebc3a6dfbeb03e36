"""Files and folders appear whole or not at all."""

import pytest

from lorakit import files


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
