"""Stopping a training so that nothing is lost: by a file called `stop` in its run folder, or by the first Ctrl-C. The step is
finished, a checkpoint written, and the same command goes on from there."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from lorakit.errors import Stopped
from lorakit.project.runs import Run
from lorakit.train import crew

FILE = "stop"


class Stop:
    """Whether somebody has asked a training to stop. Made when the training begins: a `stop` that an earlier one left behind
    is removed, one that comes while the base is loaded counts after the first step."""

    def __init__(self, run: Run):
        self.file = run.folder / FILE
        self.file.unlink(missing_ok=True)
        self._interrupted = False

    def is_asked(self) -> bool:
        return self._interrupted or self.file.exists()

    def leave(self, step: int, steps: int) -> None:
        """To be called when the checkpoint of `step` is written. Raises `Stopped`."""
        self.file.unlink(missing_ok=True)
        raise Stopped(f"train     stopped after step {step} of {steps}, which is kept; the same command goes on from there")

    @contextmanager
    def at_ctrl_c(self) -> Iterator[None]:
        """Within this block the first Ctrl-C asks; the second leaves at once, as everywhere else. A launcher of several processes ends
        them by SIGTERM, where one has died or a cluster wants its machines back: that asks too."""
        before, by_launcher = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

        def ask(number, frame) -> None:
            signal.signal(number, before if number == signal.SIGINT else by_launcher)
            self._interrupted = True
            if number == signal.SIGTERM:
                return
            with suppress(OSError, ValueError):  # not by print: a signal may come in the middle of another one
                os.write(sys.stderr.fileno(), b"\ntrain     finishing this step and writing a checkpoint; Ctrl-C again leaves at once\n")

        is_ours = threading.current_thread() is threading.main_thread() and before is signal.default_int_handler
        if is_ours:  # in a thread, or in a program with its own way of handling Ctrl-C, only the file stops
            signal.signal(signal.SIGINT, ask)
            if crew.count() > 1:
                signal.signal(signal.SIGTERM, ask)
        try:
            yield
        finally:
            if is_ours:
                signal.signal(signal.SIGINT, before)
                if crew.count() > 1:
                    signal.signal(signal.SIGTERM, by_launcher)
            self.file.unlink(missing_ok=True)
