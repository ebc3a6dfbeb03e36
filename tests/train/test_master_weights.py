"""An adapter whose copies stand in a base of bf16 learns what it learns where autocast makes the copies, to the bit."""

import pytest
import torch

from lorakit.train.batches import BatchSampler
from lorakit.train.cache import cache
from lorakit.train.learner import Learner
from lorakit.train.master_weights import MasterWeights

EVERYTHING = {
    "train.gradient_accumulation": 2, "train.ema": 0.9, "train.preservation": 0.1, "train.text_encoder": True,
    "train.targets": "conv", "train.init": "pissa",
}  # fmt: skip


@pytest.mark.parametrize("settings", [{}, pytest.param(EVERYTHING, marks=pytest.mark.slow)], ids=["plain", "everything"])
def test_the_bits_are_those_of_autocast(make_dataset, settings):
    project = make_dataset(**{"train.precision": "bf16"} | settings)
    sampler = BatchSampler(cache(project), 1, 0)
    ours, theirs = Learner(project), Learner(project)
    fp32 = theirs.masters.in_the_model()
    fp32.__enter__()
    theirs.masters = MasterWeights([], torch.bfloat16)
    steps = [[learner.learn(1e-2, sampler) for _ in range(2)] for learner in (ours, theirs)]
    assert {p.dtype for p in theirs.family.denoiser.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in ours.family.denoiser.parameters() if p.requires_grad} == {torch.bfloat16}
    for one, other in zip(*steps, strict=True):
        assert torch.equal(one.loss, other.loss) and torch.equal(one.norm, other.norm)
    one, other = ours.keep(), theirs.keep()
    assert one.adapter.keys() == other.adapter.keys() and all(torch.equal(one.adapter[key], other.adapter[key]) for key in one.adapter)
    assert {tensor.dtype for key, tensor in one.adapter.items() if key.endswith("weight")} == {torch.float32}

    again = Learner(project)
    again.take(one)
    assert torch.equal(again.learn(1e-2, sampler).loss, ours.learn(1e-2, sampler).loss)
