"""The options of another trainer's file while they are taken over: what nobody asked for, or has no like here, is named."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorakit.errors import LorakitError
from lorakit.settings import SECRET, convert

OFF = ("", "None", [], {})
YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "none", "")
SHOWN = 60  # characters of a value in a line


class Options:
    """{name: value} of a file in `folder`. `get` and its like mark an option as dealt with; `lack` names one that could not be."""

    def __init__(self, values: Mapping[str, Any], folder: Path):
        self.given = set(values)
        self.values = {key: value for key, value in values.items() if is_on(value)}
        self.folder = folder
        self.lacking: list[str] = []
        self.dealt: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.dealt.add(name)
        return self.values.get(name, default)

    def number(self, name: str, default: float | None = None) -> float | None:
        """Of a list (a rate for each text encoder) the first."""
        value = self.get(name)
        first: Any = value[0] if isinstance(value, list) and value else value
        if first is None:
            return default
        try:
            found = math.nan if isinstance(first, bool) else float(first)
            if math.isfinite(found):
                if isinstance(value, list) and len({str(item) for item in value}) > 1:
                    self.lack(name, "one number is taken, the first")
                return int(found) if found == int(found) and not isinstance(first, float) else found
        except (TypeError, ValueError, OverflowError):
            pass
        self.lack(name, "no number")
        return default

    def flag(self, name: str) -> bool:
        value = self.get(name, False)
        if isinstance(value, str):
            value = {**dict.fromkeys(YES, True), **dict.fromkeys(NO, False)}.get(value.strip().lower())
        if not isinstance(value, (bool, int, float)):
            self.lack(name, "neither true nor false")
            return False
        return bool(value)

    def text(self, name: str, default: str = "") -> str:
        value = self.get(name)
        if value is None or isinstance(value, (dict, list)):
            if value is not None:
                self.lack(name, "no text")
            return default
        return str(value)

    def table(self, name: str) -> dict[str, Any]:
        value = self.get(name)
        if value is None or isinstance(value, dict):
            return value or {}
        self.lack(name, "no table")
        return {}

    def lack(self, name: str, why: str = "") -> None:
        self.dealt.add(name)
        self.lacking.append(f"{in_words(name, self.values.get(name))}{f' ({why})' if why else ''}")

    def path(self, name: str) -> Path | None:
        """The file or folder that an option names: beside the settings' file, or from here."""
        value = self.text(name)
        return place(value, self.folder) if value else None

    def rest(self) -> dict[str, Any]:
        """What nobody asked for and is in force."""
        return {key: value for key, value in self.values.items() if key not in self.dealt and str(value) not in ("0", "0.0")}


def is_on(value: Any) -> bool:
    """Whether an option is in force; a zero is a number."""
    return value is not None and value is not False and value not in OFF


def place(text: str, folder: Path) -> Path | None:
    try:
        path = Path(text).expanduser()
        found = next((one for one in (folder / path, path) if one.exists()), None)
    except (OSError, ValueError, RuntimeError):  # no name that a file could have
        return None
    return found.absolute() if found else None


def short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def in_words(name: str, value: Any) -> str:
    """'clip_skip = 2'; of a key to some service the name alone."""
    return name if SECRET.search(name) else f"{name} = {short(value)}"


def checked(found: Mapping[str, Any], options: Options) -> dict[str, Any]:
    """The settings whose values lorakit takes, as it holds them; the others are named."""
    settings = {}
    for key, value in found.items():
        try:
            settings[key] = convert(key, value, "")
        except LorakitError as error:
            options.lacking.append(str(error).removeprefix(": "))
    return settings


def side_of(options: Options, name: str, value: Any) -> int | None:
    """512 of 512, '512', '512,512', '(512, 512)' or [512, 512]: the side of the square of the same area."""
    words = value.strip("()[] ").replace("x", ",").split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    try:
        sides = [float(word) for word in words]
        side = round(math.sqrt(math.prod(sides)) if len(sides) == 2 else sides[0])
        if len(sides) not in (1, 2) or side < 8:
            raise ValueError
    except (TypeError, ValueError, IndexError, OverflowError):
        options.lack(name, "no size in pixels")
        return None
    if len(set(sides)) == 2:
        options.lacking.append(f"{name} = {short(value)} (the area is taken over as {side} x {side})")
    return side


def sizes(found: list[int]) -> dict[str, Any]:
    """The largest of several resolutions is lorakit's own."""
    ordered = sorted(set(found))
    return {"train.resolution": ordered[-1], "train.other_resolutions": ordered[:-1]} if ordered else {}
