"""Captions a second against the bare model: `python bench/caption.py --size small --batch 1 8 --device cpu`.

Three rates of one randomly initialised BLIP on the same photos: `bare` is model.generate on tensors that are in memory
already, `lorakit` is the way from JPEG files to readings, `single` is lorakit with one photo at a time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lorakit.caption.caption import read_photos
from lorakit.caption.captioners import blip
from lorakit.caption.captioners.base import Reader
from lorakit.images import load_crop_to_read
from lorakit.settings import Caption
from lorakit.weights import Source

SIZES = {  # width, layers, heads, side: `large` is BLIP large's own shape, 446 M parameters with its words
    "small": {"vision": (256, 6, 4, 224), "text": (256, 4, 4)},
    "large": {"vision": (1024, 24, 16, 384), "text": (768, 12, 12)},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--photos", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3, help="the best of these is shown")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        records = make_photos(Path(folder), given.photos)
        source = Source(str(make_blip(Path(folder) / "blip", given.size)), True)
        reader = blip.load(source, given.device, Caption(max_tokens=given.tokens))
        prepared = [reader.prepare(load_crop_to_read(record)) for record in records]
        reader.read(prepared[:2])  # warm
        for batch in given.batch:
            parts = [prepared[n : n + batch] for n in range(0, len(prepared), batch)]
            bare = rate(partial(read_all, reader, parts), given)
            ours = rate(partial(read_files, records, reader, batch), given)
            print(f"batch {batch:>3}: bare {bare:7.2f}/s  lorakit {ours:7.2f}/s  ratio {ours / bare:.2f}", flush=True)
        single = rate(lambda: [read for r in records for read in reader([load_crop_to_read(r)])], given)
        print(f"one image at a time, without threads: {single:7.2f}/s, so lorakit is {ours / single:.2f} times as fast")


def read_all(reader: Reader, parts: list[list]) -> None:
    for part in parts:
        reader.read(part)


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


def make_blip(folder: Path, size: str) -> Path:
    """A randomly initialised BLIP in the hub's format."""
    from transformers import BlipConfig, BlipForConditionalGeneration

    folder.mkdir()
    letters = [mark + letter for letter in "abcdefghijklmnopqrstuvwxyz" for mark in ("", "##")]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"word{n}" for n in range(30_467))]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    (width, layers, heads, side), (text_width, text_layers, text_heads) = SIZES[size].values()
    image = {
        "image_processor_type": "BlipImageProcessor",
        "size": {"height": side, "width": side},
        "processor_class": "BlipProcessor",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(image))
    vision = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers, "num_attention_heads": heads,
              "image_size": side, "patch_size": 16}  # fmt: skip
    text = {"hidden_size": text_width, "intermediate_size": 4 * text_width, "num_hidden_layers": text_layers, "encoder_hidden_size": width,
            "num_attention_heads": text_heads, "vocab_size": len(vocabulary), "bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3,
            "pad_token_id": 0}  # fmt: skip
    torch.manual_seed(0)
    BlipForConditionalGeneration(BlipConfig(vision_config=vision, text_config=text)).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
