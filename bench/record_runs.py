"""Trainings of `mini` under settings that are right and wrong, and what their metrics say: the recorded runs of tests/quality, which are
of the first mini, of 64 px.

    python -m bench.record_runs --work build/recorded --only right ten     # hours for all of them on a core; goes on where it was stopped
    python -m bench.record_runs --work build/recorded --write tests/quality/recorded_runs.json

The photos are those of sample_data/, of the demo's robot; in some runs four of them, or some with pictures of noise among them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from lorakit.project import runs

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT / "sample_data" / "photos"
FEW = ("IMG_2041.jpg", "IMG_2045.jpg", "IMG_2052.jpg", "IMG_2058.jpg")
NOISE = {"three_bad_photos": 3, "one_bad_photo": 1}  # pictures of it among the robot's
RATE = 1e-3
RUNS = {
    "right": {"train.steps": 400, "train.learning_rate": RATE},
    "tenth": {"train.steps": 240, "train.learning_rate": RATE / 10},
    "ten": {"train.steps": 240, "train.learning_rate": RATE * 10},
    "hundred": {"train.steps": 240, "train.learning_rate": RATE * 100},
    "long": {"train.steps": 1200, "train.learning_rate": 2 * RATE, "train.keep_checkpoints": 0},
    "three_bad_photos": {"train.steps": 300, "train.learning_rate": RATE, "train.batch_size": 1},
    "one_bad_photo": {"train.steps": 300, "train.learning_rate": RATE, "train.batch_size": 1},
    "four_photos": {"train.steps": 480, "train.learning_rate": RATE, "train.batch_size": 1},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=RUNS)
    parser.add_argument("--write", type=Path, help="write what is there, and train nothing")
    given = parser.parse_args()
    if given.write:
        found = {name: record(given.work / name) for name in RUNS if (given.work / name / "runs").is_dir()}
        given.write.write_text("{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(run)}" for name, run in found.items()) + "\n}\n")
        return
    for name in given.only or RUNS:
        train(given.work, name)


def train(work: Path, name: str) -> None:
    work.mkdir(parents=True, exist_ok=True)
    project = work / name
    words = ["run", photos_of(work, name), "-o", project, "--base", "mini", "--kind", "object", "--trigger", "zwx", "--class-word", "toy"]
    run(*words, "--device", "cpu", "--until", "dataset")
    if name in NOISE:  # which curating may have rejected
        run("review", project, *(f"noise_{number}.png" for number in range(NOISE[name])), "--keep")
    words = ["train", project, "--device", "cpu", "--until", "train"]
    for key, value in {"sample.every": 0, "train.batch_size": 4, **RUNS[name]}.items():
        words += ["--set", f"{key}={value}"]
    run(*words)  # the rate that is far too high fails


def run(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "lorakit", *map(str, words)], cwd=ROOT)


def photos_of(work: Path, name: str) -> Path:
    """The folder that a run learns from. The noise is so coarse that it is still noise at mini's size, and says of itself that it is a toy."""
    if name not in NOISE and name != "four_photos":
        return PHOTOS
    folder = work / f"{name}_photos"
    folder.mkdir(exist_ok=True)
    for path in PHOTOS.iterdir() if name in NOISE else map(PHOTOS.joinpath, FEW):
        shutil.copy(path, folder)
    for number in range(NOISE.get(name, 0)):
        noise = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise.repeat(8, 0).repeat(8, 1)).save(folder / f"noise_{number}.png")
        (folder / f"noise_{number}.txt").write_text("a toy on a table\n", encoding="utf-8")
    return folder


def record(project: Path) -> dict:
    """{"settings", "saved", "result", "loss": [by step], "photos": how many are learned, "validation": {step: loss}} of a project's newest training."""
    run = runs.all_runs(project)[-1]
    lines, result = run.read_metrics(), run.facts.get("result", {})
    kept = ("strengths", "fit", "not_a_number", "pictures")
    return {
        "settings": {key: run.read_settings().get(key) for key in ("train.learning_rate", "train.steps", "train.rank", "train.batch_size")},
        "saved": run.saved_steps,
        "result": {key: result[key] for key in kept if result.get(key) is not None},
        "loss": [float(f"{line['loss']:.4g}") for line in lines],
        "photos": len({name for line in lines for name in line["photos"]}),
        "validation": {line["step"]: float(f"{line['validation']:.4g}") for line in lines if "validation" in line},
    }


if __name__ == "__main__":
    main()
