"""Numbers of a card are read some steps late: what is written, and what is told of one that is none."""

import io
import json

import pytest
import torch

from lorakit.errors import LorakitError
from lorakit.train.metrics import UNREAD, Metrics, Step


def step(number, loss=0.5, norm=1.0):
    return Step(number, number / 4, 1e-4, [f"{number}.jpg"], [], torch.tensor(loss), torch.tensor(norm))


def metrics(on_card, **options):
    return Metrics(io.StringIO(), "cuda" if on_card else "cpu", lambda line: LorakitError(f"step {line.step}: {line.photos}"), **options)


def test_a_card_is_asked_once_in_twenty_steps_and_a_cpu_each_time():
    late, soon = metrics(True), metrics(False)
    for number in range(1, UNREAD + 3):
        late.begin(), soon.begin()
        assert len(soon.add(step(number))) == 1
        assert len(late.add(step(number))) == (UNREAD if number == UNREAD else 0)
    assert [line.step for line in late.read()] == [UNREAD + 1, UNREAD + 2] and late.read() == []
    one, other = ([{**json.loads(line), "seconds": 0, "memory": 0} for line in m.file.getvalue().splitlines()] for m in (late, soon))
    assert one == other and one[0] == {
        "step": 1, "epoch": 0.25, "loss": 0.5, "rate": 1e-4, "grad_norm": 1.0, "seconds": 0, "memory": 0, "photos": ["1.jpg"],
    }  # fmt: skip


@pytest.mark.parametrize("bad", [{"loss": float("nan")}, {"norm": float("inf")}])
def test_a_step_that_is_no_number_is_told_with_its_photos_and_the_lines_before_are_kept(bad):
    late = metrics(True)
    for number in (1, 2, 3):
        late.begin()
        late.add(step(number, **(bad if number == 2 else {})))
    with pytest.raises(LorakitError, match=r"step 2: \['2.jpg'\]"):
        late.read()
    assert len(late.file.getvalue().splitlines()) == 1
    scaled = metrics(True, gradient_counts=False)  # in fp16 a gradient may overflow: the scale is lowered then
    scaled.begin()
    scaled.add(step(1, norm=float("inf")))
    assert len(scaled.read()) == 1


def test_every_line_is_reported_once_whoever_asks_for_it():
    told = []
    late = metrics(True, report=lambda line: told.append(line.step))
    for number in range(1, UNREAD + 3):
        late.begin()
        late.add(step(number))
    assert told == list(range(1, UNREAD + 1))
    late.read(), late.read()
    assert told == list(range(1, UNREAD + 3))
