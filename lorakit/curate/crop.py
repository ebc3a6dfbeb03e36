"""Stage crop: decides for every selected photo its bucket and the box that is cut out of it."""

from __future__ import annotations

from lorakit import buckets, manifest, stamps
from lorakit.buckets import Box, Size
from lorakit.manifest import Record
from lorakit.project import Project
from lorakit.settings import Settings


def crop(project: Project) -> None:
    """Give every selected photo `crop` = {"box": [left, top, right, bottom], "bucket": [width, height]}, in pixels of
    the upright photo; the cut itself is made when the dataset is written.

    Borders are left out, what draws the eye stays in, and a photo too small for the base's buckets gets a smaller one
    rather than be enlarged more than `crop.max_upscale` times.
    """
    changed = []
    for record in project.manifest.selected:
        stamp = stamps.crop(project, record)
        if record.get("done", {}).get("crop") == stamp:
            continue
        region = region_of(record, project.settings)
        bucket = bucket_for(region, project.settings)
        box = place(region, bucket, record)
        changed.append(manifest.finish(record, "crop", stamp, crop={"box": list(box), "bucket": list(bucket)}))
    project.manifest.keep(*changed)
    project.manifest.save()


def region_of(record: Record, settings: Settings) -> Box:
    """The photo without its borders."""
    measures = record["measures"]
    borders = measures.get("borders", {"share": 0.0})
    if settings.crop.borders and borders["share"] > settings.check.borders.max_share:
        return tuple(borders["box"])
    return 0, 0, measures["size"]["width"], measures["size"]["height"]


def bucket_for(region: Box, settings: Settings) -> Size:
    """The base's bucket nearest in aspect, or one of less area where the photo has too few pixels for that."""
    train, most = settings.train, settings.crop.max_upscale
    width, height = region[2] - region[0], region[3] - region[1]
    resolution = train.resolution
    while True:
        bucket = buckets.nearest(width, height, buckets.sizes(resolution, train.bucket_step, settings.crop.max_aspect))
        kept = buckets.largest_box(width, height, bucket)
        if bucket[0] <= kept[0] * most or resolution <= train.bucket_step:
            return bucket
        resolution -= train.bucket_step


def place(region: Box, bucket: Size, record: Record) -> Box:
    """The largest box of the bucket's aspect inside the region, laid where it keeps most of what draws the eye."""
    size = record["measures"]["size"]
    look = record.get("look") or {}
    width, height = region[2] - region[0], region[3] - region[1]
    box_width, box_height = buckets.largest_box(width, height, bucket)
    left = region[0] + _offset(look.get("columns"), size["width"], region[0], width, box_width)
    top = region[1] + _offset(look.get("rows"), size["height"], region[1], height, box_height)
    return left, top, left + box_width, top + box_height


def _offset(profile: str | None, whole: int, start: int, length: int, kept: int) -> int:
    weights = list(bytes.fromhex(profile or ""))
    first, last = (round(pixel / whole * len(weights)) for pixel in (start, start + length))
    return buckets.best_offset(weights[first:last], length, kept)
