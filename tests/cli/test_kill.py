"""`kill -9` in every stage, and the same command again: it completes, with the same tensors as a run never stopped."""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.conftest import QUICK, draw_photo

pytestmark = pytest.mark.slow


def command(photos: Path, project: Path, weights: Path) -> list[str]:
    settings = {**QUICK, "train.steps": 40, "train.checkpoint_every": 5, "caption.batch_size": 1, "sample.every": 20, "sample.steps": 4}
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    words = ["run", photos, "-o", project, "--base", "tiny-random", "--weights", weights, "--trigger", "zwx", "--device", "cpu"]
    return [*map(str, words), *sets]


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


# Loads what lorakit needs once, then runs a command in a child each time it is told to: fifteen starts cost one import of torch.
SERVER = """
import json, os, sys
import torch
torch.set_num_threads(1)
from lorakit import cli
import lorakit.caption.caption, lorakit.report.report, lorakit.train.export, lorakit.train.train, lorakit.train.sample
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if not child:
        code = 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            sys.argv = ["lorakit", *json.loads(line)]
            cli.main()
            code = 0
        except SystemExit as leave:
            code = leave.code or 0
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
    """Runs lorakit in processes that can be killed."""

    def __init__(self, log: Path):
        self.log = log
        with open(log, "w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out, text=True
            )
        assert self.process.stdout.readline() == "ready\n"

    def run(self, words: list[str], kill_at=None) -> bool:
        """Run a command to its end, which has to be a good one, or kill it when `kill_at()` is true. Returns whether it was killed."""
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        child, killed = int(self.process.stdout.readline()), False
        while kill_at and not killed and not select.select([self.process.stdout], [], [], 0.004)[0]:
            if kill_at():
                os.kill(child, signal.SIGKILL)
                killed = True
        code = int(self.process.stdout.readline())
        assert code == (-signal.SIGKILL if killed else 0), self.log.read_text()
        return killed

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def lora_tensors(project: Path) -> dict[str, bytes]:
    (path,) = project.glob("runs/*/*.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(path).items()}


def test_killed_in_every_stage_ends_with_the_same_tensors(tmp_path, tiny_weights):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(12):
        draw_photo(number, [(640, 512), (512, 640)][number % 2]).save(photos / f"{number}.jpg", quality=92)
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    server = Server(tmp_path / "log.txt")
    server.run(command(photos, straight, tiny_weights))
    words = command(photos, killed, tiny_weights)
    stopped = [stage for stage, at in MOMENTS.items() if server.run(words, lambda at=at: killed.is_dir() and at(killed))]
    assert {"check", "caption", "dataset", "cache", "train", "sample"} <= set(stopped)  # the others can be too short to hit
    server.run(words)
    assert lora_tensors(killed) == lora_tensors(straight)
    assert len(list(killed.glob("runs/*"))) == 1
    assert list(killed.glob("runs/*/report.html"))
    texts = [{p.name: p.read_bytes() for p in sorted((folder / "dataset").iterdir())} for folder in (straight, killed)]
    assert texts[0] == texts[1]
    server.run(words)
    server.close()
    assert "nothing to do" in server.log.read_text()
