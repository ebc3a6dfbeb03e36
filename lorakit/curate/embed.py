"""Stage embed: what photos show, as open_clip sees it: the photo of something else, two photos of the same thing from the same
place, and how pleasing a picture is. Its weights are not part of lorakit; without `embed.clip` nothing of this is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lorakit import device, files
from lorakit.clip import BATCH, Clip, Seer, embed_cached, read_vectors
from lorakit.console import say
from lorakit.errors import LorakitError
from lorakit.photos.decode import load_reduced
from lorakit.photos.images import thumbnail
from lorakit.photos.remote import place_of
from lorakit.project import Project, manifest, stamps
from lorakit.quality import verdicts
from lorakit.record import Record

SIDE = 512  # px of the longer side that open_clip's own preparation gets
COMPANY = 3  # the nearest photos that tell how well a photo fits into the set
LEAST = 8  # of fewer photos nobody can say which one is the odd one out
NARROWEST = 0.01  # spread of cosines below which photos are alike for all purposes
BLOCK = 2048  # photos whose cosines are taken at once


def embed(project: Project) -> None:
    """Note what photos have in common: `embed` = {"of", "cosine", "apart", "aesthetic"}, see `describe`.

    Rejected photos and copies are left out. Vectors are kept in `cache/embed/`, so that a photo is seen once for each model.
    Raises `LorakitError` where the weights cannot be had.
    """
    stamp = stamps.embed(project)
    records = list(project.manifest)
    if all(r.get("done", {}).get("embed") == stamp for r in records):
        return
    found: dict[str, dict[str, Any]] = {}
    if project.settings.embed.clip:
        found = _see(project, [r for r in records if verdicts.judge(r, project.settings, with_embed=False).verdict != "reject"])
    else:
        say("embed     no open_clip weights, so nothing is looked at by meaning; --set embed.clip=FOLDER gives them")
    project.manifest.keep_all(manifest.finish(r, "embed", stamp, embed=found.get(r["id"])) for r in records)


def _see(project: Project, records: list[Record]) -> dict[str, dict[str, Any]]:
    head = read_head(Path(project.settings.embed.aesthetic)) if project.settings.embed.aesthetic else None
    known = _look(project, records)
    ranked = sorted((r for r in records if r["id"] in known), key=lambda r: (-verdicts.quality(r, project.settings), r["file"]))
    if not ranked:
        return {}
    points = np.stack([known[r["id"]] for r in ranked])
    ids = [r["id"] for r in ranked]
    found = dict(zip(ids, describe(points, ids), strict=True))
    if head is not None:
        for id, score in zip(ids, apply_head(head, points), strict=True):
            found[id]["aesthetic"] = round(float(score), 2)
    return found


def vectors(project: Project) -> dict[str, np.ndarray]:
    """{hash of a photo: its vector [d], float32, length 1} of all that was seen with the present weights."""
    return read_vectors(_store(project)) if project.settings.embed.clip else {}


def describe(points: np.ndarray, ids: list[str]) -> list[dict[str, Any]]:
    """What `points` [n, d] of length 1, the best photo first, say of each photo:

    of, cosine   the better photo that shows most nearly the same, and the cosine of the two
    apart        how far it stands from its nearest others, in robust standard deviations of the set (negative: nearer
                 than most); None in a set of fewer than LEAST
    """
    nearest, better, cosines = _neighbours(points)
    apart = np.full(len(points), np.nan)
    if len(points) >= LEAST:
        middle = np.median(nearest)
        spread = max(1.4826 * float(np.median(np.abs(nearest - middle))), NARROWEST)
        apart = (middle - nearest) / spread
    return [
        {
            "of": ids[better[i]] if i else None,
            "cosine": round(float(cosines[i]), 4) if i else None,
            "apart": None if np.isnan(apart[i]) else round(float(apart[i]), 2),
        }
        for i in range(len(points))
    ]


def _neighbours(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each point: mean cosine to its nearest COMPANY others; position and cosine of the nearest one before it."""
    count = len(points)
    company = min(COMPANY, count - 1)
    nearest, better, cosines = np.zeros(count), np.zeros(count, dtype=np.int64), np.zeros(count)
    for start in range(0, count, BLOCK):
        rows = np.arange(start, min(start + BLOCK, count))
        near = points[rows] @ points.T
        near[np.arange(len(rows)), rows] = -2  # nobody is company to himself
        if company:
            nearest[rows] = np.sort(np.partition(near, -company, axis=1)[:, -company:], axis=1).mean(axis=1)
        near[np.arange(count)[None] >= rows[:, None]] = -2
        better[rows], cosines[rows] = near.argmax(axis=1), near.max(axis=1)
    return nearest, better, cosines


def read_head(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """The layers (weight [out, in], bias [out]) of an aesthetic head in `.safetensors`: linear ones in a row, as LAION's
    predictors are. Raises `LorakitError`."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if path.suffix != ".safetensors":
        raise LorakitError(f"embed.aesthetic={path}: not a .safetensors; pickled weights can run code and are refused")
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise LorakitError(f"embed.aesthetic={path}: cannot be read ({str(error).splitlines()[0]})") from None
    names = sorted(name.removesuffix("weight") for name in tensors if name.endswith("weight"))
    if bare := [name for name in names if f"{name}bias" not in tensors]:
        raise LorakitError(f"embed.aesthetic={path}: {bare[0]}bias is missing; take another copy")
    layers = [(tensors[f"{name}weight"].astype(np.float32), tensors[f"{name}bias"].astype(np.float32)) for name in names]
    fits = all(a[0].shape[0] == b[0].shape[1] for a, b in zip(layers, layers[1:], strict=False))
    if not layers or not fits or layers[-1][0].shape[0] != 1:
        raise LorakitError(f"embed.aesthetic={path}: not a row of linear layers that ends in one score")
    return layers


def apply_head(layers: list[tuple[np.ndarray, np.ndarray]], points: np.ndarray) -> np.ndarray:
    """Scores [n] of points [n, d]."""
    if layers[0][0].shape[1] != points.shape[1]:
        raise LorakitError(
            f"embed.aesthetic reads {layers[0][0].shape[1]} numbers a photo, embed.clip makes {points.shape[1]}; give the two that belong together"
        )
    for weight, bias in layers:
        points = points @ weight.T + bias
    return points[:, 0]


def _look(project: Project, records: list[Record]) -> dict[str, np.ndarray]:
    """{id: vector} of the photos that can be read; only what is not in the cache is seen."""
    given, engine = project.settings.embed.clip or "", project.engine
    seer = Seer(given, "embed.clip", project.device, _small)
    return embed_cached(
        lambda: Clip(given, "embed.clip", device.choose(project.device)),
        _store(project),
        records,
        lambda record: record["hash"],
        _small,
        "embed",
        None if engine.is_here else lambda todo: engine.each(seer, todo, BATCH, with_model=True),
    )


def _small(record: Record) -> Image.Image:
    longer = max(record["measures"]["size"].values())
    return thumbnail(load_reduced(place_of(record), SIDE / longer)[0], SIDE)


def _store(project: Project) -> Path:
    return project.cache_folder / "embed" / f"{files.short_hash(stamps.clip_identity(project.settings.embed.clip or ''))}.npz"
