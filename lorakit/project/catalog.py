"""The two tables that are data: base models (models/*.yaml) and kinds of LoRA (pipelines/*.yaml).
They are looked for in the user's project, then beside the package in a checkout, then inside the package."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lorakit import lookup
from lorakit.errors import LorakitError, UnknownName

PACKAGE = Path(__file__).parents[1]
DEFAULT_BASE = "sd15"  # the card of a project that names none


@dataclass(frozen=True)
class Card:
    """One base model: where its weights are, what it needs, what it is called in LoRA files, and its settings."""

    name: str
    title: str
    family: str  # a file of bases/families
    licence: str
    size_gb: float  # of the download
    min_vram_gb: float  # to train a LoRA on it at its own resolution
    hub: str | None = None  # hub id for from_pretrained; without it, a folder and a builder the weights are given with --weights
    gated: bool = False  # the hub gives it to those who have accepted its licence
    released: str = ""  # year and month
    folder: str | None = None  # weights that travel with the card, relative to it
    builder: str | None = None  # a module of lorakit.bases that makes the weights on this machine
    note: str = ""
    known_as: Sequence[str] = ()  # what stands in names of its files and places, small letters and digits alone; all words of one of these
    memory: Sequence[Mapping[str, Any]] = ()  # predicted GB of activations: {resolution, checkpointing, activations}; bench/memory.py
    metadata: Mapping[str, str] = field(default_factory=dict)  # names that loaders read in the LoRA file's header
    settings: Mapping[str, Any] = field(default_factory=dict)
    path: Path = field(default=Path(), compare=False)

    @property
    def comes_along(self) -> bool:
        """Whether its weights travel with lorakit or are made here: a base for trying out."""
        return bool(self.folder or self.builder)

    @property
    def is_built(self) -> bool:
        """Whether the family that trains this base exists in this version of lorakit."""
        return self.family in lookup.names(lookup.FAMILIES)


@dataclass(frozen=True)
class Kind:
    """One kind of LoRA: what it teaches and the settings that follow from it."""

    name: str
    title: str
    teaches: str
    photos: str  # how many photos and of what, one sentence
    settings: Mapping[str, Any] = field(default_factory=dict)
    path: Path = field(default=Path(), compare=False)


def check_family(card: Card) -> None:
    """Raises for a base whose family this version of lorakit cannot train yet."""
    if not card.is_built:
        ready = ", ".join(lookup.names(lookup.FAMILIES))
        raise LorakitError(
            f"base {card.name}: its family {card.family} cannot be trained by this version yet (families that can: {ready}); "
            "`lorakit curate` and `lorakit caption` work for it"
        )


def card(name: str, project: Path | None = None) -> Card:
    """The card of a base. Raises `UnknownName` naming the nearest."""
    return _load(Card, "base", _files("models", project), name)


def kind(name: str, project: Path | None = None) -> Kind:
    """A kind of LoRA. Raises `UnknownName` naming the nearest."""
    return _load(Kind, "kind", _files("pipelines", project), name)


def cards(project: Path | None = None) -> list[Card]:
    return [card(name, project) for name in sorted(_files("models", project))]


def kinds(project: Path | None = None) -> list[Kind]:
    return [kind(name, project) for name in sorted(_files("pipelines", project))]


def _files(folder: str, project: Path | None) -> dict[str, Path]:
    """{name: file} for `<folder>/<name>.yaml` and `<folder>/<name>/card.yaml`; the first place that has a name wins."""
    places = [project] if project else []
    checkout = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else PACKAGE
    found: dict[str, Path] = {}
    for place in (*places, checkout, PACKAGE):
        for path in sorted((place / folder).glob("*.yaml")):
            found.setdefault(path.stem, path)
        for path in sorted((place / folder).glob("*/card.yaml")):
            found.setdefault(path.parent.name, path)
    return found


def _load(cls: type, what: str, files: dict[str, Path], name: str) -> Any:
    if name not in files:
        raise UnknownName(what, name, list(files))
    path = files[name]
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise LorakitError(f"{path}: not valid YAML ({' '.join(str(error).split())}); mend it or remove it") from None
    known = {f.name for f in dataclasses.fields(cls)} - {"name", "path"}
    for key in data if isinstance(data, dict) else ():
        if key not in known:
            raise UnknownName("key", key, sorted(known), str(path))
    data["settings"] = {key: _beside(path, value) for key, value in (data.get("settings") or {}).items()}
    try:
        return cls(name=name, path=path, **data)
    except TypeError as error:
        raise LorakitError(f"{path}: {str(error).split(') ', 1)[-1]}; compare it with models/sd15.yaml") from None


def _beside(path: Path, value: Any) -> Any:
    """A settings value that begins with `./` is a path beside the card: weights may travel with it."""
    return str(path.parent / value) if isinstance(value, str) and value.startswith("./") else value
