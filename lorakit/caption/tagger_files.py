"""What the files of a tagger say of it: the names of its tags and their categories, how a picture goes in, which output holds the
probabilities, and from which of them its author writes a tag. WD, PixAI, CL, Camie, OppaiOracle and their kin lay these out each
in a way of its own, which is found out and never asked for."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorakit.errors import LorakitError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

CATEGORIES = ("general", "character", "copyright", "artist", "species", "meta", "rating", "quality", "model", "year", "lore")
_NUMBERED = {
    "0": "general",
    "1": "artist",
    "3": "copyright",
    "4": "character",
    "5": "meta",
    "6": "invalid",
    "7": "meta",
    "8": "lore",
    "9": "rating",
}
_CALLED = {"series": "copyright", "tags": "general", "tag": "general", "characters": "character", "ip": "copyright"}
SPECIES = frozenset(
    "mammal canine canid felid felis human fox wolf domestic_cat domestic_dog dragon bird".split()
)  # of e621's category 5, which is Danbooru's meta
NAME_COLUMNS = ("name", "tag", "tag_name", "label", "tags")
THRESHOLD_COLUMNS = ("best_threshold", "threshold", "f1_threshold")
OUTPUTS = (
    "prediction",
    "predictions",
    "output",
    "probabilities",
    "probs",
    "refined_predictions",
)  # the first of these that is as long as the list of tags
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
USUAL_SIDE = 448


@dataclass(frozen=True)
class Tag:
    """`name` as the file has it; '' for a place of the output that is no tag. `threshold` where its author has measured one."""

    name: str
    category: str = "general"
    threshold: float | None = None


@dataclass(frozen=True)
class Sight:
    """How a picture goes in: RGB or BGR, as 0..255 or by mean and std of 0..1, on a square of `pad` or (None) stretched."""

    side: int
    channels_first: bool
    bgr: bool = False
    norm: tuple[Sequence[float], Sequence[float]] | None = None
    pad: tuple[int, int, int] | None = (255, 255, 255)
    enlarges: bool = True  # a picture smaller than the square; else it lies in the middle as it is
    dtype: str = "float32"

    def prepare(self, picture: Image.Image) -> tuple[np.ndarray, np.ndarray]:
        """([h, w, 3] or [3, h, w] of `dtype`, [h, w] bool: what is padding)."""
        import numpy as np
        from PIL import Image

        mask = np.zeros((self.side, self.side), dtype=bool)
        if self.pad is None:
            square = picture.convert("RGB").resize((self.side, self.side), Image.Resampling.BICUBIC)
        else:
            scale = self.side / max(picture.size)
            scale = scale if self.enlarges else min(1.0, scale)
            size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
            left, top = (self.side - size[0]) // 2, (self.side - size[1]) // 2
            square = Image.new("RGB", (self.side, self.side), self.pad)
            square.paste(picture.convert("RGB").resize(size, Image.Resampling.BICUBIC), (left, top))
            mask[:] = True
            mask[top : top + size[1], left : left + size[0]] = False
        pixels = np.asarray(square, dtype=np.float32)
        if self.norm:
            pixels = (pixels / 255 - np.array(self.norm[0], np.float32)) / np.array(self.norm[1], np.float32)
        if self.bgr:
            pixels = pixels[:, :, ::-1]
        if self.channels_first:
            pixels = pixels.transpose(2, 0, 1)
        return np.ascontiguousarray(pixels.astype(self.dtype)), mask


@dataclass(frozen=True)
class TaggerFiles:
    model: Path
    tags: list[Tag]
    list_name: str  # of the file that has the tags
    thresholds: Mapping[str, float] = field(default_factory=dict)  # {category: its author's}
    preprocess: Mapping[str, Any] = field(default_factory=dict)  # what a file beside says of side, mean, std, pad


def find_files(folder: Path) -> TaggerFiles:
    """Of a folder, or of the one folder inside it that has a model. Raises `LorakitError` that says what is missing."""
    place = _place(folder)
    model = _model_in(place)
    listed = _list_in(place)
    return TaggerFiles(model, read_tags(listed), listed.name, _thresholds_in(place), _preprocess_in(place))


def _place(folder: Path) -> Path:
    if any(folder.glob("*.onnx")) or any(folder.glob("*.safetensors")):
        return folder
    inside = sorted(
        place for place in folder.iterdir() if place.is_dir() and (any(place.glob("*.onnx")) or any(place.glob("*.safetensors")))
    )
    if len(inside) == 1:
        return inside[0]
    if inside:
        raise LorakitError(f"{folder}: holds several taggers; give one: {', '.join(place.name for place in inside)}")
    raise LorakitError(
        f"{folder}: no .onnx and no .safetensors in it, so it is no tagger; take model.onnx and the list of its tags from one place"
    )


def _model_in(place: Path) -> Path:
    for ending in (".onnx", ".safetensors"):
        models = sorted(place.glob(f"*{ending}"))
        if (place / f"model{ending}") in models:
            return place / f"model{ending}"
        if len(models) == 1:
            return models[0]
        if models:
            raise LorakitError(f"{place}: several models ({', '.join(path.name for path in models)}); keep one, or call it model{ending}")
    raise LorakitError(f"{place}: no .onnx and no .safetensors in it, so it is no tagger")


def _list_in(place: Path) -> Path:
    """The file that names the tags."""
    wanted = (
        "selected_tags.csv",
        "tag_mapping.json",
        "model_vocabulary.json",
        "vocabulary.json",
        "tags.csv",
        "tags.json",
        "tagger_tags.json",
    )
    found = [place / name for name in wanted if (place / name).is_file()]
    found += [
        path for path in sorted(place.glob("*metadata.json")) if "tag" in path.read_text(encoding="utf-8", errors="replace")[:5_000_000]
    ]
    found += [path for path in sorted(place.glob("*.csv")) if "threshold" not in path.name and path not in found]
    if not found:
        raise LorakitError(
            f"{place}: no list of tags beside the model (selected_tags.csv, tag_mapping.json, ...); take both from one place"
        )
    return found[0]


def read_tags(path: Path) -> list[Tag]:
    """The tags in the order of the model's outputs. Raises `LorakitError` for a file that names none."""
    try:
        found = _from_csv(path) if path.suffix == ".csv" else _from_json(json.loads(path.read_text(encoding="utf-8-sig")))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, csv.Error, OSError) as error:
        raise LorakitError(f"{path}: no list of tags that can be read ({type(error).__name__}: {error})") from None
    if not found:
        raise LorakitError(f"{path}: names no tags")
    is_e621 = any(category in ("7", "8") for _, category, _ in found) or any(
        category == "5" and name in SPECIES for name, category, _ in found
    )
    return [_tag(name, category, threshold, is_e621) for name, category, threshold in found]


