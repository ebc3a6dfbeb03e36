"""Taggers: tiny ONNX models in the layouts of those that people use, whose outputs are the mean colours of a picture, and their lists of tags."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

import lorakit
from lorakit import lookup
from lorakit.caption import tagger_files
from lorakit.caption.captioners import wd_tagger
from lorakit.caption.captioners.base import as_card_says, card_of, check_captioner, source_of
from lorakit.caption.tagger_files import HALF, IMAGENET, Tag, TaggerFiles
from lorakit.errors import LorakitError
from lorakit.project import stamps
from lorakit.settings import Caption
from lorakit.text.answers import NoCaption
from lorakit.text.composing import RawCaption, compose
from lorakit.text.words import spaced_tag

TAGS = "tag_id,name,category,count\n1,general,9,1\n2,1girl,0,9\n3,long_hair,0,5\n4,^_^,0,3\n5,hatsune_miku,4,2\n"
WD = "tag_id,name,category,count\n1,blue_sky,0,1\n2,green,0,1\n3,red,0,1\n"
RGB = "name,category\nred,0\ngreen,0\nblue_sky,0\n"
RED, GREEN, BLUE = (Image.new("RGB", (64, 64), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255)))


def files_of(folder, text, name="selected_tags.csv"):
    (folder / name).write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return TaggerFiles(folder / "model.onnx", tagger_files.read_tags(folder / name), name, tagger_files._thresholds_in(folder))


def test_tags_above_their_threshold_counts_and_names_first(tmp_path):
    files = files_of(tmp_path, TAGS)
    assert wd_tagger.choose(np.array([0.99, 0.5, 0.9, 0.34, 0.8]), files) == ("1girl", "long hair")
    assert wd_tagger.choose(np.array([0.1, 0.1, 0.1, 0.6, 0.9]), files) == ("hatsune miku", "^_^")
    own = wd_tagger.Settings(0.6, 0.7)
    assert wd_tagger.choose(np.array([0, 0.5, 0.9, 0.34, 0.8]), files, own) == ("hatsune miku", "long hair")


def test_categories_are_chosen_and_of_ratings_the_surest(tmp_path):
    text = "name,category\nsafe,rating\nexplicit,9\nred,general\nmiku,character\nvocaloid,series\nsome_one,artist\nabsurdres,meta\nfox,species\n"
    files, sure = files_of(tmp_path, text), np.full(8, 0.9)
    assert wd_tagger.choose(sure, files) == ("miku", "vocaloid", "red", "fox")
    assert wd_tagger.choose(sure - [0.2, 0.1, 0, 0, 0, 0, 0, 0], files, wd_tagger.Settings(categories=("general", "rating"))) == (
        "red",
        "explicit",
    )
    assert wd_tagger.choose(sure, files, wd_tagger.Settings(thresholds=("copyright=0.95",))) == ("miku", "red", "fox")
    for wrong in (
        {"caption.wd_tagger.categories": ["generall"]},
        {"caption.wd_tagger.thresholds": {"general": 3}},
        {"caption.wd_tagger.thresholds": {"x": 0.1}},
    ):
        with pytest.raises(LorakitError, match="wd_tagger"):
            lorakit.settings.resolve([("--set", wrong)])


def test_thresholds_come_from_the_model_s_own_files_until_a_person_says_others(tmp_path):
    (tmp_path / "thresholds.csv").write_text("category,name,threshold\n0,general,0.2\n4,character,0.6\n")
    files = files_of(tmp_path, "name,category,best_threshold\nab_cd,0,\nde_fg,0,0.5\nmiku,4,\n")
    assert wd_tagger.choose(np.array([0.25, 0.45, 0.65]), files) == ("miku", "ab cd")
    assert wd_tagger.choose(np.array([0.25, 0.45, 0.65]), files, wd_tagger.Settings(threshold=0.4)) == ("miku", "de fg")
    (tmp_path / "thresholds.csv").unlink()
    (tmp_path / "pr_thresholds.json").write_text('{"micro": {"pr_breakeven": {"threshold": 0.79}}}')
    assert tagger_files._thresholds_in(tmp_path) == {"general": 0.79}
    (tmp_path / "pr_thresholds.json").write_text('{"general": 0.3, "characters": 0.8, "x": [1]}')
    assert tagger_files._thresholds_in(tmp_path) == {"general": 0.3, "character": 0.8}
    camie = as_card_says("camie_tagger", card_of("camie_tagger"), lorakit.settings.resolve([]).caption)
    assert (camie.wd_tagger.threshold, camie.wd_tagger.character_threshold) == (0.61, 0.61)


@pytest.mark.parametrize(
    ("name", "text", "tags"),
    [
        ("selected_tags.csv", TAGS, [Tag("general", "rating"), Tag("1girl"), Tag("long_hair"), Tag("^_^"), Tag("hatsune_miku", "character")]),
        ("selected_tags.csv", "tag_id,tag,category\n0,<PAD>,0\n1,<UNK>,0\n2,rating:safe,0\n3,a_b,4\n",
         [Tag("", "invalid"), Tag("", "invalid"), Tag("safe", "rating"), Tag("a_b", "character")]),
        ("selected_tags.csv", "0,1girl,0\n1,miku,4\n", [Tag("1girl"), Tag("miku", "character")]),
        ("selected_tags.csv", "name,category\nfox,5\nsolo,0\nsome,7\n", [Tag("fox", "species"), Tag("solo"), Tag("some", "meta")]),
        ("selected_tags.csv", "name,category\nhighres,5\nsolo,0\n", [Tag("highres", "meta"), Tag("solo")]),
        ("tag_mapping.json", {"1": {"tag": "a", "category": "Character"}, "0": {"tag": "b", "category": "General"}}, [Tag("b"), Tag("a", "character")]),
        ("model_vocabulary.json", {"idx_to_tag": {"0": "b", "1": "a"}, "tag_to_category": {"a": "Copyright"}}, [Tag("b"), Tag("a", "copyright")]),
        ("x-metadata.json", {"dataset_info": {"tag_mapping": {"idx_to_tag": {"0": "b", "2": "rating_safe"}, "tag_to_category": {"b": "artist"}}}},
         [Tag("b", "artist"), Tag("", "invalid"), Tag("safe", "rating")]),
        ("vocabulary.json", {"tag_to_index": {"a": 1, "b": 0}}, [Tag("b"), Tag("a")]),
        ("tags.json", {"b": 0, "a": 1}, [Tag("b"), Tag("a")]),
        ("tags.json", ["b", "a"], [Tag("b"), Tag("a")]),
    ],
)  # fmt: skip
def test_lists_of_tags_are_read_in_every_form(tmp_path, name, text, tags):
    assert files_of(tmp_path, text, name).tags == tags


@pytest.mark.parametrize("text", ["{}", "[]", "", '{"a": "b"}', '{"0": {"x": 1}}', "{"])
def test_a_list_that_names_no_tags_is_refused_in_one_line(tmp_path, text):
    for name in ("tags.json", "selected_tags.csv") if not text else ("tags.json",):
        with pytest.raises(LorakitError, match="names no tags|no list of tags"):
            files_of(tmp_path, text, name)


@pytest.mark.parametrize(
    ("name", "tags", "shape", "kind", "sight"),
    [
        ("selected_tags.csv", TAGS, ["n", 448, 448, 3], "tensor(float)", {"side": 448, "channels_first": False, "bgr": True, "norm": None}),
        (
            "selected_tags.csv",
            TAGS,
            [1, 3, 448, 448],
            "tensor(float)",
            {"norm": HALF, "bgr": False, "pad": (255, 255, 255)},
        ),  # WD's of 2026
        ("selected_tags.csv", RGB, ["n", 3, 448, 448], "tensor(float)", {"norm": HALF, "pad": None}),  # PixAI stretches
        (
            "tag_mapping.json",
            {"0": {"tag": "a", "category": "x"}},
            ["n", 3, "h", "w"],
            "tensor(float)",
            {"side": 448, "bgr": True, "norm": HALF},
        ),
        (
            "model_vocabulary.json",
            {"idx_to_tag": {"0": "a"}},
            [1, 3, 384, 384],
            "tensor(float)",
            {"side": 384, "bgr": False, "norm": HALF, "pad": None},
        ),
        ("x-metadata.json", {"idx_to_tag": {"0": "a"}}, [1, 3, 512, 512], "tensor(float)", {"norm": IMAGENET, "pad": (124, 116, 104)}),
        ("selected_tags.csv", TAGS, [1, 448, 448, 3], "tensor(float16)", {"dtype": "float16", "bgr": True}),
    ],
)
def test_how_a_picture_goes_in_is_found_out(tmp_path, name, tags, shape, kind, sight):
    found = tagger_files.sight_of(files_of(tmp_path, tags, name), shape, kind)
    assert {key: getattr(found, key) for key in sight} == sight


@pytest.mark.parametrize(
    ("name", "beside", "sight"),
    [
        ("preprocess.json", {"stages": [{"type": "resize", "size": [448, 448]}, {"type": "normalize", "mean": [0.5] * 3, "std": [0.5] * 3}]},
         {"side": 448, "pad": None}),
        ("preprocess.json", {"test": [{"type": "pad_to_size", "size": [512, 512], "background_color": "white"}, {"type": "resize", "size": 384},
                                      {"type": "normalize", "mean": [0.1] * 3, "std": [0.2] * 3}]}, {"side": 384, "pad": (255, 255, 255), "norm": ([0.1] * 3, [0.2] * 3)}),
        ("preprocessing.json", {"image_size": 320, "pad_color_rgb": [114, 114, 114], "normalize_mean": [0.5] * 3, "normalize_std": [0.5] * 3},
         {"side": 320, "pad": (114, 114, 114), "enlarges": False}),
        ("config.json", {"pretrained_cfg": {"input_size": [3, 224, 224], "mean": [0.4] * 3, "std": [0.3] * 3}}, {"side": 224, "norm": ([0.4] * 3, [0.3] * 3)}),
        ("preprocess.json", "{", {"side": 448}),
    ],
)  # fmt: skip
def test_what_a_file_beside_the_model_says_goes_before(tmp_path, name, beside, sight):
    (tmp_path / name).write_text(beside if isinstance(beside, str) else json.dumps(beside))
    files = files_of(tmp_path, TAGS)
    files = TaggerFiles(files.model, files.tags, files.list_name, {}, tagger_files._preprocess_in(tmp_path))
    found = tagger_files.sight_of(files, ["n", 3, "h", "w"], "tensor(float)")
    assert {key: getattr(found, key) for key in sight} == sight


def test_picture_stands_on_a_square():
    wd = tagger_files.Sight(32, False, bgr=True)
    pixels, mask = wd.prepare(Image.new("RGB", (100, 50), (250, 0, 10)))
    assert pixels.shape == (32, 32, 3) and pixels[0, 0].tolist() == [255, 255, 255] and pixels[16, 16].tolist() == [10, 0, 250]
    assert mask[0].all() and not mask[16].any()
    small, mask = tagger_files.Sight(32, True, norm=HALF, pad=(114, 114, 114), enlarges=False).prepare(Image.new("RGB", (16, 8)))
    assert small.shape == (3, 32, 32) and (~mask).sum() == 16 * 8 and small[0, 16, 16] == -1


def test_output_is_chosen_by_name_and_length(tmp_path):
    files = files_of(tmp_path, RGB)
    assert tagger_files.output_of(files, [("embedding", ["n", 1024]), ("logits", ["n", 3]), ("output", ["n", 3])]) == "output"
    assert (
        tagger_files.output_of(files, [("initial_predictions", ["n", 3]), ("refined_predictions", ["n", 3]), ("candidates", ["n", 9])])
        == "refined_predictions"
    )
    assert tagger_files.output_of(files, [("embedding", ["n", 7]), ("logits", ["n", 3])]) == "logits"
    assert tagger_files.output_of(files, [("StatefulPartitionedCall:0", ["n", 3])]) == "StatefulPartitionedCall:0"
    with pytest.raises(LorakitError, match="answers with 4, 5 numbers, selected_tags.csv names 3"):
        tagger_files.output_of(files, [("a", ["n", 4]), ("b", ["n", 5])])


def test_without_onnxruntime_the_mend_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as it is where it is not installed
    with pytest.raises(LorakitError, match=r"pip install \"lorakit\[onnx\]\""):
        check_captioner("wd_tagger", Caption(weights=str(tmp_path)))
    check_captioner("jtp", Caption(weights=str(tmp_path)))  # which is read by timm


def tiny(
    folder,
    tags,
    name="selected_tags.csv",
    *,
    first=False,
    batch="n",
    side=32,
    half=False,
    outputs=("output",),
    mask=False,
    file="model.onnx",
):
    """A folder with a model whose numbers are the mean colours: as probabilities, or for outputs of other names as logits."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kinds = onnx.helper, onnx.TensorProto
    kind = kinds.FLOAT16 if half else kinds.FLOAT
    entry = helper.make_tensor_value_info("input", kind, [batch, 3, side, side] if first else [batch, side, side, 3])
    entries, nodes = [entry], []
    if mask:
        entries.append(helper.make_tensor_value_info("padding_mask", kinds.BOOL, [batch, side, side]))
        nodes.append(helper.make_node("Cast", ["padding_mask"], ["unused"], to=kinds.FLOAT))
    constants = [
        helper.make_tensor("axes", kinds.INT64, [2], [2, 3] if first else [1, 2]),
        helper.make_tensor("steep", kinds.FLOAT, [1], [8.0 if first else 1 / 260]),
    ]
    nodes += [
        helper.make_node("Cast", ["input"], ["pixels"], to=kinds.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "steep"], ["number"]),
    ]
    results = []
    for output in outputs:
        length = 7 if output == "embedding" else 3
        results.append(helper.make_tensor_value_info(output, kinds.FLOAT, [batch, length]))
        if output == "embedding":
            nodes.append(helper.make_node("Concat", ["number", "number", "one"], [output], axis=1))
            constants.append(helper.make_tensor("axis", kinds.INT64, [1], [1]))
            nodes.insert(-1, helper.make_node("ReduceMean", ["number", "axis"], ["one"], keepdims=1))
        else:
            nodes.append(
                helper.make_node("Sigmoid" if first and output in ("output", "probabilities") else "Identity", ["number"], [output])
            )
    graph = helper.make_graph(nodes, "tiny", entries, results, constants)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), folder / file)
    (folder / name).write_text(tags if isinstance(tags, str) else json.dumps(tags))
    return folder


