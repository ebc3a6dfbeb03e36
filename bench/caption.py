"""Captions a second against the bare model: `python -m bench.caption --captioner blip --size small --batch 1 8 --device cpu`.

Three rates of one randomly initialised model on the same photos: `bare` is nothing but the calls of model.generate that
lorakit makes, on tensors that lie on the device already; `lorakit` is the way from JPEG files to readings; `single` is lorakit
with one photo at a time and no threads.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench.random_captioners import MAKERS
from lorakit import lookup
from lorakit.caption.caption import read_photos
from lorakit.caption.captioners import base, florence2
from lorakit.caption.captioners.base import Reader
from lorakit.photos.images import load_crop_to_read
from lorakit.settings import Caption
from lorakit.weights import Source


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captioner", choices=MAKERS, default="blip")
    parser.add_argument("--size", choices=("small", "base", "large"), default="small")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--photos", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=24, help="of every answer: random weights never end one")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3, help="the best of these is shown")
    return parser


def main() -> None:
    for line in rates(parser().parse_args()):
        print("  ".join(f"{key} {value:.2f}" if isinstance(value, float) else f"{key} {value}" for key, value in line.items()), flush=True)


def rates(given: argparse.Namespace) -> Iterator[dict[str, float]]:
    """Photos a second, for each size of a batch."""
    florence2.DETECT_TOKENS = given.tokens
    with tempfile.TemporaryDirectory() as folder:
        records = make_photos(Path(folder), given.photos)
        model, reader = load(given, MAKERS[given.captioner](Path(folder) / "model", given.size))
        prepared = [reader.prepare(load_crop_to_read(record)) for record in records]
        reader.read(prepared[:2])  # warm
        for batch in given.batch:
            calls = calls_of(model, reader, [prepared[n : n + batch] for n in range(0, len(prepared), batch)])
            bare = rate(lambda calls=calls: replay(model, calls, given.device), given)
            ours = rate(lambda batch=batch: read_files(records, reader, batch), given)
            yield {"batch": batch, "bare/s": bare, "lorakit/s": ours, "ratio": ours / bare}
        single = rate(lambda: [read for r in records for read in reader([load_crop_to_read(r)])], given)
        yield {"batch": 1, "without threads/s": single}


def load(given: argparse.Namespace, folder: Path) -> tuple[Any, Reader]:
    """(the model itself, lorakit's reader of it)."""
    captioner, caught = lookup.load(lookup.CAPTIONERS, given.captioner), []

    def load_model(*args):
        caught.append(base.load_model(*args))
        return caught[-1]

    captioner.load_model = load_model
    settings = Caption(max_tokens=given.tokens, prompt="short" if given.captioner == "florence2" else None)
    reader = captioner.load(Source(str(folder), True), given.device, settings)
    return caught[0][0], reader


def calls_of(model: Any, reader: Reader, parts: list[list]) -> list[dict[str, Any]]:
    """What lorakit gives to model.generate for these batches."""
    calls, generate = [], model.generate
    model.generate = lambda **inputs: calls.append(inputs) or generate(**inputs)
    for part in parts:
        reader.read(part)
    model.generate = generate
    return calls


@torch.inference_mode()
def replay(model: Any, calls: list[dict[str, Any]], device: str) -> None:
    for inputs in calls:
        model.generate(**inputs)
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def read_files(records: list[dict], reader: Reader, batch: int) -> None:
    for _ in read_photos(records, reader, batch):
        pass


def rate(work: Callable[[], object], given: argparse.Namespace) -> float:
    """Photos a second, the best of some repeats."""
    times = []
    for _ in range(given.repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return given.photos / min(times)


def make_photos(folder: Path, count: int) -> list[dict]:
    """Records of JPEG photos of 1600 x 1200 pixels."""
    records = []
    for number in range(count):
        coarse = np.random.default_rng(number).integers(0, 255, (60, 80, 3), np.uint8)
        path = folder / f"{number}.jpg"
        Image.fromarray(coarse).resize((1600, 1200), Image.Resampling.BICUBIC).save(path, quality=90)
        records.append({"path": str(path), "crop": {"box": [0, 0, 1600, 1200], "bucket": [512, 384]}})
    return records


if __name__ == "__main__":
    main()
