"""Are two photos the same picture? Asked only of those whose hashes are near: parts that match lay one over the other, and then
what they show must agree, as a whole and in every place. Another face on the same body is another picture."""

from __future__ import annotations

from collections import namedtuple
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from lorakit.errors import LorakitError, NotGiven, UnreadablePhoto
from lorakit.photos.photo import read_photo
from lorakit.photos.remote import Remote

SIDE = 384  # short side, in pixels, at which photos are compared
LONGEST = 3 * SIDE  # a picture of one row is not blown up to a million columns
THUMBNAIL = 48
KEYPOINTS = 400
KEPT = 96  # photos kept ready, of at most 2 MB each
RATIO = 0.8  # of the best match's distance to the second best's (Lowe 2004)
INLIERS, AGREEMENT, OVERLAP, THUMBNAILS_AGREE = 12, 0.90, 0.5, 0.985
LUMA_APART, CHROMA_APART = 30.0, 20.0  # levels of 0-255 from which two places show something else
EVENED = 1.0  # sigma, in pixels at SIDE, of the blur under which noise and blocks do not count
COARSE = 0.8  # the same, in pixels of the smaller photo
MOST_ENLARGED = 3.0  # times; in a picture of 128 px, a face is a few pixels, and so are letters
THICK = 9  # pixels at SIDE: what is thinner is a letter of a watermark, or an edge that does not lie exactly over the other ...
THICKER = 4  # ... and so many more for each pixel by which a small photo is evened, for that thickens letters
ANOTHER = 0.0015  # share of the picture from which a place that shows something else makes it another picture (bench/curate_accuracy.py:
# of 1,448 copies of 59 photos one had more than .0008; bench/curate_cutouts.py: other faces have .0019 and more)
GRAY = 4.0  # standard deviation of both chromas below which a picture has no colours to compare

# inliers: matching points that one similarity transform explains; agreement: correlation of the overlap once they lie
# over each other; overlap: its share of the smaller picture; thumbnails: correlation of the whole pictures, shrunk;
# apart: share of the overlap taken by the largest place where the two show something else, None where nothing lay over the other
Likeness = namedtuple("Likeness", "inliers agreement overlap thumbnails apart", defaults=(None,))


class Prepared(NamedTuple):
    """A photo ready to be compared."""

    gray: np.ndarray  # [height, width] uint8, short side SIDE
    colours: np.ndarray  # [height, width, 3] uint8 YCrCb, of the same size
    points: np.ndarray  # [n, 2] places of its SIFT keypoints
    descriptors: np.ndarray | None  # [n, 128]
    enlarged: float  # from how small a photo: its pixels at SIDE


def is_same_picture(found: Likeness) -> bool:
    aligned = found.inliers >= INLIERS and found.agreement >= AGREEMENT and found.overlap >= OVERLAP
    return (aligned or found.thumbnails >= THUMBNAILS_AGREE) and not is_another(found)


def is_another(found: Likeness) -> bool:
    """Whether one place of the two is clearly not the same, however alike they are in the large."""
    return found.apart is not None and found.apart >= ANOTHER


def compare(left: Path | Remote, right: Path | Remote, turn: int) -> Likeness:
    """How like `right` the photo `left` is, once it is turned (see `descriptors.turned`). All zero when one cannot be read; raises
    `LorakitError` where a store does not give one now, for two copies would be taken for two photos."""
    try:
        moved, fixed = _prepare(left, turn), _prepare(right, 0)
    except NotGiven as error:
        raise LorakitError(f"{left}, {right}: cannot be compared ({error.detail}); the same command goes on from there") from None
    except UnreadablePhoto:
        return Likeness(0, 0.0, 0.0, 0.0)
    thumbnails = _correlation(_thumbnail(moved.gray), _thumbnail(fixed.gray))
    inliers, matrix = _align(moved, fixed)
    agreement, overlap = _agreement(moved, fixed, matrix) if matrix is not None else (0.0, 0.0)
    if matrix is None or agreement < AGREEMENT:
        matrix = _aligned_as_a_whole(moved.gray, fixed.gray)
    return Likeness(inliers, agreement, overlap, round(thumbnails, 4), _apart(moved, fixed, matrix))


@lru_cache(maxsize=KEPT)
def _prepare(path: Path | Remote, turn: int) -> Prepared:
    photo = read_photo(path)
    short, long = sorted(photo.gray.shape)
    scale = min(SIDE / short, LONGEST / long)
    size = tuple(max(1, round(side * scale)) for side in reversed(photo.gray.shape))
    gray = _turn(cv2.resize(photo.gray, size, interpolation=cv2.INTER_AREA), turn)
    colours = _turn(cv2.resize(photo.colours, size, interpolation=cv2.INTER_AREA), turn)
    sift = cv2.SIFT_create(KEYPOINTS)  # pyright: ignore[reportAttributeAccessIssue]  # in no stub of OpenCV
    points, descriptors = sift.detectAndCompute(gray, None)
    places = np.array([point.pt for point in points], np.float32).reshape(-1, 2)
    return Prepared(gray, cv2.cvtColor(colours, cv2.COLOR_RGB2YCrCb), places, descriptors, scale)


def forget_prepared() -> None:
    """Give back the memory of the photos that were compared."""
    _prepare.cache_clear()


def _turn(pixels: np.ndarray, turn: int) -> np.ndarray:
    pixels = pixels.swapaxes(0, 1) if turn & 4 else pixels
    pixels = pixels[:, ::-1] if turn & 1 else pixels
    return np.ascontiguousarray(pixels[::-1] if turn & 2 else pixels)


