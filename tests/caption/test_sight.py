"""What open_clip sees: with a tiny model that a test has taught a few words, and with a random one in the hub's format."""

import json

import numpy as np
import pytest
from PIL import Image

import lorakit
from lorakit import pipeline
from lorakit.caption import sight
from lorakit.clip import Clip
from lorakit.text import facets
from tests.conftest import TINY_CLIP, draw_photo

LIGHTS = {"": (128, 128, 128), "night": (10, 10, 25), "golden light": (235, 170, 60), "neon light": (230, 20, 200)}


def lit(tag: str, seed: int, size=(640, 512)) -> Image.Image:
    """A photo in one of LIGHTS: its colour over shapes and grain."""
    return Image.blend(draw_photo(seed, size), Image.new("RGB", size, LIGHTS[tag]), 0.8)


@pytest.fixture(scope="session")
def taught_clip(tmp_path_factory):
    """A tiny open_clip that has learned by heart how LIGHTS look, and tells a dog from a car by the picture's left half."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("taught")
    (folder / "open_clip_config.json").write_text(json.dumps(TINY_CLIP))
    torch.manual_seed(0)
    model = open_clip.CLIP(**TINY_CLIP["model_cfg"])
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    given = Clip(str(folder), "caption.clip", "cpu")
    options = [o for o in facets.attributes()["light"] if o.tag in LIGHTS]
    pictures = torch.stack([given.prepare(lit(o.tag, seed)) for seed in range(4) for o in options])
    texts = [phrase for o in options for phrase in o.seen]
    which = torch.tensor([n for n, o in enumerate(options) for _ in o.seen])
    tokens, target = given.tokenize(texts), torch.arange(len(options)).repeat(4)
    model = given.model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(80):
        seen, said = model.encode_image(pictures, normalize=True), model.encode_text(tokens, normalize=True)
        means = torch.stack([said[which == n].mean(0) for n in range(len(options))])
        loss = torch.nn.functional.cross_entropy(20 * seen @ means.T, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.logit_scale.data.fill_(np.log(60.0))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture
def lights(make_photo, tmp_path):
    """A folder of eight photos, two in each of LIGHTS."""
    for number, tag in enumerate([*LIGHTS, *LIGHTS]):
        make_photo(f"{number}_{tag.replace(' ', '_') or 'even'}.jpg", image=lit(tag, 40 + number), quality=92)
    return tmp_path / "photos"


def open_lights(tmp_path, lights, weights, **settings):
    project = lorakit.new_project(
        tmp_path / "p", lights, base="tiny-random", trigger="zwx", class_word="mug", device="cpu",
        settings={"caption.captioner": "imagenet", "select.everything": True, "caption.clip": str(weights), **settings},
    )  # fmt: skip
    lorakit.walk(project, last="crop")
    for record in project.manifest.selected:
        words = {"sentence": "a mug on a table", "tags": [], "by": "blip", "own": False, "box": record["crop"]["box"]}
        project.manifest.keep({**record, "caption": words, "done": {**record["done"], "caption": "by the test"}})
    lorakit.trigger(project)
    return project


def test_facets_are_what_the_photo_shows_and_join_its_tags(tmp_path, lights, taught_clip, monkeypatch):
    known = tuple(o for o in facets.attributes()["light"] if o.tag in LIGHTS)
    monkeypatch.setattr(facets, "attributes", lambda: {"light": known})
    project = open_lights(tmp_path, lights, taught_clip)
    for record in project.manifest.selected:
        tag = record["file"][2:-4].replace("_", " ").replace("even", "")
        assert record["facets"]["light"][0] == tag and record["facets"]["light"][1] > 0.6
        assert record["text"].split(", ") == ["zwx mug", "table", *([tag] if tag else [])]
    without = lorakit.open_project(project.folder, settings={"caption.clip": None}, device="cpu")
    lorakit.trigger(without)
    assert {r["text"] for r in without.manifest.selected} == {"zwx mug, table"}


def test_text_that_fits_scores_higher_than_one_that_does_not(tmp_path, lights, taught_clip):
    project = open_lights(tmp_path, lights, taught_clip, **{"caption.min_facet": 1.01})
    said = {"night": "a dark night scene", "neon light": "a photo lit by neon lights"}

    def score(text_of: dict[str, str]) -> dict[str, float]:
        for record in project.manifest.selected:
            tag = next((t for t in said if t.replace(" ", "_") in record["file"]), None)
            if tag:
                lorakit.review(project, [record["file"]], text=f"{text_of[tag]}, zwx")
        lorakit.trigger(project)
        return {
            r["file"]: r["trigger"]["agreement"] for r in project.manifest.selected if any(t.replace(" ", "_") in r["file"] for t in said)
        }

    right = score(said)
    wrong = score({"night": said["neon light"], "neon light": said["night"]})
    assert len(right) == 4 and all(right[file] > wrong[file] + 0.3 for file in right)
    both = score({tag: f"{said['night'].capitalize()}. {said['neon light'].capitalize()}. So" for tag in said})
    assert both == wrong or all(both[file] < right[file] - 0.3 for file in both), "the worst sentence counts"
    worst = {r["file"]: r["trigger"]["worst"] for r in project.manifest.selected if "worst" in r["trigger"]}
    assert all(("neon" in said) == ("night" in file) for file, said in worst.items()) and len(worst) == 4


def test_a_text_is_judged_sentence_by_sentence():
    assert sight.sentences_of("a dog on grass, red ball") == ["a dog on grass, red ball"]
    text = "A dog sits on grass. It wears a red hat. Good. The sun shines on it"
    assert sight.sentences_of(text) == ["A dog sits on grass.", "It wears a red hat. Good.", "The sun shines on it"]
    assert sight.sentences_of("") == [""]


def test_a_crop_is_seen_once_however_often_it_is_worded(tmp_path, lights, tiny_clip, monkeypatch):
    project = open_lights(tmp_path, lights, tiny_clip)
    before = {r["file"]: r["facets"] for r in project.manifest.selected}
    monkeypatch.setattr(sight, "load_crop_to_read", lambda *args: pytest.fail("a photo was opened again"))
    again = lorakit.open_project(project.folder, settings={"trigger.word": "qmv"}, device="cpu")
    lorakit.trigger(again)
    assert {r["file"]: r["facets"] for r in again.manifest.selected} == before
    assert all("qmv" in r["text"] and "agreement" in r["trigger"] for r in again.manifest.selected)


def test_what_was_seen_before_a_stop_is_not_seen_again(tmp_path, lights, tiny_clip, monkeypatch):
    project = open_lights(tmp_path, lights, tiny_clip, **{"caption.clip": None})
    wanted = lorakit.open_project(project.folder, settings={"caption.clip": str(tiny_clip)}, device="cpu")
    wanted.keep_words()
    monkeypatch.setattr("lorakit.clip.KEEP_EVERY", 0.0)
    monkeypatch.setattr("lorakit.clip.BATCH", 2)
    load, opened, sixth = sight.load_crop_to_read, [], wanted.manifest.selected[5]["id"]

    def stopping(record):
        opened.append(record["file"])
        if record["id"] == sixth:
            raise KeyboardInterrupt
        return load(record)

    monkeypatch.setattr(sight, "load_crop_to_read", stopping)
    with pytest.raises(KeyboardInterrupt):
        lorakit.trigger(wanted)
    opened, sixth = [], None
    lorakit.trigger(lorakit.open_project(project.folder, device="cpu"))
    assert len(opened) == 4, "four of eight were written down, the fifth was lost with its batch"


def test_photo_that_has_gone_is_worded_without_a_score(tmp_path, lights, tiny_clip):
    (lights / "1_night.jpg").rename(lights / "kept.jpg")
    project = open_lights(tmp_path, lights, tiny_clip)
    gone = project.manifest.selected[0]
    (lights / gone["file"]).write_bytes(b"no photo any more")
    for file in (project.folder / "cache" / "crops").iterdir():
        file.unlink()
    again = lorakit.open_project(project.folder, settings={"trigger.word": "qmv"}, device="cpu")
    lorakit.trigger(again)
    by_file = {r["file"]: r for r in again.manifest.selected}
    assert "agreement" not in by_file[gone["file"]]["trigger"] and "qmv" in by_file[gone["file"]]["text"]
    assert sum("agreement" in r["trigger"] for r in by_file.values()) == 7


def test_low_scores_are_warned_of(tiny_clip, make_project):
    project = make_project(**{"caption.clip": str(tiny_clip), "caption.min_agreement": 1.0})
    lorakit.walk(project, last="trigger")
    for photo, record in zip(pipeline.status(project)["photos"], project.manifest, strict=True):
        assert {"reason": "does_not_match_photo", "value": record["trigger"]["agreement"], "threshold": 1.0} in photo["reasons"]
    lax = lorakit.open_project(project.folder, settings={"caption.min_agreement": -1.0})
    assert not any("does_not_match" in r["reason"] for photo in pipeline.status(lax)["photos"] for r in photo["reasons"])


def test_without_weights_nothing_is_measured(make_project):
    project = make_project()
    lorakit.walk(project, last="trigger")
    assert not any("agreement" in r["trigger"] or r["facets"] for r in project.manifest.selected)
