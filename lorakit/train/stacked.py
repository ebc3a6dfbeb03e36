"""Another LoRA file laid into the base before this one, as tools do that load several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from lorakit.bases.families.base import Family
from lorakit.errors import LorakitError
from lorakit.lora_file.beside import USUAL_STRENGTH
from lorakit.lora_file.convert import as_lora, merge, open_network
from lorakit.lora_file.formats import LoraLayer
from lorakit.train.export import add_to_weights


def parse(words: str) -> tuple[Path, float]:
    """'B.safetensors:0.5' -> (path, 0.5); without a number, the usual strength."""
    path, colon, number = words.rpartition(":")
    try:
        return (Path(path), float(number)) if colon and path else (Path(words), USUAL_STRENGTH)
    except ValueError:  # the colon of a drive
        return Path(words), USUAL_STRENGTH


def open_others(given: Sequence[tuple[Path, float]], family: str) -> Callable[[Family], None]:
    """Read LoRA files for a base of `family`; returns what adds their changes to its weights. Raises `LorakitError` for a file that is
    for another base, and for DoRA, which does not add."""
    networks = []
    for path, strength in given:
        of, network, _, _ = open_network(path)
        if of != family:
            raise LorakitError(f"{path}: is for another base (family {of}, this one is {family}); the two cannot be stacked")
        plain = {name: change if isinstance(change, LoraLayer) else as_lora(name, change, of) for name, change in network.items()}
        networks.append(merge([plain], [strength]))

    def lay(base: Family) -> None:
        for network in networks:
            add_to_weights(network, base)

    return lay
