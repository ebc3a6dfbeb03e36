"""Held-out styles, drawn over a shaded picture and the buffers it came from. The base model never sees them."""

import cv2
import numpy as np

from models.mini.geometry import SKY

GREY = np.float32([0.30, 0.59, 0.11])


def lines(buffers, thickness, crease=0.75):
    """1 along outlines and creases; `thickness` is a share of the shorter side."""
    label, normal = buffers.label.astype(np.int32), buffers.normal
    found = np.zeros(label.shape, np.float32)
    for axis in (0, 1):
        near = [slice(None)] * 2
        far = [slice(None)] * 2
        near[axis], far[axis] = slice(None, -1), slice(1, None)
        a, b = tuple(near), tuple(far)
        turned = (normal[a] * normal[b]).sum(-1) < crease
        found[a] = np.maximum(found[a], (label[a] != label[b]) | (turned & (label[a] != SKY)))
    width = max(1, round(thickness * min(label.shape)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    return cv2.dilate(found, disc)


def blueprint(picture, buffers):
    """White lines and a faint grid on blue paper."""
    height, width = buffers.label.shape
    step = max(2, min(height, width) // 8)
    y, x = np.mgrid[:height, :width]
    grid = ((x % step < step / 8) | (y % step < step / 8)) * 0.10
    paper = np.float32([0.06, 0.20, 0.52]) * (0.82 + 0.36 * (picture @ GREY))[..., None]
    ink = np.maximum(lines(buffers, 0.022), grid)[..., None]
    return paper * (1 - ink) + np.float32([0.90, 0.95, 1.0]) * ink


def sepia(picture, buffers):
    """An old brown photograph with dark corners."""
    height, width = buffers.label.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    grey = 0.10 + 0.82 * (picture @ GREY) * (1 - 0.22 * (x * x + y * y))
    return np.clip(grey[..., None] * np.float32([1.12, 0.88, 0.60]), 0, 1)


def outlines(picture, buffers):
    """A flat cartoon: few tones, strong colour, thick black outlines."""
    smooth = cv2.bilateralFilter(np.float32(picture), 5, 0.2, 3)
    tones = np.round(smooth * 4) / 4
    strong = tones.mean(-1, keepdims=True) + 1.35 * (tones - tones.mean(-1, keepdims=True))
    return np.clip(strong, 0, 1) * (1 - lines(buffers, 0.05)[..., None])


def neon(picture, buffers):
    """Night: the picture nearly dark, every edge a glowing tube, pink or cyan by what it bounds."""
    tubes = lines(buffers, 0.025)
    colour = np.where((buffers.label % 2 == 0)[..., None], np.float32([1.0, 0.15, 0.75]), np.float32([0.1, 0.9, 1.0]))
    tubes = tubes[..., None] * colour
    glow = cv2.GaussianBlur(tubes, (0, 0), 0.03 * min(buffers.label.shape))
    return np.clip(0.10 * picture * np.float32([0.6, 0.6, 1.2]) + tubes + 0.9 * glow, 0, 1)


STYLES = {"blueprint": blueprint, "sepia": sepia, "outlines": outlines, "neon": neon}
