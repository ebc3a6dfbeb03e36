"""Which device to work on: cuda, mps or cpu."""

from __future__ import annotations

from lorakit.errors import LorakitError

DEVICES = ("cuda", "mps", "cpu")
CONTEXT = 0.6  # GB of a card that CUDA itself takes; a guess until it is measured
SAY_OUT_OF_MEMORY = (  # what an error says that is no torch.OutOfMemoryError, and means it
    "cudaErrorMemoryAllocation", "CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED",
    "MPS backend out of memory", "DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory",
)  # fmt: skip


def available() -> list[str]:
    """The devices of this machine, the fastest first."""
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [name for name in DEVICES if there[name]]


def check(wanted: str) -> None:
    """Raises `LorakitError` for a device that is not here; for a name that is none, and for the CPU, without loading torch."""
    name = wanted.split(":")[0]
    if name not in DEVICES:
        raise LorakitError(f"--device {wanted}: no such device; {', '.join(DEVICES)}, or cuda:1 for the second card")
    if name != "cpu":
        choose(wanted)


def choose(wanted: str | None) -> str:
    """The wanted device, or the fastest. Raises `LorakitError` when it is not there."""
    there = available()
    if wanted is None:
        return there[0]
    if wanted.split(":")[0] not in there:
        raise LorakitError(f"--device {wanted}: not on this machine; there is {', '.join(there)} (`lorakit doctor` says more)")
    return wanted


def free_gb(device: str) -> float | None:
    """Memory of a CUDA card that is free now, or kept by torch and not in use; None for other devices, which share the machine's memory."""
    import torch

    if not device.startswith("cuda"):
        return None
    free, whole = torch.cuda.mem_get_info(device)
    taken = torch.cuda.memory_allocated(device)
    allowed = _limits.get(_number(device), 1.0) * whole - taken
    return min(free + torch.cuda.memory_reserved(device) - taken, allowed) / 2**30


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there was no memory left for a tensor, however torch puts it."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in SAY_OUT_OF_MEMORY)


def limit(device: str, gb: float | None) -> None:
    """Let torch take no more of a card than `gb` leave beside CUDA's own; None: all that is there."""
    if gb is None or not device.startswith("cuda"):
        return
    import torch

    number = _number(device)
    whole = torch.cuda.get_device_properties(number).total_memory / 2**30
    _limits[number] = min(1.0, max(0.01, (gb - CONTEXT) / whole))
    torch.cuda.set_per_process_memory_fraction(_limits[number], number)


_limits: dict[int, float] = {}  # {card: share of its memory}; torch of 2.6 does not say what it was told


def _number(device: str) -> int:
    import torch

    number = torch.device(device).index
    return torch.cuda.current_device() if number is None else number
