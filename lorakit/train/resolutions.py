"""Several resolutions: every picture is trained at smaller sizes too, shrunk from what stands in the dataset."""

from __future__ import annotations

from collections.abc import Sequence

from lorakit.photos import buckets
from lorakit.project import Project
from lorakit.record import Record
from lorakit.train.batches import TrainingPicture


def at_every_resolution(project: Project, photos: Sequence[Record]) -> list[TrainingPicture]:
    """The photos, and after them each once more for every one of `train.other_resolutions` at which it is smaller: with the
    crop of that size, and as `view` the box of the dataset's picture that it is shrunk from."""
    train, crop = project.settings.train, project.settings.crop
    found = [TrainingPicture(**record) for record in photos]
    for resolution in sorted(set(train.other_resolutions), reverse=True):
        sizes = buckets.sizes(resolution, train.bucket_step, crop.max_aspect)
        found += [view for record in photos if (view := _view(record, sizes))]
    return found


def _view(record: Record, sizes: list[buckets.Size]) -> TrainingPicture | None:
    (width, height), (left, top, right, bottom) = record["crop"]["bucket"], record["crop"]["box"]
    bucket = buckets.nearest(width, height, sizes)
    if bucket[0] * bucket[1] >= width * height:
        return None  # a small photo has been given a small bucket: it is not enlarged for this
    across, down = buckets.largest_box(width, height, bucket)
    x, y = (width - across) // 2, (height - down) // 2
    scale_x, scale_y = (right - left) / width, (bottom - top) / height
    box = [left + x * scale_x, top + y * scale_y, left + (x + across) * scale_x, top + (y + down) * scale_y]
    return {**record, "crop": {"box": box, "bucket": list(bucket)}, "view": [x, y, x + across, y + down]}
