"""What the names of folders and files mean to other trainers and tools: kohya's `10_name` folders whose number says how often a
photo is used, folders of regularisation photos, samples, masks and control pictures, and files that are no photos to us."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

MASKS = ("-masklabel.png", "_mask.png", ".mask.png")  # behind a photo's name without its ending; the first is OneTrainer's
MOST_REPEATS = 100  # a larger number is a year or a date
_KOHYA = re.compile(r"^([1-9]\d?|100)_(?!\d+[ _-])\S")  # `05_may` and `12_25_party` are no repeats
_CAMERA = re.compile(r"^\d{3}[0-9A-Z_]{5}$")  # folders of a camera's card (DCF): 100_FUJI, 101CANON

_PICTURE = r"\.(?:png|jpe?g|webp|tiff?|bmp)$"
_MASK_NAME = re.compile(rf"(?:[-_. ]mask|[-_. ]masklabel){_PICTURE}", re.IGNORECASE)
_CONTROL_NAME = re.compile(
    rf"[-_. ](?:depth|depth[-_]?map|canny|openpose|lineart|softedge|hed|scribble|condlabel|conditioning|control|controlnet|normal[-_]?map)"
    rf"{_PICTURE}",
    re.IGNORECASE,
)  # fmt: skip

REGULARISATION, SAMPLES, MASK, CONTROL, PROJECT = (
    "regularisation photos",
    "samples of a training",
    "masks",
    "control pictures",
    "a lorakit project",
)
_FOLDERS = {
    REGULARISATION: "reg regs reg_images reg_data regularization regularisation regularization_images regularisation_images class_images class_data",
    SAMPLES: "sample samples sample_images",
    MASK: "mask masks masklabel masklabels alpha_mask alpha_masks",
    CONTROL: "conditioning conditioning_image conditioning_images control controls control_image control_images controlnet condlabel condlabels "
    "depth depths depth_map depth_maps canny openpose",
}  # fmt: skip
_ROLE_OF = {name: role for role, names in _FOLDERS.items() for name in names.split()}

_KINDS = {
    "raw": "dng nef nrw arw srf sr2 cr2 cr3 crw raf orf rw2 pef srw raw rwl 3fr fff iiq erf mef mos mrw x3f kdc dcr gpr",
    "JPEG XL": "jxl",
    "films": "mp4 mov m4v avi mkv webm mpg mpeg mts m2ts 3gp wmv flv insv lrv",
    "sound": "mp3 wav m4a aac flac ogg",
    "drawings of other programs": "psd psb xcf kra clip ai svg eps afphoto pdf",
    "archives": "zip tar gz tgz 7z rar bz2 xz",
    "pictures in forms that are not read": "exr hdr tga dds ico icns pcx ppm pgm pbm pnm jxr wdp heics qoi",
    "notes of other programs": "xmp aae thm pp3 dop on1 lrcat ini db url lnk html htm md doc docx rtf odt log yaml yml toml xml py sh bat "
    "safetensors ckpt pt npz npy onnx",
}  # fmt: skip
_KIND_OF = {f".{ending}": kind for kind, endings in _KINDS.items() for ending in endings.split()}
_OF_SYSTEMS = frozenset((".ds_store", "thumbs.db", "desktop.ini", ".directory", ".nomedia", ".localized", ".gitignore", ".gitattributes",
                         ".gitkeep", "ehthumbs.db", ".lock", ".left_out.json"))  # fmt: skip
RAW, NOTES = "raw", "notes of other programs"
UNREADABLE = frozenset(("raw", "JPEG XL", "films", "sound", "drawings of other programs", "pictures in forms that are not read"))


def same(name: str) -> str:
    """A name as it is compared: whatever its case, and however its accents are written."""
    return unicodedata.normalize("NFC", name).casefold()


def role_of_folder(name: str) -> str | None:
    """What the pictures of a folder of this name are to trainers, None where it is just a folder."""
    return _ROLE_OF.get(re.sub(r"[\s_-]+", "_", same(name).strip()))


def masked_name(name: str) -> str | None:
    """The name, without ending, of the photo that a file of this name would be the mask of."""
    match = _MASK_NAME.search(name)
    return name[: match.start()] if match else None


def controlled_name(name: str) -> str | None:
    """The same for a picture that steers: depth, edges, a pose."""
    match = _CONTROL_NAME.search(name)
    return name[: match.start()] if match else None


def kind_of(name: str) -> str | None:
    """What a file of this name is, where it is no photo and no caption: 'raw', 'films', 'in iCloud only', ...; '' for what systems
    leave and nobody misses; None where the name does not tell."""
    if name.lower() in _OF_SYSTEMS:
        return ""
    if name.startswith("._"):
        return "AppleDouble halves (._)"
    if name.startswith(".") and name.lower().endswith(".icloud"):
        return "in iCloud only"
    if name.startswith("."):
        return "hidden"
    return _KIND_OF.get(Path(name).suffix.lower())


def repeats_in(photos: Iterable[Path], root: Path) -> dict[Path, int]:
    """How often each photo is used an epoch, for those whose folder is one of kohya's: the number before the `_` of its name, at most
    MOST_REPEATS, where all folders with photos beside it are called so."""
    photos = list(photos)
    above = {folder: _between(folder / "photo", root) for folder in {photo.parent for photo in photos}}
    inside: dict[Path, set[Path]] = defaultdict(set)
    for folders in above.values():
        for folder in folders:
            inside[folder.parent].add(folder)

    def number(folder: Path) -> int:
        is_kohya = folder == root or all(map(_number, inside[folder.parent]))
        return _number(folder) if is_kohya else 0

    of_folder = {folder: next((n for f in [*folders, root] if (n := number(f))), 0) for folder, folders in above.items()}
    return {photo: of_folder[photo.parent] for photo in photos if of_folder[photo.parent]}


def _between(photo: Path, root: Path) -> list[Path]:
    """The folders that hold a photo, the nearest first, without `root`."""
    return [folder for folder in photo.parents if folder != root and folder.is_relative_to(root)]


def _number(folder: Path) -> int:
    match = None if _CAMERA.match(folder.name) else _KOHYA.match(folder.name)
    return int(match.group(1)) if match else 0
