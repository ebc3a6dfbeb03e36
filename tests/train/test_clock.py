"""Where a step's time goes, and what a card could do in it."""

import json

import pytest
import torch

from lorakit.train.clock import PARTS, Clock, counted, on_paper
from lorakit.train.metrics import StepMetrics


def test_seconds_go_to_the_part_that_they_were_spent_in(monkeypatch):
    times = iter([0.0, 1.0, 3.0, 6.0, 10.0, 10.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    clock = Clock("cpu")
    for part in ("data", "forward", "data", "forward", "optimizer", "end"):
        clock.mark(part)
    assert clock.read() == {"data": 1 + 3, "forward": 2 + 4, "optimizer": 0.5}
    assert Clock("cpu").read() == {}


def test_flops_are_two_for_a_weight_and_a_row():
    with torch.no_grad():
        found, flops = counted(lambda: torch.nn.Linear(8, 16, bias=False)(torch.ones(4, 8)))
    assert flops == 2 * 4 * 8 * 16 and found.shape == (4, 16)


def test_cards_are_known_by_a_part_of_their_name():
    assert on_paper("NVIDIA H100 80GB HBM3") == 989e12 and on_paper("NVIDIA L40S") == 362e12 and on_paper("a card of tomorrow") is None


def test_a_line_says_parts_memory_and_share_where_they_were_measured():
    one = StepMetrics(1, 0.1, 0.5, 1e-4, 1.0, 0.5, ["a.jpg"])
    assert not {"split", "memory", "mfu"} & json.loads(one.as_json()).keys()
    split = dict.fromkeys(PARTS, 0.123456)
    other = StepMetrics(1, 0.1, 0.5, 1e-4, 1.0, 0.5, ["a.jpg"], split=split, memory=3.14159, mfu=0.37777)
    line = json.loads(other.as_json())
    assert line["split"]["forward"] == pytest.approx(0.1235) and (line["memory"], line["mfu"]) == (3.142, 0.378)
