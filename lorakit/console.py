"""What lorakit says while it works: progress bars on a terminal, plain lines elsewhere. Always on stderr;
stdout is left to results that another program may read."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

PLAIN_EVERY = 5.0  # seconds between two progress lines when the output is no terminal


def safe(text: str) -> str:
    """Names, captions, keys and messages come from others' files: control characters, line breaks, ESC and marks that turn the
    direction of writing stand by their escapes, so that a line on the terminal stays the line that it is."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def say(text: str) -> None:
    print(safe(text), file=sys.stderr, flush=True)


def warn(text: str) -> None:
    say(f"warning: {text}")


class Progress:
    """Counts towards `total`; `advance` may carry a short note such as the loss."""

    def __init__(self, label: str, total: int, show):
        self.label, self.total, self.count = label, total, 0
        self._show = show

    def advance(self, count: int = 1, note: str = "") -> None:
        self.count += count
        self._show(self.count, note)


@contextmanager
def progress(label: str, total: int, start: int = 0) -> Iterator[Progress]:
    """A progress bar (terminal) or a line now and then (file, pipe) for `total` items of work."""
    with _bar(label, total, start) if sys.stderr.isatty() else _lines(label, total) as shown:
        shown.count = start
        yield shown


def track(items: Iterable, label: str, total: int) -> Iterator:
    """Iterate over `items` under a progress bar."""
    with progress(label, total) as shown:
        for item in items:
            yield item
            shown.advance()


@contextmanager
def _bar(label: str, total: int, start: int) -> Iterator[Progress]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description:<9}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with RichProgress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total, completed=start, note="")
        yield Progress(label, total, lambda count, note: bar.update(task, completed=count, note=escape(safe(note))))


@contextmanager
def _lines(label: str, total: int) -> Iterator[Progress]:
    last = time.monotonic()

    def show(count: int, note: str) -> None:
        nonlocal last
        if time.monotonic() - last >= PLAIN_EVERY:
            last = time.monotonic()
            say(f"{label:<9} {count}/{total} {note}".rstrip())

    yield Progress(label, total, show)
