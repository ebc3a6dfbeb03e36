"""Datasets as Hugging Face has them: the pictures come out byte for byte, with their captions, and are read once."""

import json
import os
from pathlib import Path

import datasets
import pytest
from click.testing import CliRunner

import lorakit
from lorakit import new_project, open_project
from lorakit.cli import group, options
from lorakit.curate import hf_datasets
from lorakit.errors import LorakitError


@pytest.fixture
def write_table(tmp_path, make_photo):
    """write_table('data/train.parquet') writes a table of three pictures and their texts; returns its path and their bytes."""

    def write(name: str, column: str = "image", captions: str = "text", **columns):
        photos = [make_photo("a.jpg", 1, quality=91), make_photo("b.png", 2), make_photo("sub/a.jpg", 3, quality=93)]
        contents = [photo.read_bytes() for photo in photos]
        pictures = [{"bytes": data, "path": photo.name} for data, photo in zip(contents, photos)]
        texts = ["a red mug", None, "a blue mug"]
        table = datasets.Dataset.from_dict({column: pictures, captions: texts, **columns})
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        table.cast_column(column, datasets.Image()).to_parquet(str(path))
        return path, contents

    return write


def scanned(tmp_path, place):
    project = new_project(tmp_path / "project", place)
    lorakit.scan(project)
    return sorted(project.manifest, key=lambda record: record["file"])


def contents_of(records) -> list[bytes]:
    found = []
    for record in records:
        with open(record["path"], "rb") as file:
            found.append(file.read())
    return found


def test_parquet_file(tmp_path, write_table):
    path, contents = write_table("mugs.parquet")
    records = scanned(tmp_path, path)
    assert [r["file"] for r in records] == ["000002.jpg", "a.jpg", "b.png"]
    assert sorted(contents_of(records)) == sorted(contents)
    assert [r.get("sidecar", {}).get("text") for r in records] == ["a blue mug", "a red mug", None]


def test_folder_of_shards_beside_photos_and_other_tables(tmp_path, write_table, capsys):
    write_table("set/data/train-00000-of-00002.parquet"), write_table("set/data/train-00001-of-00002.parquet")
    (tmp_path / "photos" / "b.png").rename(tmp_path / "set" / "own.png")
    datasets.Dataset.from_dict({"text": ["no picture"]}).to_parquet(str(tmp_path / "set" / "words.parquet"))
    (tmp_path / "set" / "torn.parquet").write_bytes(b"PAR1 torn")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "set" / "pipe.parquet")
    records = scanned(tmp_path, tmp_path / "set")
    assert len(records) == 7 and len({r["file"] for r in records}) == 7
    told = capsys.readouterr().err
    assert "words.parquet: no column with pictures" in told and "torn.parquet: cannot be read as a dataset" in told


def test_arrow_as_save_to_disk_writes_it(tmp_path, write_table):
    path, contents = write_table("mugs.parquet")
    datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "hf")).save_to_disk(str(tmp_path / "saved"))
    assert sorted(contents_of(scanned(tmp_path, tmp_path / "saved"))) == sorted(contents)


@pytest.mark.parametrize("captions", ["caption", "en_text", "prompt"])
def test_columns_by_other_names_and_plain_bytes(tmp_path, make_photo, captions):
    photo = make_photo("a.jpg", 1).read_bytes()
    table = {"id": [1, 2], "jpg": [photo, photo + b" "], captions: ["a mug", "a cup"]}
    datasets.Dataset.from_dict(table).to_parquet(str(tmp_path / "t.parquet"))
    records = scanned(tmp_path, tmp_path / "t.parquet")
    assert [(r["file"], r["sidecar"]["text"]) for r in records] == [("000000.jpg", "a mug"), ("000001.jpg", "a cup")]


def test_second_scan_reads_no_table(tmp_path, write_table, monkeypatch):
    path, _ = write_table("mugs.parquet")
    before = scanned(tmp_path, path)
    monkeypatch.setattr(hf_datasets, "_open_table", lambda path: pytest.fail("read again"))
    project = open_project(tmp_path / "project")
    lorakit.scan(project)
    assert {r["id"] for r in project.manifest} == {r["id"] for r in before}


def test_copy_of_a_hub_repository_by_split_and_number(tmp_path, write_table):
    """What `fetch` does with a name, done on a local copy of such a repository."""
    write_table("repo/data/train-00000-of-00001.parquet"), write_table("repo/data/test-00000-of-00001.parquet")
    rows = hf_datasets.open_dataset(str(tmp_path / "repo"))
    assert rows.split == "train" and len(list(rows)) == 3
    (tmp_path / "out").mkdir()
    rows = hf_datasets._undecoded(hf_datasets.open_dataset(str(tmp_path / "repo"), split="test").take(1))
    hf_datasets._fill(tmp_path / "out", "hf://a/b", rows, tmp_path / "repo")
    (line,) = (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()
    assert json.loads(line) == {"file_name": "a.jpg", "text": "a red mug"}


def test_pictures_that_a_repository_keeps_as_files(tmp_path, make_photo):
    make_photo("train/a.jpg", 1), make_photo("train/b.jpg", 2)
    lines = [json.dumps({"file_name": name, "text": f"photo {name}"}) for name in ("a.jpg", "b.jpg")]
    (tmp_path / "photos" / "train" / "metadata.jsonl").write_text("\n".join(lines))
    (tmp_path / "out").mkdir()
    rows = hf_datasets._undecoded(hf_datasets.open_dataset(str(tmp_path / "photos")))
    hf_datasets._fill(tmp_path / "out", "hf://a/b", rows, tmp_path / "photos")
    assert (tmp_path / "out" / "a.jpg").read_bytes() == (tmp_path / "photos" / "train" / "a.jpg").read_bytes()
    assert "photo b.jpg" in (tmp_path / "out" / "metadata.jsonl").read_text()


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("hf://owner/name", ("owner/name", None, None, None, None)),
        ("hf://datasets/owner/name", ("owner/name", None, None, None, None)),
        ("hf://name:test", ("name", None, None, "test", None)),
        ("hf://owner/name/en@v1.0:train[:100]", ("owner/name", "en", "v1.0", "train", "100")),
    ],
)
def test_names_of_the_hub(name, parts):
    assert hf_datasets.HUB_NAME.fullmatch(name).groups() == parts


