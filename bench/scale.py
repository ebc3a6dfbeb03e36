"""How the steps of curation grow with the number of photos: CPU seconds, exponents, and memory at rest.

    python -m bench.scale                          # 2,000 and 10,000 small photos, made in a temporary folder
    python -m bench.scale --counts 10000 50000     # minutes; --work FOLDER keeps the photos for the next time

Pictures are of 48 to 96 px, all different, with a short text beside each, so what is counted is the book-keeping beside the pixels' own work. The
goal is an exponent of 1.1 at most for every step, and for 50,000 photos 2 s of `status` and 3 s of a `run` that has nothing to do.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from lorakit import pipeline
from lorakit.project import open_project

STEPS = ("scan", "check", "dedupe", "embed", "select")
WORDS = (
    "red",
    "blue",
    "green",
    "old",
    "small",
    "tall",
    "wooden",
    "wet",
    "bright",
    "round",
    "mug",
    "chair",
    "lamp",
    "house",
    "tree",
    "boat",
    "dog",
    "hat",
)
SETTINGS = {"check.size.min_side": 8, "select.count": 2000, "dedupe.distance": 8}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[2000, 10000])
    parser.add_argument("--work", type=Path, help="where the photos are kept")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        work = given.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rows = {count: measure(make_photos(work / f"{count}", count), work / f"project_{count}") for count in given.counts}
    found = {f"{count} photos": row for count, row in rows.items()}
    if len(given.counts) > 1:
        found["exponent"] = exponents(rows, given.counts[0], given.counts[-1])
    found["load"] = round(os.getloadavg()[0], 2)
    print(json.dumps(found, indent=1))


def make_photos(folder: Path, count: int) -> Path:
    """Small photos of random blocks of colour, a text beside each; made once."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:07d}.jpg"
        if path.exists():
            continue
        chance = np.random.default_rng(number)
        width, height = chance.integers(48, 97, 2)
        pixels = chance.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((int(width), int(height)), Image.Resampling.BICUBIC).save(path, quality=85)
        path.with_suffix(".txt").write_text(" ".join(chance.choice(WORDS, 8)) + f" {number}")
    return folder


def measure(photos: Path, folder: Path) -> dict[str, float]:
    """CPU seconds of every step, and KB of memory that the records take at rest."""
    with contextlib.suppress(FileNotFoundError):
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    row: dict[str, float] = {}
    with contextlib.redirect_stderr(io.StringIO()):
        for name in STEPS:
            project = open_project(folder, photos=[photos], settings=SETTINGS, create=not row)
            row[name] = cpu_of(lambda p=project, n=name: pipeline.walk(p, n, n))
        before = psutil.Process().memory_info().rss
        opened: list[Any] = []
        row["open"] = cpu_of(lambda: opened.append(open_project(folder)))
        row["KB a photo at rest"] = round((psutil.Process().memory_info().rss - before) / 1024 / len(opened[0].manifest), 2)
        row["status"] = cpu_of(lambda: pipeline.status(open_project(folder)))
        row["a walk that does nothing"] = cpu_of(lambda: pipeline.walk(open_project(folder), STEPS[0], STEPS[-1]))
    return row


def cpu_of(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return round(time.process_time() - began, 2)


def exponents(rows: dict[int, dict[str, float]], fewer: int, more: int) -> dict[str, float]:
    """Of what grows as count ** exponent, between two counts; of steps that take a tenth of a second at least."""
    return {
        name: round(math.log(rows[more][name] / rows[fewer][name]) / math.log(more / fewer), 2)
        for name in rows[more]
        if rows[fewer][name] >= 0.1 and rows[more][name] > 0
    }


if __name__ == "__main__":
    main()