BGR_MAP = {
    "0": {"tag": "blue_sky", "category": "General"},
    "1": {"tag": "green", "category": "General"},
    "2": {"tag": "red", "category": "General"},
}
CAMIE = {"dataset_info": {"tag_mapping": {"idx_to_tag": {"0": "red", "1": "green", "2": "blue_sky"}, "tag_to_category": {}}}}
LAYOUTS = {
    "WD v3": {"tags": WD},
    "WD v1.4 moat, one at once": {"tags": WD, "batch": 1},
    "WD, three at once": {"tags": WD, "batch": 3},
    "WD, fp16, free sides": {"tags": WD, "half": True, "side": 448},
    "PixAI 0.9": {"tags": RGB, "first": True, "outputs": ("embedding", "logits", "output")},
    "CL 1.02": {"tags": BGR_MAP, "name": "tag_mapping.json", "first": True, "outputs": ("logits",)},
    "CL 2": {"tags": {"idx_to_tag": ["red", "green", "blue_sky"]}, "name": "model_vocabulary.json", "first": True, "outputs": ("logits",), "side": 384},
    "Camie 2": {"tags": CAMIE, "name": "camie-tagger-v2-metadata.json", "first": True, "outputs": ("initial_predictions", "refined_predictions"),
                "file": "camie-tagger-v2.onnx"},
    "OppaiOracle": {"tags": "tag_id,tag,n\n0,red,1\n1,green,1\n2,blue_sky,1\n", "first": True, "mask": True, "outputs": ("probabilities",), "batch": 1},
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_tags_by_colour(tmp_path, layout):
    folder = tiny(tmp_path / "tagger", **LAYOUTS[layout])
    read = wd_tagger.load(source_of(wd_tagger.CARD, str(folder)), "cpu", Caption())
    assert [reading.tags for reading in read([RED, BLUE, GREEN, RED])] == [("red",), ("blue sky",), ("green",), ("red",)]
    assert [reading.tags for reading in read([BLUE])] == [("blue sky",)]


ODD_LISTS = {
    "mark of UTF-8": ("\ufeff" + WD.replace("\n", "\r\n"), "blue sky"),
    "more columns": ('id,tag_id,name,category,count,ips\n0,1,blue_sky,0,1,"[""x"", ""y""]"\n1,2,green,0,1,[]\n2,3,red,0,1,[]\n', "blue sky"),
    "a comma in a tag": (WD.replace("blue_sky", '"blue,_sky"'), "blue sky"),
    "semicolons": (WD.replace(",", ";"), "blue sky"),
    "categories as numbers with a point": (WD.replace(",0,", ",0.0,"), "blue sky"),
    "thresholds that nobody measured": ("name,category,best_threshold\nblue_sky,0,n/a\ngreen,0,nan\nred,0,\n", "blue sky"),
}  # fmt: skip


@pytest.mark.parametrize("odd", ODD_LISTS)
def test_odd_lists_of_tags_are_read_as_they_are_meant(tmp_path, odd):
    text, blue = ODD_LISTS[odd]
    read = wd_tagger.load(source_of(wd_tagger.CARD, str(tiny(tmp_path / "tagger", text))), "cpu", Caption())
    assert [reading.tags for reading in read([RED, BLUE, GREEN])] == [("red",), (blue,), ("green",)]


@pytest.mark.parametrize(
    "text", ["tag_id,name,category,count\n1,blue_sky,0,1\n2\n3,red,0,1\n", "name,category\nblue_sky,alpha\ngreen,beta\nred,beta\n"]
)
def test_a_list_that_would_say_nothing_is_refused_in_one_line(tmp_path, text):
    with pytest.raises(LorakitError, match="no list of tags that can be read|categories alpha, beta, of which") as error:
        wd_tagger.load(source_of(wd_tagger.CARD, str(tiny(tmp_path / "tagger", text))), "cpu", Caption())
    assert "\n" not in str(error.value)


def odd_model(folder, odd):
    """A tiny tagger, made odd: `mask` as numbers, `side`s that differ, numbers of `double` precision, `deep`: [n, 1, tags], `nan`."""
    onnx = pytest.importorskip("onnx")
    tiny(folder, RGB, first=True, outputs=("probabilities",), mask=odd == "mask")
    model = onnx.load(folder / "model.onnx")
    graph, helper = model.graph, onnx.helper
    if odd == "mask":
        graph.input[1].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    elif odd == "double":
        graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    elif odd == "side":
        graph.input[0].type.tensor_type.shape.dim[2].dim_value = 16
    elif odd == "int32":
        graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT32
    else:
        graph.node[-1].output[0] = "flat"
        value = [1] if odd == "deep" else [float("nan")]
        graph.initializer.append(
            helper.make_tensor("more", onnx.TensorProto.INT64 if odd == "deep" else onnx.TensorProto.FLOAT, [1], value)
        )
        graph.node.append(helper.make_node("Unsqueeze" if odd == "deep" else "Add", ["flat", "more"], ["probabilities"]))
        if odd == "deep":
            graph.output[0].CopyFrom(helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ["n", 1, 3]))
    onnx.save(model, folder / "model.onnx")
    return lambda: wd_tagger.load(source_of(wd_tagger.CARD, str(folder)), "cpu", Caption())([RED, BLUE])


