"""How often lorakit finds copies and blur, and how often it is wrong, beside its peers where they are installed.

    python bench/curate_accuracy.py PHOTOS [--most 60] [--seed 0] [--part copies]

PHOTOS holds one folder per scene, each with sharp photos that are different pictures: photos of one folder are the
neighbours (adjacent views, bursts) that must not count as copies. The edits are made here, in a temporary folder.
The rows of peers are the hashes that cleanvision (equality) and imagededup (distance up to 10) use, where imagehash can
be imported."""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cv2
import numpy as np
from edits import CORE, HARD, TURNED, versions
from PIL import Image

from lorakit.curate.checks import sharpness
from lorakit.curate.compare import compare, is_another, is_same_picture
from lorakit.curate.descriptors import TURNS, descriptors, hash_bytes, turned
from lorakit.errors import UnreadablePhoto
from lorakit.photos.decode import NAME_ENDINGS, load_image
from lorakit.photos.photo import Photo, read_photo
from lorakit.settings import Dedupe

LIMITS = Dedupe()
Same = Callable[[Path, Path], bool]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--most", type=int, default=60, help="photos to edit")
    parser.add_argument("--pairs-of", type=int, default=330, help="photos of which all pairs are compared")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--part", choices=("copies", "blur"), help="only this; copies of 60 photos take ten minutes of one core, blur as long"
    )
    args = parser.parse_args()
    files = sorted(p for p in args.photos.rglob("*") if p.suffix.lower() in NAME_ENDINGS and is_whole(p))
    random.Random(args.seed).shuffle(files)
    with tempfile.TemporaryDirectory() as folder:
        if args.part != "blur":
            report_copies(files[: args.most], files[: args.pairs_of], Path(folder))
        if args.part != "copies":
            report_blur(files[: args.most], Path(folder))


def is_whole(path: Path) -> bool:
    try:
        load_image(path)
    except UnreadablePhoto:
        return False
    return True


def report_copies(edited: list[Path], files: list[Path], folder: Path) -> None:
    ways = {"lorakit": is_copy, **peers()}
    lost = ""
    print(f"copies: recall on edits of {len(edited)} photos; wrong pairs among {len(files)} photos\n")
    print("| method | core | hard | turned | wrong: other scenes | wrong: same scene |\n|---|---|---|---|---|---|")
    made = {name: make_edits(edited, group, folder / name) for name, group in (("core", CORE), ("hard", HARD), ("turned", TURNED))}
    for name, is_same in ways.items():
        answers = {group: [is_same(*pair) for pair in pairs] for group, pairs in made.items()}
        wrong = wrong_pairs(files, is_same)
        recalls = " | ".join(f"{np.mean(told):.3f}" for told in answers.values())
        print(f"| {name} | {recalls} | {wrong[0]} | {wrong[1]} |", flush=True)
        if is_same is is_copy:
            asked = [(copy, told) for group, pairs in made.items() for (_, copy), told in zip(pairs, answers[group], strict=True)]
            missed = Counter(copy.stem.split("_", 1)[1] for copy, told in asked if not told)
            flat = sum(bits_of(path) is None for path in edited)
            lost = f"\nmissed: {', '.join(f'{count} {edit}' for edit, count in missed.most_common())}; {flat} of the photos are flat and have no hash"
    print(lost)


def make_edits(files: list[Path], edits: dict, folder: Path) -> list[tuple[Path, Path]]:
    """[(original, edited copy)]"""
    folder.mkdir()
    pairs = []
    for number, path in enumerate(files):
        photo = load_image(path)
        for name, edit in edits.items():
            copy = folder / f"{number}_{name}.jpg"
            edit(photo).convert("RGB").save(copy, quality=92)
            pairs.append((path, copy))
    return pairs


bits: dict[Path, np.ndarray | None] = {}  # of each file, in all 8 turns


def bits_of(path: Path) -> np.ndarray | None:
    """[8, 256] of 0 and 1; None for a flat picture."""
    if path not in bits:
        found = descriptors(read_photo(path))
        hashes = hash_bytes([found["phash"]]) if found else None
        bits[path] = None if hashes is None else np.unpackbits(np.concatenate([turned(hashes, t) for t in range(TURNS)]), axis=1)
    return bits[path]


def is_copy(left: Path, right: Path) -> bool:
    """What the stage `dedupe` does with two photos."""
    asked, known = bits_of(left), bits_of(right)
    if asked is None or known is None:
        return False
    distances = (asked != known[0]).sum(axis=1)
    turn = int(np.argmin(distances))
    if distances[turn] > LIMITS.distance:
        return False
    found = compare(left, right, turn)
    return is_same_picture(found) or distances[turn] <= LIMITS.sure and not is_another(found)


def wrong_pairs(files: list[Path], is_same: Same) -> tuple[str, str]:
    """'found of all' pairs of different photos that are called copies: in other scenes, and in the same one."""
    counts = {True: [0, 0], False: [0, 0]}
    for left, right in combinations(files, 2):
        same_scene = left.parent == right.parent
        counts[same_scene][0] += is_same(left, right)
        counts[same_scene][1] += 1
    return tuple(f"{found} of {total}" for found, total in (counts[False], counts[True]))


def peers() -> dict[str, Same]:
    found: dict[str, Same] = {}
    try:
        import imagehash

        hashes: dict[Path, imagehash.ImageHash] = {}

        def phash(path: Path) -> imagehash.ImageHash:
            if path not in hashes:
                hashes[path] = imagehash.phash(Image.open(path))
            return hashes[path]

        found["equal 64-bit phash, as cleanvision"] = lambda a, b: phash(a) == phash(b)
        found["64-bit phash within 10, as imagededup"] = lambda a, b: phash(a) - phash(b) <= 10
    except ImportError:
        pass
    return found


def report_blur(files: list[Path], folder: Path) -> None:
    settings = sharpness.Settings()
    rows: dict[str, list[tuple[bool, bool, bool]]] = defaultdict(list)
    for path in files:
        for version in versions(path, folder):
            title, verdict = "blurred" if version.blur else "sharp", judge(version.photo, settings)
            for row in (f"**all {title}**", f"{title}: {version.light}", *([f"{title}: {version.blur}"] if version.blur else [])):
                rows[row].append(verdict)
    print(f"\nblur: {len(files)} photos; share rejected, warned | variance of Laplacian < 100\n")
    print("| photo | rejected | warned | Laplacian |\n|---|---|---|---|")
    for row in sorted(rows, key=lambda row: ("sharp" not in row, "**" not in row, row)):
        print(f"| {row} | {' | '.join(f'{share:.3f}' for share in np.mean(rows[row], axis=0))} |", flush=True)


def judge(photo: Photo, settings: sharpness.Settings) -> tuple[bool, bool, bool]:
    verdicts = [reason.verdict for reason in sharpness.judge(sharpness.measure(photo), settings)]
    return "reject" in verdicts, "warn" in verdicts, cv2.Laplacian(photo.gray, cv2.CV_64F).var() < 100


if __name__ == "__main__":
    main()
