"""One architecture a file; see base.py for the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lorakit import lookup

if TYPE_CHECKING:
    from lorakit.bases.families.base import Family


def names() -> tuple[str, ...]:
    """The families that there are files for, sorted."""
    return lookup.names(lookup.FAMILIES)


def load(name: str) -> type[Family]:
    """The class of a family, which is imported now: that takes torch and diffusers along. Raises `UnknownName`."""
    return lookup.load(lookup.FAMILIES, name).CLASS
