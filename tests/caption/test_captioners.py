"""Captioners on tiny random checkpoints in the hub's format: the same code that loads the real weights."""

import io
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from lorakit import lookup
from lorakit.caption.captioners import florence2
from lorakit.caption.captioners.base import are_cut, as_card_says, card_of, is_hub_id, load_model, pixels_of, source_of, without_prompt
from lorakit.errors import LorakitError, UnknownName, WeightsMissing
from lorakit.settings import Caption
from lorakit.text.phrases import without_loose_end
from lorakit.weights import Source

MODELS = ("blip", "blip2", "florence2", "vlm")
GRAIN = np.random.default_rng(0)
PHOTOS = [Image.fromarray(GRAIN.integers(0, 255, (4, 5, 3), np.uint8)).resize((200 + 40 * n, 160)) for n in range(3)]


GRAINY = [Image.fromarray(GRAIN.integers(0, 255, (40, 40, 3), np.uint8)) for _ in range(8)]


@pytest.fixture(autouse=True)
def few_boxes(monkeypatch):
    monkeypatch.setattr(florence2, "DETECT_TOKENS", 24)


def load(name: str, folder, **settings):
    captioner = lookup.load(lookup.CAPTIONERS, name)
    return captioner.load(source_of(captioner.CARD, str(folder)), "cpu", Caption(max_tokens=12, **settings))


@pytest.mark.parametrize("name", MODELS)
def test_batch_reads_as_single_photos_do_and_keeps_the_order(name, request):
    read = load(name, request.getfixturevalue(f"tiny_{name}"))
    together = read(PHOTOS)
    assert [r.text for r in together] == [read([photo])[0].text for photo in PHOTOS]
    assert [r.text for r in read(PHOTOS[::-1])] == [r.text for r in together[::-1]]
    assert len({r.text for r in together}) > 1, "the photos differ, so must their captions"


@pytest.mark.parametrize("name", ["blip", "blip2", "florence2"])
def test_what_the_limit_of_tokens_has_stopped_is_known(name, request):
    """With room for more, a row that was stopped goes on and one that had ended does not."""
    model, processor = load_model(Source(str(request.getfixturevalue(f"tiny_{name}")), True), "cpu")
    pixels = torch.stack([pixels_of(processor)(photo) for photo in GRAINY])
    start = (
        {}
        if name == "blip"
        else {"input_ids": processor(text=["a"], images=[PHOTOS[0]], return_tensors="pt").input_ids.repeat(len(pixels), 1)}
    )

    def write(most: int) -> tuple[list[str], list[bool]]:
        no_pad = {"suppress_tokens": [processor.tokenizer.pad_token_id]}  # random weights would write it as a word
        ids = model.generate(pixel_values=pixels, **start, **no_pad, max_new_tokens=most)
        prompt = 0 if name != "blip2" else start["input_ids"].shape[1]
        return processor.batch_decode(ids, skip_special_tokens=True), are_cut(model, processor, ids[:, prompt:], most)

    seen = set()
    for most in range(2, 16):
        texts, cut = write(most)
        more, _ = write(most + 24)
        for before, after, stopped in zip(texts, more, cut, strict=True):
            seen.add(stopped)
            assert after.strip().startswith(before.strip()) or not stopped
            assert stopped or after == before
    assert True in seen


@pytest.mark.parametrize(
    "text, kept",
    [
        ("A dog sits on grass. It has a red", "A dog sits on grass."),
        ("a dog sitting on a couch with a red blan", "a dog sitting on a couch"),
        ("a dog sitting on a couch, smi", "a dog sitting on a couch"),
        ("a dog", "a dog"),
        ("A dog. A cat? A bird!", "A dog. A cat? A bird!"),
        ("a 2.5 m tall statue with a", "a 2.5 m tall statue"),
        ("", ""),
    ],
)
def test_loose_end_goes_by_sentence_or_phrase(text, kept):
    assert without_loose_end(text) == kept


