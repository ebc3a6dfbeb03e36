"""Aspect buckets: the picture sizes that a base is trained at, all of about one area."""

from __future__ import annotations

import math

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


def centre_box(width: int, height: int, bucket: Size) -> Box:
    """The largest centred box of the bucket's aspect inside a photo."""
    aspect = bucket[0] / bucket[1]
    box_width = min(width, round(height * aspect))
    box_height = min(height, round(width / aspect))
    left, top = (width - box_width) // 2, (height - box_height) // 2
    return left, top, left + box_width, top + box_height
