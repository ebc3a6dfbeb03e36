"""The learning rate is a function of the step; optimizers are found by name, by path, or refused with what to install."""

import copy
import math
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lorakit.errors import LorakitError
from lorakit.settings import Train
from lorakit.train.optimizer import EXTRAS, PACKAGES, PATHS, find_class, load_state, lr_at, make_optimizer, set_lr, update_where


def rates(steps, **settings):
    return [lr_at(step, steps, Train(learning_rate=1.0, **settings)) for step in range(steps)]


def test_warm_up_rises_in_equal_steps_to_the_peak():
    assert rates(8, warmup_steps=4, lr_schedule="constant") == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]


def test_cosine_falls_from_the_peak_and_is_half_way_down_in_the_middle():
    found = rates(100, lr_schedule="cosine")
    assert found[0] == 1 and found == sorted(found, reverse=True)
    assert found[50] == pytest.approx(0.5) and found[99] == pytest.approx(0.5 * (1 + math.cos(0.99 * math.pi)))


def test_linear_and_wsd_end_at_zero():
    assert rates(4, lr_schedule="linear") == [1, 0.75, 0.5, 0.25]
    assert rates(10, lr_schedule="wsd") == pytest.approx([1] * 9 + [0.5])


def a_layer():
    return nn.ModuleDict({"lora_A": nn.Linear(2, 2, bias=False), "lora_B": nn.Linear(2, 2, bias=False)})


def test_lora_plus_lets_b_learn_faster_at_every_step():
    optimizer = make_optimizer(a_layer(), Train(lora_plus_ratio=16.0))
    set_lr(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 8.0]


@pytest.mark.parametrize(
    ("name", "cls"), [("adamw", torch.optim.AdamW), ("adafactor", torch.optim.Adafactor), ("torch.optim.RAdam", torch.optim.RAdam)]
)
def test_optimizers_are_found_and_lower_a_loss(name, cls):
    layer = a_layer()
    optimizer = make_optimizer(layer, Train(optimizer=name, learning_rate=0.05))
    assert type(optimizer) is cls
    losses = []
    for _ in range(20):
        loss = (layer["lora_B"](layer["lora_A"](torch.ones(2))) - 1).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_an_optimizer_that_is_not_there_says_what_to_install():
    with pytest.raises(LorakitError, match="pip install no_such_package"):
        find_class("no_such_package.optim.Best")
    with pytest.raises(LorakitError, match="choose adamw, adafactor"):
        find_class("adam")


@pytest.mark.parametrize(("name", "rate"), [("lion", 0.01), ("prodigy", 1.0), ("schedulefree", 0.05), ("adamw8bit", 0.05)])
def test_optimizers_of_other_packages_lower_a_loss(name, rate):
    pytest.importorskip(PATHS[name].split(".")[0])
    torch.manual_seed(0)
    layer = nn.ModuleDict({"lora_A": nn.Linear(64, 64, bias=False), "lora_B": nn.Linear(64, 64, bias=False)})  # 8 bits begin at 4096
    settings = Train(optimizer=name, learning_rate=rate)
    optimizer = make_optimizer(layer, settings)
    losses = []
    for step in range(60):
        set_lr(optimizer, lr_at(step, 60, settings))
        loss = (layer["lora_B"](layer["lora_A"](torch.ones(64))) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_schedule_free_needs_no_schedule_but_a_warm_up():
    assert rates(4, optimizer="schedulefree", warmup_steps=2) == [0.5, 1, 1, 1]


@pytest.mark.parametrize("name", ["lion", "prodigy", "schedulefree", "adamw8bit"])
def test_a_missing_package_is_one_line_that_names_the_extra(monkeypatch, name):
    package = PATHS[name].split(".")[0]
    monkeypatch.setitem(sys.modules, package, None)  # what Python itself does with a module that must not be found
    for module in [m for m in sys.modules if m.startswith(f"{package}.")]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        LorakitError,
        match=rf"is not installed; pip install {PACKAGES.get(package, package)}, or lorakit with its extra \[{EXTRAS[package]}\]$",
    ):
        find_class(name)


def test_every_extra_that_is_named_is_one_of_the_package():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    for package, extra in EXTRAS.items():
        assert re.search(rf"^{extra} = .*{PACKAGES.get(package, package)}", text, re.M | re.I)


def test_an_optimizer_that_cannot_take_the_settings_is_one_line():
    with pytest.raises(LorakitError, match="train.optimizer = torch.optim.LBFGS: does not take"):
        make_optimizer(a_layer(), Train(optimizer="torch.optim.LBFGS"))


@pytest.mark.parametrize(("name", "options"), [("AdamW", {"fused": True}), ("AdamW", {}), ("Adafactor", {})])
def test_an_update_of_no_numbers_is_left_out_on_the_device(name, options):
    """Fused, as on a card, nothing at all is to be seen of it; others are given a gradient of zeros."""
    parameter = nn.Parameter(torch.ones(4, 4))
    optimizer = getattr(torch.optim, name)([parameter], lr=0.1, **options)
    for gradient in (0.5, float("nan"), 0.5):
        parameter.grad = torch.full((4, 4), gradient)
        before = parameter.detach().clone()
        update_where(optimizer, [parameter], parameter.grad.isfinite().all())
        assert parameter.isfinite().all()
        if options:
            assert torch.equal(parameter, before) == (gradient != 0.5)
    steps = optimizer.state[parameter]["step"]
    assert steps == (2 if options else 3) and not hasattr(optimizer, "found_inf")


def test_moments_go_on_in_8_bits():
    def gradients(step):
        return [torch.randn(shape, generator=torch.Generator().manual_seed(step)) for shape in ((64, 128), (8, 8))]

    def trained(optimizer_class, parameters, steps, state=None):
        optimizer = optimizer_class(parameters, lr=0.01)
        if state:
            load_state(optimizer, state)
        for step in steps:
            for parameter, gradient in zip(parameters, gradients(step), strict=True):
                parameter.grad = gradient
            optimizer.step()
        return optimizer

    whole = [nn.Parameter(torch.zeros(64, 128)), nn.Parameter(torch.zeros(8, 8))]
    first = trained(torch.optim.AdamW, whole, range(10))
    few = [nn.Parameter(p.detach().clone()) for p in whole]
    state = copy.deepcopy(first.state_dict())
    start = [p.detach().clone() for p in whole]
    trained(find_class("adamw8bit"), few, range(10, 14), state)
    trained(torch.optim.AdamW, whole, range(10, 14), state)
    for before, one, other in zip(start, whole, few, strict=True):
        assert (one - other).norm() < 0.05 * (one - before).norm()
