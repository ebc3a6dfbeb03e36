"""Work is done ahead in threads, in order, and never far ahead."""

import threading

import pytest

from lorakit.ahead import ahead


def test_order_is_kept_and_no_more_than_a_few_are_begun():
    begun, lock = [], threading.Lock()

    def work(item: int) -> int:
        with lock:
            begun.append(item)
        return item * item

    for count, (item, job) in enumerate(ahead(work, iter(range(50)), most=4)):
        assert (item, job.result()) == (count, count * count)
        assert len(begun) <= count + 4
    assert sorted(begun) == list(range(50))


def test_what_goes_wrong_comes_out_where_the_result_is_asked_for():
    def work(item: int) -> float:
        return 1 / item

    jobs = [job for _, job in ahead(work, [1, 0, 2])]
    assert jobs[0].result() == 1 and jobs[2].result() == 0.5
    with pytest.raises(ZeroDivisionError):
        jobs[1].result()


def test_who_stops_early_leaves_the_rest_undone():
    begun = []
    jobs = ahead(begun.append, range(1000), most=3)
    next(jobs)
    jobs.close()
    assert len(begun) <= 3


def test_the_engine_of_this_process_gives_each_item_its_result_however_they_come():
    from lorakit.ahead import Threads

    parts, lock = [], threading.Lock()

    def work(items: list[int]) -> list[int]:
        with lock:
            parts.append(len(items))
        return [item * item for item in items]

    assert dict(Threads().each(work, range(50), at_once=8)) == {item: item * item for item in range(50)}
    assert sorted(parts) == [2, 8, 8, 8, 8, 8, 8]
    with pytest.raises(ZeroDivisionError):
        list(Threads().each(lambda items: [1 / item for item in items], [1, 0]))
