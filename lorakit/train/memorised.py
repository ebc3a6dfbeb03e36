"""Whether samples repeat single training photos: the nearest of them, by pixels and as open_clip sees them, against what the base draws for
the same prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lorakit import device
from lorakit.clip import Clip
from lorakit.console import warn
from lorakit.project import Project

SIDE = 32  # px at which pictures are laid over each other: the same scene, whatever its grain
COPY = 0.9  # correlation from which two pictures show the same
ABOVE_BASE = 0.1  # and by how much more than the base's picture does
NEAR = 0.75  # share of the photos that have none nearer, as which their likeness is taken: a pair of copies among them says nothing
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
    """{"memorised": whether any sample repeats a photo, "nearest": [[photo, likeness, the base's], ...] by prompt, "nearest_by"} of the pairs
    `<n>_base.png`, `<n>_lora.png`; {} where there is nothing to look at. A likeness is a correlation of pixels, or where open_clip alone
    sees the repetition, a cosine."""
    photos = [project.dataset_folder / r["dataset"]["file"] for r in project.manifest.selected if r.get("dataset")][:MOST]
    photos = [path for path in photos if path.is_file() and _is_whole(path)]
    drawn = sorted(folder.glob("*_lora.png"), key=lambda path: int(path.name.split("_")[0]))
    drawn = [path for path in drawn if path.with_name(path.name.replace("_lora", "_base")).is_file()]
    drawn = [path for path in drawn if _is_whole(path) and _is_whole(path.with_name(path.name.replace("_lora", "_base")))]
    if not photos or not drawn:
        return {}
    of_base = [path.with_name(path.name.replace("_lora", "_base")) for path in drawn]
    lines = _lines(nearest(drawn, photos), nearest(of_base, photos))
    if any(likeness >= COPY and likeness >= base + ABOVE_BASE for _, likeness, base in lines):
        return {"memorised": True, "nearest": lines, "nearest_by": "pixels"}
    if project.settings.embed.clip and len(photos) > 1:
        seen, limit = _as_clip_sees(Clip(project.settings.embed.clip, "embed.clip", device.choose(project.device)), drawn, of_base, photos)
        if any(likeness >= limit and base < limit for _, likeness, base in seen):
            return {"memorised": True, "nearest": seen, "nearest_by": "open_clip"}
    return {"memorised": False, "nearest": lines, "nearest_by": "pixels"}


def _as_clip_sees(clip: Clip, drawn: Sequence[Path], of_base: Sequence[Path], photos: Sequence[Path]) -> tuple[list[list], float]:
    """(lines as above of cosines, the cosine from which a picture repeats a photo: half-way from how alike the photos are among themselves
    to one and the same). Cut out or moved, a photo is still found, where its pixels no longer lie over each other."""
    points, by_lora, by_base = (np.stack(list(clip.see(_opened(paths)))) for paths in (photos, drawn, of_base))
    among = points @ points.T
    np.fill_diagonal(among, -1.0)
    best = by_lora @ points.T
    names = [(photos[int(row.argmax())].name, round(float(row.max()), 4)) for row in best]
    base = [("", round(float(row.max()), 4)) for row in by_base @ points.T]
    return _lines(names, base), (1 + float(np.quantile(among.max(1), NEAR))) / 2


def _opened(paths: Sequence[Path]) -> Iterator[Image.Image]:
    for path in paths:
        with Image.open(path) as image:
            yield image.convert("RGB")


def _lines(by_lora: list[tuple[str, float]], by_base: list[tuple[str, float]]) -> list[list]:
    return [[name, likeness, of_base] for (name, likeness), (_, of_base) in zip(by_lora, by_base, strict=True)]
