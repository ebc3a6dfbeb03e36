"""`kill -9` in every stage, and the same command again: it completes, with the same tensors as a run never stopped."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.conftest import QUICK, draw_photo

pytestmark = pytest.mark.slow


def command(photos: Path, project: Path, weights: Path) -> list[str]:
    settings = {**QUICK, "train.steps": 40, "train.checkpoint_every": 5, "caption.batch_size": 1, "sample.every": 20, "sample.steps": 4}
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    words = ["run", photos, "-o", project, "--base", "tiny-random", "--weights", weights, "--trigger", "zwx", "--device", "cpu"]
    return [sys.executable, "-m", "lorakit", *map(str, words), *sets]


def has_done(project: Path, stage: str, count: int) -> bool:
    """Whether the books show that a stage has finished `count` photos."""
    done = set()
    for name in ("manifest.jsonl", "manifest.journal"):
        path = project / name
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if stage in record.get("done", {}):
                done.add(record["id"])
    return len(done) >= count


def run_has_done(project: Path, stage: str) -> bool:
    return any(stage in json.loads(p.read_text(encoding="utf-8"))["done"] for p in project.glob("runs/*/run.json"))


# Where the process is killed: as soon as the disk shows that it is in the middle of the stage.
MOMENTS = {
    "scan": lambda p: (p / "project.yaml").is_file(),
    "check": lambda p: has_done(p, "check", 1),
    "dedupe": lambda p: has_done(p, "check", 12),
    "select": lambda p: has_done(p, "dedupe", 12),
    "crop": lambda p: has_done(p, "select", 12),
    "caption": lambda p: has_done(p, "caption", 2),
    "trigger": lambda p: has_done(p, "caption", 12),
    "dataset": lambda p: len(list(p.glob("dataset/*.png"))) >= 2,
    "cache": lambda p: len(list(p.glob("cache/latents/*.safetensors"))) >= 2,
    "train": lambda p: any(p.glob("runs/*/checkpoints/step_000015")),
    "train, sampling": lambda p: any(p.glob("runs/*/samples/step_000020/0.png")),
    "sample": lambda p: any(p.glob("runs/*/samples/final/0_base.png")),
    "export": lambda p: run_has_done(p, "sample"),
    "report": lambda p: run_has_done(p, "export"),
}


def kill_when(moment, words: list[str], project: Path) -> bool:
    """Start the command and kill it when `moment(project)` is true; False when it had finished before."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None:
        if project.is_dir() and moment(project):
            process.kill()
            process.communicate()
            return True
        time.sleep(0.002)
    assert process.returncode == 0, process.stderr.read().decode()
    return False


def lora_tensors(project: Path) -> dict[str, bytes]:
    (path,) = project.glob("runs/*/*.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(path).items()}


def test_killed_in_every_stage_ends_with_the_same_tensors(tmp_path, tiny_weights):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(12):
        draw_photo(number, [(640, 512), (512, 640)][number % 2]).save(photos / f"{number}.jpg", quality=92)
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    subprocess.run(command(photos, straight, tiny_weights), check=True, capture_output=True)

    words = command(photos, killed, tiny_weights)
    stopped = [stage for stage, moment in MOMENTS.items() if kill_when(moment, words, killed)]
    assert {"check", "caption", "dataset", "cache", "train", "sample"} <= set(stopped)  # the others can be too short to hit
    last = subprocess.run(words, capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    assert lora_tensors(killed) == lora_tensors(straight)
    assert len(list(killed.glob("runs/*"))) == 1
    assert list(killed.glob("runs/*/report.html"))
    texts = [{p.name: p.read_bytes() for p in sorted((folder / "dataset").iterdir())} for folder in (straight, killed)]
    assert texts[0] == texts[1]
    assert "nothing to do" in subprocess.run(words, capture_output=True, text=True).stderr
