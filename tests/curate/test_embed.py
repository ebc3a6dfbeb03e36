"""What photos mean: through a tiny random open_clip, which tells pictures apart by their colours and shapes."""

import numpy as np
import pytest
from PIL import Image, ImageDraw
from safetensors.numpy import save_file

from lorakit import clip, open_project, pipeline
from lorakit.curate import embed
from lorakit.errors import LorakitError
from tests.conftest import draw_photo


def blue_photo(seed: int) -> Image.Image:
    """One subject: a grainy blue picture with a white ring somewhere in it."""
    random = np.random.default_rng(seed)
    pixels = np.array([30, 60, 190]) + random.normal(0, 22, (512, 640, 1))
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    x, y = (int(value) for value in random.integers(160, 340, 2))
    ImageDraw.Draw(picture).ellipse((x - 120, y - 120, x + 120, y + 120), outline="white", width=int(random.integers(8, 40)))
    return picture


@pytest.fixture
def of_one_subject(make_photo, curated, tiny_clip, tmp_path):
    """of_one_subject(**settings): a project of nine photos of one subject, and `stranger.jpg`."""
    for path in (tmp_path / "photos").iterdir():
        path.unlink()
    for seed in range(9):
        make_photo(f"blue_{seed}.jpg", image=blue_photo(seed), quality=95)
    stranger = Image.eval(draw_photo(3), lambda value: value // 2 + 120)
    make_photo("stranger.jpg", image=stranger, quality=95)

    def make(**settings):
        return curated("embed", **{"embed.clip": str(tiny_clip), "embed.same": 1.01, "dedupe.sure": 0, "dedupe.distance": 0, **settings})

    return make


def reasons(project) -> dict[str, list[str]]:
    return {photo["file"]: [r["reason"] for r in photo["reasons"]] for photo in pipeline.status(project)["photos"]}


def test_the_photo_of_something_else_is_named_and_left_out_until_a_person_says_otherwise(of_one_subject):
    project = of_one_subject()
    assert {file for file, words in reasons(project).items() if "other_subject" in words} == {"stranger.jpg"}
    (found,) = [r["embed"]["apart"] for r in project.manifest if r["file"] == "stranger.jpg"]
    assert found > 5 > max(r["embed"]["apart"] for r in project.manifest if r["file"] != "stranger.jpg")
    pipeline.walk(project, last="select")
    assert "stranger.jpg" not in {r["file"] for r in project.manifest.selected}
    never = open_project(project.folder, settings={"embed.apart": 0})
    assert not any("other_subject" in words for words in reasons(never).values())


def test_a_few_photos_have_no_stranger(of_one_subject, tmp_path):
    for seed in range(3):
        (tmp_path / "photos" / f"blue_{seed}.jpg").unlink()
    project = of_one_subject()
    assert all(r["embed"]["apart"] is None for r in project.manifest)


def test_photos_of_the_same_get_a_warning_that_names_the_better_one(of_one_subject):
    project = of_one_subject(**{"embed.same": 0.0})
    warned = [r for r in project.manifest if "same_meaning" in reasons(project)[r["file"]]]
    assert len(warned) == 9  # all but the best
    by_id = {r["id"]: r for r in project.manifest}
    assert all(by_id[r["embed"]["of"]]["id"] != r["id"] and -1 <= r["embed"]["cosine"] <= 1 for r in warned)


def test_each_photo_is_seen_once_for_each_model(of_one_subject, make_photo, monkeypatch):
    project = of_one_subject()
    vectors = embed.vectors(project)
    assert len(vectors) == 10 and all(v.shape == (16,) and abs(np.linalg.norm(v) - 1) < 1e-5 for v in vectors.values())
    seen = []
    see = clip.Clip.see
    monkeypatch.setattr(clip.Clip, "see", lambda self, pictures: see(self, (seen.append(1) or p for p in pictures)))
    make_photo("blue_new.jpg", image=blue_photo(50), quality=95)
    pipeline.walk(project, last="embed")
    assert len(seen) == 1
    assert pipeline.walk(project, last="embed") == []


def test_ctrl_c_keeps_what_was_seen(of_one_subject, tmp_path, monkeypatch):
    seen, see = [], clip.Clip.see

    def see_until_interrupted(self, pictures):
        for vector in see(self, pictures):
            if len(seen) == 4:
                raise KeyboardInterrupt
            seen.append(1)
            yield vector

    monkeypatch.setattr(clip.Clip, "see", see_until_interrupted)
    with pytest.raises(KeyboardInterrupt):
        of_one_subject()
    monkeypatch.setattr(clip.Clip, "see", lambda self, pictures: (seen.append(1) or vector for vector in see(self, pictures)))
    again = open_project(tmp_path / "project")
    pipeline.walk(again, last="embed")
    assert len(embed.vectors(again)) == len(seen) == 10


def test_without_weights_it_says_so_and_selects_by_hash_and_colour(curated, capsys):
    project = curated("select")
    assert "no open_clip weights" in capsys.readouterr().err
    assert all(r["embed"] is None for r in project.manifest) and project.manifest.selected
    assert embed.vectors(project) == {}


def test_an_aesthetic_head_moves_the_choice(of_one_subject, tmp_path):
    project = of_one_subject(**{"embed.apart": 0, "select.count": 1})
    pipeline.walk(project, last="select")
    (first,) = project.manifest.selected
    vectors = embed.vectors(project)
    others = np.mean([vector @ vectors[first["hash"]] for hash, vector in vectors.items() if hash != first["hash"]])
    dislike = {"weight": -40 * vectors[first["hash"]][None], "bias": np.array([5 + 40 * others], "f4")}  # of the first choice
    save_file(dislike, tmp_path / "head.safetensors")
    again = open_project(project.folder, settings={"embed.aesthetic": str(tmp_path / "head.safetensors")})
    pipeline.walk(again, last="select")
    (second,) = again.manifest.selected
    scores = {r["id"]: r["embed"]["aesthetic"] for r in again.manifest}
    assert scores[first["id"]] == min(scores.values()) and second["id"] != first["id"]


def test_a_head_of_several_layers_is_a_row_of_linear_ones(tmp_path):
    rng = np.random.default_rng(0)
    down, bias, out = rng.normal(size=(4, 16)).astype("f4"), rng.normal(size=4).astype("f4"), rng.normal(size=(1, 4)).astype("f4")
    save_file(
        {"layers.0.weight": down, "layers.0.bias": bias, "layers.2.weight": out, "layers.2.bias": np.full(1, 5, "f4")},
        tmp_path / "h.safetensors",
    )
    points = rng.normal(size=(3, 16)).astype("f4")
    found = embed.apply_head(embed.read_head(tmp_path / "h.safetensors"), points)
    assert np.allclose(found, [float((out @ (down @ point + bias))[0] + 5) for point in points], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "tensors", "line"),
    [
        ("head.pth", {}, "pickled weights can run code"),
        ("head.safetensors", {"a.weight": np.zeros((2, 16), "f4"), "a.bias": np.zeros(2, "f4")}, "ends in one score"),
        (
            "head.safetensors",
            {"a.weight": np.zeros((1, 9), "f4"), "a.bias": np.zeros(1, "f4")},
            "reads 9 numbers a photo, embed.clip makes 16",
        ),
    ],
)
def test_a_head_that_does_not_fit_is_one_line(of_one_subject, tmp_path, name, tensors, line):
    path = tmp_path / name
    save_file(tensors, path) if tensors else path.write_bytes(b"")
    with pytest.raises(LorakitError, match=line):
        of_one_subject(**{"embed.aesthetic": str(path)})


def test_cosines_are_the_same_in_blocks(monkeypatch):
    points = np.random.default_rng(1).normal(size=(50, 8)).astype("f4")
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    ids = [str(i) for i in range(50)]
    whole = embed.describe(points, ids)
    monkeypatch.setattr(embed, "BLOCK", 7)
    assert embed.describe(points, ids) == whole
    near = points @ points.T
    for i in range(1, 50):
        assert whole[i]["of"] == str(near[i, :i].argmax()) and whole[i]["cosine"] == pytest.approx(near[i, :i].max(), abs=1e-4)
