"""Work done in threads ahead of who uses it: in order, and only a little ahead, so that memory holds. And the engine that does a
stage's work on many photos where no other is chosen; `cluster` is the other."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any, TypeVar

THREADS = min(8, os.cpu_count() or 1)  # decoders and OpenCV release the interpreter lock
Item = TypeVar("Item")


def ahead(work: Callable[[Item], Any], items: Iterable[Item], most: int = 2 * THREADS) -> Iterator[tuple[Item, Future]]:
    """Each item with the future of work(item), in their order; at most `most` are begun or waiting. Who stops early, by
    Ctrl-C too, waits for no more than the work at hand."""
    coming, waiting = iter(items), deque()
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            while True:
                waiting.extend((item, pool.submit(work, item)) for item in islice(coming, most - len(waiting)))
                if not waiting:
                    return
                yield waiting.popleft()
        finally:
            for _, job in waiting:
                job.cancel()


class Threads:
    """The engine of this process. An engine does what a stage asks for with many photos; the stage alone writes down what comes of it."""

    is_here = True  # models that the stage has opened can be used

    def __init__(self, count: int = THREADS):
        self.count = count

    def each(
        self, work: Callable[[list[Item]], list[Any]], items: Iterable[Item], at_once: int = 1, with_model: bool = False
    ) -> Iterator[tuple[Item, Any]]:
        """Each item with what `work` makes of it, as they come; `work` gets `at_once` of them and returns as many results. Only a few are
        held at a time. What `work` raises is raised here. Ctrl-C waits for what is being done, and for nothing else."""
        waiting = in_parts(items, at_once)
        with ThreadPoolExecutor(self.count) as pool:
            running = {pool.submit(work, part): part for part in islice(waiting, 2 * self.count)}
            try:
                while running:
                    for finished in wait(running, return_when=FIRST_COMPLETED).done:
                        yield from zip(running.pop(finished), finished.result(), strict=True)
                        running |= {pool.submit(work, part): part for part in islice(waiting, 1)}
            finally:
                for left in running:
                    left.cancel()

    def close(self) -> None:
        """Give back what the engine holds; it begins anew where it is asked again."""


def in_parts(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of `size`, the last one shorter."""
    coming = iter(items)
    while part := list(islice(coming, size)):
        yield part