def _tag(name: str, category: str, threshold: float | None, is_e621: bool) -> Tag:
    name = name.strip()
    if not name or re.fullmatch(r"<.*>", name):  # <PAD>, <UNK>
        return Tag("", "invalid")
    if match := re.match(r"rating[:_](?=\w)", name):
        return Tag(name[match.end() :], "rating", threshold)
    category = category.strip().lower().removesuffix(".0")
    category = "species" if category == "5" and is_e621 else _NUMBERED.get(category, _CALLED.get(category, category or "general"))
    return Tag(name, category, threshold)


def _from_csv(path: Path) -> list[tuple[str, str, float | None]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        file.seek(0)
        rows = [row for row in csv.reader(file, delimiter=max(",;\t", key=first.count)) if row]
    if not rows:
        return []
    head = [cell.strip().lower() for cell in rows[0]]
    name = next((head.index(known) for known in NAME_COLUMNS if known in head), None)
    if name is None:  # without a line of names: the first column that is no number holds the tags
        name = next((number for number, cell in enumerate(rows[0]) if not re.fullmatch(r"[\d.]*", cell.strip())), 0)
        category = next((n for n in range(name + 1, len(rows[0])) if rows[0][n].strip() in _NUMBERED), None)
        return [(row[name], row[category] if category is not None else "0", None) for row in rows]
    category = head.index("category") if "category" in head else None
    threshold = next((head.index(known) for known in THRESHOLD_COLUMNS if known in head), None)
    return [
        (
            row[name],
            row[category] if category is not None else "0",
            _measured(row[threshold]) if threshold is not None else None,
        )
        for row in rows[1:]
    ]


def _measured(cell: str) -> float | None:
    """A threshold; None for an empty cell, `n/a` or `nan`: of that tag none was measured."""
    try:
        return value if 0 <= (value := float(cell)) <= 1 else None
    except ValueError:
        return None


def _from_json(entry: Any) -> list[tuple[str, str, float | None]]:
    if isinstance(entry, dict):
        for table in _tables(entry):
            by_index = table.get("idx_to_tag") or table.get("index_to_tag")
            if by_index is None and (names := table.get("tag_to_idx") or table.get("tag_to_index")):
                by_index = {index: name for name, index in names.items()}
            if by_index is not None:
                of_tag = table.get("tag_to_category") or {}
                pairs = by_index.items() if isinstance(by_index, dict) else enumerate(by_index)
                return _in_order({int(index): (str(name), str(of_tag.get(name, "general")), None) for index, name in pairs})
        if all(re.fullmatch(r"\d+", str(key)) for key in entry):  # {index: name} or {index: {tag, category}}
            return _in_order({int(index): _entry(value) for index, value in entry.items()})
        if all(isinstance(value, int) for value in entry.values()):  # {name: index}
            return _in_order({index: (name, "general", None) for name, index in entry.items()})
        raise ValueError("none of the forms that are known")
    return [_entry(value) for value in entry]


def _tables(entry: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield entry
    for value in entry.values():
        if isinstance(value, dict):
            yield from _tables(value)


def _entry(value: Any) -> tuple[str, str, float | None]:
    if isinstance(value, str):
        return value, "general", None
    name = next((str(value[key]) for key in NAME_COLUMNS if key in value), None)
    if name is None:
        raise ValueError(f"an entry without {' or '.join(NAME_COLUMNS[:2])}")
    threshold = next((float(value[key]) for key in THRESHOLD_COLUMNS if value.get(key) is not None), None)
    return name, str(value.get("category", "general")), threshold


def _in_order(by_index: Mapping[int, tuple[str, str, float | None]]) -> list[tuple[str, str, float | None]]:
    """Places that no tag has are empty."""
    return [by_index.get(index, ("", "general", None)) for index in range(max(by_index) + 1)] if by_index else []


def _thresholds_in(place: Path) -> dict[str, float]:
    """What the author recommends by category, in threshold(s).csv or .json; none where nobody says."""
    found: dict[str, float] = {}
    for path in sorted(place.glob("*threshold*")):
        try:
            if path.suffix == ".csv":
                with open(path, encoding="utf-8-sig", newline="") as file:
                    for row in csv.DictReader(file):
                        name = _NUMBERED.get(str(row.get("category", "")), "") or str(row.get("name") or row.get("category") or "")
                        found[_CALLED.get(name.lower(), name.lower())] = float(row["threshold"])
            elif path.suffix == ".json":
                found |= _of_json(json.loads(path.read_text(encoding="utf-8-sig")))
        except (ValueError, KeyError, TypeError, OSError):
            continue  # a help, no more
    return {category: value for category, value in found.items() if category in CATEGORIES and 0 < value < 1}


def _of_json(entry: Any) -> dict[str, float]:
    """{category: number}, or one that holds for all: {"threshold": x}, {"micro": {"pr_breakeven": {"threshold": x}}}."""
    if not isinstance(entry, dict):
        return {}
    named = {_CALLED.get(key.lower(), key.lower()): value for key, value in entry.items()}
    if found := {key: float(value) for key, value in named.items() if key in CATEGORIES and isinstance(value, (int, float))}:
        return found
    for table in _tables(entry):
        value = table.get("threshold", table.get("default"))
        if isinstance(value, (int, float)):
            return {"general": float(value)}
    return {}


def _preprocess_in(place: Path) -> dict[str, Any]:
    """{side, mean, std, pad, stretch, enlarges}, as far as preprocess.json, preprocessing.json, config.json or metadata say it."""
    found: dict[str, Any] = {}
    for path in (place / "config.json", *sorted(place.glob("*metadata.json")), *sorted(place.glob("preprocess*.json"))):
        try:
            entry = json.loads(path.read_text(encoding="utf-8-sig"))
        except (ValueError, OSError):
            continue
        if not isinstance(entry, dict):
            continue
        for table in _tables(entry):
            for key, names in (
                ("side", ("image_size", "img_size")),
                ("mean", ("normalize_mean", "mean")),
                ("std", ("normalize_std", "std")),
            ):
                value = next((table[name] for name in names if name in table), None)
                if key == "side" and isinstance(value, int) or key != "side" and isinstance(value, list) and len(value) == 3:
                    found[key] = value
            if isinstance(size := table.get("input_size"), list) and len(size) == 3:
                found["side"] = int(size[-1])
            if isinstance(colour := table.get("pad_color_rgb"), list) and len(colour) == 3:
                found |= {"pad": tuple(int(part) for part in colour), "enlarges": False}
        stages = entry.get("stages") or entry.get("test") or entry.get("val")
        if isinstance(stages, list):
            found |= _of_stages([stage for stage in stages if isinstance(stage, dict)])
    return found


def _of_stages(stages: list[dict[str, Any]]) -> dict[str, Any]:
    """What a list of transforms comes to."""
    found: dict[str, Any] = {}
    pads = False
    for stage in stages:
        kind, size = str(stage.get("type", "")), stage.get("size")
        if "pad" in kind:
            pads = True
            colour = stage.get("background_color", "white")
            found["pad"] = {"white": (255, 255, 255), "black": (0, 0, 0)}.get(colour) if isinstance(colour, str) else tuple(colour)[:3]
        if "norm" in kind and isinstance(stage.get("mean"), list):
            found |= {"mean": stage["mean"], "std": stage["std"]}
        if size:
            found["side"] = int(size[0] if isinstance(size, list) else size)
            found["stretch"] = isinstance(size, list) and "resize" in kind and not pads
    if pads:
        found["stretch"] = False
        found["pad"] = found.get("pad") or (255, 255, 255)
    return found


def sight_of(files: TaggerFiles, shape: Sequence[Any], kind: str) -> Sight:
    """From the shape and type (as onnxruntime names them) of the model's input of pictures. Raises `LorakitError` where it is none."""
    if len(shape) != 4 or 3 not in (shape[1], shape[3]):
        raise LorakitError(f"{files.model}: its input of shape {list(shape)} is no picture, so it is no tagger")
    channels_first = shape[1] == 3
    said, dtype = (
        files.preprocess,
        {"tensor(float16)": "float16", "tensor(uint8)": "uint8", "tensor(double)": "float64"}.get(kind, "float32"),
    )
    sides = [side for side in (shape[2], shape[3] if channels_first else shape[1]) if isinstance(side, int) and side > 3]
    if len(set(sides)) > 1:
        raise LorakitError(f"{files.model}: its input of shape {list(shape)} is no square, and taggers of that kind are not known here")
    side = sides[0] if sides else int(said.get("side", USUAL_SIDE))
    if not channels_first or dtype == "uint8":  # WD, as it has been since 2022
        return Sight(side, channels_first, bgr=dtype != "uint8", norm=None, dtype=dtype)
    if "mean" in said and "std" in said:
        pad = None if said.get("stretch") else said.get("pad", (255, 255, 255))
        if pad == (255, 255, 255) and tuple(said["mean"]) == IMAGENET[0] and files.list_name.endswith("metadata.json"):
            pad = (124, 116, 104)
        return Sight(side, True, norm=(said["mean"], said["std"]), pad=pad, enlarges=said.get("enlarges", True), dtype=dtype)
    if files.list_name == "tag_mapping.json":  # CL before 2
        return Sight(side, True, bgr=True, norm=HALF, dtype=dtype)
    if files.list_name.endswith("metadata.json"):  # Camie: ImageNet's numbers, on their mean
        return Sight(side, True, norm=IMAGENET, pad=(124, 116, 104), dtype=dtype)
    has_ratings = any(tag.category == "rating" for tag in files.tags)
    return Sight(side, True, norm=HALF, pad=(255, 255, 255) if has_ratings and files.list_name.endswith(".csv") else None, dtype=dtype)


def output_of(files: TaggerFiles, outputs: Sequence[tuple[str, Sequence[Any]]]) -> str:
    """The name of the output that holds a number for each tag, by (name, shape) of all. Raises `LorakitError` where none does."""
    count = len(files.tags)
    right = [name for name, shape in outputs if shape and (shape[-1] == count or not isinstance(shape[-1], int))]
    if not right:
        lengths = ", ".join(str(shape[-1]) for _, shape in outputs if shape)
        raise LorakitError(f"{files.model}: answers with {lengths} numbers, {files.list_name} names {count}; take both from one place")
    for wanted in OUTPUTS:
        if wanted in (name.lower() for name in right):
            return next(name for name in right if name.lower() == wanted)
    return next((name for name in right if "logit" not in name.lower() and "initial" not in name.lower()), right[-1])
