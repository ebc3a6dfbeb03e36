"""Which device to work on: cuda, mps or cpu."""

from __future__ import annotations

from lorakit.errors import LorakitError

DEVICES = ("cuda", "mps", "cpu")


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
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return (torch.cuda.mem_get_info(device)[0] + unused) / 2**30
