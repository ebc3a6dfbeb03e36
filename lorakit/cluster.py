"""The engine of `--engine ray`: work on many photos shared out by Ray Data, on this machine or a cluster. Workers only look and
answer; this process alone writes. A worker may be killed at any time, and a photo that kills its worker takes none with it."""

from __future__ import annotations

import importlib.util
import logging
import os
import pickle
import socket
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from lorakit.ahead import in_parts
from lorakit.console import quiet_libraries, say
from lorakit.errors import LorakitError, UnreadablePhoto

BLOCK = 256  # photos that a worker gets at once
WAVE = 100_000  # photos that are on their way at once, by their names; bounds the memory of this process and of Ray's store
STORE = 200 << 20  # bytes of Ray's store on a machine of its own; results are a few KB a photo
RETRIES = 2  # of a block whose worker has died, before its photos are done one by one
PATIENCE = 10.0  # seconds for a cluster to answer
NEVER = 8  # photos in a row that end their worker, from where the fault is not theirs
DEADLY = "the process that decodes it ends each time"
EXTRA = 'pip install "lorakit[ray]"'
# Measured on one machine of two cores, see docs/scale.md: a check of a small photo takes 1.2 ms of a core by Ray and 0.8 in threads, the
# start 30 s. What several machines make of it is reckoned from these, and was never measured.
START, BY_RAY, IN_THREADS = 30.0, 1.2e-3, 0.8e-3
Item = TypeVar("Item")
Work = Callable[[list[Item]], list[Any]]


def check_installed() -> None:
    """Raises `LorakitError` where the extra is missing, before anything is begun."""
    if importlib.util.find_spec("ray") is None:
        raise LorakitError(f"--engine ray: Ray is not installed; {EXTRA}, or leave the option out: threads do the same")