@pytest.mark.parametrize("odd", ["mask", "double", "deep"])
def test_odd_models_are_right(tmp_path, odd):
    assert [reading.tags for reading in odd_model(tmp_path / "tagger", odd)()] == [("red",), ("blue sky",)]


def test_models_that_cannot_be_right_say_so(tmp_path):
    assert all(isinstance(one, NoCaption) and "NaN" in one.reason for one in odd_model(tmp_path / "nan", "nan")())
    for odd, line in (("side", "is no square"), ("int32", "cannot read a picture")):
        with pytest.raises(LorakitError, match=line) as error:
            odd_model(tmp_path / odd, odd)()
        assert "\n" not in str(error.value)


def test_one_photo_without_a_number_leaves_the_others_their_probabilities():
    found = wd_tagger._ToProbability("out")(np.array([[np.nan, 1, 1], [-8, 8, 0.5]], np.float32))
    assert found[1].round(2).tolist() == pytest.approx([0, 1, 0.62], abs=0.01)


def test_files_beside_the_model_may_begin_with_the_mark_of_utf_8(tmp_path):
    (tmp_path / "threshold.json").write_text('\ufeff{"general": 0.3}', encoding="utf-8")
    (tmp_path / "preprocess.json").write_text('\ufeff{"image_size": 320}', encoding="utf-8")
    assert tagger_files._thresholds_in(tmp_path) == {"general": 0.3} and tagger_files._preprocess_in(tmp_path) == {"side": 320}


