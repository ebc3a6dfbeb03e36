"""Whether samples repeat single training photos: the nearest of them, by pixels and as open_clip sees them, against what the base draws for
the same prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from lorakit import device
from lorakit.clip import Clip
from lorakit.console import warn
from lorakit.errors import UnreadablePhoto
from lorakit.photos.decode import load_image
from lorakit.project import Project, runs

SIDE = 32  # px at which pictures are laid over each other: the same scene, whatever its grain
COPY = 0.9  # correlation from which two pictures show the same
ABOVE_BASE = 0.1  # and by how much more than the base's picture does
NEAR = 0.75  # share of the photos that have none nearer, as which their cosine is taken: a pair of copies among them says nothing
MOST = 1000  # photos that are looked at
SHORT, LONG = 48, 144  # px at which a part of one picture is looked for in another
PARTS = np.linspace(0.6, 1.0, 9)  # of the largest that fits
BESIDE = 8  # other photos that a photo is held against


def look(project: Project, folder: Path) -> dict:
    """{"memorised": whether any sample repeats a photo, None where that cannot be told, "nearest": [[photo, likeness, the base's], ...] by
    prompt, "nearest_by"} of the pairs `<n>_base.png`, `<n>_lora.png`; {} where there is nothing to look at. A likeness is a correlation of
    pixels, or where open_clip alone sees the repetition, a cosine.

    Eight shots of one thing in one frame are as like each other as a photo and its copy are. There a new picture of the thing is no repetition,
    and one that were could not be told from it."""
    photos = [project.dataset_folder / r["dataset"]["file"] for r in project.manifest.selected if r.get("dataset")][:MOST]
    photos = [path for path in photos if path.is_file() and _is_whole(path)]
    drawn, of_base = _pairs(folder)
    if not photos or not drawn:
        return {}
    lines, told, usual = _by_pixels(drawn, of_base, photos)
    if True not in told and project.settings.embed.clip and len(photos) > 1:
        clip = Clip(project.settings.embed.clip, "embed.clip", device.choose(project.device))
        seen, told_by_clip = _by_clip(clip, drawn, of_base, photos, usual)
        if True in told_by_clip:
            return {"memorised": True, "nearest": seen, "nearest_by": "open_clip"}
        told += told_by_clip
    return {"memorised": True if True in told else None if None in told else False, "nearest": lines, "nearest_by": "pixels"}


def _pairs(folder: Path) -> tuple[list[Path], list[Path]]:
    """The pictures with and without the LoRA, by number. Others that lie there are named and passed over."""
    ours = runs.drawn(folder, "_lora.png")
    for path in sorted({*folder.glob("*_lora.png")} - {*ours}):
        warn(f"{path}: is none of lorakit's samples, and is left out where they are held against the photos")
    pairs = [(path, path.with_name(path.name.replace("_lora", "_base"))) for path in ours]
    pairs = [pair for pair in pairs if pair[1].is_file() and all(map(_is_whole, pair))]
    return [drawn for drawn, _ in pairs], [base for _, base in pairs]


def _is_whole(path: Path) -> bool:
    """Whether a picture can be read; one that cannot, damaged since it was written or put there by somebody, is named: no training is lost
    over it."""
    try:
        load_image(path)
    except UnreadablePhoto as error:
        warn(f"{path}: cannot be read ({error}), and is left out where samples are held against the photos")
        return False
    return True


# By pixels, one laid over the other


def _by_pixels(drawn: Sequence[Path], of_base: Sequence[Path], photos: Sequence[Path]) -> tuple[list[list], list[bool | None], float]:
    """(lines, whether each sample repeats its photo, how alike the photos usually are: see `_repeats`)."""
    points = np.stack([_standardised(path) for path in photos])
    both = np.concatenate([points, points[:, :, ::-1]]).reshape(2 * len(points), -1)

    def likeness(picture: np.ndarray) -> np.ndarray:
        """[n]: of a picture to each photo, as it is or mirrored."""
        return (both @ picture.ravel() / both.shape[1]).reshape(2, -1).max(0)

    alike = np.array([_second(np.delete(likeness(point), photo)) for photo, point in enumerate(points)])
    usual = float(np.median(alike))
    by_lora = [likeness(_standardised(path)) for path in drawn]
    lines = _lines(by_lora, [likeness(_standardised(path)) for path in of_base], photos)
    told: list[bool | None] = []
    for row, (_, most, base) in zip(by_lora, lines, strict=True):
        told.append(_repeats(most, max(usual, alike[int(row.argmax())])) if most >= base + ABOVE_BASE else False)
    return lines, told, usual


def _standardised(path: Path) -> np.ndarray:
    """[SIDE, SIDE, 3], mean 0 and variance 1."""
    pixels = np.asarray(load_image(path).resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32)
    return (pixels - pixels.mean()) / max(1.0, float(pixels.std()))


def _second(likenesses: np.ndarray) -> float:
    """Of the other photos to one. The most alike may be a copy of it, which says nothing of the rest."""
    return float(np.sort(likenesses)[-2]) if len(likenesses) > 1 else 0.0


def _repeats(likeness: float, alike: float) -> bool | None:
    """Whether a picture of this likeness to a photo repeats it: it must be nearer to one and the same than half-way from how `alike` the other
    photos are to that one, and usually to each other. None where that is as like as copies."""
    if likeness < COPY:
        return False
    return None if alike >= COPY else likeness >= (1 + alike) / 2


# As open_clip sees them, and a part of one laid over the other


def _by_clip(
    clip: Clip, drawn: Sequence[Path], of_base: Sequence[Path], photos: Sequence[Path], usual: float
) -> tuple[list[list], list[bool | None]]:
    """As `_by_pixels`, of cosines. Cut out or moved, a photo is still found where its pixels no longer lie over each other: by open_clip that
    sees the same in both, and since it sees that in two shots of one thing too, by the part of the one that lies over the other."""
    points, by_lora, by_base = (np.stack(list(clip.see(_opened(paths)))) for paths in (photos, drawn, of_base))
    among = points @ points.T
    np.fill_diagonal(among, -1.0)
    limit = (1 + float(np.quantile(among.max(1), NEAR))) / 2  # half-way from how alike the photos are to one and the same
    lines = _lines(by_lora @ points.T, by_base @ points.T, photos)

    told: list[bool | None] = []
    for path, row, (_, cosine, base) in zip(drawn, by_lora @ points.T, lines, strict=True):
        photo = int(row.argmax())
        likeness = overlaid(path, photos[photo]) if cosine >= limit > base else 0.0
        beside = [photos[other] for other in np.argsort(-among[photo])[:BESIDE] if other != photo] if likeness >= COPY else []
        alike = _second(np.array([overlaid(photos[photo], other) for other in beside]))
        told.append(_repeats(likeness, max(usual, alike)))
    return lines, told


def overlaid(one: Path, other: Path) -> float:
    """The correlation of two pictures where a part of the one, PARTS of it or all, lies best over the other, as it is or mirrored."""
    (left, right), best = [_shrunken(path, number) for number, path in enumerate((one, other))], -1.0
    for image in (right, np.ascontiguousarray(right[:, ::-1])):
        for whole, part in ((image, left), (left, image)):
            fits = min(whole.shape[0] / part.shape[0], whole.shape[1] / part.shape[1])
            for share in PARTS:
                size = [max(8, int(side * fits * share)) for side in part.shape[1::-1]]
                found = cv2.matchTemplate(whole, cv2.resize(part, size, interpolation=cv2.INTER_AREA), cv2.TM_CCOEFF_NORMED)
                best = max(best, float(found.max()))
    return round(best, 4)


def _shrunken(path: Path, seed: int) -> np.ndarray:
    """[height, width, 3] float32, the shorter side SHORT px, the longer LONG at most. A grain that cannot be seen lets parts of one colour
    correlate with nothing."""
    image = load_image(path)
    width, height = (min(LONG, round(side * SHORT / min(image.size))) for side in image.size)
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BOX), dtype=np.float32)
    return pixels + np.random.default_rng(seed).normal(0, 1, pixels.shape).astype(np.float32)


def _opened(paths: Sequence[Path]) -> Iterator[Image.Image]:
    return map(load_image, paths)


def _lines(by_lora: Sequence[np.ndarray], by_base: Sequence[np.ndarray], photos: Sequence[Path]) -> list[list]:
    """[[photo, likeness, the base's]] of rows of likenesses to all photos."""
    rows = zip(by_lora, by_base, strict=True)
    return [[photos[int(row.argmax())].name, round(float(row.max()), 4), round(float(of_base.max()), 4)] for row, of_base in rows]
