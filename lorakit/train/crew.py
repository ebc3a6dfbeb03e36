"""Several processes that train together, as torchrun or `accelerate launch` starts them. The first one leads: it alone parses, writes and
speaks. The others wait until it calls them, do their share of that one piece of work, and wait again. Outside of a call, and without a
launcher, a process is alone, and whatever is asked of the crew here is done by it."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch
import torch.distributed as dist
from torch import Tensor, nn

from lorakit import __version__, console
from lorakit.device import is_out_of_memory
from lorakit.errors import LorakitError
from lorakit.project import Project, work
from lorakit.settings import Train

WAITING = timedelta(days=60)  # for the leader, who may curate for a week
WORKING = timedelta(hours=2)  # for each other within a step
LEAVING = timedelta(seconds=5)  # for a word of goodbye to be heard
GONE_AFTER = 2.0  # seconds that a process which is lost may take to end
LOOK_AFTER = 1.0  # seconds of a sum after which it is seen whether all still live
SHOWN = 300  # letters of what another process says of its fault

Result = TypeVar("Result")


class Lost(LorakitError):
    """Another process of the crew has ended, cannot be reached, or has failed."""

    exit_code = 1


class Told(Exception):
    """What every process raises where one has failed at what all were doing: the leader alone says what it was."""


class OutOfMemory(Told, MemoryError):
    """The same, where that one had no memory left."""


@dataclass
class _Crew:
    rank: int = 0
    size: int = 1
    channel: dist.ProcessGroup | None = None  # of words, on the CPU; gradients go through the usual group
    members: list[dict[str, Any]] = field(default_factory=list)  # {"host", "pid", "started"} by rank
    is_called: bool = False
    is_broken: bool = False  # some may wait within a piece of work that others have left: no word reaches them any more


_crew = _Crew()


def join() -> None:
    """Meet the others. To be done before anything else, so that nobody waits for one that comes an hour later in a group that has no such
    patience (NCCL's, half an hour)."""
    rank, size, local = (int(os.environ.get(name, 0)) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    cards, here = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", size))
    if cards:
        torch.cuda.set_device(local % cards)  # "cuda" means this one from now on
    of_cards = "nccl" if dist.is_nccl_available() and here <= cards else "gloo"
    try:
        dist.init_process_group(f"cpu:gloo,cuda:{of_cards}" if cards else "gloo", rank=rank, world_size=size, timeout=WORKING)
        _crew.channel = dist.new_group(backend="gloo", timeout=WAITING)
    except RuntimeError as error:
        raise Lost(f"the {size} processes of this run cannot reach each other ({_first_line(error)})") from None
    _crew.rank, _crew.size = rank, size
    facts = {"host": socket.gethostname(), "pid": os.getpid(), "started": work.started(os.getpid())}
    _crew.members = _gather({**facts, "versions": f"lorakit {__version__} and torch {torch.__version__}"})
    if rank:
        console.be_quiet()
        for asked in (signal.SIGINT, signal.SIGTERM):  # the leader is asked too, and says when it is time
            signal.signal(asked, signal.SIG_IGN)
        return
    mine = _crew.members[0]["versions"]
    if other := next((member for member in _crew.members if member["versions"] != mine), None):
        raise LorakitError(f"{other['host']} has {other['versions']}, {_crew.members[0]['host']} has {mine}; install the same on both")


def leads() -> bool:
    return _crew.rank == 0


def count() -> int:
    """How many processes there are."""
    return _crew.size


def size() -> int:
    """How many are at the present piece of work."""
    return _crew.size if _crew.is_called else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return _crew.rank if _crew.is_called else 0


# ---- who is called, and to what


@contextmanager
def called(task: Callable[..., Any], *given: Any) -> Iterator[None]:
    """Within this block the others do `task(*given)`, a function of a module. What they are to do in it one after another the leader tells
    them by `tell`."""
    if count() == 1:
        yield
        return
    _say("call", task, given)
    _crew.is_called = True
    try:
        yield
    except KeyboardInterrupt:  # in the midst of anything
        _crew.is_broken = True
        raise
    finally:
        _crew.is_called = False
        if not _crew.is_broken:
            with suppress(Lost):  # which the next word finds out too
                _say("leave")


def serve() -> int:
    """What all but the leader do: wait to be called, until it says that they may go. Returns the exit code."""
    while True:
        try:
            what, *given = _hear()
            if what == "home":
                dist.destroy_process_group()
                return 0
            if what == "call":
                _crew.is_called = True
                given[0](*given[1])
        except Lost:  # of the leader there is nobody left to tell, and of another it tells
            return 1
        except Told:
            pass
        finally:
            _crew.is_called = False
        let_go()


def dismiss() -> None:
    """Send the others home, whatever the leader leaves with: else they would wait for it."""
    if count() == 1 or not leads() or _crew.is_broken:
        return
    with suppress(Lost):
        _say("home", patience=LEAVING)
        dist.destroy_process_group()


def tell(*words: Any) -> None:
    """Name the next thing to do to those that are called."""
    if size() > 1:
        _say(*words)


def orders() -> Iterator[tuple[Any, ...]]:
    """What the leader tells those that it has called."""
    while (words := _hear())[0] != "leave":
        yield words


def _say(*words: Any, patience: timedelta = WAITING) -> None:
    data = torch.frombuffer(bytearray(pickle.dumps(words)), dtype=torch.uint8)
    _send(torch.tensor([len(data)]), patience)
    _send(data, patience)


def _hear() -> tuple[Any, ...]:
    length = torch.zeros(1, dtype=torch.int64)
    _send(length, WAITING)
    data = torch.empty(int(length), dtype=torch.uint8)
    _send(data, WAITING)
    return pickle.loads(data.numpy().tobytes())


def _send(data: Tensor, patience: timedelta) -> None:
    """From the leader to all."""
    with _lost_in_words():
        dist.broadcast(data, src=0, group=_crew.channel, async_op=True).wait(patience)


def _gather(value: Any) -> list[Any]:
    found = [None] * _crew.size
    with _lost_in_words():
        dist.all_gather_object(found, value, group=_crew.channel)
    return found


@contextmanager
def _lost_in_words() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # however the backend puts it
        _crew.is_broken = True
        words = _who_is_lost(GONE_AFTER) or f"a process of the {_crew.size} cannot be reached any more ({_first_line(error)})"
        raise _known_to_all(Lost(words)) from None


def _who_is_lost(patience: float = 0) -> str:
    """Those of this machine that have ended, in words; of others it cannot be told. One that ends closes its connections first: so many
    seconds are given it to be gone."""
    here, until = socket.gethostname(), time.monotonic() + patience
    while True:
        ended = [number for number, one in enumerate(_crew.members) if one["host"] == here and not _lives(one)]
        if ended or time.monotonic() >= until:
            break
        time.sleep(0.05)
    names = ", ".join(f"{number} (pid {_crew.members[number]['pid']})" for number in ended)
    return f"process {names} of the {_crew.size} has ended" if ended else ""


def _lives(member: dict[str, Any]) -> bool:
    try:
        return work.started(member["pid"]) == member["started"] and psutil.Process(member["pid"]).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:SHOWN]


# ---- work that is shared out


def own(items: int) -> range:
    """Of so many things those that fall to this process."""
    return range(rank(), items, size())


def share(task: Callable[[range], list[Result]], items: int) -> list[Result]:
    """The results for so many things, in their order, each worked out by one process: `task` is given the numbers of its own."""
    parts = gather(lambda: task(own(items)))
    return [parts[number % size()][number // size()] for number in range(items)]


def gather(task: Callable[[], Result]) -> list[Result]:
    """What `task` returns in each process, by rank. Where it fails in one, it has failed in all of them; also where the others are still
    within something of the kind inside of their task, of which that one has come to no end."""
    if size() == 1:
        return [task()]
    found, failure = None, None
    try:
        found = task()
    except Exception as error:
        if getattr(error, "is_known_to_all", False):
            raise
        failure = error
    outcomes = _gather((_in_words(failure), found))
    _raise_what_failed(failure, [words for words, _ in outcomes])
    return [result for _, result in outcomes]


def together(task: Callable[[], Result]) -> Result:
    """What `task` returns here, once it has succeeded everywhere."""
    found: list[Result] = []
    gather(lambda: found.append(task()))
    return found[0]


def _in_words(failure: Exception | None) -> tuple[str, str] | None:
    """(kind, words) of a failure, as it goes to the others."""
    if failure is None:
        return None
    if is_out_of_memory(failure):
        return "memory", _first_line(failure)
    if isinstance(failure, (LorakitError, OSError)):
        return "fault", str(failure)
    return "bug", "".join(traceback.format_exception(failure))


def _raise_what_failed(mine: Exception | None, failures: Sequence[tuple[str, str] | None]) -> None:
    failed = [(number, *words) for number, words in enumerate(failures) if words]
    if failed:
        raise _known_to_all(_failure_of_all(mine, failed))


def _known_to_all(error: Exception) -> Exception:
    """Marked as one that nobody has to be told of any more."""
    error.is_known_to_all = True
    return error


def _failure_of_all(mine: Exception | None, failed: Sequence[tuple[int, str, str]]) -> Exception:
    """The leader raises what it can say to a person, the others leave what they were called to."""
    number, kind, words = next((one for one in failed if one[1] != "memory"), failed[0])
    if kind == "memory":
        return OutOfMemory(f"out of memory in process {number}: {words}")
    if _crew.rank:
        return Told(words)
    if mine is not None:
        return mine
    where = f"process {number} on {_crew.members[number]['host']}"
    return Lost(f"{where}: {words}") if kind == "fault" else RuntimeError(f"{where}:\n{words}")


def let_go() -> None:
    """Of all that nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def who_sees(folder: Path, name: str) -> list[int]:
    """The processes for which `folder` is the same one as for this: on a shared disk all, else those of a machine. `name` is the
    leader's, and new."""
    folder.mkdir(parents=True, exist_ok=True)
    marks = [folder / f".{name}-{number}.part" for number in range(size())]
    together(marks[rank()].touch)
    seen = together(lambda: [number for number, mark in enumerate(marks) if mark.exists()])
    together(lambda: marks[rank()].unlink(missing_ok=True))
    return seen


# ---- a step's gradients


class GradientSum:
    """One flat sum a step over all processes: the gradients, which parameters have one, the losses, and whether somebody has failed."""

    def __init__(self, parameters: Sequence[nn.Parameter], losses: int):
        self.parameters = list(parameters)
        self.total = sum(p.numel() for p in self.parameters)
        device = self.parameters[0].device
        self.buffer = torch.zeros(self.total + len(self.parameters) + losses + 1, device=device)
        self._none = torch.zeros(1, device=device)

    def take(self, losses: Sequence[Tensor]) -> Tensor:
        """Put everybody's gradients in place of the own ones, and return everybody's losses [n]. `losses` and gradients are shares that sum
        up to the whole. A gradient that nobody has stays None, which is another thing to an optimizer than zeros."""
        gradients = [self._none.expand(p.numel()) if p.grad is None else p.grad.flatten() for p in self.parameters]
        flags = torch.tensor([p.grad is not None for p in self.parameters], dtype=torch.float32, device=self.buffer.device)
        torch.cat([*gradients, flags, torch.stack(list(losses)).float(), self._none], out=self.buffer)
        _add_up(self.buffer)
        *flags_of_all, failed = self.buffer[self.total :].tolist()
        if failed:
            self._ask_what_failed(None)
        first = 0
        for parameter, has in zip(self.parameters, flags_of_all):
            last = first + parameter.numel()
            parameter.grad = self.buffer[first:last].view_as(parameter) if has else None
            first = last
        return self.buffer[self.total + len(self.parameters) : -1].clone()

    def fail(self, error: Exception) -> None:
        """Tell the others, who wait for the gradients of this process, that there are none. Raises what all are to raise."""
        self.buffer.zero_()
        self.buffer[-1] = 1
        _add_up(self.buffer)
        self._ask_what_failed(error)

    def _ask_what_failed(self, mine: Exception | None) -> None:
        _raise_what_failed(mine, _gather(_in_words(mine)))


def _add_up(buffer: Tensor) -> None:
    """Waits until the sum is there, and for that looks after who does not come: a card whose sum never ends would not be heard of."""
    with _lost_in_words():
        began, adding = time.monotonic(), dist.all_reduce(buffer, async_op=True)
        looked = began
        while not adding.is_completed():
            now = time.monotonic()
            time.sleep(min(0.002, (now - began) / 50 + 0.0001))
            if now - looked > LOOK_AFTER:
                looked = now
                if _who_is_lost():
                    raise RuntimeError
        adding.wait()


def whole_batches(settings: Train, processes: int | None = None) -> bool:
    """Whether a step's batches can be dealt out evenly, each whole, among so many processes (None: those that are at work): they are, since
    large ones take less time."""
    return settings.gradient_accumulation % (processes or size()) == 0


def rows_of(length: int, number: int, settings: Train) -> range:
    """The rows of batch `number`, which has so many, that fall to this process."""
    at = number % settings.gradient_accumulation
    if whole_batches(settings):
        return range(length if at % size() == rank() else 0)
    return range((rank() - at * settings.batch_size) % size(), length, size())


def rows_at_once(settings: Train) -> int:
    """So many photos a process has on its card at most."""
    return settings.batch_size if whole_batches(settings, count()) else -(-settings.batch_size // count())


def shares(settings: Train) -> dict[str, Any]:
    """Who does what in a step: {"count" of processes, "machines", "photos" of a step, "each": [fewest, most] of them a process takes, "at_once": most
    on its card, "idle" processes}."""
    photos = settings.batch_size * settings.gradient_accumulation
    return {
        "count": count(),
        "machines": len({member["host"] for member in _crew.members}),
        "photos": photos,
        "each": [photos // count(), -(-photos // count())],
        "at_once": rows_at_once(settings),
        "idle": max(0, count() - photos),
    }


# ---- what is said of it


def check(project: Project) -> None:
    """Raises `LorakitError` for a device that several processes cannot share."""
    wanted = project.device or ""
    if count() > 1 and (":" in wanted or wanted == "mps" or (not wanted and torch.backends.mps.is_available())):
        raise LorakitError(
            f"--device {wanted or 'mps'}: {count()} processes cannot all train there; --device cuda gives each a card of its own, cpu a share"
        )


def say_shares(settings: Train) -> None:
    """Who does what, in a line; also that a launcher has started fewer than it was asked for."""
    if count() == 1:
        if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true") and "RANK" not in os.environ:
            console.say(
                "train     one process: `accelerate launch --cpu` starts no more, whatever --num_processes says; on a CPU several are "
                "started by torchrun --nproc-per-node 2 -m lorakit ..."
            )
        return
    found = shares(settings)
    console.say(f"train     {shared_in_words(found)}, and train the same as one would")
    for line in idle_in_words(found):
        console.say(line)


def shared_in_words(found: dict[str, Any]) -> str:
    where = f" on {found['machines']} machines" if found["machines"] > 1 else ""
    return f"{found['count']} processes{where} share the {found['photos']} photos of a step"


def idle_in_words(found: dict[str, Any]) -> Iterator[str]:
    if idle := found["idle"]:
        yield (
            f"          {idle} of them {'has' if idle == 1 else 'have'} nothing to do in a step: train.batch_size x train.gradient_accumulation "
            f"is {found['photos']} for all together"
        )