@pytest.mark.parametrize(
    ("name", "message"), [("hf://owner/name", "cannot be had from the hub"), ("hf://a/b:train[5]", "no name of a dataset")]
)
def test_hub_name_that_is_of_no_use_is_one_line(tmp_path, name, message):
    """The tests run offline, as conftest.py says to the hub's library."""
    project = new_project(tmp_path / "project", name)
    with pytest.raises(LorakitError, match=message) as raised:
        lorakit.scan(project)
    assert str(raised.value).startswith(name) and "\n" not in str(raised.value)


def test_name_is_kept_for_the_next_run_and_names_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(group, ["curate", "hf://owner/mugs@main:train[:9]", "--until", "scan"])
    assert isinstance(done.exception, LorakitError) and "Traceback" not in done.output
    assert not (tmp_path / "mugs-lora").exists()  # a refused start leaves nothing
    assert options.default_folder("hf://owner/mugs@main:train[:9]") == Path("mugs-lora")
    new_project(tmp_path / "mugs-lora", "hf://owner/mugs@main:train[:9]").keep_words()
    assert open_project(tmp_path / "mugs-lora").photos == ("hf://owner/mugs@main:train[:9]",)


def test_imagefolder_with_its_metadata_above(tmp_path, make_photo):
    make_photo("train/a.jpg", 1), make_photo("test/a.jpg", 2), make_photo("b.jpg", 3)
    lines = [
        {"file_name": "train/a.jpg", "text": "first"},
        {"file_name": "test/a.jpg", "text": "second"},
        {"file_name": "b.jpg", "text": "third"},
    ]
    datasets.Dataset.from_list(lines).to_parquet(str(tmp_path / "photos" / "metadata.parquet"))
    told = {r["file"]: r["sidecar"]["text"] for r in scanned(tmp_path, tmp_path / "photos")}
    assert told == {"train/a.jpg": "first", "test/a.jpg": "second", "b.jpg": "third"}


@pytest.mark.parametrize(
    "where", ["absolute", "above", "link", "/dev/zero", "http://127.0.0.1:9/a.jpg", "file:///etc/hostname", "text.jpg"]
)
def test_a_row_opens_nothing_outside_the_folder_of_its_table(tmp_path, make_photo, where):
    """Nor what lies in it and is no picture."""
    secret, folder = make_photo("secret.jpg", 1), tmp_path / "set"
    folder.mkdir()
    (folder / "text.jpg").write_text("no picture")
    inside = folder / "inside.jpg"
    make_photo("b.jpg", 2).rename(inside)
    if where == "link":
        os.symlink(secret, folder / "link")
    path = {"absolute": str(secret), "above": "../photos/secret.jpg"}.get(where, where)
    pictures = [{"bytes": None, "path": path}, {"bytes": None, "path": "inside.jpg"}, {"bytes": b"key", "path": "k.jpg"}]
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"image": pictures}), folder / "t.parquet")
    unpacked = hf_datasets.unpack_table(folder / "t.parquet", tmp_path / "cache")
    assert [p.read_bytes() for p in unpacked.glob("*.jpg")] == [inside.read_bytes()]


@pytest.mark.parametrize("path", ["/etc/hostname", "hf://datasets/a/other/x.jpg", "hf://datasets/a/b/../../c/d/x.jpg", "http://a/b.jpg"])
def test_a_row_of_the_hub_opens_only_files_of_its_dataset(path):
    assert hf_datasets._read_from_hub(path, "a/b") is None


@pytest.mark.parametrize("name", ["set [1].parquet", "a*b.parquet", "a?{b}.parquet"])
def test_names_of_tables_are_no_patterns(tmp_path, write_table, name):
    path, contents = write_table(name)
    write_table("axxb.parquet")
    assert len(scanned(tmp_path, path)) == len(contents)


def test_a_row_that_is_no_text_costs_itself_only(tmp_path, make_photo, capsys):
    import pyarrow
    from pyarrow import parquet

    data = [make_photo("a.jpg", 1).read_bytes(), make_photo("b.jpg", 2).read_bytes()]
    texts = pyarrow.array([b"a\xff", b"a mug"], pyarrow.binary()).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"image": data, "text": texts}), tmp_path / "t.parquet")
    assert [r["sidecar"]["text"] for r in scanned(tmp_path, tmp_path / "t.parquet")] == ["a mug"]
    assert "t.parquet, row 0: cannot be read" in capsys.readouterr().err
