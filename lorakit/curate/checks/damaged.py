"""Files that cannot be decoded, that decode with a complaint, or of which only one frame of many is used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lorakit.photo import Photo
from lorakit.settings import setting
from lorakit.verdicts import Reason

VERSION = 1


@dataclass(frozen=True)
class Settings:
    reject_warned: bool = setting(False, "reject photos that the decoder shows only with a complaint")


def measure(photo: Photo) -> dict[str, Any]:
    """The decoder's complaint and the number of frames. A file that cannot be decoded at all gets, instead,
    {"unreadable": reason, "detail": message} from the stage that tried."""
    return {"warning": photo.warning, "frames": photo.frames}


def judge(measures: dict[str, Any], settings: Settings) -> Iterator[Reason]:
    if "unreadable" in measures:
        yield Reason("reject", measures["unreadable"], measures["detail"], None)
        return
    if measures["warning"]:
        yield Reason("reject" if settings.reject_warned else "warn", "decoder_warning", measures["warning"], None)
    if measures["frames"] > 1:
        yield Reason("warn", "animated", measures["frames"], 1)
