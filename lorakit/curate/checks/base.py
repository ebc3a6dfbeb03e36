"""The contract of a check. A check is one file of this folder; its name is the file's name.

    VERSION = 1                                   raise it when `measure` changes: photos are then measured again
    Settings                                      frozen dataclass, becomes the settings section `check.<name>`
    measure(photo) -> dict                        numbers of one opened photo; kept in the manifest
    judge(measures, settings) -> iterator         verdicts, derived from the stored numbers whenever they are read
    odd_ones({id: measures}, settings) -> {id: Reason}      if the check has one: photos unlike the rest of their set
    NEEDS, EXTRA                                  if the check has them: packages besides lorakit's own, and the extra they come
                                                  with; where they are not installed, the check is passed over and says so

`judge` and `odd_ones` cost no pixel work, so a changed threshold needs no photo to be opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from lorakit.quality.verdicts import Reason

if TYPE_CHECKING:
    from lorakit.photos.photo import Photo


class Check(Protocol):
    VERSION: int
    Settings: type

    @staticmethod
    def measure(photo: Photo) -> dict[str, Any]: ...

    @staticmethod
    def judge(measures: dict[str, Any], settings: Any) -> Iterator[Reason]: ...
