"""What curation makes of cut-outs: photos' middles on white, black, gradients and nothing, line art and sprites; and whether copies of
them are found, while the same pose with another face is none.

    python bench/curate_cutouts.py PHOTOS [--most 12] [--seed 0]

PHOTOS are sharp photos in a folder and those below it; of these, the ones that curation itself keeps are cut out. All is made here, in a
temporary folder, at 1024 px."""

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
from curate_accuracy import is_copy
from edits import CORE, HARD, TURNED, blurred, compressed, cut
from PIL import Image, ImageDraw, ImageFilter

from lorakit import lookup
from lorakit.errors import UnreadablePhoto
from lorakit.photos.decode import NAME_ENDINGS, load_image
from lorakit.photos.photo import read_photo
from lorakit.quality.verdicts import Verdict, judge
from lorakit.settings import resolve

SIDE = 1024
SETTINGS = resolve([])
CHECKS = [name for name in lookup.names(lookup.CHECKS) if name not in ("faces", "text", "moment")]
ABOUT_BLUR = {"blurry", "soft"}
Picture = Callable[[Image.Image, random.Random], Image.Image]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--most", type=int, default=12, help="photos to cut out")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    files = sorted(path for path in args.photos.rglob("*") if path.suffix.lower() in NAME_ENDINGS)
    random.Random(args.seed).shuffle(files)
    with tempfile.TemporaryDirectory() as folder:
        photos = [load_image(path) for path in files if verdict_on(path).verdict == "keep"][: args.most]
        report_verdicts([square(photo) for photo in photos], Path(folder), args.seed)
        report_copies([square(photo) for photo in photos], Path(folder), args.seed)


def verdict_on(path: Path) -> Verdict:
    """By all checks but those that need an extra."""
    try:
        photo = read_photo(path)
    except UnreadablePhoto as error:
        return judge({"measures": {"damaged": {"unreadable": error.reason, "detail": ""}}}, SETTINGS)
    return judge({"measures": {name: lookup.load(lookup.CHECKS, name).measure(photo) for name in CHECKS}}, SETTINGS)


def square(photo: Image.Image) -> Image.Image:
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    return photo.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))


def blob(lot: random.Random, share: float = 0.42) -> Image.Image:
    """A closed shape without corners; `share` of the side is its mean radius."""
    angles = np.linspace(0, 2 * np.pi, 400)
    radius = np.full(400, share * SIDE)
    for waves in range(2, 6):
        radius *= 1 + lot.uniform(0, 0.3 / waves) * np.sin(waves * angles + lot.uniform(0, 7))
    points = [(SIDE / 2 + r * np.cos(a), SIDE / 2 + r * np.sin(a)) for r, a in zip(radius, angles, strict=True)]
    return _drawn(lambda pen: pen.polygon([(4 * x, 4 * y) for x, y in points], fill=255))


def ellipse(lot: random.Random) -> Image.Image:
    across, down = lot.uniform(0.25, 0.4), lot.uniform(0.25, 0.4)
    return _drawn(lambda pen: pen.ellipse([4 * SIDE * part for part in (0.5 - across, 0.5 - down, 0.5 + across, 0.5 + down)], fill=255))


def packet(lot: random.Random) -> Image.Image:
    """A box seen a little from above: straight edges, no right angle."""
    top, bottom, lean = lot.uniform(0.3, 0.36), lot.uniform(0.24, 0.28), lot.uniform(-0.02, 0.02)
    corners = [(0.5 - top, 0.2), (0.5 + top, 0.2 + lean), (0.5 + bottom, 0.85), (0.5 - bottom, 0.85 - lean)]
    return _drawn(lambda pen: pen.polygon([(4 * SIDE * x, 4 * SIDE * y) for x, y in corners], fill=255))


