"""What a step costs beside the bare one, at a size for CI: the figures are there; whether the ratio holds is for a quiet machine."""

import argparse

from bench import train
from lorakit.train import learner, loss


def test_a_step_is_measured_beside_the_bare_one(monkeypatch):
    for module, name in ((loss, "load_latents"), (loss, "load_text"), (learner, "load_family")):
        monkeypatch.setattr(module, name, getattr(module, name))  # which the bench replaces
    words = {"size": "tiny", "resolution": 64, "batch": 2, "rounds": 2, "device": "cpu", "precision": "fp32"}
    found = train.compare(argparse.Namespace(**words))
    assert found["s/step"]["bare"] > 0 and 0.5 < found["ratio of CPU seconds"] < 3
