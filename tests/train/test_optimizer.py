"""The learning rate is a function of the step."""

import math

import pytest

from lorakit.settings import Train
from lorakit.train.optimizer import rate_at


def rates(steps, **settings):
    return [rate_at(step, steps, Train(learning_rate=1.0, **settings)) for step in range(steps)]


def test_warm_up_rises_in_equal_steps_to_the_peak():
    assert rates(8, warmup_steps=4, lr_schedule="constant") == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]


def test_cosine_falls_from_the_peak_and_is_half_way_down_in_the_middle():
    found = rates(100, lr_schedule="cosine")
    assert found[0] == 1 and found == sorted(found, reverse=True)
    assert found[50] == pytest.approx(0.5) and found[99] == pytest.approx(0.5 * (1 + math.cos(0.99 * math.pi)))
