"""A training killed at random moments inside its loop, again and again, ends with the tensors of one that never stopped."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lorakit.project import runs
from lorakit.train.cache import cache
from tests.conftest import adapter, draw_photo

pytestmark = pytest.mark.slow

# LORAKIT_KILLS=30 for a soak of seven minutes; a few are enough to keep what holds
KILLS, STEPS, EVERY = int(os.environ.get("LORAKIT_KILLS", "4")), 18, 3
KINDS = {
    "plain": {},
    "ema, accumulation, dora": {"train.ema": 0.9, "train.gradient_accumulation": 2, "train.adapter": "dora"},
    "regularisation, text encoder": {"train.regularisation": "REGULARISATION", "train.text_encoder": True},
    "lokr, adafactor": {"train.adapter": "lokr", "train.optimizer": "adafactor"},
}
# Imports and loads the base once, then trains in a child each time it is told to: 30 starts cost no 30 imports of torch.
SERVER = """
import os, sys
import torch
torch.set_num_threads(1)
from lorakit import open_project
from lorakit.bases.load import load_family
from lorakit.train import lora
import lorakit.train.learner as learner
import lorakit.train.train as stage
folder = sys.argv[1]
family = load_family(open_project(folder, device="cpu"))
learner.load_family = lambda project: family
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if not child:
        code = 1
        try:
            stage.train(open_project(folder, device="cpu"))
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Server:
    """Trains a project in processes that can be killed."""

    def __init__(self, folder: Path, log):
        words = [sys.executable, "-c", SERVER, str(folder)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def start(self) -> int:
        """Begin to train; returns the process's number."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def end(self) -> int:
        """Wait for it; returns its exit code, negative where it was killed."""
        return int(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(60)


def metrics(folder: Path) -> tuple[int, int]:
    """(lines of the metrics, inode of the file): it is written anew when a training goes on, and then grows."""
    try:
        path = next(iter(folder.glob("runs/*/metrics.jsonl")))
        return path.read_bytes().count(b"\n"), path.stat().st_ino
    except (StopIteration, FileNotFoundError):
        return 0, 0


def step_seconds(folder: Path) -> float:
    """How long the last step took."""
    lines = next(iter(folder.glob("runs/*/metrics.jsonl"))).read_text(encoding="utf-8").splitlines()
    return json.loads(lines[-1])["seconds"] if lines else 0.0


def kill_in_loop(folder: Path, child: int, last: int, inode: int, chance: random.Random) -> None:
    """Kill the training within a step of the loop: a few steps behind the checkpoint that it goes on from, so that it gets on
    slowly, and some of them while the next checkpoint is written."""
    goal = min(last - last % EVERY + chance.choice([1, 1, 1, 2, 4]), STEPS - 2)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        lines, now = metrics(folder)
        if now != inode and lines >= goal:
            break
        time.sleep(0.005)
    time.sleep(chance.random() * step_seconds(folder))
    assert child > 1  # 0 would be this whole group of processes
    os.kill(child, signal.SIGKILL)


@pytest.fixture
def soaked(request, make_dataset, tmp_path):
    """The dataset of a small training of the kind."""
    settings = dict(KINDS[request.param])
    if "train.regularisation" in settings:
        settings["train.regularisation"] = str(tmp_path / "regularisation")
        (tmp_path / "regularisation").mkdir()
        for number in range(2):
            draw_photo(90 + number, (96, 96)).save(tmp_path / "regularisation" / f"{number}.jpg")
    small = {
        "train.resolution": 32,
        "train.bucket_step": 8,
        "train.targets": "attention",
        "train.rank": 2,
        "train.include": "mid_block",
        "select.count": 3,
    }
    often = {"train.steps": STEPS, "train.checkpoint_every": EVERY, "train.keep_checkpoints": 3, "select.everything": False}
    return make_dataset(**{**small, **often, **settings})


@pytest.mark.parametrize("soaked", KINDS, indirect=True)
def test_kills_inside_the_loop_change_no_bit(soaked, tmp_path):
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    print(f"seed of the moments: {seed}")
    cache(soaked)
    straight = shutil.copytree(soaked.folder, tmp_path / "straight", ignore=shutil.ignore_patterns(".lock"))
    stopped_at = []
    with open(tmp_path / "log", "w+") as log:
        server = Server(straight, log)
        server.start()
        assert server.end() == 0, (tmp_path / "log").read_text()
        server.close()
        server = Server(soaked.folder, log)
        try:
            for _ in range(KILLS):
                last, inode = metrics(soaked.folder)
                kill_in_loop(soaked.folder, server.start(), last, inode, chance)
                code = server.end()
                assert code == -signal.SIGKILL, f"ended with {code} before it was killed: {(tmp_path / 'log').read_text()}"
                stopped_at.append(metrics(soaked.folder)[0])
            server.start()
            assert server.end() == 0, (tmp_path / "log").read_text()
        finally:
            server.close()
    print(f"killed at steps {stopped_at}")
    runs_of = [runs.all_runs(folder) for folder in (straight, soaked.folder)]
    assert [len(found) for found in runs_of] == [1, 1]
    one, other = (adapter(found[0]) for found in runs_of)
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert any(tensor.any() for tensor in one.values())
    lines = [[{**entry, "seconds": 0, "split": 0} for entry in found[0].read_metrics()] for found in runs_of]
    assert lines[0] == lines[1] and len(lines[0]) == STEPS
    assert not list(soaked.folder.glob("runs/*/checkpoints/damaged_*"))
