"""A shell script that starts a trainer: its words are split as a shell would, and nothing is run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lorakit.errors import LorakitError
from lorakit.text.lines import split_lines


def read(path: Path, text: str) -> tuple[str, dict[str, Any]]:
    """(the training's script by its path, {option: value}) of the command that starts a .py. Raises `LorakitError` where there is none."""
    lines = split_lines(text.replace("\\\n", " "))
    for line in lines:
        if ".py" not in line or line.lstrip().startswith("#"):
            continue
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise LorakitError(f"{path}: cannot be read as a shell script ({error}); mend it") from None
        at = next((number for number, word in enumerate(words) if word.endswith(".py")), None)
        if at is not None:
            return words[at], options_in(words[at + 1 :])
    raise LorakitError(f"{path}: starts no training script (a line with NAME.py and its --options)")


def options_in(words: Sequence[str]) -> dict[str, Any]:
    """{'rank': '16', 'center_crop': True, 'network_args': ['a=1', 'b=2']} of --rank=16 --center_crop --network_args a=1 b=2."""
    found: dict[str, Any] = {}
    name = None
    for word in words:
        if re.match(r"--?[A-Za-z]", word):
            name, equals, value = word.lstrip("-").partition("=")
            found[name] = value if equals else True
        elif name is not None:
            before = found[name]
            found[name] = word if before is True else [*before, word] if isinstance(before, list) else [before, word]
    return found
