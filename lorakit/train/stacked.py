"""Another LoRA file laid into the base before this one, as tools do that load several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from lorakit.bases.families.base import Family
from lorakit.console import warn
from lorakit.errors import LorakitError
from lorakit.lora_file.convert import as_lora, merge, open_network
from lorakit.lora_file.formats import LoraLayer
from lorakit.quality.judge import START
from lorakit.train.export import add_to_weights
from lorakit.train.lora import models


def parse(words: str) -> tuple[Path, float]:
    """'B.safetensors:0.5' -> (path, 0.5); without a number, the usual strength."""
    path, colon, number = words.rpartition(":")
    try:
        return (Path(path), float(number)) if colon and path else (Path(words), START)
    except ValueError:  # the colon of a drive
        return Path(words), START


def open_others(given: Sequence[tuple[Path, float]], family: str) -> Callable[[Family], None]:
    """Read LoRA files for a base of `family`; returns what adds their changes to its weights. Raises `LorakitError` for a file that is
    for another base, and for DoRA, which does not add."""
    networks: list[tuple[Path, dict[str, LoraLayer]]] = []
    for path, strength in given:
        of, network, _, _ = open_network(path)
        if of != family:
            raise LorakitError(f"{path}: is for another base (family {of}, this one is {family}); the two cannot be stacked")
        plain = {name: change if isinstance(change, LoraLayer) else as_lora(name, change, of) for name, change in network.items()}
        networks.append((path, merge([plain], [strength])))

    def lay(base: Family) -> None:
        there = tuple(f"{folder}." for folder in models(base))
        for path, network in networks:
            used = {name: change for name, change in network.items() if name.startswith(there)}
            if left := len(network) - len(used):  # prompts are embedded once, by the base's own encoders
                warn(f"{path.name}: {left} layers of its text encoder are left out of these pictures; its other {len(used)} are in")
            add_to_weights(used, base)

    return lay
