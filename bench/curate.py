"""How fast lorakit's check pass and its search for copies are, beside their peers, in one run, interleaved.

    python bench/curate.py PHOTOS [--rounds 3] [--most 48]

PHOTOS holds JPEGs of several megapixels. Peers, each only if it can be imported: imagehash, czkawka, cleanvision.
Timings of a busy machine scatter: read the ratios, which come from medians over the rounds."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from lorakit import photo
from lorakit.curate.check import measure
from lorakit.curate.search import close_pairs

THREADS = os.cpu_count() or 1
Way = Callable[[list[Path]], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--most", type=int, default=48)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    files = [p for p in sorted(args.photos.rglob("*")) if p.is_file() and photo.sniff(p) == "jpeg"][: args.most]
    time_photos(files, args.rounds)
    time_search()


def time_photos(files: list[Path], rounds: int) -> None:
    ways = {
        "lorakit: the whole check pass": in_threads(measure),
        "bare gray decode (simplejpeg)": in_threads(decode_gray),
        **peers(),
    }
    seconds: dict[str, list[float]] = defaultdict(list)
    for way in ways.values():
        way(files[:2])  # imports, caches
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way(files)
            seconds[name].append((time.perf_counter() - start) / len(files))
    size = np.mean([np.prod(Image.open(path).size) for path in files]) / 1e6
    own = np.median(seconds["lorakit: the whole check pass"])
    print(f"{len(files)} JPEGs of {size:.1f} megapixels in the mean, {THREADS} threads, medians of {rounds} rounds\n")
    print("| | photos a second | lorakit is faster by |\n|---|---|---|")
    for name, found in seconds.items():
        print(f"| {name} | {1 / np.median(found):.1f} | {np.median(found) / own:.2f} |")


def in_threads(work: Callable[[Path], object]) -> Way:
    def run(files: list[Path]) -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(work, files))

    return run


def decode_gray(path: Path) -> np.ndarray:
    """The decode that a check of sharpness cannot do without, at the same scale as lorakit's."""
    data = path.read_bytes()
    height, width = simplejpeg.decode_jpeg_header(data)[:2]
    factor = max((f for f in (1, 2, 4, 8) if min(width, height) // f >= photo.WORKING_SIDE), default=1)
    return simplejpeg.decode_jpeg(
        data, "GRAY", fastdct=True, min_height=-(-height // factor), min_width=-(-width // factor), min_factor=1
    )


def peers() -> dict[str, Way]:
    found: dict[str, Way] = {}
    try:
        import imagehash

        found["imagehash.phash, a loop"] = lambda files: [imagehash.phash(Image.open(path)) for path in files]
    except ImportError:
        pass
    try:
        import czkawka

        finder = czkawka.ImageSimilarity()
        found["czkawka: the hash alone, threads"] = in_threads(lambda path: finder.hash_image(path))
    except ImportError:
        pass
    try:
        import cleanvision  # noqa: F401

        found["cleanvision: all issues, processes"] = run_cleanvision
    except ImportError:
        pass
    return found


def run_cleanvision(files: list[Path]) -> None:
    from cleanvision import Imagelab

    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        for path in files:
            shutil.copy(path, folder)
        with contextlib.redirect_stderr(io.StringIO()):
            Imagelab(data_path=folder, verbose=False).find_issues(n_jobs=THREADS, verbose=False)


def time_search() -> None:
    print("\n| all pairs of 256-bit hashes | as they are | in all 8 turns |\n|---|---|---|")
    for count in (1_000, 10_000):
        hashes = np.random.default_rng(0).integers(0, 256, (count, 32), dtype=np.uint8)
        seconds = []
        for turns in (False, True):
            start = time.perf_counter()
            list(close_pairs(hashes, 64, turns))
            seconds.append(f"{time.perf_counter() - start:.2f} s")
        print(f"| {count} | {' | '.join(seconds)} |")


if __name__ == "__main__":
    main()