@pytest.mark.parametrize("name", lookup.names(lookup.CAPTIONERS))
def test_card_is_frozen_and_names_licence_and_size(name):
    card = card_of(name)
    assert card.title and card.licence and card.note
    assert card.size_gb > 0 or not card.hub
    with pytest.raises(AttributeError):
        card.title = "other"


def test_a_card_is_a_captioner_and_asks_its_own_question(tmp_path, monkeypatch):
    joy = card_of("joycaption")
    assert (joy.hub, joy.licence, joy.quantises) == ("fancyfeast/llama-joycaption-beta-one-hf-llava", "Llama 3.1 Community License", True)
    assert as_card_says("joycaption", joy, Caption()).question == joy.prompt and joy.prompt
    assert as_card_says("joycaption", joy, Caption(prompt="Who?")).question == "Who?"
    assert card_of("vlm").hub == card_of("qwen3_vl").hub and "Apache" in card_of("vlm").licence
    folder = tmp_path / "caption" / "captioners"
    folder.mkdir(parents=True)
    monkeypatch.setenv(lookup.PLUGINS, str(tmp_path))
    for text, wrong in (
        ("read_by: vlm\ntitel: Mine", "did you mean 'title'"),
        ("read_by: vln", "must name one of"),
        ("a: [", "not valid YAML"),
    ):
        (folder / "mine.yaml").write_text(text)
        lookup.forget()
        with pytest.raises(LorakitError, match=wrong):
            card_of("mine")
    monkeypatch.delenv(lookup.PLUGINS)
    lookup.forget()


def test_blip_does_not_repeat_its_prompt(tiny_blip):
    prompt = "a dog and a cat"
    sentences = [r.sentence for r in load("blip", tiny_blip, prompt=prompt)(PHOTOS)]
    assert not any(s.startswith(prompt) for s in sentences)
    assert sentences != [r.sentence for r in load("blip", tiny_blip)(PHOTOS)], "the prompt must reach the model"


@pytest.mark.parametrize(
    "text, prompt, left",
    [
        ("a photo of a dog", "a photo of", "a dog"),
        ("A Photo Of a dog", "a photo of", "a dog"),
        ("a dog", "a photo of", "a dog"),
        ("Question: what? Answer: a dog", "Question: what? Answer:", "a dog"),
        ("  two   cats ", "", "two cats"),
    ],
)
def test_prompt_echo_is_cut(text, prompt, left):
    assert without_prompt(text, prompt) == left


def test_florence_needs_no_post_processor_config(tiny_florence2, tmp_path):
    folder = shutil.copytree(tiny_florence2, tmp_path / "without")
    found = json.loads((folder / "processor_config.json").read_text())
    del found["post_processor_config"]
    (folder / "processor_config.json").write_text(json.dumps(found))
    assert load("florence2", folder)(PHOTOS) == load("florence2", tiny_florence2)(PHOTOS)


def test_florence_in_its_maker_s_own_form_is_refused_with_the_mend(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "florence2", "auto_map": {"AutoConfig": "x.Y"}}')
    for weights in ("microsoft/Florence-2-large", str(tmp_path)):
        with pytest.raises(LorakitError, match="florence-community/Florence-2-large"):
            florence2.check(Caption(weights=weights))
    florence2.check(Caption(weights="florence-community/Florence-2-large"))


def test_weights_that_want_a_package_of_their_own_are_one_line(tmp_path, monkeypatch):
    """SmolVLM's processor cannot be made without num2words."""
    from transformers.models.smolvlm import processing_smolvlm

    from tests.caption import chat_models

    folder = chat_models.make("SmolVLM2", tmp_path / "model")
    monkeypatch.setattr(processing_smolvlm, "num2words", None)
    with pytest.raises(LorakitError, match="num2words") as error:
        load("vlm", folder)
    assert "\n" not in str(error.value) and "num2words" in card_of("smolvlm2").place


def test_florence_tasks_change_what_is_asked(tiny_florence2):
    short, long = (load("florence2", tiny_florence2, prompt=task)(PHOTOS) for task in ("short", "more_detailed"))
    assert [r.sentence for r in short] != [r.sentence for r in long]
    assert [r.tags for r in short] == [r.tags for r in long]


