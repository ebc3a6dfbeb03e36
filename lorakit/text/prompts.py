"""Prompts for samples: given one by one, or as a text file, one a line, with options of a line as sd-scripts writes them:
`a zwx mug on sand --n blurry --w 768 --h 512 --d 7 --s 30 --g 5`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorakit.errors import LorakitError
from lorakit.text.caption_lists import read_text
from lorakit.text.lines import split_lines
from lorakit.text.placing import PLACEHOLDER

FILE = ".txt"  # what an entry ends with that names a file
OPTION = re.compile(r"(?:^|\s)--(?=[A-Za-z])")
OPTIONS = {"n": "negative", "w": "width", "h": "height", "d": "seed", "s": "steps", "g": "guidance", "l": "guidance"}
LARGEST = {"width": 8192, "height": 8192, "seed": 2**63 - 1, "steps": 10_000}
USAGE = "--n negative, --w --h size, --d seed, --s steps, --g or --l guidance"


@dataclass(frozen=True)
class Prompt:
    """What one sample is drawn from; None: as the settings say."""

    text: str
    negative: str | None = None
    width: int | None = None  # pixels
    height: int | None = None
    seed: int | None = None
    steps: int | None = None  # of the sampler
    guidance: float | None = None


def is_file(entry: str) -> bool:
    """Whether an entry of `sample.prompts` names a text file rather than being a prompt."""
    return entry.lower().endswith(FILE) and "\n" not in entry


def file_of(entry: str, folder: Path) -> Path:
    """The file that an entry names: its path, else one beside the project's words, else one here."""
    path = Path(entry).expanduser()
    beside = folder / path
    return beside if not path.is_absolute() and beside.is_file() else path


def contents(entries: Sequence[str], folder: Path) -> list[str | None]:
    """The entries, each file as what is in it (None where it cannot be read): what the samples depend on."""
    return [_content(file_of(entry, folder)) if is_file(entry) else entry for entry in entries]


def _content(path: Path) -> str | None:
    try:
        return read_text(path)
    except OSError:
        return None


def read(entries: Sequence[str], folder: Path, trigger: str | None, size_step: int = 8) -> list[Prompt]:
    """The prompts of `sample.prompts`. Raises `LorakitError` that names the file and line, or the entry, of the first that cannot be read;
    sides are multiples of `size_step` pixels."""
    found = []
    for number, entry in enumerate(entries, 1):
        if not is_file(entry):
            found.append(parse(entry, f"sample.prompts, entry {number}", trigger, size_step))
            continue
        path = file_of(entry, folder)
        text = _content(path)
        if text is None:
            raise LorakitError(f"sample.prompts: {path}: no such file, or it cannot be read; a prompt must not end in {FILE}")
        lines = [(at, line.strip()) for at, line in enumerate(split_lines(text), 1)]
        meant = [(at, line) for at, line in lines if line and not line.startswith("#")]
        if not meant:
            raise LorakitError(f"sample.prompts: {path}: has no prompts; write one a line")
        found += [parse(line, f"{path}, line {at}", trigger, size_step) for at, line in meant]
    return found


def parse(line: str, where: str, trigger: str | None, size_step: int = 8) -> Prompt:
    """One prompt with its options; `[trigger]` stands for the trigger word. Raises `LorakitError` beginning with `where`."""
    text, *options = OPTION.split(line)
    values: dict[str, Any] = {}
    for option in options:
        name, _, value = option.partition(" ")
        key = OPTIONS.get(name.lower())
        if key is None:
            raise LorakitError(f"{where}: no option is called --{name}; there are {USAGE}")
        if key in values:
            raise LorakitError(f"{where}: --{name} says the {key} once more; give it once")
        values[key] = _value(key, name, value.strip(), where, size_step)
    parts = {"text": text.strip(), "negative": values.pop("negative", None)}
    for key, part in parts.items():
        if part and PLACEHOLDER.search(part):
            if not trigger:
                raise LorakitError(f"{where}: has [trigger] in it, and the project has none; write it without, or give a --trigger")
            parts[key] = PLACEHOLDER.sub(lambda _: trigger, part)
    if not parts["text"]:
        raise LorakitError(f"{where}: has options and no prompt; the prompt stands before them")
    return Prompt(**parts, **values)


def _value(key: str, name: str, value: str, where: str, size_step: int) -> Any:
    if key == "negative":
        return value or None
    try:
        number = float(value) if key == "guidance" else int(value)
        if not (0 if key in ("seed", "guidance") else 1) <= number <= LARGEST.get(key, 1000):
            raise ValueError
    except ValueError:
        wanted = "a number" if key == "guidance" else "a whole number"
        raise LorakitError(
            f"{where}: --{name} {value}: the {key} is {wanted}{', 1 or more' if key not in ('seed', 'guidance') else ''}"
        ) from None
    if key in ("width", "height") and number % size_step:
        below = number - number % size_step
        raise LorakitError(
            f"{where}: --{name} {value}: sides are multiples of {size_step} here, as {below or size_step} or {below + size_step}"
        )
    return number
