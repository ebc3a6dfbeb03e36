"""Writing in the picture: captions laid over it, date stamps, watermarks. A LoRA learns them as part of what it is taught.

Text is found and read by RapidOCR (PP-OCR in onnxruntime), an extra of its own: pip install lorakit[ocr]."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorakit.errors import LorakitError
from lorakit.quality.verdicts import Reason
from lorakit.settings import setting

if TYPE_CHECKING:
    import numpy as np

    from lorakit.photos.photo import Photo

VERSION = 1
NEEDS, EXTRA = ("rapidocr", "onnxruntime"), "ocr"
SURE = 0.75  # the reader's own score below which it has seen letters in leaves and cloth
LETTERS = 3  # letters and digits; shorter finds are mostly texture
LEAST_SIDE = 32  # pixels; in smaller pictures nothing can be read
_of_thread = threading.local()  # an engine holds the picture that it works on


@dataclass(frozen=True)
class Settings:
    max_share: float = setting(0.003, "share of the picture covered by writing above which it gets a warning", least=0.0, most=1.0)
    reject_share: float | None = setting(None, "and above which it is rejected; empty: never", least=0.0, most=1.0)


def measure(photo: Photo) -> dict[str, Any]:
    """`share` of the picture covered by writing; `words` as read, line by line; `boxes` of these lines, each
    [left, top, right, bottom] in pixels of the upright photo."""
    import cv2
    import numpy as np

    gray = photo.gray
    lines = read_lines(gray) if min(gray.shape) >= LEAST_SIDE else []
    covered = np.zeros_like(gray)
    for corners, _ in lines:
        cv2.fillPoly(covered, [corners.round().astype(np.int32)], 1)
    scale = photo.width / gray.shape[1]
    boxes = [[round(float(side) * scale) for side in (*corners.min(axis=0), *corners.max(axis=0))] for corners, _ in lines]
    return {"share": round(float(covered.mean()), 4), "words": [text for _, text in lines], "boxes": boxes}


def read_lines(gray: np.ndarray) -> list[tuple[np.ndarray, str]]:
    """[(corners [4, 2] in pixels, text)] of the lines of writing in a gray picture [height, width]."""
    import cv2
    import numpy as np

    found = _engine()(cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR))
    if found.boxes is None or found.txts is None:
        return []
    lines = zip(found.boxes, found.txts, found.scores)
    return [(np.asarray(box), text) for box, text, score in lines if score >= SURE and sum(map(str.isalnum, text)) >= LETTERS]


def _engine():
    """The reader of this thread: photos are measured in several threads, each on one core."""
    if not hasattr(_of_thread, "engine"):
        from rapidocr import RapidOCR

        one_core = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")}
        try:  # lines upside down are not looked for, and small pictures not enlarged: half the time
            _of_thread.engine = RapidOCR(
                params={**one_core, "Global.log_level": "error", "Global.use_cls": False, "Det.limit_side_len": 512}
            )
        except Exception as error:
            raise LorakitError(
                f"check.text: rapidocr cannot start ({' '.join(str(error).split())}); pip install lorakit[ocr], or remove it"
            ) from None
    return _of_thread.engine


def judge(measures: dict[str, Any], settings: Settings) -> Iterator[Reason]:
    share = measures["share"]
    if settings.reject_share is not None and share > settings.reject_share:
        yield Reason("reject", "text", share, settings.reject_share)
    elif share > settings.max_share:
        yield Reason("warn", "text", share, settings.max_share)
