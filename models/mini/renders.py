"""Renders the training pictures: shards of 128 px pictures with captions and labels, each scene under several looks.

python -m models.mini.renders --work build/mini --split train
"""

import argparse
import json
import os
import time
from multiprocessing import Pool
from pathlib import Path

import cv2
import numpy as np

from models.mini.figures import ROLES
from models.mini.geometry import march
from models.mini.shading import shade
from models.mini.styles import STYLES
from models.mini.world import OBJECTS, SUBJECTS, caption, draw_look, draw_scene, draw_toy_kind, label_words

SIZE, MARCHED = 128, 192  # a picture is marched at 192 px and shrunk
SMALL = 64  # what the classifier, the captioner and open_clip look at
SCENES_PER_SHARD = 50
SPLITS = {  # scenes, looks for each, seed; test and subjects are never trained on by the base
    "train": (12000, 8, 1),
    "test": (400, 2, 2),
    "subjects": (450, 4, 3),
    "subjects_test": (150, 2, 4),
    "toys_test": (200, 2, 7),
    "robots_test": (200, 2, 8),  # the demo's subject, seen as the figures are
    "styles": (400, 4, 5),  # each look in the next style
    "styles_test": (100, 4, 6),
}


def shrink(picture, side):
    """A picture of any floats (H, W, ...) at the given side, every pixel the mean of what it covers."""
    return cv2.resize(np.float32(picture), (side, side), interpolation=cv2.INTER_AREA)


def to_bytes(picture):
    return np.uint8(np.clip(picture, 0, 1) * 255 + 0.5)


def draw_kinds(rng, split):
    """Which things a scene shows: None leaves it to the world."""
    if split == "train":
        return None
    if split == "toys_test":
        return [draw_toy_kind(rng)]
    if split == "robots_test":
        return ["robot"]
    return [str(rng.choice(list(SUBJECTS) if split.startswith("subjects") else OBJECTS))]


def count_roles(buffers):
    """How many pixels of a picture of SIZE each named part covers."""
    seen = np.bincount(buffers.role.ravel(), minlength=len(ROLES)) * (SIZE / buffers.role.shape[0]) ** 2
    return {role: round(float(count), 1) for role, count in zip(ROLES[1:], seen[1:], strict=True) if count}


def render_scene(rng, split, looks):
    """Pictures and records of one scene under several looks; every second picture is mirrored."""
    scene = draw_scene(rng, draw_kinds(rng, split))
    buffers = march(scene.things, scene.camera, scene.lights, MARCHED, MARCHED)
    pictures, records = [], []
    for i in range(looks):
        look = draw_look(rng, scene)
        style = list(STYLES)[i % len(STYLES)] if split.startswith("styles") else "photo"
        picture = shade(scene, look, buffers)
        if style in STYLES:
            picture = STYLES[style](picture, buffers)
        picture = to_bytes(shrink(picture, SIZE))
        pictures.append(picture[:, ::-1] if i % 2 else picture)
        captions = [caption(scene, look, rng) for _ in range(3)]
        records.append({"captions": captions, "style": style, "roles": count_roles(buffers), **label_words(scene, look)})
    return pictures, records


def render_shard(job):
    """Renders one shard unless its files are there already; the pictures come last, so that they stand for the whole."""
    path, split, scenes, looks, seed = job
    if path.exists():
        return path
    rng = np.random.default_rng(seed)
    pictures, records = [], []
    for _ in range(scenes):
        some_pictures, some_records = render_scene(rng, split, looks)
        pictures += some_pictures
        records += some_records
    path.with_suffix(".json").write_text(json.dumps(records))
    save_array(path, np.stack(pictures))
    return path


def save_array(path, array):
    """Writes beside `path` and renames, so that a stopped run never leaves half a file."""
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as file:
        np.save(file, array)
    part.rename(path)


def render_split(work, split, scenes=None, workers=2):
    """Renders what is missing of one split."""
    count, looks, seed = SPLITS[split]
    folder = work / "renders" / split
    folder.mkdir(parents=True, exist_ok=True)
    shards = range(0, scenes or count, SCENES_PER_SHARD)
    jobs = [(folder / f"{i:03d}.npy", split, SCENES_PER_SHARD, looks, (seed, i)) for i, _ in enumerate(shards)]
    jobs = [job for job in jobs if not job[0].exists()]
    start = time.time()
    with Pool(workers) as pool:
        for i, path in enumerate(pool.imap_unordered(render_shard, jobs)):
            left = (time.time() - start) / (i + 1) * (len(jobs) - i - 1)
            print(f"{split} {path.name} {i + 1}/{len(jobs)}, {left / 60:.0f} min left", flush=True)


def list_shards(work, split):
    """The shards that are finished."""
    return sorted((work / "renders" / split).glob("[0-9]*[0-9].npy"))


def load_records(paths):
    return [record for path in paths for record in json.loads(path.with_suffix(".json").read_text())]


def load_split(work, split, side=SMALL, most=120):
    """(pictures (N, side, side, 3) uint8, records) of the shards of a split, at most so many of them: 48 thousand pictures."""
    paths = list_shards(work, split)[:most]
    shards = [np.load(path, mmap_mode="r") for path in paths]
    if side != SIZE:
        shards = [halve(shard) for shard in shards]
    return np.concatenate(shards), load_records(paths)


def halve(pictures):
    """uint8 (N, 2 H, 2 W, 3) to (N, H, W, 3), each pixel the mean of four."""
    sums = sum(pictures[:, y::2, x::2].astype(np.uint16) for y in (0, 1) for x in (0, 1))
    return np.uint8((sums + 2) // 4)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--split", choices=SPLITS, nargs="+", default=list(SPLITS))
    parser.add_argument("--scenes", type=int, help="fewer or more scenes than the split's own number")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    for split in args.split:
        render_split(args.work, split, args.scenes, args.workers)


if __name__ == "__main__":
    main()
