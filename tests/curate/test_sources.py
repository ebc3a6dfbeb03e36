"""Archives: a member that cannot be had costs itself only, and damage is never silent."""

import gzip
import io
import tarfile
import zipfile

import pytest

from lorakit.curate import sources
from lorakit.errors import LorakitError


def names(folder) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))


def write_tar(path, *members):
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def test_damaged_member_of_a_zip_is_passed_over(tmp_path, capsys):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bad\n.jpg", b"X" * 500), archive.writestr("good.jpg", b"Y" * 500)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"X" * 500, b"X" * 499 + b"Z"))
    assert names(sources.unpack(path, tmp_path / "cache")) == ["good.jpg"]
    told = capsys.readouterr().err
    assert "bad\\n.jpg: cannot be unpacked" in told and told.count("\n") == 1


def test_members_that_no_file_system_takes_are_passed_over(tmp_path):
    write_tar(tmp_path / "a.tar", ("x" * 300 + ".jpg", b"1"), ("a", b"1"), ("a/b.jpg", b"1"), (".", b"1"), ("good.jpg", b"1"))
    assert names(sources.unpack(tmp_path / "a.tar", tmp_path / "cache")) == ["a", "good.jpg"]


def test_wrong_sum_of_a_tar_gz_is_found(tmp_path):
    write_tar(tmp_path / "a.tar.gz", ("a.jpg", b"1" * 5000))
    data = bytearray((tmp_path / "a.tar.gz").read_bytes())
    data[-6] ^= 1
    (tmp_path / "a.tar.gz").write_bytes(data)
    with pytest.raises(gzip.BadGzipFile), gzip.open(tmp_path / "a.tar.gz") as whole:
        whole.read()
    with pytest.raises(LorakitError, match="cannot be unpacked"):
        sources.unpack(tmp_path / "a.tar.gz", tmp_path / "cache")


def test_tar_with_a_damaged_header_in_the_middle_is_said(tmp_path, capsys):
    write_tar(tmp_path / "a.tar", ("a.jpg", b"1"), ("b.jpg", b"1"))
    data = bytearray((tmp_path / "a.tar").read_bytes())
    data[1024 + 148 : 1024 + 156] = b"garbage!"
    (tmp_path / "a.tar").write_bytes(data)
    assert names(sources.unpack(tmp_path / "a.tar", tmp_path / "cache")) == ["a.jpg"]
    assert "damaged behind its first 1 members" in capsys.readouterr().err


def test_members_larger_than_any_photo_are_passed_over(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sources, "MAX_BYTES", 1000)
    write_tar(tmp_path / "a.tar", ("film.mp4", b"1" * 1001), ("a.jpg", b"1"))
    assert names(sources.unpack(tmp_path / "a.tar", tmp_path / "cache")) == ["a.jpg"]
    assert "film.mp4" in capsys.readouterr().err