def test_florence_task_names():
    assert florence2.task_of(None) == "<DETAILED_CAPTION>"
    assert florence2.task_of("<MORE_DETAILED_CAPTION>") == florence2.task_of("more detailed") == "<MORE_DETAILED_CAPTION>"
    assert florence2.task_of("<CAPTION>") == "<CAPTION>"
    with pytest.raises(UnknownName, match="did you mean 'detailed'"):
        florence2.task_of("detailled")


def test_florence_labels_stand_before_their_boxes():
    text = "</s><s>Teddy bear<loc_1><loc_2><loc_3><loc_4><loc_9><loc_9><loc_9><loc_9>coffee cup<loc_5><loc_6><loc_7><loc_8></s><pad>"
    assert florence2.labels(text) == ["teddy bear", "coffee cup"]
    assert florence2.labels("<s>nothing found</s>") == []
    assert florence2.plain("</s><s>A bear, sitting.</s><pad><pad>") == "A bear, sitting."


def test_prompt_of_a_chat_model_reaches_it(tiny_vlm):
    assert load("vlm", tiny_vlm)(PHOTOS) != load("vlm", tiny_vlm, prompt="What is red?")(PHOTOS)


def test_each_style_can_have_a_question_of_its_own(tiny_vlm):
    red = load("vlm", tiny_vlm, prompt="What is red?")(PHOTOS)
    asked = {"prompt": "Who is there?", "prompt_sentences": "What is red?"}
    assert load("vlm", tiny_vlm, **asked, style="sentences")(PHOTOS) == red
    assert load("vlm", tiny_vlm, **asked, style="mixed")(PHOTOS) == load("vlm", tiny_vlm, prompt="Who is there?")(PHOTOS) != red


def test_chat_model_without_a_chat_template_is_refused(tiny_blip):
    with pytest.raises(LorakitError, match="no chat template"):
        load("vlm", tiny_blip)


