"""Regularisation photos: other things of the class, with their own captions and no trigger, trained on between the photos
so that the class stays what it was (DreamBooth's prior preservation, arXiv:2208.12242)."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

from lorakit import files, weights
from lorakit.errors import LorakitError, UnreadablePhoto
from lorakit.photos import buckets
from lorakit.photos.decode import NAME_ENDINGS, load_image
from lorakit.project import Project
from lorakit.text import conventions, sidecars
from lorakit.text.words import count_word
from lorakit.train.batches import Batch, BatchSampler, TrainingPicture


def regularisation_photos(project: Project) -> list[TrainingPicture]:
    """The photos of `train.regularisation` as records like the dataset's, cut about their middle and marked `regularisation`;
    a photo without a caption is called by the class word. Raises `LorakitError` naming the first that is of no use."""
    folder = project.settings.train.regularisation
    if not folder:
        return []
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise LorakitError(f"train.regularisation: no folder {root}; give one with photos of the class and their captions")
    train, crop = project.settings.train, project.settings.crop
    sizes = tuple(buckets.sizes(train.resolution, train.bucket_step, crop.max_aspect))
    return list(_read(root, identity(root), sizes, project.settings.trigger.class_word, project.trigger))


def identity(folder: Path) -> str:
    """A fingerprint of what lies in the folder."""
    return weights.identity(weights.Source(str(folder), True))


@lru_cache(maxsize=2)
def _read(root: Path, content: str, sizes: tuple, class_word: str | None, trigger: str | None) -> tuple[TrainingPicture, ...]:
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in NAME_ENDINGS and not path.name.startswith("."))
    stems = {path.with_suffix("") for path in paths}
    owners = {path: conventions.masked_name(path.name) for path in paths}
    paths = [path for path in paths if not owners[path] or path.with_name(owners[path]) not in stems]
    if not paths:
        raise LorakitError(f"train.regularisation: no photos in {root}; give a folder with photos of the class")
    texts = [path for path in sorted(root.rglob("*")) if sidecars.is_caption_file(path.name) and path.is_file()]
    captions, repeats = sidecars.Captions(paths, texts, root), conventions.repeats_in(paths, root)
    return tuple(_record(path, root, captions, repeats.get(path, 1), list(sizes), class_word, trigger) for path in paths)


def _record(
    path: Path, root: Path, captions: sidecars.Captions, repeats: int, sizes: list, class_word: str | None, trigger: str | None
) -> TrainingPicture:
    caption = captions.of(path)
    text = caption.text if caption else class_word
    if not text:
        raise LorakitError(f"{path}: has no caption, and there is no --class-word to call it by; write {path.stem}.txt beside it")
    if trigger and count_word(text, trigger):
        raise LorakitError(f"{path}: its caption has the trigger {trigger!r}, which regularisation photos must not teach; take it out")
    try:
        width, height = load_image(path).size
    except UnreadablePhoto as error:
        raise LorakitError(f"{path}: cannot be read ({error}); mend it or take it out of the regularisation photos") from None
    bucket = buckets.nearest(width, height, sizes)
    across, down = buckets.largest_box(width, height, bucket)
    left, top = (width - across) // 2, (height - down) // 2
    return {
        "file": path.relative_to(root).as_posix(), "path": str(path), "hash": files.file_hash(path), "regularisation": True, "text": text,
        "measures": {"size": {"width": width, "height": height}}, "repeats": repeats,
        "crop": {"box": [left, top, left + across, top + down], "bucket": list(bucket)},
    }  # fmt: skip


class Interleaved:
    """Batch number n of a training where a `share` of the batches are regularisation photos, evenly spread."""

    def __init__(self, photos: BatchSampler, reg_photos: BatchSampler, share: float):
        self._photos, self._reg_photos, self._share = photos, reg_photos, share
        self.per_epoch = photos.per_epoch / (1 - share)  # until every photo has been used

    def __getitem__(self, n: int) -> Batch:
        before, after = math.floor(n * self._share), math.floor((n + 1) * self._share)
        return self._reg_photos[before] if after > before else self._photos[n - before]
