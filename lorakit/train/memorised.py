"""Whether samples repeat single training photos: the nearest of them, by pixels, against what the base draws for the same prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lorakit.console import warn
from lorakit.project import Project

SIDE = 32  # px at which pictures are laid over each other: the same scene, whatever its grain
COPY = 0.9  # correlation from which two pictures show the same
ABOVE_BASE = 0.1  # and by how much more than the base's picture does
MOST = 1000  # photos that are looked at


def nearest(pictures: Sequence[Path], photos: Sequence[Path]) -> list[tuple[str, float]]:
    """For each picture the photo that is most like it, and their correlation (-1 to 1), the photo as it is or mirrored."""
    seen = [_standardised(path) for path in photos]
    both = np.stack([*seen, *(side[:, ::-1] for side in seen)]).reshape(2 * len(seen), -1)
    found = []
    for path in pictures:
        likeness = both @ _standardised(path).ravel() / both.shape[1]
        best = int(likeness.argmax())
        found.append((photos[best % len(photos)].name, round(float(likeness[best]), 4)))
    return found


def _standardised(path: Path) -> np.ndarray:
    """[SIDE, SIDE, 3], mean 0 and variance 1."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32)
    return (pixels - pixels.mean()) / max(1.0, float(pixels.std()))


def _is_whole(path: Path) -> bool:
    """Whether a picture can be read; one that cannot, damaged since it was written, is named: no training is lost over it."""
    try:
        _standardised(path)
    except (OSError, SyntaxError, ValueError):  # what Pillow raises for damaged pictures
        warn(f"{path}: cannot be read, and is left out where samples are held against the photos")
        return False
    return True


def look(project: Project, folder: Path) -> dict:
    """{"memorised": whether any sample repeats a photo, "nearest": [[photo, correlation, the base's], ...] by prompt} of the pairs
    `<n>_base.png`, `<n>_lora.png`; {} where there is nothing to look at."""
    photos = [project.dataset_folder / r["dataset"]["file"] for r in project.manifest.selected if r.get("dataset")][:MOST]
    photos = [path for path in photos if path.is_file() and _is_whole(path)]
    drawn = sorted(folder.glob("*_lora.png"), key=lambda path: int(path.name.split("_")[0]))
    drawn = [path for path in drawn if path.with_name(path.name.replace("_lora", "_base")).is_file()]
    drawn = [path for path in drawn if _is_whole(path) and _is_whole(path.with_name(path.name.replace("_lora", "_base")))]
    if not photos or not drawn:
        return {}
    by_lora = nearest(drawn, photos)
    by_base = nearest([path.with_name(path.name.replace("_lora", "_base")) for path in drawn], photos)
    lines = [[name, likeness, of_base] for (name, likeness), (_, of_base) in zip(by_lora, by_base, strict=True)]
    return {"memorised": any(likeness >= COPY and likeness >= of_base + ABOVE_BASE for _, likeness, of_base in lines), "nearest": lines}
