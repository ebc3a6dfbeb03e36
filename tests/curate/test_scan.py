"""Scan finds every photo once, whatever lies beside it, and knows photos again by their content."""

import io
import os
import shutil
import sys
import tarfile
import zipfile

import pytest
from click.testing import CliRunner

import lorakit
from lorakit import files, new_project, pipeline
from lorakit.cli import group
from lorakit.errors import LorakitError

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")


@pytest.fixture
def scanned(tmp_path, make_photo):
    """scanned() scans tmp_path/photos (where `good.jpg` lies) and returns the project."""
    make_photo("good.jpg")

    def scan(**settings):
        folder = tmp_path / "project"
        project = (
            lorakit.open_project(folder, settings=settings)
            if folder.exists()
            else new_project(folder, tmp_path / "photos", settings=settings)
        )
        lorakit.scan(project)
        return project

    return scan


def files_of(project) -> list[str]:
    return sorted(r["file"] for r in project.manifest)


def test_photos_are_found_by_content_and_in_sub_folders(scanned, make_photo, tmp_path):
    make_photo("deep/er/UPPER.JPG", 1)
    make_photo("a.png", 2).rename(tmp_path / "photos" / "no_ending")
    assert files_of(scanned()) == ["deep/er/UPPER.JPG", "good.jpg", "no_ending"]


def test_sub_folders_can_be_left_out(scanned, make_photo):
    make_photo("sub/a.jpg", 1)
    assert files_of(scanned(**{"scan.recursive": False})) == ["good.jpg"]


def test_litter_is_passed_over(scanned, make_photo, tmp_path):
    make_photo(".hidden.jpg", 1)
    make_photo(".thumbnails/a.jpg", 2)
    make_photo("__MACOSX/a.jpg", 3)
    make_photo("@eaDir/a.jpg/thumb.jpg", 4)
    make_photo("b.jpg", 5).rename(tmp_path / "photos" / "b.jpg.crdownload")
    for name in ("Thumbs.db", "notes.txt", "video.mp4"):
        (tmp_path / "photos" / name).write_bytes(b"\0\0\0\x18ftypmp42" * 20)
    assert files_of(scanned()) == ["good.jpg"]


@POSIX
def test_pipes_loops_and_dangling_links_neither_hang_nor_count_twice(scanned, tmp_path):
    photos = tmp_path / "photos"
    os.mkfifo(photos / "pipe.jpg")
    os.symlink(photos, photos / "loop", target_is_directory=True)
    os.symlink("self.jpg", photos / "self.jpg")
    os.symlink("nowhere.jpg", photos / "dangling.jpg")
    project = scanned()
    lorakit.check(project)
    found = {p["file"]: p for p in pipeline.status(project)["photos"]}
    assert set(found) == {"good.jpg", "pipe.jpg", "self.jpg", "dangling.jpg"}
    assert found["good.jpg"]["verdict"] == "keep"
    assert found["pipe.jpg"]["reasons"][0]["reason"] == "not_an_image"
    assert found["dangling.jpg"]["reasons"][0]["reason"] == "unreadable"


@POSIX
@pytest.mark.parametrize("name", ["new\nline.jpg", "x" * 250 + ".jpg", " space .jpg", "[red] %s {0}.jpg", "\udcff\udcfe.jpg"])
def test_odd_names_are_kept(scanned, tmp_path, make_photo, name):
    if sys.platform == "darwin" and "\udcff" in name:
        pytest.skip("macOS refuses names that are not UTF-8")
    os.rename(make_photo("b.jpg", 1), tmp_path / "photos" / name)
    assert files_of(lorakit.open_project(scanned().folder)) == sorted([name, "good.jpg"])


def test_photos_that_take_each_others_names_keep_their_records(scanned, tmp_path, make_photo):
    """Renumbered: what was decided of a photo goes with it, and is not lost because another has its former name."""
    make_photo("b.jpg", 1), make_photo("c.jpg", 2), shutil.copy(tmp_path / "photos" / "c.jpg", tmp_path / "photos" / "copy.jpg")
    before = {r["file"]: r["id"] for r in scanned().manifest}
    folder = tmp_path / "photos"
    for old, new in (("good", "x"), ("b", "good"), ("c", "b"), ("x", "c")):
        (folder / f"{old}.jpg").rename(folder / f"{new}.jpg")
    make_photo("new.jpg", 3)
    now = {r["file"]: r["id"] for r in scanned().manifest}
    assert [now[name] for name in ("good.jpg", "b.jpg", "c.jpg", "copy.jpg")] == [
        before[n] for n in ("b.jpg", "c.jpg", "good.jpg", "copy.jpg")
    ]
    assert len(now) == 5 and now["new.jpg"] not in before.values()


