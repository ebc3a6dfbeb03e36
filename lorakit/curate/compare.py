"""Are two photos the same picture? Asked only of those whose hashes are near: parts that match lay one over the other,
and then what they show must agree."""

from __future__ import annotations

from collections import namedtuple
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from lorakit.errors import UnreadablePhoto
from lorakit.photo import read_photo

SIDE = 384  # short side, in pixels, at which photos are compared
THUMBNAIL = 48
KEYPOINTS = 400
RATIO = 0.8  # of the best match's distance to the second best's (Lowe 2004)
INLIERS, AGREEMENT, OVERLAP, THUMBNAILS_AGREE = 12, 0.90, 0.5, 0.985

# inliers: matching points that one similarity transform explains; agreement: correlation of the overlap once they lie
# over each other; overlap: its share of the smaller picture; thumbnails: correlation of the whole pictures, shrunk
Likeness = namedtuple("Likeness", "inliers agreement overlap thumbnails")


def is_same_picture(found: Likeness) -> bool:
    aligned = found.inliers >= INLIERS and found.agreement >= AGREEMENT and found.overlap >= OVERLAP
    return aligned or found.thumbnails >= THUMBNAILS_AGREE


def compare(left: Path, right: Path, turn: int) -> Likeness:
    """How like `right` the photo `left` is, once it is turned (see `descriptors.turned`). All zero when one cannot be read."""
    try:
        moved, fixed = _prepare(left, turn), _prepare(right, 0)
    except UnreadablePhoto:
        return Likeness(0, 0.0, 0.0, 0.0)
    thumbnails = _correlation(_thumbnail(moved[0]), _thumbnail(fixed[0]))
    return Likeness(*_align(moved, fixed), round(thumbnails, 4))


@lru_cache(maxsize=256)
def _prepare(path: Path, turn: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """(gray picture at SIDE, its keypoints' places [n, 2], their SIFT descriptors [n, 128])."""
    gray = read_photo(path).gray
    scale = SIDE / min(gray.shape)
    gray = _turn(cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), turn)
    sift = cv2.SIFT_create(KEYPOINTS)  # pyright: ignore[reportAttributeAccessIssue]  # in no stub of OpenCV
    points, descriptors = sift.detectAndCompute(gray, None)
    return gray, np.array([point.pt for point in points], np.float32).reshape(-1, 2), descriptors


def forget_prepared() -> None:
    """Give back the memory of the photos that were compared."""
    _prepare.cache_clear()


def _turn(gray: np.ndarray, turn: int) -> np.ndarray:
    gray = gray.T if turn & 4 else gray
    gray = gray[:, ::-1] if turn & 1 else gray
    return np.ascontiguousarray(gray[::-1] if turn & 2 else gray)


def _thumbnail(gray: np.ndarray) -> np.ndarray:
    return cv2.resize(gray, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)


def _align(moved: tuple, fixed: tuple) -> tuple[int, float, float]:
    """(inliers, agreement, overlap) of the similarity transform that most matching points agree on."""
    pairs = _matches(moved[2], fixed[2])
    if len(pairs) < INLIERS:
        return len(pairs), 0.0, 0.0
    matrix, inside = cv2.estimateAffinePartial2D(moved[1][pairs[:, 0]], fixed[1][pairs[:, 1]], ransacReprojThreshold=3.0)
    if matrix is None:
        return 0, 0.0, 0.0
    size = fixed[0].shape[::-1]
    laid = cv2.warpAffine(moved[0], matrix, size, flags=cv2.INTER_AREA)
    covered = cv2.warpAffine(np.full_like(moved[0], 255), matrix, size) == 255
    area = min(moved[0].size * abs(np.linalg.det(matrix[:, :2])), fixed[0].size)
    agreement = _correlation(cv2.blur(laid, (3, 3))[covered], cv2.blur(fixed[0], (3, 3))[covered]) if covered.any() else 0.0
    return int(inside.sum()), round(agreement, 4), round(float(covered.sum() / max(area, 1.0)), 4)


def _matches(left: np.ndarray | None, right: np.ndarray | None) -> np.ndarray:
    """[n, 2] positions of keypoints whose nearest neighbour is clearly nearer than the second."""
    if left is None or right is None or len(right) < 2:
        return np.empty((0, 2), int)
    distances = (left**2).sum(1)[:, None] + (right**2).sum(1)[None] - 2 * left @ right.T
    two = np.argpartition(distances, 1, axis=1)[:, :2]
    near = np.take_along_axis(distances, two, axis=1)
    clear = near[:, 0] < RATIO**2 * near[:, 1]
    return np.stack([np.nonzero(clear)[0], two[clear, 0]], axis=1)


def _correlation(left: np.ndarray, right: np.ndarray) -> float:
    a, b = left.astype(np.float32).ravel(), right.astype(np.float32).ravel()
    a, b = a - a.mean(), b - b.mean()
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length > 0 else 0.0
