"""How curation grows with the number of photos: CPU seconds of every step and exponents, a status and a run that find nothing to do, memory.

    python -m bench.scale                          # 2,000 and 10,000 small photos, made in a temporary folder
    python -m bench.scale --counts 10000 50000     # minutes; --work FOLDER keeps the photos for the next time
    python -m bench.scale --grown 200000           # and what comes after the check for so many, whose records are those of the last count under
                                                   # other hashes: nothing of them is decoded or compared by its pixels

Pictures are of 48 to 96 px, all different, with a short text beside each, so what is counted is the book-keeping beside the pixels' own work. The
goal is an exponent of 1.1 at most for every step, and for 50,000 photos 2 s of `status`, 3 s of a `run` that has nothing to do and 4 KB of memory
each. Every count has two processes of its own: one walks, the other looks on what is done. `floor` is the reading of the same book by `json.loads`,
in the same process: by it figures of a busy machine can be told from those of an idle one.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet  # noqa: F401 (what a book in shards loads, and its memory is not to count)
from PIL import Image

from lorakit import pipeline
from lorakit.project import open_project, shards
from lorakit.project.manifest import Manifest
from lorakit.quality import faults

STEPS = ("scan", "check", "dedupe", "embed", "select", "crop")
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
FEW = 8  # photos of the project that is walked first, so that imports count for nothing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[2000, 10000])
    parser.add_argument("--grown", type=int, help="records made of those of the last count, for the steps after check")
    parser.add_argument("--work", type=Path, help="where the photos are kept")
    parser.add_argument("--lines-up-to", type=int, default=shards.MOST_LINES, help="records that are a book of lines, not of shards")
    parser.add_argument("--part", nargs=3, help=argparse.SUPPRESS)  # in a process of its own: walk, grow or look; photos; project
    given = parser.parse_args()
    shards.MOST_LINES = given.lines_up_to
    if given.part:
        part, photos, folder = given.part[0], Path(given.part[1]), Path(given.part[2])
        print(json.dumps({"walk": walk, "grow": walk_grown, "look": look}[part](photos, folder)))
        return
    with contextlib.ExitStack() as stack:
        work = given.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        make_photos(work / "few", FEW)
        rows: dict[int, dict[str, float]] = {}
        for count in given.counts:
            photos, folder = make_photos(work / f"{count}", count), work / f"project_{count}"
            shutil.rmtree(folder, ignore_errors=True)
            rows[count] = in_a_process("walk", photos, folder) | in_a_process("look", photos, folder)
        found: dict[str, Any] = {f"{count} photos": row for count, row in rows.items()}
        if len(given.counts) > 1:
            found["exponent"] = exponents(rows, given.counts[0], given.counts[-1])
        if given.grown:
            photos, folder = work / f"{given.counts[-1]}", work / f"grown_{given.grown}"
            grow(work / f"project_{given.counts[-1]}", folder, given.grown)
            row = in_a_process("grow", photos, folder) | in_a_process("look", photos, folder)
            found[f"{given.grown} records"] = row
            found["exponent to the records"] = exponents({0: rows[given.counts[-1]], 1: row}, 0, 1, given.grown / given.counts[-1])
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


def grow(former: Path, folder: Path, count: int) -> None:
    """A project of `count` records as `check` leaves them, made of those of a former one, each time under other hashes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(former / "project.yaml", folder)
    records = Manifest(former).everything()
    chance = np.random.default_rng(0)
    with open(folder / "manifest.jsonl", "w", encoding="utf-8") as file:
        for number in range(count):
            record: dict[str, Any] = dict(records[number % len(records)])
            record |= {"id": f"{number:032x}", "hash": f"{number:032x}", "file": f"{number:07d}.jpg"}
            record["look"] = {**record["look"], "phash": chance.bytes(32).hex(), "colours": chance.bytes(48).hex()}
            record["done"] = {stage: stamp for stage, stamp in record["done"].items() if stage in ("scan", "check")}
            for key in ("dedupe", "inherited", "embed", "select", "crop"):
                record.pop(key, None)
            file.write(json.dumps(record) + "\n")


