"""The order of photos: every photo every epoch, and the same order after a resume."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as some

from lorakit.train import batches

PHOTOS = some.lists(some.tuples(some.sampled_from([(64, 64), (80, 48), (48, 80)]), some.integers(1, 3)), min_size=1, max_size=12)


def records(photos):
    return [{"id": str(n), "crop": {"bucket": list(bucket)}, "repeats": repeats} for n, (bucket, repeats) in enumerate(photos)]


@given(PHOTOS, some.integers(1, 5), some.integers(0, 99), some.integers(0, 5))
def test_every_photo_is_used_in_every_epoch_as_often_as_its_repeats(photos, size, seed, number):
    made = batches.epoch(records(photos), size, seed, number)
    used = Counter(record["id"] for batch in made for record in batch)
    assert used == {str(n): repeats for n, (_, repeats) in enumerate(photos)}
    assert all(len(batch) <= size and len({tuple(r["crop"]["bucket"]) for r in batch}) == 1 for batch in made)


@given(PHOTOS, some.integers(1, 5), some.integers(0, 99))
def test_no_batch_of_a_bucket_is_more_than_one_photo_smaller_than_another(photos, size, seed):
    sizes = {}
    for batch in batches.epoch(records(photos), size, seed, 0):
        sizes.setdefault(tuple(batch[0]["crop"]["bucket"]), []).append(len(batch))
    assert all(max(found) - min(found) <= 1 for found in sizes.values())


@given(PHOTOS, some.integers(1, 3), some.integers(0, 30))
def test_a_batch_is_a_function_of_its_number(photos, size, n):
    walked = batches.BatchSampler(records(photos), size, seed=1)
    for earlier in range(n):
        walked[earlier]
    assert walked[n] == batches.BatchSampler(records(photos), size, seed=1)[n]


def test_epochs_differ_in_order():
    photos = records([((64, 64), 1)] * 8)
    orders = {tuple(r["id"] for batch in batches.epoch(photos, 1, 7, number) for r in batch) for number in range(5)}
    assert len(orders) > 1
