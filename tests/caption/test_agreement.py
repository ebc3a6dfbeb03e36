"""Image-text agreement with a tiny random open_clip model in the hub's format."""

import lorakit
from lorakit import pipeline


def test_texts_are_scored_and_the_worst_is_warned_of(tiny_clip, make_project):
    project = make_project(**{"caption.clip": str(tiny_clip), "caption.min_agreement": 1.0})
    lorakit.walk(project, last="trigger")
    for photo, record in zip(pipeline.status(project)["photos"], project.manifest, strict=True):
        assert {"reason": "does_not_match_photo", "value": record["trigger"]["agreement"], "threshold": 1.0} in photo[
            "reasons"
        ]
    lax = lorakit.open_project(project.folder, settings={"caption.min_agreement": -1.0})
    assert not any(
        "does_not_match" in r["reason"] for photo in pipeline.status(lax)["photos"] for r in photo["reasons"]
    )


def test_without_weights_nothing_is_measured(make_project):
    project = make_project()
    lorakit.walk(project, last="trigger")
    assert not any("agreement" in r["trigger"] for r in project.manifest.selected)
