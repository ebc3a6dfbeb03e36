"""Stage crop: decides for every selected photo its bucket and the box that is cut out of it."""

from __future__ import annotations

from lorakit.photos import buckets
from lorakit.photos.buckets import Box, Size
from lorakit.project import Project, manifest, stamps
from lorakit.record import Crop, Record
from lorakit.settings import Settings


def crop(project: Project) -> None:
    """Give every selected photo `crop` = {"box": [left, top, right, bottom], "bucket": [width, height]}, in pixels of
    the upright photo; the cut itself is made when the dataset is written.

    Borders are left out, faces stay whole, else what draws the eye stays in, and a photo too small for the base's buckets
    gets a smaller one rather than be enlarged more than `crop.max_upscale` times. A crop by hand wins over all of this.
    """
    changed = []
    for record in project.manifest.selected:
        stamp = stamps.crop(project, record)
        if record.get("done", {}).get("crop") == stamp:
            continue
        if by_hand := record.get("human", {}).get("crop"):
            box, bucket = crop_by_hand(by_hand, project.settings)
        else:
            region = region_of(record, project.settings)
            bucket = bucket_for(region, project.settings)
            box = place(region, bucket, record, project.settings.crop.faces)
        changed.append(manifest.finish(record, "crop", stamp, crop={"box": list(box), "bucket": list(bucket)}))
    project.manifest.keep_all(changed)


def region_of(record: Record, settings: Settings) -> Box:
    """The photo without its borders."""
    measures = record["measures"]
    borders = measures.get("borders", {"share": 0.0})
    if settings.crop.borders and borders["share"] > settings.check.borders.max_share:
        return tuple(borders["box"])
    return 0, 0, measures["size"]["width"], measures["size"]["height"]


def bucket_for(region: Box, settings: Settings) -> Size:
    """The base's bucket nearest in aspect, or one of less area where the photo has too few pixels for that."""
    train, limits = settings.train, settings.crop
    size = region[2] - region[0], region[3] - region[1]
    return buckets.with_enough_pixels(*size, train.resolution, train.bucket_step, limits.max_aspect, limits.max_upscale)


def crop_by_hand(chosen: Crop, settings: Settings) -> tuple[Box, Size]:
    """A person's box and bucket as they stand; for another base, whose buckets are others, its nearest bucket and what of
    the box has that shape."""
    left, top, right, bottom = chosen["box"]
    box, bucket = (left, top, right, bottom), (chosen["bucket"][0], chosen["bucket"][1])
    fitting = bucket_for(box, settings)
    if bucket == fitting or bucket in buckets.sizes(settings.train.resolution, settings.train.bucket_step, settings.crop.max_aspect):
        return box, bucket
    return buckets.within(box, fitting), fitting


def place(region: Box, bucket: Size, record: Record, with_faces: bool = True) -> Box:
    """The largest box of the bucket's aspect inside the region, laid where it keeps most of what draws the eye, and moved
    from there by no more than it takes to keep the faces whole."""
    size = record["measures"]["size"]
    look = record.get("look") or {}
    width, height = region[2] - region[0], region[3] - region[1]
    box_width, box_height = buckets.largest_box(width, height, bucket)
    left = region[0] + _offset(look.get("columns"), size["width"], region[0], width, box_width)
    top = region[1] + _offset(look.get("rows"), size["height"], region[1], height, box_height)
    faces = record["measures"].get("faces", {}).get("boxes") if with_faces else None
    if faces:
        wanted = _together(faces, region, (box_width, box_height))
        left = _moved(left, box_width, wanted[0], wanted[2], region[0], region[2])
        top = _moved(top, box_height, wanted[1], wanted[3], region[1], region[3])
    return left, top, left + box_width, top + box_height


def _together(faces: list[list[int]], region: Box, most: Size) -> Box:
    """The smallest box around the largest face and as many others, from large to small, as `most` has room for."""
    wanted = _with_room(faces[0], region)
    for face in faces[1:]:
        also = _with_room(face, region)
        both = min(wanted[0], also[0]), min(wanted[1], also[1]), max(wanted[2], also[2]), max(wanted[3], also[3])
        if both[2] - both[0] <= most[0] and both[3] - both[1] <= most[1]:
            wanted = both
    return wanted


def _with_room(face: list[int], region: Box) -> Box:
    """A face with its hair, ears and neck: a detector's box runs from forehead to chin."""
    left, top, right, bottom = face
    beside, above, below = (right - left) // 3, (bottom - top) // 2, (bottom - top) // 3
    return max(region[0], left - beside), max(region[1], top - above), min(region[2], right + beside), min(region[3], bottom + below)


def _moved(start: int, kept: int, first: int, last: int, low: int, high: int) -> int:
    """Where a span of `kept` pixels begins, moved from `start` until it holds [first, last]; of a longer one, the middle."""
    if last - first >= kept:
        moved = (first + last - kept) // 2
    else:
        moved = min(max(start, last - kept), first)
    return max(low, min(moved, high - kept))


def _offset(profile: str | None, whole: int, start: int, length: int, kept: int) -> int:
    weights = list(bytes.fromhex(profile or ""))
    first, last = (round(pixel / whole * len(weights)) for pixel in (start, start + length))
    return buckets.best_offset(weights[first:last], length, kept)
