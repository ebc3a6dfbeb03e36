"""Work done in threads ahead of who uses it: in order, and only a little ahead, so that memory holds."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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
