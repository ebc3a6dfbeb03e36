"""Image-text agreement with a tiny random open_clip model in the hub's format."""

import json

import pytest

import lorakit
from lorakit import pipeline
from lorakit.caption import agreement
from lorakit.errors import LorakitError

TINY = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
}


@pytest.fixture
def tiny_clip(tmp_path):
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = tmp_path / "clip"
    folder.mkdir()
    (folder / agreement.CONFIG).write_text(json.dumps(TINY))
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**TINY["model_cfg"]).state_dict(), folder / "open_clip_model.safetensors")
    return folder


def test_score_tells_texts_and_photos_apart(tiny_clip, make_photo):
    from PIL import Image

    score = agreement.load(str(tiny_clip), "cpu")
    red, blue = (Image.new("RGB", (64, 64), colour) for colour in ("red", "blue"))
    values = {score(picture, text) for picture in (red, blue) for text in ("a red square", "a blue square")}
    assert len(values) == 4
    assert all(-1 <= value <= 1 for value in values)
    assert score(red, "a red square") == score(red, "a red square")


def test_texts_are_scored_and_the_worst_is_warned_of(tiny_clip, make_project):
    project = make_project(**{"caption.clip": str(tiny_clip), "caption.min_agreement": 1.0})
    lorakit.walk(project, last="trigger")
    for photo, record in zip(pipeline.status(project)["photos"], project.manifest, strict=True):
        assert {"reason": "does_not_match_photo", "value": record["trigger"]["agreement"], "threshold": 1.0} in photo[
            "reasons"
        ]
    lax = lorakit.open_project(project.folder, settings={"caption.min_agreement": -1.0})
    assert not any(
        "does_not_match" in r["reason"] for photo in pipeline.status(lax)["photos"] for r in photo["reasons"]
    )


def test_without_weights_nothing_is_measured(make_project):
    project = make_project()
    lorakit.walk(project, last="trigger")
    assert not any("agreement" in r["trigger"] for r in project.manifest.selected)


def test_folder_that_is_no_open_clip_model(tmp_path):
    with pytest.raises(LorakitError, match="open_clip_config.json"):
        agreement.load(str(tmp_path), "cpu")
