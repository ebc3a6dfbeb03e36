"""Files that cannot be decoded, that decode with a complaint, or of which only one frame of many is used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorakit.quality.verdicts import Reason
from lorakit.settings import setting

if TYPE_CHECKING:
    import numpy as np

    from lorakit.photos.photo import Photo

VERSION = 2
STRIPS = 8  # a row of pixels is compared with the next in so many strips, so that a moving edge in one does not count


@dataclass(frozen=True)
class Settings:
    reject_warned: bool = setting(False, "reject photos that the decoder shows only with a complaint")
    max_seam: float = setting(
        2.5,
        "jump between two rows of pixels, over that of the rows around, above which a file that its decoder complains of is rejected",
        least=0.0,
    )


def measure(photo: Photo) -> dict[str, Any]:
    """The decoder's complaint, how far the picture breaks apart when there is one, and the number of frames. A file that
    cannot be decoded at all gets, instead, {"unreadable": reason, "detail": message} from the stage that tried."""
    return {"warning": photo.warning, "seam": seam(photo.gray) if photo.warning else 0.0, "frames": photo.frames}


def seam(gray: np.ndarray) -> float:
    """How much the worst jump between neighbouring rows stands out from the rows around it; 1-2 in whole photos. Rotten
    bytes shift all that is decoded after them, which tears the picture along a row of blocks."""
    import cv2
    import numpy as np

    width = gray.shape[1] // STRIPS * STRIPS
    if min(gray.shape) < 32:
        return 0.0
    from scipy.ndimage import median_filter  # only for the few files that a decoder complains of; half of what `show` would take

    steps = cv2.absdiff(gray[1:, :width], gray[:-1, :width])
    strips = np.sort(steps.reshape(len(steps), STRIPS, -1).mean(axis=2), axis=1)[:, 2:]
    jumps = strips.mean(axis=1)
    around = median_filter(jumps, 15)
    return round(float((jumps / (around + 1.5)).max()), 2)


def judge(measures: dict[str, Any], settings: Settings) -> Iterator[Reason]:
    if "unreadable" in measures:
        yield Reason("reject", measures["unreadable"], measures["detail"], None)
        return
    if measures["warning"] and measures["seam"] > settings.max_seam:
        yield Reason("reject", "damaged", f"{measures['warning']}; rows torn apart {measures['seam']} times", settings.max_seam)
    elif measures["warning"]:
        yield Reason("reject" if settings.reject_warned else "warn", "decoder_warning", measures["warning"], None)
    if measures["frames"] > 1:
        yield Reason("warn", "animated", measures["frames"], 1)
