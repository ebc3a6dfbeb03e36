"""How fast lorakit's check pass and its search for copies are, beside their peers, in one run, interleaved.

    python bench/curate.py PHOTOS [--rounds 3] [--most 48] [--searched 1000 10000 100000] [--records 20000]

PHOTOS holds JPEGs of several megapixels. Peers, each only if it can be imported: imagehash, czkawka, cleanvision, imagededup,
fastdup, difPy. Timings of a busy machine scatter: read the ratios, which come from medians over the rounds.
--searched 1000000 takes a minute more; --records is the size of a project that is opened and walked a second time."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import logging
import os
import resource
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

from lorakit import new_project, open_project, pipeline
from lorakit.curate.check import measure
from lorakit.curate.search import close_pairs
from lorakit.photos import decode, photo
from lorakit.project import manifest, stamps

THREADS = os.cpu_count() or 1
MOST_LINKS = 50_000  # to one file; ext4 allows 65,000
Way = Callable[[list[Path]], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--most", type=int, default=48)
    parser.add_argument("--searched", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--records", type=int, default=20_000)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    files = [p for p in sorted(args.photos.rglob("*")) if p.is_file() and decode.sniff(p) == "jpeg" and is_whole(p)][: args.most]
    time_photos(files, args.rounds)
    time_search(args.searched)
    time_second_run(files[0], args.records)


def is_whole(path: Path) -> bool:
    """Peers stop at the first damaged file."""
    return measure(path)["measures"]["damaged"].get("warning") == ""


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
    return simplejpeg.decode_jpeg(data, "GRAY", fastdct=True, min_height=-(-height // factor), min_width=-(-width // factor), min_factor=1)


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
    for module, title, run in (
        ("cleanvision", "cleanvision: all issues, processes", run_cleanvision),
        ("imagededup", "imagededup: phash and its pairs, processes", run_imagededup),
        ("fastdup", "fastdup: copies and issues", run_fastdup),
        ("difPy", "difPy: its tensors and pairs, processes", run_difpy),
    ):
        if importlib.util.find_spec(module):
            found[title] = in_a_folder(run)
    return found


def in_a_folder(run: Callable[[str], object]) -> Way:
    """For peers that take a folder: links to the photos in one of their own, and silence."""

    def way(files: list[Path]) -> None:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            for number, path in enumerate(files):
                os.link(path, f"{folder}/{number}.jpg") if same_disk(path, folder) else shutil.copy(path, f"{folder}/{number}.jpg")
            logging.disable(logging.CRITICAL)
            run(folder)

    return way


def same_disk(path: Path, folder: str) -> bool:
    return path.stat().st_dev == os.stat(folder).st_dev


def run_cleanvision(folder: str) -> None:
    from cleanvision import Imagelab

    Imagelab(data_path=folder, verbose=False).find_issues(n_jobs=THREADS, verbose=False)


def run_imagededup(folder: str) -> None:
    from imagededup.methods import PHash

    PHash(verbose=False).find_duplicates(image_dir=folder, num_enc_workers=THREADS, num_dist_workers=THREADS)


def run_fastdup(folder: str) -> None:
    import fastdup

    with tempfile.TemporaryDirectory() as work:
        fastdup.create(work, folder).run(num_threads=THREADS, verbose=False, print_summary=False, overwrite=True)


def run_difpy(folder: str) -> None:
    import difPy

    difPy.search(difPy.build(folder, show_progress=False, processes=THREADS), show_progress=False, processes=THREADS)


def time_search(counts: list[int]) -> None:
    print("\n| all pairs of 256-bit hashes within 64 | as they are | in all 8 turns |\n|---|---|---|")
    for count in counts:
        hashes = np.random.default_rng(0).integers(0, 256, (count, 32), dtype=np.uint8)
        seconds = []
        for turns in (False, True):
            start = time.perf_counter()
            list(close_pairs(hashes, 64, turns))
            seconds.append(f"{time.perf_counter() - start:.2f} s")
        print(f"| {count} | {' | '.join(seconds)} |", flush=True)


def time_second_run(photo: Path, count: int) -> None:
    """`curate` once more over a project of `count` photos that are all known: links to one photo, each with what it was found
    to be written into the book by hand, under a hash of its own."""
    with tempfile.TemporaryDirectory(dir=photo.parent) as folder, contextlib.redirect_stderr(io.StringIO()):
        photos = Path(folder, "photos")
        photos.mkdir()
        for number in range(count):
            path = photos / f"{number:06}.jpg"
            if number % MOST_LINKS == 0:
                original = Path(shutil.copy(photo, path))
            else:
                os.link(original, path)
        project = new_project(Path(folder, "project"), photos, settings={"dedupe.distance": 0, "dedupe.sure": 0})
        random = np.random.default_rng(0)
        found = measure(photo)
        records = []
        for path in sorted(photos.iterdir()):
            facts, hash = path.stat(), random.bytes(16).hex()
            look = {**found["look"], "phash": random.bytes(32).hex(), "colours": random.bytes(48).hex()}
            record = {"id": hash, "file": path.name, "path": str(path), "bytes": facts.st_size, "modified": facts.st_mtime_ns, "repeats": 1,
                      "hash": hash, **found, "look": look}  # fmt: skip
            records.append(manifest.finish(record, "check", stamps.check(project, record)))
        project.manifest.replace(records)
        pipeline.walk(project, last="crop")
        start = time.perf_counter()
        pipeline.walk(open_project(project.folder), last="crop")
        seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"\na second run over {count} photos: {seconds:.1f} s, {count / seconds:.0f} photos a second; most memory of this bench: {memory:.2f} GB"
    )


if __name__ == "__main__":
    main()