@pytest.mark.parametrize("form", ["WD of timm", "JTP"])
def test_weights_of_timm_are_read_with_their_own_head(tmp_path, form):
    import timm
    import torch
    from safetensors.torch import load_file, save_file

    torch.manual_seed(3)
    model = timm.create_model("test_vit", num_classes=3)
    tensors, folder = model.state_dict(), tmp_path / "tagger"
    folder.mkdir()
    if form == "JTP":
        weight, bias = tensors.pop("head.weight"), tensors.pop("head.bias")
        tensors |= {"head.linear.weight": torch.cat([weight * 9, weight * 0]), "head.linear.bias": torch.cat([bias, bias + 9])}
        (folder / "tags.json").write_text('{"red": 0, "green": 1, "blue_sky": 2}')
        file = folder / "JTP-e1-test_vit.safetensors"
    else:
        tensors["head.weight"] *= 9
        (folder / "config.json").write_text('{"architecture": "test_vit"}')
        (folder / "selected_tags.csv").write_text(RGB)
        file = folder / "model.safetensors"
    save_file(tensors, file)
    read = wd_tagger.load(source_of(wd_tagger.CARD, str(folder)), "cpu", Caption())
    together = [reading.tags for reading in read([RED, BLUE, GREEN])]
    assert together == [read([photo])[0].tags for photo in (RED, BLUE, GREEN)]
    model.load_state_dict(
        {key.replace("head.linear", "head"): (value if "linear" not in key else value[:3]) for key, value in load_file(file).items()}
    )
    pixels = tagger_files.Sight(160, True, bgr=form != "JTP", norm=HALF, pad=(128, 128, 128) if form == "JTP" else (255, 255, 255)).prepare(
        RED
    )[0]
    with torch.inference_mode():
        chances = model.eval()(torch.from_numpy(pixels)[None]).sigmoid()[0] * (torch.sigmoid(torch.tensor(9.0)) if form == "JTP" else 1)
    wanted = {tag for tag, chance in zip(("red", "green", "blue sky"), chances.tolist()) if chance >= 0.35}
    assert set(together[0]) == wanted
    del tensors["norm.weight"]
    save_file(tensors, file)
    with pytest.raises(LorakitError, match="not whole.*norm.weight"):
        wd_tagger.load(source_of(wd_tagger.CARD, str(folder)), "cpu", Caption())


