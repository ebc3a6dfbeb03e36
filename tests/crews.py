"""Crews for the tests: processes as a launcher starts them, with gloo on the CPU. They are forked from one that has loaded torch and
diffusers, once for all tests, and has computed nothing: a start of each by itself takes ten seconds of the processor."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PATIENCE = 600  # seconds until a crew that does not end is killed


@dataclass
class Ended:
    """How the processes of a crew have ended, by rank."""

    codes: list[int]  # exit codes; -9 is killed
    said: list[str]  # all that they wrote to stdout and stderr


def launch(size: int, target: Callable[..., None], *given: Any, folder: Path) -> Ended:
    """Run `target(rank, *given)` in so many processes, each in a process that a launcher might have started."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lorakit.train.train", "lorakit.pipeline", "lorakit.cli.train", "tests.crews"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    outs = [folder / f"out_{rank}.txt" for rank in range(size)]
    processes = [context.Process(target=_begin, args=(rank, size, port, outs[rank], target, given)) for rank in range(size)]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(PATIENCE)
        return Ended([process.exitcode for process in processes], [out.read_text(encoding="utf-8") for out in outs])
    finally:
        for process in processes:
            if process.exitcode is None:
                process.kill()
                process.join()


def _begin(rank: int, size: int, port: int, out: Path, target: Callable[..., None], given: tuple[Any, ...]) -> None:
    import torch

    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with open(out, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    target(rank, *given)


def command(rank: int, words: Sequence[str], before: Callable[..., None] | None = None, *given: Any) -> None:
    """`lorakit WORDS`, after `before(rank, *given)`."""
    from lorakit.cli import main

    sys.argv = ["lorakit", *words]
    if before:
        before(rank, *given)
    main()


def compare(rank: int, project: str, cases: dict[str, dict[str, Any]], out: Path) -> None:
    """Train each case twice from the start, by the first process alone and by all; write how far they are apart to `out`, and beside it
    what the one has learned, as NAME.safetensors."""
    from safetensors.torch import save_file

    from lorakit.train import crew

    crew.join()
    if not crew.leads():
        sys.exit(crew.serve())
    found = {}
    try:
        for name, settings in cases.items():
            alone = crew._crew
            crew._crew = crew._Crew()
            one = _train(project, settings)
            crew._crew = alone
            save_file(one[0], out.with_name(f"{name}.safetensors"))
            found[name] = _difference(one, _train(project, settings)) | {"size": crew.count()}
            out.write_text(json.dumps(found), encoding="utf-8")
    finally:
        crew.dismiss()


def _train(folder: str, settings: dict[str, Any]) -> tuple[dict, list[dict], dict, dict[str, bytes]]:
    """(tensors, metrics, what was found, samples) of a training whose run is taken away after it."""
    from lorakit import open_project
    from lorakit.train.train import train
    from tests.conftest import adapter

    project = open_project(folder, settings=settings, device="cpu")
    run = train(project)
    result = {key: run.facts["result"].get(key) for key in ("visits", "fit", "strengths", "steps")}
    samples = {str(path.relative_to(run.samples)): path.read_bytes() for path in sorted(run.samples.rglob("*.png"))}
    made = adapter(run), run.read_metrics(), result, samples
    shutil.rmtree(run.folder)
    return made


def _apart(one: bytes, other: bytes) -> int:
    """The largest difference of two pictures, of 255."""
    pixels = [np.asarray(Image.open(io.BytesIO(picture)), dtype=int) for picture in (one, other)]
    return int(abs(pixels[0] - pixels[1]).max())


def _difference(one: tuple, other: tuple) -> dict[str, Any]:
    (tensors, lines, result, samples), (theirs, their_lines, their_result, their_samples) = one, other
    assert tensors.keys() == theirs.keys()
    learned = [key for key in tensors if not key.endswith((".alpha", ".rank"))]
    apart = {key: (tensors[key].double() - theirs[key].double()) for key in learned}
    moved = sum(float(tensors[key].double().square().sum()) for key in learned if key.endswith(("lora_B.weight", "lokr_w1")))
    numbers = ("loss", "grad_norm", "validation", "leak", "drift")
    return {
        "steps": len(lines),
        "largest": max(float(d.abs().max()) for d in apart.values()),
        "relative": (sum(float(d.square().sum()) for d in apart.values()) / sum(float(tensors[key].double().square().sum()) for key in learned)) ** 0.5,
        "bit-equal": sum(not d.any() for d in apart.values()) / len(apart),
        "learned": moved > 0,
        "photos": [(a["photos"], a.get("regularisation")) for a in lines] == [(b["photos"], b.get("regularisation")) for b in their_lines],
        "numbers": max(abs(a[key] - b[key]) / max(abs(a[key]), 1e-3) for a, b in zip(lines, their_lines) for key in numbers if key in a),
        "watched": sum("validation" in line for line in their_lines),
        "result": result == their_result or [result, their_result],
        "visits": sorted(result["visits"].values()),
        "samples": [samples.keys() == their_samples.keys(), len(samples), max((_apart(samples[name], their_samples[name]) for name in samples), default=0)],
    }  # fmt: skip


def bereave(rank: int) -> None:
    """The leader is killed while the others wait for it."""
    from lorakit.train import crew

    crew.join()
    if crew.leads():
        os.kill(os.getpid(), signal.SIGKILL)
    sys.exit(crew.serve())


def stumble(rank: int, out: Path) -> None:
    """Each process fails once before, and once behind a piece of work that is shared out within another."""
    from lorakit.errors import LorakitError
    from lorakit.train import crew

    crew.join()
    if not crew.leads():
        sys.exit(crew.serve())
    cases = [(who, when) for who in range(crew.count()) for when in ("before", "behind")]
    try:
        with crew.called(_stumble, cases):
            found = _stumble(cases)
        with crew.called(_fail_second):
            _fail_second()
    except LorakitError as error:
        out.write_text(json.dumps([found, str(error)]), encoding="utf-8")
    finally:
        crew.dismiss()


def _stumble(cases: list[tuple[int, str]]) -> list[Any]:
    from lorakit.train import crew

    found = []
    for who, when in cases:

        def work(who: int = who, when: str = when) -> None:
            if crew.rank() == who and when == "before":
                raise MemoryError("full")
            crew.share(list, 5)
            if crew.rank() == who:
                raise MemoryError("full")

        try:
            crew.together(work)
        except MemoryError as error:
            found.append(str(error))
        found.append(crew.share(list, 5))
    return found


def _fail_second() -> None:
    from lorakit.errors import LorakitError
    from lorakit.train import crew

    def work() -> None:
        if crew.rank() == 1:
            raise LorakitError("its disk is gone")

    crew.together(work)
