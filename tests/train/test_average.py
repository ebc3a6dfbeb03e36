"""The weights that are given out where they are a mean: written, drawn with and put away again, and the same after a resume."""

import pytest
import torch
from torch import nn

from lorakit import open_project
from lorakit.settings import Train
from lorakit.train import checkpoint, sample
from lorakit.train.average import Average
from lorakit.train.optimizer import make_optimizer
from lorakit.train.train import train
from tests.conftest import adapter, stop_after


def trained_layer(steps=5, **settings):
    """A layer after some steps, with its optimizer and average, and its live weights after each step."""
    torch.manual_seed(1)
    layer = nn.Linear(3, 3, bias=False)
    settings = Train(learning_rate=0.1, **settings)
    optimizer = make_optimizer(layer, settings)
    average = Average([layer.weight], optimizer, settings.ema)
    lived = [layer.weight.detach().clone()]
    for _ in range(steps):
        (layer(torch.ones(3)) - 1).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update()
        lived.append(layer.weight.detach().clone())
    return layer, optimizer, average, lived


def test_ema_is_the_running_mean_by_its_formula():
    layer, _, average, lived = trained_layer(ema=0.3)
    mean = lived[0]
    for number, weight in enumerate(lived[1:]):
        decay = 0.0 if number == 0 else min(0.3, (1 + number) / (10 + number))
        mean = decay * mean + (1 - decay) * weight
    with average.averaged_weights():
        assert torch.allclose(layer.weight, mean, rtol=1e-6, atol=1e-7)
        assert not torch.allclose(layer.weight, lived[-1], rtol=1e-3)
    assert torch.equal(layer.weight, lived[-1])


def test_schedule_free_gives_its_mean_and_goes_on_where_it_was():
    pytest.importorskip("schedulefree")
    layer, optimizer, average, lived = trained_layer(optimizer="schedulefree", weight_decay=0.0)
    z, beta = optimizer.state[layer.weight]["z"], 0.9
    with average.averaged_weights():
        assert torch.allclose(layer.weight, (lived[-1] - (1 - beta) * z) / beta, rtol=1e-5)  # y = (1 - beta) z + beta x
        assert not torch.equal(layer.weight, lived[-1])
    assert torch.equal(layer.weight, lived[-1]) and optimizer.param_groups[0]["train_mode"]


def test_live_weights_are_given_out_as_they_are():
    layer, _, average, lived = trained_layer()
    assert average.is_live and average.state() == {"live": None, "ema": None}
    with average.averaged_weights():
        assert torch.equal(layer.weight, lived[-1])


AVERAGED = [
    pytest.param({"train.ema": 0.9}, "", id="ema"),
    pytest.param(
        {"train.optimizer": "schedulefree", "train.learning_rate": 1e-2}, "schedulefree", id="schedulefree", marks=pytest.mark.slow
    ),
    pytest.param({"train.optimizer": "prodigy", "train.learning_rate": 1.0}, "prodigyopt", id="prodigy", marks=pytest.mark.slow),
    pytest.param({"train.optimizer": "lion"}, "lion_pytorch", id="lion", marks=pytest.mark.slow),
    pytest.param({"train.optimizer": "adamw8bit"}, "bitsandbytes", id="adamw8bit"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "package"), AVERAGED)
def test_a_resumed_training_ends_with_the_same_tensors(make_dataset, settings, package):
    if package:
        pytest.importorskip(package)
    project = make_dataset(**settings)
    whole = train(project)
    wanted, live = adapter(whole), checkpoint.load_state(whole, 6)["live"]
    stop_after(whole, step=2)
    again = train(open_project(project.folder, device="cpu"))
    found = adapter(again)
    assert again.folder == whole.folder
    assert wanted.keys() == found.keys() and all(torch.equal(wanted[key], found[key]) for key in wanted)
    if live is not None:
        assert all(torch.equal(a, b) for a, b in zip(live, checkpoint.load_state(again, 6)["live"], strict=True))


@pytest.mark.slow
def test_checkpoints_change_nothing_and_samples_are_drawn_with_the_mean(make_dataset, monkeypatch):
    drawn = []

    def draw_latents(project, family, prompts, numbers):  # the pictures themselves are not looked at here
        drawn.append({key: tensor.clone() for key, tensor in sample.lora.read_lora(family).items()})
        return iter([torch.zeros(1, 4, 8, 8) for _ in numbers])

    monkeypatch.setattr(sample, "draw_latents", draw_latents)
    settings = {"train.steps": 4, "train.ema": 0.9}
    often = train(make_dataset("often", **settings, **{"sample.every": 2, "train.checkpoint_every": 2}))
    once = train(make_dataset("once", **settings, **{"train.checkpoint_every": 0}))
    assert all(torch.equal(tensor, adapter(once)[key]) for key, tensor in adapter(often).items())
    (seen,) = drawn
    kept = checkpoint.load_adapter(often, 2)
    assert all(torch.equal(seen[key], kept[key]) for key in kept)
    live = adapter(train(make_dataset("live", **{"train.steps": 4})))
    assert any(not torch.equal(tensor, adapter(once)[key]) for key, tensor in live.items())