def in_a_process(part: str, photos: Path, folder: Path) -> dict[str, float]:
    words = [sys.executable, "-m", "bench.scale", "--lines-up-to", str(shards.MOST_LINES), "--part", part, str(photos), str(folder)]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


def walk(photos: Path, folder: Path, steps: tuple[str, ...] = STEPS) -> dict[str, float]:
    """CPU seconds of every step, each as a command of its own, and the most memory of all of them together."""
    row: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as few, quiet():
        pipeline.walk(open_project(few, photos=[photos.parent / "few"], settings=SETTINGS, create=True), STEPS[0], STEPS[-1])
        for name in steps:
            project = open_project(folder, photos=[photos], settings=SETTINGS, create=not (folder / "project.yaml").exists())
            row[name] = cpu_of(lambda p=project, n=name: pipeline.walk(p, n, n))
            del project
    return row | {"peak MB of the walk": peak()}


def walk_grown(photos: Path, folder: Path) -> dict[str, float]:
    return walk(photos, folder, STEPS[STEPS.index("dedupe") :])


def look(photos: Path, folder: Path) -> dict[str, float]:
    """Memory of the records at rest, and CPU seconds of commands that find all done: as they are, and where no notes are kept of the book."""
    row: dict[str, float] = {}
    first = STEPS[0] if (folder / "scan.json").exists() else STEPS[STEPS.index("dedupe")]
    with tempfile.TemporaryDirectory() as few, quiet():
        small = open_project(few, photos=[photos.parent / "few"], settings=SETTINGS, create=True)
        pipeline.walk(small, STEPS[0], STEPS[-1])
        pipeline.status(small)
        gc.collect()
        before = psutil.Process().memory_info().rss
        opened: list[Any] = []
        row["open"] = cpu_of(lambda: opened.append(open_project(folder)))
        row["KB a photo at rest"] = round((psutil.Process().memory_info().rss - before) / 1024 / len(opened[0].manifest), 2)
        opened.clear()
        row["status"] = cpu_of(lambda: pipeline.status(open_project(folder)))
        row["a walk that does nothing"] = cpu_of(lambda: pipeline.walk(open_project(folder), first, STEPS[-1]))
        row["peak MB of looking on"] = peak()
        (folder / "cache" / "book.json").unlink(missing_ok=True)
        row["status without notes"] = cpu_of(lambda: pipeline.status(open_project(folder)))
        row["a walk that does nothing without notes"] = cpu_of(lambda: pipeline.walk(open_project(folder), first, STEPS[-1]))
        lines = [json.dumps(r) for r in open_project(folder).manifest.everything()]
        row["floor"] = cpu_of(lambda lines=lines: [json.loads(line) for line in lines])
        row["bytes a record, as lines"] = round(sum(map(len, lines)) / len(lines))
        row["bytes a record, on the disk"] = round(sum(p.stat().st_size for p in of_book(folder)) / len(lines))
        del lines
        texts: Any = [{"id": r["id"], "text": r["sidecar"]["text"]} for r in open_project(folder).manifest]
        row["alike texts"] = cpu_of(lambda: faults.alike(texts))
    return row


def of_book(folder: Path) -> list[Path]:
    return [folder / "manifest.jsonl", *(folder / shards.FOLDER).glob("*")]


def quiet() -> contextlib.AbstractContextManager:
    return contextlib.redirect_stderr(io.StringIO())


def peak() -> float:
    """MB that this process has held at most; what it holds now where that is not told."""
    if sys.platform == "win32":
        return round(psutil.Process().memory_info().peak_wset / 2**20)
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(most / (2**20 if sys.platform == "darwin" else 2**10))


def cpu_of(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return round(time.process_time() - began, 2)


def exponents(rows: dict[int, dict[str, float]], fewer: int, more: int, times: float | None = None) -> dict[str, float]:
    """Of what grows as count ** exponent, between two counts; of steps that take a tenth of a second at least."""
    return {
        name: round(math.log(rows[more][name] / rows[fewer][name]) / math.log(times or more / fewer), 2)
        for name in rows[more]
        if rows[fewer].get(name, 0) >= 0.1 and rows[more][name] > 0 and not name.startswith(("KB", "peak", "bytes"))
    }


if __name__ == "__main__":
    main()
