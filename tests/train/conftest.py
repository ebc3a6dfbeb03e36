"""Projects whose dataset is ready to train on: photos with captions beside them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lorakit import pipeline

sys.path.insert(0, str(Path(__file__).parent))  # for tiny_bases

BY_HAND = {"caption.captioner": "text_files", "select.everything": True, "train.steps": 6, "sample.every": 0, "train.bucket_step": 8}


@pytest.fixture
def make_dataset(make_project, photo_folder):
    """make_dataset(**settings) is a project walked up to its dataset; six photos in three buckets, each with its words."""

    def make(name: str = "project", **settings):
        for path in photo_folder.glob("*.jpg"):
            path.with_suffix(".txt").write_text(f"a mug, {path.stem}", encoding="utf-8")
        project = make_project(name, **{**BY_HAND, **settings})
        pipeline.walk(project, last="dataset")
        return project

    return make


@pytest.fixture(scope="session")
def tiny_base(tiny_weights, tmp_path_factory):
    """tiny_base('flux1') is a folder with random weights of that family, built once."""
    from tiny_bases import build

    made = {"sd15": tiny_weights}

    def base(family: str):
        if family not in made:
            made[family] = build(family, tmp_path_factory.mktemp("bases") / family)
        return made[family]

    return base


@pytest.fixture
def load_tiny(tiny_base):
    """load_tiny('flux1', Train(...)) is that tiny base, loaded in fp32 on the CPU."""
    import torch

    from lorakit import lookup
    from lorakit.settings import Train
    from lorakit.weights import Source

    def load(family: str, settings: Train = Train(rank=4)):
        module = lookup.load(lookup.FAMILIES, family)
        return module.CLASS(Source(str(tiny_base(family)), True), "cpu", torch.float32, settings)

    return load