def pencil(lot: random.Random) -> Image.Image:
    """A long thin thing that lies aslant."""
    mask = Image.new("L", (SIDE, SIDE), 0)
    ImageDraw.Draw(mask).rounded_rectangle((60, SIDE // 2 - 90, SIDE - 60, SIDE // 2 + 90), 40, fill=255)
    return mask.rotate(lot.uniform(15, 75), Image.Resampling.BICUBIC)


def _drawn(draw: Callable[[ImageDraw.ImageDraw], None]) -> Image.Image:
    mask = Image.new("L", (4 * SIDE, 4 * SIDE), 0)
    draw(ImageDraw.Draw(mask))
    return mask.resize((SIDE, SIDE), Image.Resampling.BOX)


def gradient(lot: random.Random) -> Image.Image:
    first, last = (np.array([lot.randrange(90, 240) for _ in range(3)]) for _ in range(2))
    slope = np.linspace(0, 1, SIDE)[:, None, None]
    return Image.fromarray(np.broadcast_to(first + (last - first) * slope, (SIDE, SIDE, 3)).round().astype(np.uint8))


BACKDROPS: dict[str, Picture] = {
    "white": lambda thing, lot: Image.new("RGB", thing.size, "white"),
    "black": lambda thing, lot: Image.new("RGB", thing.size, "black"),
    "a gradient": lambda thing, lot: gradient(lot),
    "nothing": lambda thing, lot: Image.new("RGBA", thing.size, (0, 0, 0, 0)),
}
SHAPES = {"blob": blob, "ellipse": ellipse, "packet": packet, "pencil": pencil, "small blob": lambda lot: blob(lot, 0.22),
          "cut softly": lambda lot: blob(lot).filter(ImageFilter.GaussianBlur(6))}  # fmt: skip


def laid_on(thing: Image.Image, shape: Image.Image, backdrop: Image.Image) -> Image.Image:
    page = backdrop.copy()
    page.paste(thing.convert(page.mode), mask=shape)
    if page.mode == "RGBA":
        page.putalpha(shape)
    return page


def line_art(photo: Image.Image, ink: int = 0) -> Image.Image:
    """The photo's edges in thin lines on paper."""
    gray = cv2.GaussianBlur(np.asarray(photo.convert("L")), (0, 0), 4)
    lines = cv2.dilate(cv2.Canny(gray, 20, 60), np.ones((3, 3), np.uint8))
    return Image.fromarray(cv2.GaussianBlur(lines if ink else 255 - lines, (0, 0), 0.8))


def sprite(photo: Image.Image, lot: random.Random) -> Image.Image:
    """32 x 32 pixels of 16 colours, enlarged as they are, on one colour."""
    small = photo.resize((32, 32), Image.Resampling.BOX).quantize(16).convert("RGB")
    shape = blob(lot).resize((32, 32), Image.Resampling.BOX).point(lambda value: 255 * (value > 127))
    page = Image.new("RGB", (32, 32), lot.choice(("white", "black", "#6496c8", "#ff00ff")))
    page.paste(small, mask=shape)
    return page.resize((SIDE, SIDE), Image.Resampling.NEAREST)


def spoiled(photo: Image.Image, how: str, strength: float) -> Image.Image:
    if how == "enlarged":
        return photo.resize((int(strength), int(strength)), Image.Resampling.LANCZOS).resize(photo.size, Image.Resampling.BICUBIC)
    return Image.fromarray(blurred(np.asarray(photo), how, strength, 40))


def report_verdicts(photos: list[Image.Image], folder: Path, seed: int) -> None:
    rows: dict[str, list[Verdict]] = defaultdict(list)
    for number, photo in enumerate(photos):
        lot = random.Random(seed * 1000 + number)

        def add(row: str, picture: Image.Image) -> None:
            path = folder / ("a.jpg" if picture.mode == "RGB" and "sprite" not in row and "line" not in row else "a.png")  # noqa: B023
            picture.save(path, **({"quality": 92} if path.suffix == ".jpg" else {}))
            rows[row].append(verdict_on(path))

        add("the photo", photo)
        for backdrop, make in BACKDROPS.items():
            for shape in ("blob", "ellipse", "packet"):
                add(f"on {backdrop}", laid_on(photo, SHAPES[shape](lot), make(photo, lot)))
        for shape in ("pencil", "small blob", "cut softly"):
            add(f"{shape}, on white", laid_on(photo, SHAPES[shape](lot), BACKDROPS["white"](photo, lot)))
        add("line art, black on white", line_art(photo))
        add("line art, white on black", line_art(photo, 255))
        add("sprite", sprite(photo, lot))
        for how, strength in (("Gaussian", 3), ("Gaussian", 5), ("motion", 16), ("defocus", 6), ("enlarged", 320)):
            bad = spoiled(photo, how, strength)
            add(f"spoiled: {how} {strength}", bad)
            for backdrop in ("white", "nothing"):
                add(f"spoiled, on {backdrop}: {how} {strength}", laid_on(bad, blob(lot), BACKDROPS[backdrop](bad, lot)))
    print(
        f"verdicts: {len(photos)} photos, each cut out in several ways\n\n| picture | of | keep | warn | reject | why |\n|---|---|---|---|---|---|"
    )
    for row, found in rows.items():
        why = Counter(reason.reason for verdict in found for reason in verdict.reasons)
        counts = Counter("keep" if {r.reason for r in v.reasons} <= {"transparent"} else v.verdict for v in found)
        told = ", ".join(f"{count} {reason}" for reason, count in why.most_common() if reason != "transparent")
        print(f"| {row} | {len(found)} | {counts['keep']} | {counts['warn']} | {counts['reject']} | {told} |", flush=True)


def another_face(thing: Image.Image, lot: random.Random, other: Image.Image) -> Image.Image:
    """A place of a seventh of the side shows something else, in the light of what was there."""
    size, at = SIDE // 7, (lot.randrange(SIDE * 3 // 8, SIDE // 2), lot.randrange(SIDE // 4, SIDE // 2))
    here = np.asarray(thing.crop((*at, at[0] + size, at[1] + size)), np.float32)
    new = np.asarray(other.crop((SIDE // 3, SIDE // 3, SIDE // 3 + 2 * size, SIDE // 3 + 2 * size)).resize((size, size)), np.float32)
    new = np.clip((new - new.mean((0, 1))) * 1.5 + here.mean((0, 1)), 0, 255).astype(np.uint8)
    face = Image.new("L", (size, size), 0)
    ImageDraw.Draw(face).ellipse((0, 0, size - 1, size - 1), fill=255)
    changed = thing.copy()
    changed.paste(Image.fromarray(new), at, face)
    return changed


def another_shirt(thing: Image.Image, lot: random.Random) -> Image.Image:
    """A quarter of the thing in another colour."""
    changed = thing.copy()
    box = (SIDE // 3, SIDE // 2, SIDE * 2 // 3, SIDE * 3 // 4)
    hue, saturation, value = thing.crop(box).convert("HSV").split()
    shift = lot.randrange(70, 180)
    moved = Image.merge(
        "HSV", (hue.point(lambda h: (h + shift) % 256), saturation.point(lambda s: max(s, 120)), value.point(lambda v: max(v, 90)))
    )
    changed.paste(moved.convert("RGB"), box[:2])
    return changed


def report_copies(photos: list[Image.Image], folder: Path, seed: int) -> None:
    """Of each cut-out on white, how many edits are found to be copies of it, and how many others are wrongly taken for one."""
    found: dict[str, list[bool]] = defaultdict(list)
    originals = []
    for number, photo in enumerate(photos):
        lot = random.Random(seed * 1000 + number)
        shape, white = blob(lot), BACKDROPS["white"](photo, lot)
        page, path = laid_on(photo, shape, white), folder / f"{number}.png"
        page.save(path)
        originals.append(path)

        def ask(row: str, picture: Image.Image) -> None:
            other = folder / f"{number}_{len(found[row])}_{row.split()[-1]}.jpg"  # noqa: B023
            picture.convert("RGB").save(other, quality=90)
            found[row].append(is_copy(path, other))  # noqa: B023

        for row, edits in (("copies: core edits", CORE), ("copies: hard edits", HARD), ("copies: mirrored, turned", TURNED)):
            for edit in edits.values():
                ask(row, edit(page))
        ask("copies: cropped, quality 60", compressed(60)(cut(0.05)(page)))
        other = photos[(number + 1) % len(photos)]
        ask("others: same pose, another face", laid_on(another_face(photo, lot, other), shape, white))
        ask("others: same pose, another shirt", laid_on(another_shirt(photo, lot), shape, white))
        ask("others: same silhouette, another thing", laid_on(other, shape, white))
    pairs = [is_copy(left, right) for left, right in combinations(originals, 2)]
    print(f"\ncopies: {len(photos)} cut-outs on white\n\n| pairs | taken for copies |\n|---|---|")
    for row, told in found.items():
        print(f"| {row} | {sum(told)} of {len(told)} ({np.mean(told):.3f}) |")
    print(f"| others: two cut-outs | {sum(pairs)} of {len(pairs)} |", flush=True)


if __name__ == "__main__":
    main()
