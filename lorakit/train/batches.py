"""The order in which photos are trained on: a pure function of the seed, so that a resumed run needs no state.

Every photo is used in every epoch (as often as its repeats say). A bucket's batches are as even as they can be: 17 photos
in batches of 8 are 6, 6 and 5, since in a last batch of one that photo would count as much as eight others."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence

from lorakit.record import Record


class TrainingPicture(Record, total=False):
    """A record as the loop sees it. These keys are made for one training and never stand in the manifest."""

    regularisation: bool  # of the class, not the subject
    view: list[float]  # left, top, right, bottom in the dataset's picture: the part of it that is trained on, smaller


Batch = list[TrainingPicture]


def epoch(photos: Sequence[TrainingPicture], batch_size: int, seed: int, number: int) -> list[Batch]:
    """The batches of epoch `number`: photos of one bucket together, photos and batches shuffled."""
    shuffle = random.Random(f"{seed}:{number}").shuffle
    groups: dict[tuple, Batch] = defaultdict(list)
    for record in photos:
        groups[tuple(record["crop"]["bucket"])] += [record] * record.get("repeats", 1)
    batches = []
    for group in groups.values():
        shuffle(group)
        count = math.ceil(len(group) / batch_size)
        batches += [group[first::count] for first in range(count)]
    shuffle(batches)
    return batches


class BatchSampler:
    """Batch number n of a training, counted over all epochs."""

    def __init__(self, photos: Sequence[TrainingPicture], batch_size: int, seed: int):
        self._photos, self._size, self._seed = photos, batch_size, seed
        self._number, self._batches = 0, epoch(photos, batch_size, seed, 0)
        self.per_epoch = len(self._batches)

    def __getitem__(self, n: int) -> Batch:
        number, position = divmod(n, self.per_epoch)
        if number != self._number:
            self._number, self._batches = number, epoch(self._photos, self._size, self._seed, number)
        return self._batches[position]