def test_results_do_not_depend_on_the_saved_file_layout(tiny_blip, tmp_path):
    """Folders written by save_pretrained hold processor_config.json and no preprocessor_config.json."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    AutoProcessor.from_pretrained(tiny_blip).save_pretrained(tmp_path / "saved")
    AutoModelForImageTextToText.from_pretrained(tiny_blip).save_pretrained(tmp_path / "saved")
    assert load("blip", tmp_path / "saved")(PHOTOS) == load("blip", tiny_blip)(PHOTOS)


def test_missing_weights_are_one_line_with_size_and_three_ways():
    with pytest.raises(WeightsMissing) as caught:
        captioner = lookup.load(lookup.CAPTIONERS, "blip")
        captioner.load(source_of(captioner.CARD, None), "cpu", Caption())
    line = str(caught.value)
    assert "\n" not in line
    for part in (
        "BLIP large",
        "Salesforce/blip-image-captioning-large",
        "1.9 GB",
        "(1)",
        "(2)",
        "(3)",
        "caption.weights",
        "imagenet",
    ):
        assert part in line


def test_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(LorakitError, match=r"no config\.json"):
        source_of(lookup.load(lookup.CAPTIONERS, "blip").CARD, str(tmp_path))


def test_remote_code_is_never_run(tiny_blip, tmp_path):
    folder = shutil.copytree(tiny_blip, tmp_path / "remote")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "their_own",
        "auto_map": {"AutoConfig": "evil.Config", "AutoModelForImageTextToText": "evil.Model"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    with pytest.raises(LorakitError):
        load("blip", folder)
    assert not (tmp_path / "ran").exists()


def test_hub_ids_are_told_from_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert is_hub_id("florence-community/Florence-2-large")
    assert not any(map(is_hub_id, ("owner/name", "./weights", "/weights", "weights", "a/b/c", "~/weights")))


def test_imagenet_says_nothing_of_the_photo_it_does_not_know():
    captioner = lookup.load(lookup.CAPTIONERS, "imagenet")
    read = captioner.load(source_of(captioner.CARD, None), "cpu", Caption())
    dark, red = read([Image.new("RGB", (300, 200), (12, 12, 12)), Image.new("RGB", (300, 200), (220, 20, 20))])
    assert "low light" in dark.tags
    assert "red tones" in red.tags


EVIL = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nPath({mark!r}).touch()\nclass Thing: pass\n"


def with_code(folder, mark, file: str, **config) -> None:
    """A model repository whose `file` asks for classes of its own code; importing them leaves a mark."""
    names = ("AutoConfig", "AutoModelForImageTextToText", "AutoProcessor", "AutoImageProcessor", "AutoModel")
    tables = dict.fromkeys(names, "own.Thing") | {"AutoTokenizer": ["own.Thing", None]}
    known = json.loads((folder / file).read_text()) if (folder / file).is_file() else {}
    (folder / file).write_text(json.dumps({**known, **config, "auto_map": tables}))
    (folder / "own.py").write_text(EVIL.format(mark=str(mark)))


@pytest.mark.parametrize("answer", ["", "y\n" * 9, None], ids=["open", "yes", "closed"])
@pytest.mark.parametrize(
    ("file", "config"),
    [
        ("config.json", {"model_type": "unheard"}),
        ("preprocessor_config.json", {"image_processor_type": "UnheardProcessor"}),
        ("tokenizer_config.json", {"tokenizer_class": "UnheardTokenizer"}),
    ],
)
def test_code_of_a_model_repository_is_never_run(tiny_blip, tmp_path, monkeypatch, answer, file, config):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    stdin = io.StringIO(answer or "")
    if answer is None:
        stdin.close()
    monkeypatch.setattr("sys.stdin", stdin)
    folder = shutil.copytree(tiny_blip, tmp_path / "model")
    with_code(folder, tmp_path / "mark", file, **config)
    with pytest.raises(LorakitError) as error:
        load("blip", folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)
    assert not (tmp_path / "mark").exists() and not list(tmp_path.rglob("ran"))
    assert answer is None or stdin.read() == answer, "nothing was asked"


def test_code_of_a_tokenizer_is_never_run(tmp_path, monkeypatch):
    from lorakit.bases import tokens

    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    with_code(tmp_path, tmp_path / "mark", "tokenizer_config.json", tokenizer_class="CLIPUnheard")
    with pytest.raises(LorakitError, match="runs no code"):
        tokens.load_tokenizer(tmp_path)
    assert not (tmp_path / "mark").exists()


def test_code_of_an_open_clip_text_tower_is_never_run(tiny_clip, tmp_path, monkeypatch):
    from lorakit.clip import Clip

    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    folder = shutil.copytree(tiny_clip, tmp_path / "clip")
    tower = tmp_path / "tower"
    tower.mkdir()
    with_code(tower, tmp_path / "mark", "config.json", model_type="unheard")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] = {"hf_model_name": str(tower), "hf_tokenizer_name": str(tower), "hf_model_pretrained": False}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(LorakitError, match="runs no code"):
        Clip(str(folder), "embed.clip", "cpu")
    assert not (tmp_path / "mark").exists()


def without(tensors, key):
    del tensors[key]


def renamed(tensors, key):
    tensors[f"old.{key}"] = tensors.pop(key)


def reshaped(tensors, key):
    tensors[key] = torch.zeros([side + 1 for side in tensors[key].shape])


@pytest.mark.parametrize("change", [without, renamed, reshaped])
@pytest.mark.parametrize("name", MODELS)
def test_tensors_that_are_missing_are_named_and_not_made_up(name, change, request, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(request.getfixturevalue(f"tiny_{name}"), tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    key = next(key for key in sorted(tensors) if "vision" in key and key.endswith("weight"))
    change(tensors, key)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LorakitError, match=key.rpartition(".")[0].rpartition(".")[2]) as error:
        load(name, folder)
    assert "\n" not in str(error.value)