def test_renamed_photo_keeps_its_record_and_a_removed_one_comes_back(scanned, tmp_path):
    project = scanned()
    lorakit.check(project)
    photo = tmp_path / "photos" / "good.jpg"
    photo.rename(photo.with_name("other.jpg"))
    (renamed,) = scanned().manifest
    assert renamed["file"] == "other.jpg" and "measures" in renamed
    content = photo.with_name("other.jpg").read_bytes()
    photo.with_name("other.jpg").unlink()
    with pytest.raises(LorakitError, match="no photos in"):
        scanned()
    photo.write_bytes(content)
    (again,) = scanned().manifest
    assert again["id"] == renamed["id"] and "measures" in again


def test_changed_photo_is_a_new_one(scanned, make_photo):
    (before,) = scanned().manifest
    make_photo("good.jpg", 7)
    (after,) = scanned().manifest
    assert after["id"] != before["id"] and "measures" not in after


def put_in_place(path, data: bytes) -> None:
    """As a copy that keeps the time does."""
    facts = path.stat()
    assert len(data) == facts.st_size
    path.write_bytes(data)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


@POSIX
def test_a_photo_in_place_of_another_of_its_size_and_time_is_a_new_one_and_rights_are_no_photo(scanned, make_photo, monkeypatch):
    path = make_photo("good.jpg")
    former = scanned()
    lorakit.check(former)
    (before,) = former.manifest
    other = path.read_bytes() + b"x"
    path.write_bytes(other)
    scanned()
    put_in_place(path, other[:-1] + b"y")
    (now,) = scanned().manifest
    assert now["hash"] == files.file_hash(path) not in (before["hash"], "") and now["file"] == "good.jpg"

    hashed, usual = [], files.file_hash
    monkeypatch.setattr(files, "file_hash", lambda place: hashed.append(place.name) or usual(place))
    project = scanned()
    lorakit.check(project)
    assert "good.jpg" not in hashed
    done = dict(next(iter(project.manifest))["done"])
    path.chmod(0o600)
    again = scanned()
    assert next(iter(again.manifest))["done"] == done and "good.jpg" in hashed  # looked at, found to be the same
    hashed.clear()
    record = dict(next(iter(again.manifest)))
    del record["changed"]  # as a former version left it
    again.manifest.replace([record])
    path.chmod(0o644)
    (kept,) = scanned().manifest
    assert "good.jpg" not in hashed and kept["done"] == done and kept["changed"] == path.stat().st_ctime_ns


def test_exact_copies_have_records_of_their_own(scanned, tmp_path):
    photos = tmp_path / "photos"
    (photos / "copy.jpg").write_bytes((photos / "good.jpg").read_bytes())
    ids = sorted(r["id"] for r in scanned().manifest)
    assert len(set(ids)) == 2 and ids[1] == ids[0] + "~2"


def test_several_folders_are_told_apart(tmp_path, make_photo):
    make_photo("one/a.jpg", 1)
    make_photo("two/a.jpg", 2)
    project = new_project(tmp_path / "project", [tmp_path / "photos/one", tmp_path / "photos/two"])
    lorakit.scan(project)
    assert files_of(project) == ["one/a.jpg", "two/a.jpg"]


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz"])
def test_archive_is_unpacked_once_and_its_odd_members_are_not(tmp_path, make_photo, ending):
    photo = make_photo("a.jpg", 1)
    path = tmp_path / f"photos.{ending}"
    members = {
        "sub/a.jpg": photo.read_bytes(),
        "sub/a.txt": b"a mug",
        "../outside.jpg": photo.read_bytes(),
        "notes.md": b"no photo",
    }
    if ending == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz" if ending == "tar.gz" else "w") as archive:
            for name, content in members.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    project = new_project(tmp_path / "project", path)
    lorakit.scan(project)
    (record,) = project.manifest
    assert record["file"] == "sub/a.jpg" and record["sidecar"]["text"] == "a mug"
    assert not list(tmp_path.rglob("outside.jpg"))
    before = os.stat(record["path"]).st_mtime_ns
    lorakit.scan(project)
    assert os.stat(record["path"]).st_mtime_ns == before