def test_a_tagger_in_the_one_folder_inside_is_found_and_of_several_one_is_asked_for(tmp_path):
    tiny(tmp_path / "repo" / "v1", WD)
    assert tagger_files.find_files(tmp_path / "repo").model.parent.name == "v1"
    tiny(tmp_path / "repo" / "v2", WD)
    with pytest.raises(LorakitError, match="several taggers; give one: v1, v2"):
        tagger_files.find_files(tmp_path / "repo")


def test_what_is_no_tagger_is_refused_in_one_line(tmp_path):
    def load(folder):
        return wd_tagger.load(source_of(wd_tagger.CARD, str(folder)), "cpu", Caption())

    (tmp_path / "empty").mkdir()
    with pytest.raises(LorakitError, match=r"no \.onnx and no \.safetensors in it"):
        load(tmp_path / "empty")
    no_list = tiny(tmp_path / "list", WD)
    (no_list / "selected_tags.csv").unlink()
    with pytest.raises(LorakitError, match="no list of tags beside the model"):
        load(no_list)
    broken = tiny(tmp_path / "broken", WD)
    (broken / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(LorakitError, match="cannot be loaded") as error:
        load(broken)
    assert "\n" not in str(error.value)
    other = tiny(tmp_path / "other", WD + "4,more,0,1\n")
    with pytest.raises(LorakitError, match="answers with 3 numbers, selected_tags.csv names 4"):
        load(other)


def test_weights_in_a_file_of_their_own_are_read_and_missed(tmp_path):
    onnx = pytest.importorskip("onnx")
    folder = tiny(tmp_path / "tagger", WD)
    model = onnx.load(folder / "model.onnx")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(1024, np.float32), "large"))
    model.graph.node.append(onnx.helper.make_node("Identity", ["large"], ["unused_too"]))
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=64)
    read = wd_tagger.load(source_of(wd_tagger.CARD, str(folder)), "cpu", Caption())
    assert read([RED])[0].tags == ("red",)
    (folder / "model.onnx.data").unlink()
    with pytest.raises(LorakitError, match=r"model\.onnx\.data, is missing beside it"):
        wd_tagger.load(source_of(wd_tagger.CARD, str(folder)), "cpu", Caption())


