"""A project for the tests of curation, which need no weights."""

import pytest

from lorakit import new_project, pipeline


@pytest.fixture
def curated(tmp_path, photo_folder):
    """curated(last='dedupe', **settings) begins a project on the six good photos and walks it up to `last`."""

    def make(last: str | None = None, **settings):
        project = new_project(
            tmp_path / "project",
            photo_folder,
            trigger="zwx",
            class_word="mug",
            settings={"select.least": 1, **settings},
        )
        if last:
            pipeline.walk(project, last=last)
        return project

    return make