def _thumbnail(gray: np.ndarray) -> np.ndarray:
    return cv2.resize(gray, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)


def _align(moved: Prepared, fixed: Prepared) -> tuple[int, np.ndarray | None]:
    """(inliers, [2, 3]) of the similarity transform that most matching points agree on."""
    pairs = _matches(moved.descriptors, fixed.descriptors)
    if len(pairs) < INLIERS:
        return len(pairs), None
    matrix, inside = cv2.estimateAffinePartial2D(moved.points[pairs[:, 0]], fixed.points[pairs[:, 1]], ransacReprojThreshold=3.0)
    return (0, None) if matrix is None else (int(inside.sum()), matrix)


def _agreement(moved: Prepared, fixed: Prepared, matrix: np.ndarray) -> tuple[float, float]:
    """(agreement, overlap) once `moved` is laid over `fixed`."""
    size = fixed.gray.shape[::-1]
    laid = cv2.warpAffine(moved.gray, matrix, size, flags=cv2.INTER_AREA)
    covered = _covered(moved.gray, matrix, size)
    area = min(moved.gray.size * abs(np.linalg.det(matrix[:, :2])), fixed.gray.size)
    agreement = _correlation(cv2.blur(laid, (3, 3))[covered], cv2.blur(fixed.gray, (3, 3))[covered]) if covered.any() else 0.0
    return round(agreement, 4), round(float(covered.sum() / max(area, 1.0)), 4)


def _covered(gray: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.warpAffine(np.full_like(gray, 255), matrix, size) == 255


def _aligned_as_a_whole(moved: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """[2, 3] that lays one picture over the other where too few points match: edge on edge, then moved by what correlates best."""
    across, down = fixed.shape[1] / moved.shape[1], fixed.shape[0] / moved.shape[0]
    whole = np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2]], dtype=np.float32)
    laid = cv2.warpAffine(moved, whole, fixed.shape[::-1])
    try:
        start = np.eye(2, 3, dtype=np.float32)
        _, found = cv2.findTransformECC(fixed, laid, start, cv2.MOTION_AFFINE, _PATIENCE, None, 5)  # pyright: ignore[reportArgumentType, reportCallIssue]  # no mask is None
    except cv2.error:  # nothing to hold on to, or no end in sight
        return whole
    back = cv2.invertAffineTransform(found)
    return (np.vstack([back, [0, 0, 1]]) @ np.vstack([whole, [0, 0, 1]]))[:2]


_PATIENCE = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-4)


def _apart(moved: Prepared, fixed: Prepared, matrix: np.ndarray) -> float | None:
    """The share of the overlap taken by the largest place where the pictures show something else, once brightness, contrast,
    white balance and saturation of the one are brought to those of the other; whichever way round leaves less."""
    if max(moved.enlarged, fixed.enlarged) > MOST_ENLARGED:
        return None
    size = fixed.gray.shape[::-1]
    covered = cv2.erode(_covered(moved.gray, matrix, size).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    if covered.sum() < OVERLAP * min(moved.gray.size * abs(np.linalg.det(matrix[:, :2])), fixed.gray.size):
        return None
    evened = max(EVENED, COARSE * moved.enlarged, COARSE * fixed.enlarged)  # to what the smaller of the two can show
    laid = cv2.GaussianBlur(cv2.warpAffine(moved.colours, matrix, size, borderMode=cv2.BORDER_REPLICATE), (0, 0), evened)
    under = cv2.GaussianBlur(fixed.colours, (0, 0), evened)
    gray = any(picture[covered][:, 1:].std(axis=0).max() < GRAY for picture in (laid, under))
    channels = ((0, LUMA_APART),) if gray else ((0, LUMA_APART), (1, CHROMA_APART), (2, CHROMA_APART))
    thick = round(THICK + THICKER * (evened - EVENED))
    return min(_largest_place(a, b, covered, channels, thick) for a, b in ((laid, under), (under, laid)))


def _largest_place(asked: np.ndarray, known: np.ndarray, covered: np.ndarray, channels: tuple, thick: int) -> float:
    other = np.zeros(covered.shape, np.uint8)
    for channel, least in channels:
        other |= (_left_over(asked[:, :, channel], known[:, :, channel], covered) > least).astype(np.uint8)
    other = cv2.morphologyEx(other & covered, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (thick, thick)))
    _, _, found, _ = cv2.connectedComponentsWithStats(other)
    return round(float(found[1:, cv2.CC_STAT_AREA].max(initial=0) / covered.sum()), 5)


def _left_over(asked: np.ndarray, known: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """[height, width]: how far `known` is from `asked` once that is scaled and shifted to it, by the places that agree best, so that
    what differs does not bend the scale."""
    a, b = asked.astype(np.float32), known.astype(np.float32)
    x, y = a[covered][::7], b[covered][::7]
    scale, shift = 1.0, float(np.median(y - x))
    for _ in range(4):
        residue = np.abs(scale * x + shift - y)
        best = residue <= np.partition(residue, int(0.75 * (len(residue) - 1)))[int(0.75 * (len(residue) - 1))]
        mean_x, mean_y = x[best].mean(), y[best].mean()
        spread = ((x[best] - mean_x) ** 2).mean() + 1.0  # 1.0 holds the scale at 1 where there is hardly any contrast
        scale = float((((x[best] - mean_x) * (y[best] - mean_y)).mean() + 1.0) / spread)
        shift = float(mean_y - scale * mean_x)
    return np.abs(np.clip(scale * a + shift, 0, 255) - b)


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