@pytest.mark.parametrize(
    ("name", "words"),
    [("long_hair", "long hair"), ("^_^", "^_^"), (";_;", ";_;"), ("o_o", "o_o"), ("(o)_(o)", "(o)_(o)"), ("||_||", "||_||"), ("<|>_<|>", "<|>_<|>"),
     ("hatsune_miku_(vocaloid)", "hatsune miku (vocaloid)"), ("a_b", "a_b"), ("x_x", "x_x"), ("6+girls", "6+girls"), (":3", ":3"), ("\\m/", "\\m/"),
     ("score_9", "score_9"), ("score_8_up", "score_8_up"), ("rating_safe", "rating_safe"), ("high_score_9", "high score 9")],
)  # fmt: skip
def test_tags_are_written_as_sd_scripts_writes_them(name, words):
    assert spaced_tag(name) == words


FACES = "0_0 (o)_(o) +_+ +_- ._. <o>_<o> <|>_<|> =_= >_< 3_3 6_9 >_o @_@ ^_^ o_o u_u x_x |_| ||_|| ;_; :3 :d :< ^^^ ;) :o :p".split()


def test_faces_and_whole_things_come_through_to_the_text():
    tags = ("1girl", "cat", "cat ears", "very long hair", "long hair", "dress", "dress shirt", "holding", "holding sword", *FACES)
    text = compose(RawCaption(tags=tags), "tags").split(", ")
    assert set(FACES) <= set(text), set(FACES) - set(text)
    assert {"cat", "cat ears", "very long hair", "dress", "dress shirt", "holding sword"} <= set(text)
    assert not {"long hair", "holding"} & set(text)


