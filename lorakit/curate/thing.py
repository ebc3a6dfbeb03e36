"""A thing that was cut out and laid on a plain backdrop, for checks that look at detail: neither the backdrop nor the silhouette, which
whoever cuts a thing out makes as sharp or as soft as he likes. In a photo of a thing before a wall both are the camera's work, and
the whole frame is looked at."""

from __future__ import annotations

import cv2
import numpy as np

from lorakit.photos.photo import Photo

SILHOUETTE = 4  # pixels at 512 px short side, inwards from the backdrop, that are left out
# Shares of a backdrop's pixels that are just like their neighbours, or differ by one level at most: of 49 photographed backdrops that are
# not clipped the most were 0.62 and 0.94; one colour has 0.99, a gradient of a JPEG of quality 75 0.63 and 0.98.
EVEN, NEARLY_EVEN = 0.9, 0.97
LEAST = 0.03  # share of the frame; of what is smaller or all lines, the whole frame tells more
FADE = 6  # sigma, in the same pixels, of the slope along which a faded picture ends: too gentle to count as structure


def inside(photo: Photo) -> np.ndarray | None:
    """[height, width] uint8 like `photo.gray`, 1 where the thing is, without its silhouette; empty where nothing to speak of is left, as of
    drawings in lines; None where nothing was cut out."""
    if photo.behind is None or not _is_drawn(photo.gray, photo.behind):
        return None
    thing = _shrunk((~photo.behind).astype(np.uint8), SILHOUETTE)
    return thing if thing.mean() >= LEAST else np.zeros_like(thing)


def _is_drawn(gray: np.ndarray, behind: np.ndarray) -> bool:
    """Whether no camera has seen a backdrop: it has no noise."""
    far = _shrunk(behind.astype(np.uint8), SILHOUETTE) > 0
    around = np.ones((3, 3), np.uint8)
    steps = cv2.subtract(cv2.dilate(gray, around), cv2.erode(gray, around))[far]
    return bool(len(steps)) and bool((steps == 0).mean() >= EVEN or (steps <= 1).mean() >= NEARLY_EVEN)


def faded(gray: np.ndarray, thing: np.ndarray | None) -> np.ndarray | None:
    """[height, width] float32: the picture fading into the thing's mean where the thing ends; as it is where nothing was cut out, None
    where next to nothing is left."""
    if thing is None:
        return gray.astype(np.float32)
    core = _shrunk(thing, FADE)
    if core.mean() < LEAST / 2:
        return None
    soft = cv2.GaussianBlur(core.astype(np.float32), (0, 0), FADE)
    mean = float(gray[core > 0].mean())
    return (gray.astype(np.float32) - mean) * soft + mean


def _shrunk(mask: np.ndarray, pixels: int) -> np.ndarray:
    """What lies further than so many pixels from all that is not in the mask; the frame's edge is no end of it."""
    return cv2.erode(mask, np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8), borderType=cv2.BORDER_REPLICATE)
