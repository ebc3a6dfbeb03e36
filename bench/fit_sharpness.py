"""Fit the model of lorakit/curate/blur.py to sharp and blurred versions of photos, and write it.

    python bench/fit_sharpness.py PHOTOS... [--unsharp FILE] [--curves docs/sharpness.svg]

PHOTOS are folders of sharp photos; --unsharp names, a line each, those in them that an eye calls blurred, which are left out.
First, each fifth of the photos is held out of a fit of its own, to see what the model is worth on photos that it has not seen
(a folder is held out whole, so that no subject is on both sides; with --singly the photos of a folder are unrelated);
the written model then comes from all of them."""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from edits import versions

from lorakit.curate import blur
from lorakit.curate.checks import sharpness
from lorakit.errors import UnreadablePhoto
from lorakit.photos.decode import NAME_ENDINGS

HIDDEN, EPOCHS, RATE, DECAY, BATCH = 24, 60, 3e-3, 3e-2, 128
JITTER = 0.05  # standard deviations by which the features scatter from epoch to epoch: so few photos are soon learned by heart
FOLDS = 5
FALSE_REJECTS = 0.015  # share of sharp versions, in held-out photos, that the default limit is to reject
COLOURS = {"sharp": "#2a7", "strong blur": "#c33", "least strong blur": "#e92", "blur under noise": "#a4c"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--unsharp", type=Path)
    parser.add_argument("--singly", nargs="*", default=[], metavar="FOLDER", help="names of folders whose photos are unrelated")
    parser.add_argument("--curves", type=Path)
    parser.add_argument("--output", type=Path, default=blur.MODEL)
    args = parser.parse_args()
    torch.set_num_threads(1)
    unsharp = set(args.unsharp.read_text().split("\n")) if args.unsharp else set()
    files = sorted(p for folder in args.photos for p in folder.rglob("*") if p.suffix.lower() in NAME_ENDINGS and p.name not in unsharp)
    names, rows = see(files)
    points, blurred = np.array([row["points"] for row in rows]), np.array([bool(row["blur"]) for row in rows])
    textured = np.array([row["texture"] for row in rows]) >= sharpness.Settings().min_texture
    folds = np.array([fold_of(row["path"], args.singly) for row in rows])
    found = np.zeros(len(rows))
    for fold in range(FOLDS):
        learned = fit(points[textured & (folds != fold)], blurred[textured & (folds != fold)])
        found[folds == fold] = blur_of(points[folds == fold], learned)
    found[~textured] = -np.inf  # never rejected
    limit = sharpness.Settings().min_sharpness
    shift = float(np.quantile(found[~blurred], 1 - FALSE_REJECTS)) + np.log(limit / (1 - limit))
    report(rows, blur.score(found - shift), args.curves)
    model = fit(points[textured], blurred[textured])
    model["out"][-1] -= shift
    args.output.write_text(json.dumps({"features": names, **{name: np.round(values, 4).tolist() for name, values in model.items()}}) + "\n")


def see(files: list[Path]) -> tuple[list[str], list[dict[str, Any]]]:
    """(names of the features, one row for each version of each photo)."""
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor() as pool:
        rows = [row for found in pool.map(partial(describe, folder=Path(folder)), files, chunksize=4) for row in found]
    print(f"{len({row['path'] for row in rows})} photos, {len(rows)} versions")
    names = list(rows[0]["points"])
    return names, [{**row, "points": [row["points"][name] for name in names]} for row in rows]


def describe(path: Path, folder: Path) -> list[dict[str, Any]]:
    cv2.setNumThreads(1)
    try:
        made = versions(path, folder)
    except UnreadablePhoto as error:
        print(f"{path.name}: left out, {error}")
        return []
    rows = []
    for version in made:
        if min(version.photo.gray.shape) >= blur.SIDES[0]:
            points, texture = blur.features(version.photo.gray)
            rows.append({"path": path, "blur": version.blur, "light": version.light, "points": points, "texture": texture})
    return rows


def fold_of(path: Path, singly: list[str]) -> int:
    unit = path.name if path.parent.name in singly else path.parent.name
    return hashlib.blake2b(unit.encode()).digest()[0] % FOLDS


def fit(points: np.ndarray, blurred: np.ndarray) -> dict[str, np.ndarray]:
    """A network of one hidden layer, as `blur.blur_of` reads it, that gives the log odds of blur."""
    torch.manual_seed(0)
    mean, spread = points.mean(axis=0), points.std(axis=0) + 1e-6
    asked = torch.tensor((points - mean) / spread, dtype=torch.float32)
    wanted = torch.tensor(blurred, dtype=torch.float32)
    weight = torch.where(wanted > 0, 0.5 / wanted.mean(), 0.5 / (1 - wanted.mean()))  # both classes count the same
    hidden, out = torch.nn.Linear(points.shape[1], HIDDEN), torch.nn.Linear(HIDDEN, 1)
    optimizer = torch.optim.AdamW([*hidden.parameters(), *out.parameters()], RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        for part in torch.randperm(len(asked)).split(BATCH):
            odds = out(torch.tanh(hidden(asked[part] + JITTER * torch.randn_like(asked[part]))))[:, 0]
            target = wanted[part] * 0.98 + 0.01
            loss = torch.nn.functional.binary_cross_entropy_with_logits(odds, target, weight=weight[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    weights = hidden.weight.detach().double().numpy() / spread  # for features as they are, not scaled
    bias = hidden.bias.detach().double().numpy() - weights @ mean
    return {
        "hidden": np.column_stack([weights, bias]),
        "out": np.append(out.weight.detach().numpy()[0], out.bias.detach().numpy()).astype(float),
    }


def blur_of(points: np.ndarray, model: dict[str, np.ndarray]) -> np.ndarray:
    return np.array([blur.blur_of(point, model) for point in points])


def report(rows: list[dict[str, Any]], scores: np.ndarray, curves: Path | None) -> None:
    settings = sharpness.Settings()
    groups: dict[str, list[float]] = {}
    for row, score in zip(rows, scores, strict=True):
        title = "blurred" if row["blur"] else "sharp"
        for group in (f"**all {title}**", f"{title}: {row['light']}", *([row["blur"]] if row["blur"] else [])):
            groups.setdefault(group, []).append(score)
    print("\non photos held out:\n\n| version | rejected | warned |\n|---|---|---|")
    for group, found in sorted(groups.items()):
        found = np.array(found)
        warned = (found >= settings.min_sharpness) & (found < settings.good_sharpness)
        print(f"| {group} | {(found < settings.min_sharpness).mean():.3f} | {warned.mean():.3f} |")
    worst = sorted({(round(float(score), 3), row["path"].name) for row, score in zip(rows, scores, strict=True)
                    if not row["blur"] and score < settings.min_sharpness})  # fmt: skip
    print("\nsharp, rejected:", *(f"{name} {score}" for score, name in worst[:60]))
    if curves:
        draw(rows, scores, curves)


def draw(rows: list[dict[str, Any]], scores: np.ndarray, path: Path) -> None:
    """What share of which versions lies below each limit, as an SVG."""
    blurs, lights = np.array([row["blur"] for row in rows]), np.array([row["light"] for row in rows])
    groups = {"sharp": blurs == "", "strong blur": blurs != "", "blur under noise": (blurs != "") & np.char.find(lights, "noise") >= 0,
              "least strong blur": np.isin(blurs, ["Gaussian 2", "motion 10", "defocus 4"])}  # fmt: skip
    limits = np.linspace(0, 1, 101)
    drawn = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 260" font-family="sans-serif" font-size="12">',
             '<rect width="720" height="260" fill="#fff"/>']  # fmt: skip
    for part in range(5):
        x, y = 46 + 454 * part / 4, 226 - 214 * part / 4
        drawn.append(
            f'<line x1="46" x2="500" y1="{y}" y2="{y}" stroke="#ddd"/><text x="40" y="{y + 4}" text-anchor="end">{25 * part}%</text>'
        )
        drawn.append(f'<text x="{x}" y="242" text-anchor="middle">{part / 4:g}</text>')
    x = 46 + 454 * sharpness.Settings().min_sharpness
    drawn.append(
        f'<line x1="{x}" x2="{x}" y1="12" y2="226" stroke="#888" stroke-dasharray="4"/><text x="{x + 4}" y="222">min_sharpness</text>'
    )
    for number, (name, colour) in enumerate(COLOURS.items()):
        shares = [(scores[groups[name]] < limit).mean() for limit in limits]
        points = " ".join(f"{46 + 454 * limit:.1f},{226 - 214 * share:.1f}" for limit, share in zip(limits, shares, strict=True))
        y = 60 + 22 * number
        drawn.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        drawn.append(
            f'<line x1="515" x2="540" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"/><text x="546" y="{y + 4}">{name}</text>'
        )
    path.write_text("\n".join([*drawn, "</svg>"]) + "\n")


if __name__ == "__main__":
    main()
