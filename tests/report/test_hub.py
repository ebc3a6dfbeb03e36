"""The folder for the hub is complete and says what a user needs; without the hub there is one line, before the work."""

import os
import subprocess
import sys

import pytest
from huggingface_hub import ModelCard

from lorakit.errors import LorakitError
from lorakit.report import hub


def test_the_repository_has_the_lora_its_samples_and_a_card(copy_of_trained):
    folder = hub.write_repository(copy_of_trained, "me/mug")
    card = ModelCard.load(folder / "README.md")
    (lora,) = folder.glob("*.safetensors")
    assert card.data.instance_prompt == "zwx" and card.data.license == "apache-2.0" and "lora" in card.data.tags
    assert all((folder / entry["output"]["url"]).is_file() and "zwx" in card.data.widget[0]["text"] for entry in card.data.widget)
    assert len(card.data.widget) == len(list((folder / "images").iterdir())) == 2
    for words in (
        "Write `zwx` into the prompt",
        "Begin at 0.7",
        lora.name,
        copy_of_trained.card.title,
        'load_lora_weights("me/mug"',
        "- photos: ",
    ):
        assert words in card.text
    assert str(copy_of_trained.folder) not in card.content  # nothing of this machine
    assert {path.name for path in folder.iterdir()} == {"README.md", "images", lora.name}


@pytest.mark.parametrize(
    ("words", "found"),
    [("CreativeML Open RAIL-M", {"license": "creativeml-openrail-m"}),
     ("Stability AI Community License", {"license": "other", "license_name": "stability-ai-community-license"})],
)  # fmt: skip
def test_licences_are_in_the_hubs_words(words, found):
    assert hub._licence(words) == found


def test_an_upload_that_fails_says_where_all_is_ready(copy_of_trained):
    with pytest.raises(LorakitError, match=r"me/mug: not uploaded \(.*\); all is ready in .*hub: `hf upload me/mug"):
        hub.push(copy_of_trained, "me/mug")


@pytest.mark.parametrize("repo", ["mug", "me/mug/large", "me/mug!"])
def test_a_name_that_is_none_is_one_line(repo):
    with pytest.raises(LorakitError, match=f"--push-to-hub {repo}: "):
        hub.check_access(repo)


def test_offline_the_run_stops_before_any_work(photo_folder, tmp_path):
    words = ["run", str(photo_folder), "-o", str(tmp_path / "p"), "--base", "tiny-random", "--trigger", "zwx", "--push-to-hub", "me/mug"]
    done = subprocess.run(
        [sys.executable, "-m", "lorakit", *words], capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    assert done.returncode == 2 and not list(tmp_path.glob("p/dataset/*"))
    assert done.stderr.strip().splitlines()[-1].startswith("error: --push-to-hub me/mug: the hub cannot be used (")
