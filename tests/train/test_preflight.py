"""Settings that fight each other are named before anything loads."""

import pytest

from lorakit.errors import LorakitError, WeightsMissing
from lorakit.train import rungs
from lorakit.train.preflight import check_settings, check_single_file, of_weights
from lorakit.weights import check_reachable


@pytest.mark.parametrize(
    ("base", "settings", "line"),
    [
        ("flux1-dev", {"train.bucket_step": 8}, "train.bucket_step = 8: flux1-dev wants a multiple of 16"),
        ("flux1-dev", {"train.loss_weighting": "min_snr"}, "train.loss_weighting = min_snr: of no use for flux1-dev, which learns a flow"),
        ("sd15", {"train.flow_shift": 3.0}, "train.flow_shift = 3.0: of no use for sd15, which predicts noise"),
        ("sd15", {"train.zero_terminal_snr": True, "train.prediction": "epsilon"}, "wants train.prediction=v_prediction"),
        ("sd35-medium", {"train.timestep_sampling": "sigmoid", "train.flow_shift": 3.0}, "train.flow_shift has no effect"),
        ("sd15", {"train.warmup_steps": 4}, "train.warmup_steps = 4: as long as the training"),
        ("sd15", {"train.shuffle_tags": True, "caption.style": "sentences"}, "train.shuffle_tags: the captions are sentences"),
        ("sd15", {"train.preservation": 1.0, "trigger.word": None}, "give a --trigger"),
        ("flux1-dev", {"train.adapter": "dora", "export.format": "kohya"}, "cannot be written as export.format=kohya"),
        ("sd15", {"train.optimizer": "prodigy"}, "prodigy finds the rate and takes this times it; set train.learning_rate=1"),
        ("sd15", {"train.optimizer": "prodigy", "train.learning_rate": 1, "train.lora_plus_ratio": 4}, "prodigy has one rate for all"),
        ("sd15", {"train.optimizer": "schedulefree", "train.lr_schedule": "wsd"}, "schedulefree needs no schedule"),
        ("sd15", {"train.optimizer": "schedulefree", "train.ema": 0.9}, "schedulefree gives a mean of the weights already"),
        ("sd15", {"train.mask_outside": 0.2}, "train.mask_outside has no effect without train.masked_loss=true"),
        ("sd15", {"train.optimizer": "nowhere.Best"}, "nowhere.Best is not installed; pip install nowhere"),
    ],
)
def test_fights_are_one_line_that_names_the_setting(make_project, base, settings, line):
    check_settings(make_project("peace", base=base, **{"train.bucket_step": 16}))
    with pytest.raises(LorakitError, match=line):
        check_settings(make_project("fight", base=base, **{"train.bucket_step": 16, **settings}))


def test_a_base_without_a_place_on_the_hub_wants_its_file(make_project):
    project = make_project(base="pony", **{"train.weights": None})
    with pytest.raises(
        WeightsMissing, match=r"^Pony Diffusion V6 XL: no place on the hub is known for it; give its .safetensors with --weights FILE$"
    ):
        check_reachable(project.base_source)
    assert check_single_file(project) == [] and not list(of_weights(project))
    assert rungs.base_of(project).config["cross_attention_dim"] == 2048, "it can be planned before the file is there"
