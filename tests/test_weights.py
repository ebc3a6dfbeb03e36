"""Where weights come from, and what a user is told when they are not there."""

import pytest

from lorakit import weights
from lorakit.errors import LorakitError, WeightsMissing
from lorakit.weights import Source, check_reachable, identity, local_folder

HUB = Source("someone/some-base", False, "Some Base", 6.9)


def one_line(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_hub_out_of_reach_is_one_line_with_the_size_and_three_ways():
    with pytest.raises(WeightsMissing) as error:
        check_reachable(HUB)
    line = one_line(error)
    for part in ("Some Base", "someone/some-base", "6.9 GB", "(1)", "hf auth login", "(2)", "--weights FOLDER", "(3)", "HF_HOME"):
        assert part in line


def test_loading_what_is_not_there_says_the_same():
    from diffusers import DDPMScheduler

    with pytest.raises(WeightsMissing, match="Three ways"), weights.hub_errors_in_words(HUB):
        DDPMScheduler.from_pretrained(HUB.location, subfolder="scheduler")


@pytest.mark.parametrize("name", ["model.ckpt", "model.bin", "model.pt", "model.pth"])
def test_pickled_weights_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x04")
    with pytest.raises(LorakitError, match="can run code and are refused"):
        local_folder(tmp_path / name, "model_index.json", "--weights")


def test_a_folder_that_is_missing_or_is_no_model_is_refused(tmp_path):
    with pytest.raises(LorakitError, match="no such folder"):
        local_folder(tmp_path / "nothing", "model_index.json", "--weights")
    with pytest.raises(LorakitError, match="no model_index.json in it"):
        local_folder(tmp_path, "model_index.json", "--weights")


def test_identity_is_of_the_content_not_of_the_place(tmp_path):
    for name, byte in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights.safetensors").write_bytes(byte * 200_000)
    a, b, c = (identity(Source(str(tmp_path / name), True)) for name in "abc")
    assert a == b != c


def test_weights_and_the_parts_that_a_file_lacks_may_lie_on_the_hub(make_project, tmp_path):
    from lorakit.cli.options import settings_from

    given = settings_from((), weights="hf://someone/real-xl")
    assert given == {"train.weights": "hf://someone/real-xl"}
    source = make_project("hub", base="sdxl", **given).base_source
    assert (source.location, source.is_local) == ("someone/real-xl", False) and identity(source) == "hub:someone/real-xl"
    (tmp_path / "one.safetensors").touch()
    project = make_project("file", base="sdxl", **{"train.weights": str(tmp_path / "one.safetensors"), "train.parts": "hf://someone/parts"})
    assert project.base_source.rest.location == "someone/parts" and identity(project.base_source).endswith("+hub:someone/parts")
    project = make_project("none", base="sdxl", **{"train.weights": str(tmp_path / "one.safetensors"), "train.parts": str(tmp_path / "x")})
    with pytest.raises(LorakitError, match="train.parts .*no such folder"):
        _ = project.base_source
