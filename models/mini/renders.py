"""Renders the training pictures: shards of 64 px pictures with captions and labels, each scene under several looks.

python -m models.mini.renders --work /tmp/mini --split train
"""

import argparse
import json
import time
from multiprocessing import Pool
from pathlib import Path

import numpy as np

from models.mini.geometry import march
from models.mini.shading import shade
from models.mini.styles import STYLES
from models.mini.world import OBJECTS, SUBJECTS, caption, draw_look, draw_scene, draw_toy_kind, label_words

SIZE, SUPERSAMPLING = 64, 2
SCENES_PER_SHARD = 50
SPLITS = {  # scenes, looks for each, seed; test and subjects are never trained on by the base
    "train": (8000, 8, 1),
    "test": (400, 2, 2),
    "subjects": (450, 4, 3),
    "subjects_test": (150, 2, 4),
    "toys_test": (100, 2, 7),
    "styles": (400, 4, 5),  # each look in the next style
    "styles_test": (100, 4, 6),
}


def shrink(picture, times):
    """Box filter: (H * times, W * times, 3) to (H, W, 3)."""
    height, width = picture.shape[0] // times, picture.shape[1] // times
    return picture.reshape(height, times, width, times, 3).mean((1, 3))


def to_bytes(picture):
    return np.uint8(np.clip(picture, 0, 1) * 255 + 0.5)


def draw_kinds(rng, split):
    """Which things a scene shows: None leaves it to the world."""
    if split == "train":
        return None
    if split == "toys_test":
        return [draw_toy_kind(rng)]
    return [str(rng.choice(list(SUBJECTS) if split.startswith("subjects") else OBJECTS))]


def render_scene(rng, split, looks):
    """Pictures and records of one scene under several looks; every second picture is mirrored."""
    scene = draw_scene(rng, draw_kinds(rng, split))
    side = SIZE * SUPERSAMPLING
    buffers = march(scene.things, scene.camera, scene.lights, side, side)
    pictures, records = [], []
    for i in range(looks):
        look = draw_look(rng, scene)
        style = list(STYLES)[i % len(STYLES)] if split.startswith("styles") else "photo"
        picture = shade(scene, look, buffers)
        if style in STYLES:
            picture = STYLES[style](picture, buffers)
        picture = to_bytes(shrink(picture, SUPERSAMPLING))
        pictures.append(picture[:, ::-1] if i % 2 else picture)
        captions = [caption(scene, look, rng) for _ in range(3)]
        records.append({"captions": captions, "style": style, **label_words(scene, look)})
    return pictures, records


def render_shard(job):
    """Renders one shard unless its file is there already."""
    path, split, scenes, looks, seed = job
    if path.exists():
        return path
    rng = np.random.default_rng(seed)
    pictures, records = [], []
    for _ in range(scenes):
        some_pictures, some_records = render_scene(rng, split, looks)
        pictures += some_pictures
        records += some_records
    part = path.with_suffix(".part.npz")
    np.savez(part, pictures=np.stack(pictures), records=json.dumps(records))
    part.rename(path)
    return path


def render_split(work, split, scenes=None, workers=2):
    """Renders what is missing of one split."""
    count, looks, seed = SPLITS[split]
    folder = work / "renders" / split
    folder.mkdir(parents=True, exist_ok=True)
    shards = range(0, scenes or count, SCENES_PER_SHARD)
    jobs = [(folder / f"{i:03d}.npz", split, SCENES_PER_SHARD, looks, (seed, i)) for i, _ in enumerate(shards)]
    start = time.time()
    with Pool(workers) as pool:
        for i, path in enumerate(pool.imap(render_shard, jobs)):
            print(f"{split} {path.name} {i + 1}/{len(jobs)} {time.time() - start:.0f} s", flush=True)


def load_split(work, split):
    """(pictures (N, 64, 64, 3) uint8, records) of all shards of a split."""
    shards = [np.load(path) for path in sorted((work / "renders" / split).glob("[0-9]*[0-9].npz"))]
    records = [record for shard in shards for record in json.loads(str(shard["records"]))]
    return np.concatenate([shard["pictures"] for shard in shards]), records


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