def test_tagger_captions_a_project(tmp_path, make_photo, make_project):
    folder = tiny(tmp_path / "tagger", WD)
    for name, colour in (("red", (230, 40, 60)), ("blue", (40, 60, 230))):
        grain = np.random.default_rng(0).normal(0, 12, (512, 640, 3))
        make_photo(f"{name}.png", image=Image.fromarray(np.clip(np.array(colour) + grain, 0, 255).astype(np.uint8)))
    project = make_project(**{"caption.captioner": "wd_tagger", "caption.weights": str(folder), "select.everything": True})
    lorakit.walk(project, last="trigger")
    texts = {r["file"]: r["text"] for r in project.manifest.selected}
    assert texts["red.png"] == "zwx mug, red" and texts["blue.png"] == "zwx mug, blue sky"


def test_thresholds_are_settings_of_the_tagger_s_own(make_project):
    project = make_project(**{"caption.captioner": "wd_tagger"})
    record = {"hash": "a", "crop": {"box": [0, 0, 1, 1]}}
    before = stamps.caption(project, record)
    other = lorakit.open_project(project.folder, settings={"caption.wd_tagger.threshold": 0.5})
    assert stamps.caption(other, record) != before
    cl = lorakit.open_project(project.folder, settings={"caption.captioner": "cl_tagger"})
    assert stamps.caption(cl, record) != before
    changed = lorakit.open_project(project.folder, settings={"caption.captioner": "cl_tagger", "caption.wd_tagger.threshold": 0.5})
    assert stamps.caption(changed, record) != stamps.caption(cl, record), "a card's captioner has the settings of the file that reads it"
    imagenet = lorakit.open_project(project.folder, settings={"caption.captioner": "imagenet"})
    imagenet.keep_words()
    assert stamps.caption(imagenet, record) == stamps.caption(
        lorakit.open_project(project.folder, settings={"caption.wd_tagger.threshold": 0.7}), record
    )
    assert {lookup.plugin_of(lookup.CAPTIONERS, name) for name in ("pixai", "cl_tagger", "camie_tagger", "jtp", "wd_tagger")} == {
        "wd_tagger"
    }
