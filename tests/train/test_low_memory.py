"""A base in few bits: the whole way from the cache to a checked LoRA file, and what is refused before anything starts."""

import importlib.util

import pytest

from lorakit import pipeline
from lorakit.bases import load, quantised
from lorakit.errors import LorakitError
from lorakit.train.grid import grid
from tests.conftest import adapter

KINDS = [
    {},
    {"train.adapter": "lokr"},
    {"train.adapter": "loha"},
    {"train.adapter": "dora"},
    {"train.init": "pissa"},
    {"train.init": "olora"},
]
SHORT = {"train.steps": 2, "sample.every": 1, "sample.count": 1, "select.count": 2, "select.everything": False}


@pytest.mark.parametrize(
    ("precision", "kind"),
    [("fp8", {}), ("nf4", {"train.adapter": "lokr"})]
    + [pytest.param(p, k, marks=pytest.mark.slow) for p in quantised.PRECISIONS for k in KINDS],
)
def test_a_training_on_a_base_in_few_bits_goes_the_whole_way(make_dataset, precision, kind):
    project = make_dataset(**{**SHORT, "train.base_precision": precision, "train.learning_rate": 1e-2, **kind})
    pipeline.walk(project, first="cache")
    assert pipeline.is_run_done(project, "export")
    family = load.load_family(project)
    held = [m for m in family.denoiser.modules() if isinstance(m, quantised.QuantisedLinear)]
    assert held and {m.precision for m in held} == {precision}
    grid(project, strengths=(0.0, 1.0))
    run = pipeline.runs.all_runs(project.folder)[0]
    assert any(tensor.any() for key, tensor in adapter(run).items() if key.endswith(("lora_B.weight", "lokr_w1", "hada_w1_b")))


def test_nf4_without_bitsandbytes_is_refused_before_anything_starts(make_dataset, monkeypatch):
    project = make_dataset(**{"train.base_precision": "nf4"})
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "bitsandbytes" else find(name, *rest))
    with pytest.raises(LorakitError, match="needs bitsandbytes: pip install"):
        pipeline.walk(project)
    assert not (project.folder / "runs").exists()


def test_apples_gpus_hold_no_base_in_few_bits():
    with pytest.raises(LorakitError, match="not on Apple's GPUs"):
        load.check_base_precision("fp8", "mps")
    load.check_base_precision("auto", "mps")
