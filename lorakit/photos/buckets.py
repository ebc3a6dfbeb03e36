"""Aspect buckets: the picture sizes that a base is trained at, all of about one area."""

from __future__ import annotations

import math
from collections.abc import Sequence

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels of the upright photo
Size = tuple[int, int]  # width, height


def sizes(resolution: int, step: int, max_aspect: float) -> list[Size]:
    """Bucket sizes (width, height): multiples of `step`, area at most `resolution` squared, sides within `max_aspect`."""
    area = resolution * resolution
    found = set()
    side = max(step, resolution // step * step)
    found.add((side, side))
    for short in range(step, side + 1, step):
        long = area // short // step * step
        if long and long / short <= max_aspect:
            found |= {(short, long), (long, short)}
    return sorted(found)


def nearest(width: int, height: int, buckets: list[Size]) -> Size:
    """The bucket whose aspect is nearest the photo's; of several alike the largest."""
    aspect = math.log(width / height)
    return min(buckets, key=lambda size: (round(abs(math.log(size[0] / size[1]) - aspect), 6), -size[0] * size[1]))


def largest_box(width: int, height: int, bucket: Size) -> Size:
    """Width and height of the largest box of the bucket's aspect inside a picture."""
    aspect = bucket[0] / bucket[1]
    return max(1, min(width, round(height * aspect))), max(1, min(height, round(width / aspect)))


def with_enough_pixels(width: int, height: int, resolution: int, step: int, max_aspect: float, max_upscale: float) -> Size:
    """The bucket nearest in aspect, or one of less area where a picture would be enlarged more than `max_upscale` times."""
    while True:
        bucket = nearest(width, height, sizes(resolution, step, max_aspect))
        if bucket[0] <= largest_box(width, height, bucket)[0] * max_upscale or resolution <= step:
            return bucket
        resolution -= step


def has_shape(box: Sequence[int], bucket: Sequence[int]) -> bool:
    """Whether a box (left, top, right, bottom) has the bucket's shape within a pixel."""
    width, height = box[2] - box[0], box[3] - box[1]
    return abs(width - height * bucket[0] / bucket[1]) <= 1 or abs(height - width * bucket[1] / bucket[0]) <= 1


def within(box: Sequence[int], bucket: Size) -> Box:
    """The largest box of the bucket's shape about the middle of another."""
    width, height = largest_box(box[2] - box[0], box[3] - box[1], bucket)
    left, top = box[0] + (box[2] - box[0] - width) // 2, box[1] + (box[3] - box[1] - height) // 2
    return left, top, left + width, top + height


def best_offset(weights: Sequence[float], length: int, kept: int) -> int:
    """Where along a side of `length` pixels a span of `kept` pixels holds most of `weights`, which lie evenly along the
    side; of offsets that hold as much, the one nearest the middle."""
    middle = (length - kept) / 2
    if not sum(weights):
        return round(middle)
    sums = [0.0]
    for weight in weights:
        sums.append(sums[-1] + weight)

    def before(pixel: float) -> float:
        place = pixel / length * len(weights)
        whole = min(int(place), len(weights) - 1)
        return sums[whole] + weights[whole] * (place - whole)

    step = max(1, (length - kept) // 64)
    offsets = [*range(0, length - kept + 1, step), round(middle)]
    return max(offsets, key=lambda at: (round(before(at + kept) - before(at), 3), -abs(at - middle)))
