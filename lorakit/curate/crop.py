"""Stage crop: decides for every selected photo its bucket and the box that is cut out of it."""

from __future__ import annotations

from lorakit import buckets, manifest, stamps
from lorakit.project import Project


def crop(project: Project) -> None:
    """Give every selected photo `crop` = {"box": [left, top, right, bottom], "bucket": [width, height]}, in pixels of
    the upright photo; the cut itself is made when the dataset is written."""
    train = project.settings.train
    choices = buckets.sizes(train.resolution, train.bucket_step, project.settings.crop.max_aspect)
    changed = []
    for record in project.manifest.selected:
        stamp = stamps.crop(project, record)
        if record.get("done", {}).get("crop") == stamp:
            continue
        size = record["measures"]["size"]
        bucket = buckets.nearest(size["width"], size["height"], choices)
        box = buckets.centre_box(size["width"], size["height"], bucket)
        changed.append(manifest.finish(record, "crop", stamp, crop={"box": list(box), "bucket": list(bucket)}))
    project.manifest.keep(*changed)
    project.manifest.save()
