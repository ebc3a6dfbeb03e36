"""The curated folder: names that never collide, texts that stay with their photos, readable by `datasets`."""

import json
from pathlib import Path

import pytest

import lorakit
from lorakit import pipeline
from lorakit.curate.dataset import give_names
from lorakit.project.manifest import finish


@pytest.fixture
def written(curated):
    """written(**settings) writes the dataset of the six photos, each with a text that names its file."""

    def write(**settings):
        project = curated("crop", **{"train.resolution": 64, "train.bucket_step": 16, **settings})
        project.manifest.keep(*(finish(r, "trigger", "by the test", text=f"zwx of {r['file']}") for r in project.manifest.selected))
        lorakit.dataset(project)
        return project

    return write


def names_of(*files: str) -> list[str]:
    return list(give_names([{"id": str(n), "file": file} for n, file in enumerate(files)]).values())


@pytest.mark.parametrize(
    "files",
    [("a.jpg", "a.png", "a.webp"), ("a.jpg", "A.JPG"), ("x/a.jpg", "y/a.jpg", "x_a.jpg"), ("a.jpg", "a_2.jpg", "a.png"),
     ("...jpg", "___.jpg"), ("ä.jpg", "Ä.jpg"), ("a b.jpg", "a_b.jpg")],
)  # fmt: skip
def test_names_never_collide_even_where_case_does_not_count(files):
    names = names_of(*files)
    assert len({name.lower() for name in names}) == len(files) and all(names)


def test_photo_keeps_the_name_that_it_was_written_with():
    first, second = {"id": "1", "file": "a.jpg", "dataset": {"file": "a_2.png"}}, {"id": "2", "file": "a.png"}
    assert give_names([second, first]) == {"1": "a_2", "2": "a"}
    assert give_names([first, {**first, "id": "3"}]) == {"1": "a_2", "3": "a"}  # a line that was doubled by hand


def test_pictures_texts_and_metadata_belong_together(written, make_photo):
    make_photo("photo_0.png", 40)
    make_photo("sub/photo_0.jpg", 41)
    make_photo("PHOTO_0.JPG.jpg", 42)
    project = written()
    pictures = sorted(project.dataset_folder.glob("*.png"))
    assert len(pictures) == 9
    lines = [json.loads(line) for line in (project.dataset_folder / "metadata.jsonl").read_text().splitlines()]
    assert sorted(line["file_name"] for line in lines) == [p.name for p in pictures]
    for line in lines:
        assert line["text"] == f"zwx of {line['source']}"
        assert (project.dataset_folder / line["file_name"]).with_suffix(".txt").read_text().strip() == line["text"]


@pytest.mark.parametrize("format", ["png", "jpg"])
def test_datasets_loads_the_folder(written, format, tmp_path):
    datasets = pytest.importorskip("datasets")
    project = written(**{"dataset.format": format})
    loaded = datasets.load_dataset("imagefolder", data_dir=str(project.dataset_folder), cache_dir=str(tmp_path / "hf"), split="train")
    assert len(loaded) == 6
    assert {row["text"] for row in loaded} == {f"zwx of photo_{n}.jpg" for n in range(6)}
    assert all(row["image"].width * row["image"].height <= 64 * 64 for row in loaded)


def test_dropped_photo_leaves_and_strangers_stay(written, tmp_path):
    project = written()
    (project.dataset_folder / "mine.txt").write_text("not lorakit's")
    dropped = project.manifest.selected[0]
    project.manifest.keep({**dropped, "select": {"selected": False, "reason": "test"}})
    lorakit.dataset(project)
    assert not (project.dataset_folder / dropped["dataset"]["file"]).exists()
    assert (project.dataset_folder / "mine.txt").exists() and len(list(project.dataset_folder.glob("*.png"))) == 5
    assert (tmp_path / "photos" / dropped["file"]).is_file()


def test_photo_that_is_gone_by_now_is_left_out_and_said(written, curated, tmp_path, capsys):
    project = curated("crop", **{"train.resolution": 64, "train.bucket_step": 16})
    project.manifest.keep(*(finish(r, "trigger", "by the test", text="zwx") for r in project.manifest.selected))
    (tmp_path / "photos" / "photo_2.jpg").unlink()
    lorakit.dataset(project)
    assert "photo_2.jpg: left out of the dataset" in capsys.readouterr().err
    assert len(list(project.dataset_folder.glob("*.png"))) == 5


def test_a_photo_put_in_place_of_another_has_its_picture_and_text_in_the_dataset(written, make_photo):
    """Both have one name: what is removed of the one that has gone is not what was written for the one that came."""
    project = written()
    former, before = project.manifest.selected[2], {path.name: path.read_bytes() for path in project.dataset_folder.iterdir()}
    make_photo(former["file"], 77)
    pipeline.walk(project, last="crop")
    project.manifest.keep(*(finish(r, "trigger", "by the test", text="zwx anew") for r in project.manifest.selected))
    lorakit.dataset(project)
    now = {path.name: path.read_bytes() for path in project.dataset_folder.iterdir()}
    picture = former["dataset"]["file"]
    assert now.keys() == before.keys() and [name for name in now if name.endswith(".png") and now[name] != before[name]] == [picture]
    assert (project.dataset_folder / picture).with_suffix(".txt").read_text() == "zwx anew\n"


def test_a_photo_that_cannot_be_cut_anew_leaves_nothing_of_before(written, tmp_path):
    """Training, report and handover take all that has files there."""
    project = written()
    lost = project.manifest.selected[2]
    (tmp_path / "photos" / lost["file"]).unlink()
    project.manifest.keep(*({**r, "crop": {"box": [0, 0, 64, 64], "bucket": [64, 64]}} for r in project.manifest.selected))
    lorakit.dataset(project)
    assert "dataset" in project.manifest[lost["id"]]["failed"] and not project.manifest[lost["id"]]["dataset"]
    assert (
        not list(project.dataset_folder.glob(f"{Path(lost['dataset']['file']).stem}.*"))
        and len(list(project.dataset_folder.glob("*.png"))) == 5
    )
    assert lost["dataset"]["file"] not in (project.dataset_folder / "metadata.jsonl").read_text()


@pytest.mark.parametrize("letter", ["a", "é", "한"])
def test_long_names_are_cut_and_still_differ(letter):
    folder = "Four days in the hills with everybody/" + letter * 70
    names = names_of(f"{folder}/{letter * 80}_0.jpg", f"{folder}/{letter * 80}_1.jpg", "short.jpg")
    assert len(set(names)) == 3 and names[2] == "short"
    assert all(len(f".{name}.png.part".encode()) < 255 for name in names)
