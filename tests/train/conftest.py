"""Projects whose dataset is ready to train on: photos with captions beside them."""

from __future__ import annotations

import pytest

from lorakit import pipeline

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
