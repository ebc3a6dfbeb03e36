"""Draw the pictures of docs/curation.md: what each check catches, and which copies are found, each with its number and limit.

    python bench/draw_checks.py [PHOTO] [-o docs]

One photo is spoiled in many ways and then judged by lorakit itself; what stands under a picture is its verdict."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from edits import CORE, HARD, TURNED, compressed, disk, streak
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from lorakit.curate.check import measure
from lorakit.curate.compare import compare, is_same_picture
from lorakit.curate.descriptors import TURNS, hash_bytes, turned
from lorakit.photos.decode import load_image
from lorakit.quality import verdicts
from lorakit.settings import resolve

TILE, WORDS, COLUMNS = 248, 40, 5  # px of a picture's side, of its two lines of text, and pictures in a row
COLOURS = {"keep": "#1a7f4e", "warn": "#b36b00", "reject": "#c62828"}
Spoil = Callable[[Image.Image], Image.Image]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = Path(__file__).parent.parent
    parser.add_argument("photo", type=Path, nargs="?", default=root / "sample_data/photos/IMG_2057.jpg")
    parser.add_argument("-o", "--out", type=Path, default=root / "docs")
    args = parser.parse_args()
    photo = load_image(args.photo)
    with tempfile.TemporaryDirectory() as folder:
        sheet([judged(photo, name, spoil, Path(folder)) for name, spoil in SPOILED.items()]).save(args.out / "checks.jpg", quality=82)
        sheet([compared(photo, name, edit, Path(folder)) for name, edit in COPIES.items()]).save(args.out / "copies.jpg", quality=82)


def filtered(kernel: np.ndarray) -> Spoil:
    return lambda p: Image.fromarray(cv2.filter2D(np.asarray(p), -1, kernel))


def shaded(factor: float, lift: float = 0) -> Spoil:
    return lambda p: Image.fromarray(np.clip(np.asarray(p) * factor + lift, 0, 255).astype(np.uint8))


def enlarged(side: int) -> Spoil:
    """A picture of `side` px that was blown up to a photo's size."""
    return lambda p: p.resize((p.width * side // p.height, side), Image.Resampling.LANCZOS).resize(p.size, Image.Resampling.BICUBIC)


def framed(photo: Image.Image) -> Image.Image:
    page = Image.new("RGB", (photo.width, round(photo.height * 1.4)), "black")
    page.paste(photo, (0, round(photo.height * 0.2)))
    return page


def marked(photo: Image.Image) -> Image.Image:
    """A watermark, as it is sold."""
    copy = photo.copy()
    font = ImageFont.load_default(photo.height // 7)
    ImageDraw.Draw(copy).text(
        (photo.width // 2, photo.height // 2), "SAMPLE PHOTO", "white", font, "mm", stroke_width=2, stroke_fill="gray"
    )
    return copy


SPOILED: dict[str, Spoil] = {
    "as it was taken": lambda p: p,
    "out of focus": filtered(disk(8)),
    "shaken": filtered(streak(28, 20)),
    "a little soft": filtered(disk(1.9)),
    "a wall": lambda p: Image.fromarray(np.random.default_rng(0).normal(140, 3, (p.height, p.width, 3)).astype(np.uint8)),
    "in the dark": shaded(0.16),
    "dim": shaded(0.45),
    "blown out": shaded(3.0, 120),
    "pale": shaded(0.15, 120),
    "one tone": shaded(0.02, 120),
    "grainy after JPEG": compressed(6),
    "JPEG, poor": compressed(25),
    "blown up": enlarged(400),
    "letterboxed": framed,
    "small": lambda p: p.resize((400, 400 * p.height // p.width)),
    "a strip": lambda p: p.crop((0, p.height // 2 - 130, p.width, p.height // 2 + 130)).resize((p.width * 2, 520)),
    "written over": marked,
}
COPIES: dict[str, Spoil] = {
    "resized to 25 %": CORE["resized to 25 %"],
    "JPEG quality 30": CORE["JPEG quality 30"],
    "grayscale": CORE["grayscale"],
    "10 % cut off": HARD["10 % cut off"],
    "rotated by 5 degrees": HARD["rotated by 5 degrees"],
    "mirrored": TURNED["mirrored"],
    "quarter turn left": TURNED["quarter turn left"],
    "cut, halved, quality 60": HARD["cut, halved, quality 60"],
    "brighter, bluer": lambda p: ImageEnhance.Brightness(
        Image.merge("RGB", [b.point(lambda v, k=k: int(v * k)) for b, k in zip(p.split(), (0.8, 0.9, 1.0))])
    ).enhance(1.1),
    "half of it": lambda p: p.crop((0, 0, p.width // 2, p.height)),
}


def judged(photo: Image.Image, name: str, spoil: Spoil, folder: Path) -> tuple[Image.Image, str, str, str]:
    """(picture, title, verdict in words, verdict)"""
    picture = spoil(photo)
    path = folder / f"{len(list(folder.iterdir()))}.jpg"
    if getattr(picture, "format", None) == "JPEG":
        picture.fp.seek(0)
        path.write_bytes(picture.fp.read())
    else:
        picture.convert("RGB").save(path, quality=92)
    settings = resolve([])
    found = verdicts.judge({"id": "a", **measure(path)}, settings)
    worst = [r for r in found.reasons if r.verdict == found.verdict]
    words = "".join(f"{r.reason} {r.value} (limit {r.threshold})" for r in worst[-1:])
    return load_image(path), name, f"{found.verdict}: {words}" if words else found.verdict, found.verdict


def compared(photo: Image.Image, name: str, edit: Spoil, folder: Path) -> tuple[Image.Image, str, str, str]:
    """The same for a copy: bits of the hashes that differ, and what laying one over the other finds where they do not decide."""
    paths = folder / "original.png", folder / f"copy_{len(list(folder.iterdir()))}.jpg"
    photo.save(paths[0])
    edit(photo).convert("RGB").save(paths[1], quality=92)
    ours, theirs = (hash_bytes([measure(path)["look"]["phash"]]) for path in paths)
    apart = [int(np.unpackbits(turned(theirs, turn) ^ ours).sum()) for turn in range(TURNS)]
    turn, limits = int(np.argmin(apart)), resolve([]).dedupe
    words, same = f"{apart[turn]} bits", apart[turn] <= limits.sure
    if limits.sure < apart[turn] <= limits.distance:
        likeness = compare(paths[1], paths[0], turn)
        same = is_same_picture(likeness)
        words += f", laid over: {likeness.agreement:.2f}"
    verdict = ("mirrored" if turn else "near_duplicate") if same else "another picture"
    return load_image(paths[1]), name, f"{verdict}: {words}", "reject" if same else "keep"


def sheet(tiles: list[tuple[Image.Image, str, str, str]]) -> Image.Image:
    rows = -(-len(tiles) // COLUMNS)
    page = Image.new("RGB", (COLUMNS * (TILE + 8) + 8, rows * (TILE * 3 // 4 + WORDS + 12) + 8), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for number, (picture, title, words, verdict) in enumerate(tiles):
        left = 8 + number % COLUMNS * (TILE + 8)
        top = 8 + number // COLUMNS * (TILE * 3 // 4 + WORDS + 12)
        small = picture.convert("RGB")
        small.thumbnail((TILE, TILE * 3 // 4), Image.Resampling.LANCZOS)
        page.paste(small, (left + (TILE - small.width) // 2, top))
        draw.text((left, top + TILE * 3 // 4 + 3), title, "black", font)
        draw.text((left, top + TILE * 3 // 4 + 20), words, COLOURS[verdict], font)
    return page


if __name__ == "__main__":
    main()
