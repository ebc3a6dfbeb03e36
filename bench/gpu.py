"""Everything that is to be measured on a card, in one command of at most nine minutes on a bare machine with CUDA.

    python -m bench.gpu --out OUT           # OUT/gpu.json and OUT/gpu.md; every row is written as soon as it is there
    python -m bench.gpu --out OUT --only step,sampling
    python -m bench.gpu --out OUT --tiny    # the same code at a size for the CPU, as CI runs it

It wants lorakit's packages and no weights: these are random, of the real sizes, and made on the card. Rows are measured by a worker
that is started anew where one kills it or takes too long; such a row says so, and the others go on. The most important come first.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from bench import gpu_rows

SIGN = "@@row "  # before what the worker says to this command; libraries print too
LEAST = 8.0  # seconds that must be left for a row to begin
STARTS = 60.0  # seconds that a worker may take until its first row begins
ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/gpu"))
    parser.add_argument("--seconds", type=float, default=520, help="of the whole command")
    parser.add_argument("--only", help="rows whose names begin like this: step,sampling,t5,captioner,device_tests,predicted")
    parser.add_argument("--device", help="cuda, or cpu; with --tiny the CPU")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--worker", nargs="*", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.device = given.device or ("cpu" if given.tiny else "cuda")
    until = time.time() + given.seconds
    if given.worker is not None:
        work(given, float(os.environ["BENCH_GPU_UNTIL"]))
        return
    given.out.mkdir(parents=True, exist_ok=True)
    wanted = [row for row in gpu_rows.rows(given.tiny) if not given.only or row.name.startswith(tuple(given.only.split(",")))]
    results = Results(given.out, given.device)
    measure(wanted, given, until, results)
    results.write()
    print(results.table())
    print(f"\n{given.out / 'gpu.json'}, {given.out / 'gpu.md'}: {results.summary(len(wanted))}")


def measure(wanted: list[gpu_rows.Row], given: argparse.Namespace, until: float, results: Results) -> None:
    """Give the rows to workers, one after another, until all are there or the time is over."""
    left, failures = list(wanted), 0
    while left and time.time() < until - LEAST and failures < 3:
        before = len(left)
        with Worker([row.name for row in left], given, until) as worker:
            row = None
            while True:
                limit = min(row.limit if row else STARTS, until - time.time())
                message = worker.next(limit)
                if message is None or message == "late":
                    if row:
                        why = "the time was over" if time.time() >= until - 1 else f"took more than {limit:.0f} s"
                        results.add(row, {"error": why if message else f"the worker died ({worker.ending()})"}, worker.tail())
                        left.remove(row)
                    break
                named = next((r for r in left if r.name == message["name"]), None)
                if named is None:
                    continue
                if "found" in message:
                    results.add(named, message["found"], worker.tail() if "error" in message["found"] else "")
                    left.remove(named)
                    row = None
                else:
                    row = named
        failures = failures + 1 if len(left) == before else 0
        if failures:
            print(worker.tail(), file=sys.stderr)


class Worker:
    """A process that measures rows and says so line by line."""

    def __init__(self, names: list[str], given: argparse.Namespace, until: float):
        words = [sys.executable, "-m", "bench.gpu", "--out", str(given.out), "--device", given.device, *(["--tiny"] if given.tiny else [])]
        environment = {**os.environ, "BENCH_GPU_UNTIL": str(until), "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment.setdefault("XDG_CACHE_HOME", str(given.out.resolve() / "cache"))
        environment |= {"OMP_NUM_THREADS": "1"} if given.tiny else {}
        self.process = subprocess.Popen(
            [*words, "--worker", *names], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd=ROOT,
            env=environment, start_new_session=True,
        )  # fmt: skip
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._said: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            if line.startswith(SIGN):
                self._lines.put(line.removeprefix(SIGN))
            else:
                self._said.append(line.rstrip())
                del self._said[:-40]
        self._lines.put(None)

    def next(self, limit: float) -> Any:
        """The next message; None at the worker's end, "late" where none came in `limit` seconds."""
        try:
            line = self._lines.get(timeout=max(0.1, limit))
        except queue.Empty:
            return "late"
        return None if line is None else json.loads(line)

    def tail(self) -> str:
        return "\n".join(self._said[-12:])

    def ending(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self.process.wait(5)
            return f"signal {-code}" if code < 0 else f"exit code {code}"
        return "no exit code"

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def work(given: argparse.Namespace, until: float) -> None:
    """The worker's side."""
    place = gpu_rows.Place(given.device, given.tiny)
    for row in gpu_rows.todo(given.worker, given.tiny):
        if time.time() > until - LEAST:
            return
        say({"name": row.name})
        began = time.perf_counter()
        try:
            found = gpu_rows.run(row, place)
        except Exception as error:  # a row that fails is a row with its error
            found = {"error": gpu_rows.in_words(error)}
            print(*traceback.format_exception(error)[-4:], flush=True)
            error.__traceback__ = None  # it holds the tensors of the row
        say({"name": row.name, "found": {**found, "seconds": round(time.perf_counter() - began, 1)}})
        try:
            gpu_rows.forget()
        except Exception:  # after some errors a process can use its card no more
            sys.exit(3)


def say(message: dict[str, Any]) -> None:
    print(SIGN + json.dumps(message, default=str), flush=True)


class Results:
    """What is there so far, on the disk after every row."""

    def __init__(self, folder: Path, device: str):
        self.folder, self.device, self.rows = folder, device, []
        self.began = time.time()

    def add(self, row: gpu_rows.Row, found: dict[str, Any], said: str) -> None:
        self.rows.append({"measure": row.measure, **row.facts, **found, **({"said": said} if said else {})})
        self._join_predictions()
        self.write()
        shown = found.get("error") or ", ".join(f"{key} {value}" for key, value in list(found.items())[:6])
        print(f"{time.time() - self.began:6.1f} s  {row.name}: {shown}", flush=True)

    def _join_predictions(self) -> None:
        """Into the rows that they are of."""
        for found in self.rows:
            if found["measure"] == "predicted" and "GB predicted" in found:
                for row in self.rows:
                    keys = ("base", "held", "ckpt", "batch", "optimizer", "swap")
                    if row["measure"] == "step" and all(row.get(key) == found.get(key) for key in keys) and "error" not in row:
                        row["GB predicted"] = found["GB predicted"]
                        if "GB peak" in row:
                            row["measured / predicted"] = round(row["GB peak"] / found["GB predicted"], 3)

    def write(self) -> None:
        whole = {"date": time.strftime("%Y-%m-%d", time.gmtime()), "device": self.device, "rows": self.rows}
        for name, text in (("gpu.json", json.dumps(whole, indent=1)), ("gpu.md", self.table())):
            part = self.folder / f"{name}.part"
            part.write_text(text + "\n", encoding="utf-8")
            part.replace(self.folder / name)

    def table(self) -> str:
        """The steps as one table, all else as lines."""
        columns = (
            "base", "held", "ckpt", "batch", "optimizer", "swap", "compiled", "GB predicted", "GB peak", "measured / predicted", "GB peak, reserved", "s/step",
            "share data", "share forward", "share backward", "share optimizer", "TFLOP/s", "MFU", "HFU",
        )  # fmt: skip
        lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        others = []
        for row in self.rows:
            if row["measure"] == "step" and "error" not in row:
                lines.append("| " + " | ".join(_shown(row.get(column)) for column in columns) + " |")
            else:
                facts = {key: value for key, value in row.items() if key not in ("measure", "said", "seconds")}
                others.append(f"- {row['measure']}: " + ", ".join(f"{key} {_shown(value)}" for key, value in facts.items()))
        return "\n".join([*lines, "", *others])

    def summary(self, wanted: int) -> str:
        failed = sum("error" in row for row in self.rows)
        return f"{len(self.rows)} of {wanted} rows in {time.time() - self.began:.0f} s, {failed} failed"


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