def check_reachable(address: str) -> None:
    """Raises `LorakitError` where nobody listens at host:port; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
    except (ValueError, OverflowError):
        raise LorakitError(f"--ray-address {address}: write it as host:port, as `ray start --head` prints it") from None
    except OSError as error:
        raise LorakitError(
            f"--ray-address {address}: nobody answers there ({error.strerror or error}); does `ray start --head` run?"
        ) from None


class Cluster:
    """The engine; see `lorakit.ahead.Threads` for the other. A cluster begins with the first photo that there is to do."""

    is_here = False

    def __init__(self, address: str | None = None):
        """`address`: of a cluster to join, as host:port; None begins one on this machine, which ends with `close`."""
        self.address = address
        self._ray: Any = None

    def each(self, work: Work, items: Iterable[Item], at_once: int = 1, with_model: bool = False) -> Iterator[tuple[Item, Any]]:
        """As `Threads.each`, in no order. `work` and items travel by pickle; `with_model`: one worker a GPU, or a machine where there is
        none. An item that ends its process each time has an `UnreadablePhoto` for its result. Raises `LorakitError` where the cluster
        cannot be had, or its workers do not see a file that is here."""
        coming = iter(items)
        while wave := list(islice(coming, WAVE)):
            parts = list(in_parts(wave, at_once))
            self._start(len(wave), with_model)
            came = set()
            for number, found in self._shared(work, parts, with_model):
                came.add(number)
                yield from zip(parts[number], found, strict=True)
            missing = [item for number, part in enumerate(parts) if number not in came for item in part]
            if missing:
                say(f"ray       {len(missing)} photos were with a worker that died {RETRIES + 1} times; they are done one by one")
                yield from self._alone(work, missing, with_model)

    def close(self) -> None:
        if self._ray is not None:
            self._ray.shutdown()
            self._ray = None

    def _start(self, count: int, with_model: bool) -> None:
        if self._ray is not None:
            return
        check_installed()
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
        import ray
        import ray.data

        local: dict[str, Any] = {"address": "local", "include_dashboard": False, "object_store_memory": STORE}
        plugins = {name: value for name in ("LORAKIT_PLUGINS",) if (value := os.environ.get(name))}
        joined = {"address": self.address, "runtime_env": {"env_vars": plugins}}
        try:
            with quiet_libraries():
                _hush()
                ray.init(**(joined if self.address else local), log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            where = (
                f"--ray-address {self.address}: no cluster can be joined there" if self.address else "--engine ray: Ray cannot begin here"
            )
            token = "; one that asks for a token gets it from RAY_AUTH_MODE=token and RAY_AUTH_TOKEN" if self.address else ""
            raise LorakitError(f"{where} ({_first_line(error)}){token}") from None
        self._ray = ray
        _hush()
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.max_errored_blocks = -1  # what does not come back is seen, and done one by one
        context.log_internal_stack_trace_to_stdout = False
        for line in worth(count, with_model, len(self._machines()), int(ray.cluster_resources().get("CPU", 1))):
            say(line)

    def _machines(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _shared(self, work: Work, parts: list[list[Any]], with_model: bool) -> Iterator[tuple[int, list[Any]]]:
        """(number of the part, its results) as they come; what its worker takes along three times is not among them."""
        import pyarrow

        size, resources = self._workers(with_model)
        each_block = max(1, min(BLOCK // len(parts[0]), -(-len(parts) // (4 * size))))
        tables = [
            pyarrow.table({"number": [number for number, _ in block], "items": [pickle.dumps(part) for _, part in block]})
            for block in in_parts(enumerate(parts), each_block)
        ]
        from ray.data import ActorPoolStrategy
        from ray.exceptions import RayError

        try:
            with quiet_libraries():
                found = self._ray.data.from_arrow(tables).map_batches(
                    Worker, fn_constructor_args=(self._ray.cloudpickle.dumps(work),), compute=ActorPoolStrategy(size=size), batch_size=each_block,
                    batch_format="pyarrow", max_task_retries=RETRIES, **resources,
                )  # fmt: skip
                for table in found.iter_batches(batch_size=None, batch_format="pyarrow"):
                    _hush()  # Ray Data sets its loggers up when it begins
                    for number, data in zip(table["number"].to_pylist(), table["found"].to_pylist(), strict=True):
                        yield number, taken(data)
        except RayError as error:
            raise LorakitError(f"ray: {_first_line(error)}; what was found is kept, and the same command goes on from there") from None

    def _workers(self, with_model: bool) -> tuple[int, dict[str, float]]:
        """(how many, what each takes). Never all CPUs: Ray's own tasks would wait for one for ever."""
        there = self._ray.cluster_resources()
        cpus = max(1, int(there.get("CPU", 1)))
        if not with_model:
            return cpus, {"num_cpus": 0.5}
        if gpus := int(there.get("GPU", 0)):
            return gpus, {"num_cpus": 0.5, "num_gpus": 1}
        machines = max(1, len(self._machines()))
        return machines, {"num_cpus": max(0.5, cpus // machines / 2)}

    def _alone(self, work: Work, items: list[Item], with_model: bool) -> Iterator[tuple[Item, Any]]:
        """Each item by itself, in a process that is another after each death. What ends two of them is named."""
        from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError

        _, resources = self._workers(with_model)
        Alone = self._ray.remote(max_restarts=0, max_task_retries=0, **resources)(Single)
        worker, deaths, others = None, 0, 0
        for item in items:
            for attempt in range(2):
                worker = worker or Alone.remote(self._ray.cloudpickle.dumps(work))
                try:
                    result = taken(self._ray.get(worker.one.remote(pickle.dumps([item]))))[0]
                    others += 1
                    break
                except (ActorDiedError, ActorUnavailableError):
                    worker, result = None, UnreadablePhoto("damaged", DEADLY)
                    deaths += attempt
                except RayError as error:
                    raise LorakitError(f"ray: {_first_line(error)}; what was found is kept") from None
            if deaths >= NEVER and not others:
                raise LorakitError(
                    f"ray: {NEVER} photos in a row have ended their process, which is no fault of photos; nothing is noted of them. "
                    "Do the machines have memory left, and the same lorakit? Without --engine ray the work is done here"
                )
            yield item, result


def worth(count: int, with_model: bool, machines: int, cpus: int) -> list[str]:
    """What is to be said of a start: honestly, whether it pays."""
    here = f"{machines} {'machine' if machines == 1 else 'machines'}, {cpus} CPUs"
    if with_model:
        return [f"ray       {here}; one model a {'machine or ' if machines > 1 else ''}card"]
    if machines == 1:
        return [
            f"ray       {here}; on one machine threads do the same in less: Ray takes about {START:.0f} s of CPU and 1 GB to begin. It pays "
            "with several machines, and with captions by several cards"
        ]
    spared = (IN_THREADS - BY_RAY / machines) / (cpus / machines)  # seconds of one photo
    least = int(START / cpus / spared) if spared > 0 else 0
    pays = f"with small photos from about {least:,} on, with larger ones earlier" if least else "only with larger photos"
    return [f"ray       {here}; pays {pays}: {count:,} are to be done"]


@dataclass
class _Answer:
    """What a worker made of a part: results, or what was raised; `unseen` is a file that is not where it works."""

    results: list[Any]
    raised: Exception | None = None
    unseen: str | None = None
    host: str = ""


class Single:
    """One worker: it unpacks what it is sent, works, and packs what comes of it, faults too."""

    def __init__(self, work: bytes):
        self._work: Work = pickle.loads(work)

    def one(self, packed: bytes) -> bytes:
        items = pickle.loads(packed)
        unseen = next((path for item in items if (path := _file_of(item)) and not os.path.lexists(path)), None)
        try:
            answer = _Answer(self._work(items), None, unseen, socket.gethostname())
        except Exception as error:  # raised where the result is asked for, as in threads; Ray would drop the whole block
            answer = _Answer([], _sendable(error), unseen, socket.gethostname())
        return pickle.dumps(answer)


class Worker(Single):
    """The same for a block of Ray Data, a table {number, items}."""

    def __call__(self, block: Any) -> Any:
        import pyarrow

        return pyarrow.table({"number": block["number"], "found": [self.one(packed) for packed in block["items"].to_pylist()]})


def _file_of(item: Any) -> str | None:
    """The file of this machine that an item is about; None where it is none."""
    if isinstance(item, (tuple, list)) and item:
        item = item[0]
    path = item.get("path") if isinstance(item, dict) else str(item) if isinstance(item, Path) else getattr(item, "address", None)
    if path and path.startswith("file://"):  # of a shard, without what stands behind it
        return path.removeprefix("file://").partition("#")[0]
    return path if path and "://" not in path else None


def taken(data: bytes) -> list[Any]:
    answer: _Answer = pickle.loads(data)
    if answer.unseen and os.path.lexists(answer.unseen):
        raise LorakitError(
            f"{answer.unseen}: is here, and not on {answer.host}, where Ray works; share its folder with every machine under the same path, "
            "or name the photos by an address (s3://, gs://, https://)"
        )
    if answer.raised:
        raise answer.raised
    return answer.results


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # of a library that has not thought of it
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _hush() -> None:
    """Ray's own lines, which speak of its insides, are left out; what the user should know is said by us. What befalls a worker Ray prints
    to stdout, which is for results, and no setting of its keeps it from that."""
    from ray._private import worker

    worker.listen_error_messages = lambda *_: None
    warnings.filterwarnings("ignore", message="`ray_remote_args", category=DeprecationWarning)  # pyproject.toml has the last Ray with them
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
        for handler in logging.getLogger(name).handlers:
            handler.setLevel(logging.CRITICAL)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
