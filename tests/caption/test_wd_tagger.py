"""The ONNX tagger: its parts everywhere, and a tiny model of its shape where onnx and onnxruntime are installed."""

import sys

import numpy as np
import pytest
from PIL import Image

import lorakit
from lorakit.caption.captioners import wd_tagger
from lorakit.caption.captioners.base import check_captioner, source_of
from lorakit.errors import LorakitError
from lorakit.project import stamps
from lorakit.settings import Caption

TAGS = "tag_id,name,category,count\n1,general,9,1\n2,1girl,0,9\n3,long_hair,0,5\n4,^_^,0,3\n5,hatsune_miku,4,2\n"


def test_tags_above_their_threshold_surest_first(tmp_path):
    (tmp_path / "selected_tags.csv").write_text(TAGS)
    names = wd_tagger.read_names(tmp_path / "selected_tags.csv")
    assert wd_tagger.choose(np.array([0.99, 0.5, 0.9, 0.34, 0.8]), names) == ("long hair", "1girl")
    assert wd_tagger.choose(np.array([0.1, 0.1, 0.1, 0.6, 0.9]), names) == ("hatsune miku", "^_^")


def test_picture_stands_on_a_white_square_in_bgr():
    pixels = wd_tagger.prepare(Image.new("RGB", (100, 50), (250, 0, 10)), 32)
    assert pixels.shape == (32, 32, 3)
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[16, 16].tolist() == [10, 0, 250]


def test_without_onnxruntime_the_mend_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as it is where it is not installed
    (tmp_path / "selected_tags.csv").write_text(TAGS)
    with pytest.raises(LorakitError, match=r"pip install \"lorakit\[onnx\]\""):
        check_captioner("wd_tagger", Caption(weights=str(tmp_path)))


@pytest.fixture
def tiny_tagger(tmp_path):
    """A folder with a model in the tagger's format, whose outputs are the mean blue, green and red of a picture."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto
    entry = helper.make_tensor_value_info("input", kind.FLOAT, ["n", 32, 32, 3])
    result = helper.make_tensor_value_info("output", kind.FLOAT, ["n", 3])
    scale = helper.make_tensor("scale", kind.FLOAT, [1], [1 / 255])
    axes = helper.make_tensor("axes", kind.INT64, [2], [1, 2])
    nodes = [
        helper.make_node("ReduceMean", ["input", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "scale"], ["output"]),
    ]
    graph = helper.make_graph(nodes, "tiny", [entry], [result], [scale, axes])
    folder = tmp_path / "tagger"
    folder.mkdir()
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), folder / "model.onnx")
    (folder / "selected_tags.csv").write_text("tag_id,name,category,count\n1,blue_sky,0,1\n2,green,0,1\n3,red,0,1\n")
    return folder


def test_tiny_model_tags_by_colour(tiny_tagger):
    read = wd_tagger.load(source_of(wd_tagger.CARD, str(tiny_tagger)), "cpu", Caption())
    found = read([Image.new("RGB", (64, 64), colour) for colour in ((255, 0, 0), (0, 0, 255), (0, 255, 0))])
    assert [reading.tags for reading in found] == [("red",), ("blue sky",), ("green",)]


def test_tagger_captions_a_project(tiny_tagger, make_photo, make_project):
    for name, colour in (("red", (230, 40, 60)), ("blue", (40, 60, 230))):
        grain = np.random.default_rng(0).normal(0, 12, (512, 640, 3))
        make_photo(f"{name}.png", image=Image.fromarray(np.clip(np.array(colour) + grain, 0, 255).astype(np.uint8)))
    project = make_project(**{"caption.captioner": "wd_tagger", "caption.weights": str(tiny_tagger), "select.everything": True})
    lorakit.walk(project, last="trigger")
    texts = {r["file"]: r["text"] for r in project.manifest.selected}
    assert texts["red.png"] == "zwx mug, red" and texts["blue.png"] == "zwx mug, blue sky"


def test_thresholds_are_settings_of_the_tagger_s_own(make_project, tmp_path):
    (tmp_path / "selected_tags.csv").write_text(TAGS)
    names = wd_tagger.read_names(tmp_path / "selected_tags.csv")
    assert wd_tagger.choose(np.array([0, 0.5, 0.9, 0.34, 0.8]), names, wd_tagger.Settings(0.6, 0.7)) == ("long hair", "hatsune miku")
    project = make_project(**{"caption.captioner": "wd_tagger"})
    record = {"hash": "a", "crop": {"box": [0, 0, 1, 1]}}
    before = stamps.caption(project, record)
    again = lorakit.open_project(project.folder, settings={"caption.wd_tagger.threshold": 0.35})
    assert stamps.caption(again, record) == before, "an own setting at its neutral value is as if it did not exist"
    other = lorakit.open_project(project.folder, settings={"caption.wd_tagger.threshold": 0.5})
    assert stamps.caption(other, record) != before
    imagenet = lorakit.open_project(project.folder, settings={"caption.captioner": "imagenet"})
    imagenet.keep_words()
    assert stamps.caption(imagenet, record) == stamps.caption(
        lorakit.open_project(project.folder, settings={"caption.wd_tagger.threshold": 0.7}), record
    )