@POSIX
@pytest.mark.parametrize("as_address", [False, True])
def test_an_archive_in_place_of_another_of_its_size_and_time_is_read_anew(tmp_path, make_photo, as_address):
    def tar(data: bytes) -> bytes:
        with tarfile.open(fileobj=(out := io.BytesIO()), mode="w") as opened:
            for name, content in (("p.jpg", data), ("p.jpg.txt", b"a mug")):
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                opened.addfile(entry, io.BytesIO(content))
        return out.getvalue()

    photo = make_photo("good.jpg").read_bytes() + b"x"
    path = tmp_path / "set.tar"
    path.write_bytes(tar(photo))
    place = f"file://{path}" if as_address else path
    lorakit.scan(new_project(tmp_path / "project", place))
    put_in_place(path, tar(photo[:-1] + b"y"))
    project = lorakit.open_project(tmp_path / "project")
    lorakit.scan(project)
    (tmp_path / "other.jpg").write_bytes(photo[:-1] + b"y")
    (record,) = project.manifest
    assert record["hash"] == files.file_hash(tmp_path / "other.jpg") and record["sidecar"]["text"] == "a mug"


def test_torn_archive_is_one_line(tmp_path, make_photo):
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(make_photo("a.jpg", 1), "a.jpg")
    data = bytearray(path.read_bytes())
    data[200:4000] = bytes(3800)
    path.write_bytes(data)
    with pytest.raises(LorakitError, match="cannot be unpacked"):
        lorakit.scan(new_project(tmp_path / "project", path))


def test_list_of_photos(tmp_path, make_photo):
    make_photo("a.jpg", 1), make_photo("b.jpg", 2), make_photo("sub/c.jpg", 3)
    path = tmp_path / "lists" / "list.txt"
    path.parent.mkdir()
    (path.parent / "d.jpg").write_bytes((tmp_path / "photos" / "a.jpg").read_bytes())
    path.write_text(f"d.jpg\n\n{tmp_path / 'photos/sub/c.jpg'}\n")
    project = new_project(tmp_path / "project", path)
    lorakit.scan(project)
    assert [os.path.basename(file) for file in files_of(project)] == ["d.jpg", "c.jpg"]
    path.write_text("gone.jpg\n")
    with pytest.raises(LorakitError, match=r"list.txt, line 1"):
        lorakit.scan(project)


def test_list_on_stdin(tmp_path, make_photo):
    photo = make_photo("a.jpg", 1)
    make_photo("b.jpg", 2)
    words = ["curate", "-", "-o", str(tmp_path / "project"), "--until", "scan"]
    result = CliRunner().invoke(group, words, input=f"{photo}\n")
    assert result.exit_code == 0, result.output
    assert [os.path.basename(r["file"]) for r in lorakit.open_project(tmp_path / "project").manifest] == ["a.jpg"]


def test_interrupted_scan_reads_no_photo_twice(scanned, make_photo, monkeypatch):
    for number in range(8):
        make_photo(f"photo_{number}.jpg", seed=number)
    read, whole_hash = [], files.file_hash

    def hash_until_interrupted(path):
        if len(read) == 5:
            raise KeyboardInterrupt
        read.append(path)
        return whole_hash(path)

    monkeypatch.setattr(files, "file_hash", hash_until_interrupted)
    with pytest.raises(KeyboardInterrupt):
        scanned()
    monkeypatch.setattr(files, "file_hash", lambda path: read.append(path) or whole_hash(path))
    assert len(scanned().manifest) == 9
    assert len(read) == len(set(read)) == 9


def test_photos_named_one_by_one_and_in_their_folder_count_once(tmp_path, make_photo):
    first, second = make_photo("a.jpg", 1), make_photo("b.jpg", 2)
    project = new_project(tmp_path / "project", [first, second, tmp_path / "photos"])
    lorakit.scan(project)
    assert [os.path.basename(file) for file in files_of(project)] == ["a.jpg", "b.jpg"]


@POSIX
def test_linked_folder_outside_is_said(scanned, make_photo, tmp_path, capsys):
    make_photo("../elsewhere/b.jpg", 1)
    os.symlink(tmp_path / "elsewhere", tmp_path / "photos" / "link")
    os.symlink(tmp_path / "photos", tmp_path / "photos" / "loop")
    assert files_of(scanned()) == ["good.jpg"]
    told = capsys.readouterr().err
    assert "link: a link to another folder is not followed" in told and "loop" not in told


@POSIX
def test_list_with_a_name_that_is_no_utf8(tmp_path, make_photo):
    odd = tmp_path / "photos" / "\udcff.jpg"
    os.rename(make_photo("a.jpg", 1), odd)
    words = ["run", "-", "-o", str(tmp_path / "project"), "--base", "mini", "--until", "scan"]
    result = CliRunner().invoke(group, words, input=os.fsencode(f"{odd}\n"))
    assert result.exit_code == 0, result.output
    assert len(lorakit.open_project(tmp_path / "project").manifest) == 1
