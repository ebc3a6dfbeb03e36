"""What lorakit says while it works: progress bars on a terminal, plain lines elsewhere. Always on stderr;
stdout is left to results that another program may read."""

from __future__ import annotations

import os
import shlex
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

PLAIN_EVERY = 5.0  # seconds between two progress lines when the output is no terminal


def safe(text: str) -> str:
    """Names, captions, keys and messages come from others' files: control characters, line breaks, ESC and marks that turn the
    direction of writing stand by their escapes, so that a line on the terminal stays the line that it is."""
    if text.isprintable():  # nearly always
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def typed(path: Path) -> str:
    """A path as it may be typed into a shell here: relative where it lies below, quoted where that is needed."""
    below = os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else str(path)
    below = f"./{below}" if below.startswith("-") else below
    if below.isprintable():
        return shlex.quote(below)
    escaped = "".join(
        "\\" + c if c in "\\'" else c if c.isprintable() else "".join(f"\\x{byte:02x}" for byte in os.fsencode(c)) for c in below
    )
    return f"$'{escaped}'"


def say(text: str) -> None:
    print(safe(text), file=sys.stderr, flush=True)


def warn(text: str) -> None:
    global _warnings
    _warnings += 1
    say(f"warning: {text}")


_warnings = 0


def warnings() -> int:
    """How many warnings there have been: work that has warned has something to say the next time too."""
    return _warnings


_silence = threading.Lock()
_silenced = 0  # threads within `quiet_libraries`
_terminal: int | None = None  # what file descriptor 2 was before the first of them


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keeps what libraries in C write to the terminal past Python (libtiff, libjpeg) away from it, from any number of threads at
    once. Our own lines go on: `sys.stderr` is given a way of its own to the terminal first."""
    global _silenced, _terminal
    with _silence:
        if _silenced == 0:
            _terminal = _divert()
        _silenced += 1
    try:
        yield
    finally:
        with _silence:
            _silenced -= 1
            if _silenced == 0 and _terminal is not None:
                os.dup2(_terminal, 2)
                os.close(_terminal)
                _terminal = None


def _divert() -> int | None:
    """Points file descriptor 2 to nowhere; where it pointed, or None where there is no such descriptor."""
    try:
        kept = os.dup(2)
        if sys.stderr is not None and sys.stderr is sys.__stderr__ and sys.stderr.fileno() == 2:
            sys.stderr.flush()
            sys.stderr = open(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors=sys.stderr.errors)  # noqa: SIM115
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        return kept
    except (OSError, ValueError, AttributeError):  # a closed or replaced stderr
        return None


class Progress:
    """Counts towards `total`; `advance` may carry a short note such as the loss."""

    def __init__(self, label: str, total: int, show):
        self.label, self.total, self.count = label, total, 0
        self._show = show

    def advance(self, count: int = 1, note: str = "") -> None:
        self.count += count
        self._show(self.count, note)


@contextmanager
def progress(label: str, total: int, start: int = 0, unit: str = "") -> Iterator[Progress]:
    """A progress bar (terminal) or a line now and then (file, pipe) for `total` items of work; the words are the same. `unit` is
    what an item is called: a step."""
    with _bar(label, total, start, unit) if sys.stderr.isatty() else _lines(label, total, start, unit) as shown:
        shown.count = start
        yield shown


def track(items: Iterable, label: str, total: int) -> Iterator:
    """Iterate over `items` under a progress bar."""
    with progress(label, total) as shown:
        for item in items:
            yield item
            shown.advance()


@contextmanager
def _bar(label: str, total: int, start: int, unit: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as RichProgress
    from rich.table import Column

    words = TextColumn("{task.fields[words]}", table_column=Column(ratio=1, overflow="fold"))
    columns = (TextColumn("{task.description:<9}"), BarColumn(16), MofNCompleteColumn(), words)
    began = time.monotonic()
    with RichProgress(*columns, console=Console(stderr=True), expand=True) as bar:
        task = bar.add_task(label, total=total, completed=start, words="")

        def show(count: int, note: str) -> None:
            words = in_words(count - start, total - count, time.monotonic() - began, unit, note)
            bar.update(task, completed=count, words=escape(safe(words)))

        yield Progress(label, total, show)


@contextmanager
def _lines(label: str, total: int, start: int, unit: str) -> Iterator[Progress]:
    began = last = time.monotonic()

    def show(count: int, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= PLAIN_EVERY:
            last = now
            say(f"{label:<9} {count}/{total} {in_words(count - start, total - count, now - began, unit, note)}".rstrip())

    yield Progress(label, total, show)


def in_words(done: int, to_do: int, seconds: float, unit: str = "", note: str = "") -> str:
    """'(1.2 s/step, 12 min left) loss 0.1' of what was done in so many seconds and what is to be done."""
    left = f", {duration(seconds / done * to_do)} left" if done and to_do > 0 else ""
    return f"({pace(done, seconds, unit)}{left}) {note}".rstrip() if done else note


def pace(done: int, seconds: float, unit: str = "") -> str:
    """'1.2 s each' or '8.1 a second'; with a unit '1.2 s/step' or '8.1 steps/s'."""
    if not done or not seconds:
        return ""
    if seconds > done:
        return f"{_figure(seconds / done)} s{f'/{unit}' if unit else ' each'}"
    return f"{_figure(done / seconds)} {f'{unit}s/s' if unit else 'a second'}"


def _figure(value: float) -> str:
    """Two digits that count, and no exponent."""
    return f"{value:.2g}" if value < 99.5 else f"{value:.0f}"


def duration(seconds: float) -> str:
    """'40 s', '12 min' or '3 h 20 min'."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
