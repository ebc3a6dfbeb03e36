"""Very many photos: tiny ones in tar shards, made on the fly, through check, dedupe and select with `--engine ray` on two local workers,
killed and resumed twice. What comes of it is what threads find, and memory stays below the bounds here.

In CI 2,000; LORAKIT_SOAK_PHOTOS=1000000 is for a machine that is left alone for a day. Its figures stand in docs/scale.md."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
import simplejpeg

from lorakit import open_project, pipeline
from lorakit.project.manifest import Manifest

pytestmark = pytest.mark.slow

PHOTOS = int(os.environ.get("LORAKIT_SOAK_PHOTOS", "2000"))
A_SHARD, FEW = 10_000, 2_000
BASE_MB, KB_A_PHOTO = 600, 14  # of the process that leads: what it takes with few photos, and what each adds
CLUSTER_MB = 2500  # all of Ray with two workers, however many photos
SETTINGS = ("--base", "tiny-random", "--set", "check.size.min_side=16", "--set", "dedupe.distance=8", "--set", "select.most=40")


def photo(number: int) -> bytes:
    """A small picture that is like no other; every 50th is its predecessor again."""
    random = np.random.default_rng(number - (number % 50 == 49))
    width, height = random.integers(48, 97, 2)
    pixels = cv2.resize(random.integers(0, 256, (6, 6, 3), dtype=np.uint8), (int(width), int(height)), interpolation=cv2.INTER_CUBIC)
    return simplejpeg.encode_jpeg(pixels, quality=90)


def make(folder: Path, count: int) -> None:
    folder.mkdir()
    for start in range(0, count, A_SHARD):
        with tarfile.open(folder / f"{start // A_SHARD:05}.tar", "w") as tar:
            for number in range(start, min(count, start + A_SHARD)):
                data = photo(number)
                entry = tarfile.TarInfo(f"{number:08}.jpg")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))


class Command:
    """`lorakit curate` as a process of its own, watched."""

    def __init__(self, shards: Path, out: Path, *engine: str):
        self.log = out.with_name(f"{out.name}-{time.monotonic_ns()}.log")
        self.journal = out / "manifest.journal"
        self.before = inode(self.journal)  # what a killed run has left
        words = ["curate", f"file://{shards}", "-o", str(out), "--until", "select", *SETTINGS, *engine]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "lorakit", *words], stderr=log, stdout=log)
        self.peak, self.peak_of_all, self.cpu = 0, 0, {}

    def look(self) -> None:
        """Note memory (PSS for what is shared counts once) and CPU of the process and those that it has started."""
        try:
            leader = psutil.Process(self.process.pid)
            tree = [leader, *leader.children(recursive=True)]
            self.peak = max(self.peak, leader.memory_info().rss >> 20)
        except psutil.Error:
            return
        total = 0
        for process in tree:
            try:
                times = process.cpu_times()
                self.cpu[process.pid] = times.user + times.system
                total += process.memory_full_info().pss >> 20
            except psutil.Error:
                continue
        self.peak_of_all = max(self.peak_of_all, total)

    def kill_at(self, checked: int) -> None:
        """SIGKILL once it has checked so many photos."""
        while self.process.poll() is None and (inode(self.journal) == self.before or checks_in(self.journal) < checked):
            self.look()
            time.sleep(0.05 if PHOTOS <= FEW else 0.5)
        assert self.process.poll() is None, self.log.read_text()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> str:
        while self.process.poll() is None:
            self.look()
            time.sleep(0.5)
        said = self.log.read_text()
        assert self.process.returncode == 0, said
        return said


def inode(path: Path) -> int | None:
    return path.stat().st_ino if path.exists() else None


def checked(out: Path) -> int:
    """Photos of a project that are checked, by its book and its journal."""
    return sum("check" in record["done"] for record in Manifest(out))


def checks_in(journal: Path) -> int:
    """Lines of the journal, each a photo that was checked."""
    try:
        with open(journal, "rb") as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    except OSError:
        return 0


def todo_of(said: str) -> int | None:
    """How many photos a command set out to check, by its lines of progress; None where it was done before the first of them."""
    found = re.search(r"^check +\d+/(\d+)", said, re.MULTILINE)
    return int(found[1]) if found else None


def test_killed_and_resumed_twice(tmp_path):
    shards, out = tmp_path / "shards", tmp_path / "ray"
    make(shards, PHOTOS)
    began, commands, done = time.monotonic(), [], [0]
    engines = ("threads", "ray", "threads") if PHOTOS <= FEW else ("ray", "ray", "ray")  # each start of Ray takes 35 s of CPU
    for engine in engines[:2]:
        command = Command(shards, out, "--engine", engine)
        command.kill_at(PHOTOS // 6)
        done.append(checked(out))
        commands.append(command)
    left = PHOTOS - done[2]
    assert pipeline.progress_of(open_project(out), "check") == {"done": done[2], "pending": left, "failed": 0}
    last = Command(shards, out, "--engine", engines[2])
    said = last.end()
    commands.append(last)
    figures = {
        "photos": PHOTOS,
        "wall_s": round(time.monotonic() - began),
        "cpu_s": [round(sum(command.cpu.values())) for command in commands],
        "leader_mb": max(command.peak for command in commands),
        "with_ray_mb": max(command.peak_of_all for command in commands),
        "checked_before": done,
    }
    threads = Command(shards, tmp_path / "threads")
    threads.end()
    figures |= {"threads_cpu_s": round(sum(threads.cpu.values())), "threads_mb": threads.peak}
    print(json.dumps(figures))
    assert 0 < done[1] < done[2] < PHOTOS and todo_of(said) in (left, None), "what was checked before a kill is not checked again"
    records = Manifest(out).everything()
    assert len(records) == PHOTOS and len({record["id"] for record in records}) == PHOTOS
    assert sum(1 for record in records if record["dedupe"]["of"]) == PHOTOS // 50
    assert sum(record["select"]["selected"] for record in records) == 40
    assert (out / "manifest.jsonl").read_bytes() == (tmp_path / "threads" / "manifest.jsonl").read_bytes()
    assert figures["leader_mb"] < BASE_MB + KB_A_PHOTO * PHOTOS / 1024 and figures["with_ray_mb"] - figures["leader_mb"] < CLUSTER_MB
