"""The account of a scan: how many photos and captions, what people wrote that belongs to no photo, what was passed over and why, and
what was taken for something else than a photo. Kept as scan.json; scan ends with it, and `lorakit status --json` has it under `scan`."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorakit import files
from lorakit.console import say
from lorakit.project import Project
from lorakit.record import Record
from lorakit.text.conventions import MASK, PROJECT, RAW, same

if TYPE_CHECKING:
    from lorakit.curate.places import Place
    from lorakit.text.sidecars import Captions

FILE = "scan.json"
ONE = {
    "films": "film", "archives": "archive", "hidden folders": "hidden folder", "empty files": "empty file",
    "drawings of other programs": "drawing of another program", "notes of other programs": "note of another program",
    "regularisation photos": "regularisation photo", "samples of a training": "sample of a training", "control pictures": "control picture",
    "AppleDouble halves (._)": "AppleDouble half (._)",
}  # fmt: skip
DEVELOP = "develop raw photos first, as JPEG, PNG or TIFF"
SHOWN = 3  # names of each kind that are said; all are kept


def make(places: list[tuple[Place, Captions]], records: list[Record], repeats_unused: list[str], several: str) -> dict[str, Any]:
    """The account as it is kept: every kind with its files, and the `lines` that are said."""
    passed_over: dict[str, list[str]] = {}
    roles: dict[str, list[str]] = {}
    for place, _ in places:
        for reason, paths in place.passed_over.items():
            passed_over.setdefault(reason, []).extend(_shown(path, place.root) for path in paths)
        for role, paths in place.roles.items():
            roles.setdefault(role, []).extend(_shown(path, place.root) for path in paths)
    whole = [(place, captions) for place, captions in places if place.whole]
    photos_of = {(path.parent, same(path.stem)) for place, _ in places for path in place.photos}
    raws = {path for place, _ in places for path in place.passed_over.get(RAW, ())}
    told = [r for r in records if r.get("sidecar")]
    found: dict[str, Any] = {
        "photos": len(records),
        "captions": {"matched": len(told), "by": dict(Counter(_kind(r) for r in told).most_common())},
        "lists": [
            {
                "file": _shown(report.path, place.root),
                "names": report.names,
                "found": report.found,
                "lost": report.lost,
                "columns": report.columns,
            }
            for place, captions in places
            for report in captions.lists
        ],
        "texts_without_photo": [_shown(path, place.root) for place, captions in whole for path in captions.without_photo],
        "empty_texts": [_shown(path, place.root) for place, captions in whole for path in sorted(captions.empty)],
        "several_captions": [r["file"] for r in told if r["sidecar"].get("others")],
        "several": several,
        "differing_captions": [
            {"file": r["file"], "used": r["sidecar"]["file"], "other": r["sidecar"]["differing"]}
            for r in told
            if r["sidecar"].get("differing")
        ],
        "embedded": [r["file"] for r in records if r.get("embedded") and not r.get("sidecar")],
        "masks": sum(bool(r.get("mask")) for r in records),
        "roles": roles,
        "roles_taken_as_photos": sorted({role for place, _ in places for role in place.given_back}),
        "passed_over": passed_over,
        "raw_with_photo": sum((path.parent, same(path.stem)) in photos_of for path in raws),
        "repeats": dict(sorted(Counter(r["repeats"] for r in records if r["repeats"] != 1).items())),
        "repeats_unused": repeats_unused,
    }
    return found | {"lines": lines(found)}


def lines(found: dict[str, Any]) -> list[str]:
    """One line a kind, of the kinds that there are; the first has the photos and the captions that were matched."""
    return [line for line in (*_of_captions(found), *_of_strays(found), *_of_roles(found), *_of_repeats(found)) if line]


def _of_captions(found: dict[str, Any]) -> list[str]:
    captions, total = found["captions"], found["photos"]
    by = ", ".join(f"{count} from {name}" for name, count in list(captions["by"].items())[:4])
    told = [_many(total, "photo") + (f", {captions['matched']} with a caption ({by})" if captions["matched"] else "")]
    for entry in found["lists"]:
        if entry["columns"]:
            columns = ", ".join(entry["columns"][:6])
            told.append(f"{entry['file']} has no columns of names and texts that are known ({columns}); call them file_name and text")
        elif entry["found"] < entry["names"]:
            told.append(
                f"{entry['file']} names {_many(entry['names'], 'photo')}, {entry['found'] or 'none'} found here{_names(entry['lost'])}"
            )
    if several := found["several_captions"]:
        told.append(
            f"{_many(len(several), 'photo')} with several captions; "
            + (
                "every visit of the training draws one of them (--set caption.several=first uses the first alone)"
                if found.get("several") == "readings"
                else "the first is used, the others are kept"
            )
            + _names(several)
        )
    if differing := found["differing_captions"]:
        first = differing[0]
        told.append(
            f"{_many(len(differing), 'photo')} with files that say different things; the first of .txt, .caption, .json and lists is used: "
            f"{first['file']} has the words of {first['used']}, not of {', '.join(first['other'])}"
        )
    if inside := found["embedded"]:
        told.append(
            f"{_many(len(inside), 'photo')} with a description inside (XMP, IPTC, EXIF) or in an .xmp file that is not used; "
            f"--set caption.embedded=true takes it as caption{_names(inside)}"
        )
    return told


def _of_strays(found: dict[str, Any]) -> list[str]:
    strays, empty, over = found["texts_without_photo"], found["empty_texts"], found["passed_over"]
    told = []
    if strays:
        told.append(f"{_many(len(strays), 'text file')} {'belongs' if len(strays) == 1 else 'belong'} to no photo{_names(strays)}")
    if empty:
        told.append(f"{_many(len(empty), 'text file')} without words{_names(empty)}")
    if over:
        kinds = sorted(over.items(), key=lambda item: -len(item[1]))
        parts = ", ".join(
            f"{len(names)} {ONE.get(reason, reason) if len(names) == 1 else reason}{_names(names, 1, ' (', ')')}" for reason, names in kinds
        )
        told.append(f"passed over: {parts}{_of_raws(len(over.get(RAW, ())), found['raw_with_photo'])}")
    return told


def _of_raws(count: int, beside: int) -> str:
    """What to do with raw photos; nothing with those that a camera has developed too."""
    if not count:
        return ""
    if beside == count:
        return "; the raw ones lie beside photos of the same name, which are taken"
    return f"; {DEVELOP}" + (f" ({beside} of {count} lie beside a photo of the same name, which is taken)" if beside else "")


def _of_roles(found: dict[str, Any]) -> list[str]:
    told = (
        [f"{_many(found['masks'], 'photo')} with a mask (--set train.masked_loss=true learns only what it shows)"] if found["masks"] else []
    )
    for role, names in found["roles"].items():
        if role == MASK:
            told.append(f"{_many(len(names), 'further mask')} of the same photos, not used{_names(names)}")
        elif role == "masks of no photo":
            told.append(f"{_many(len(names), 'mask')} that {'belongs' if len(names) == 1 else 'belong'} to no photo{_names(names)}")
        elif role == PROJECT:
            told.append(f"left out: {_many(len(names), 'lorakit project')}{_names(names)}")
        else:
            told.append(
                f"left out: {len(names)} {ONE.get(role, role) if len(names) == 1 else role}{_names(names)}; name the folder itself, or --set scan.roles=false, to take them as photos"
            )
    for role in found["roles_taken_as_photos"]:
        told.append(f"all pictures lie in folders named like those of {role}; they are taken as photos")
    return told


def _of_repeats(found: dict[str, Any]) -> list[str]:
    told = []
    if found["repeats"]:
        parts = ", ".join(f"{repeats} times" for repeats in found["repeats"])
        told.append(f"kohya's folder names say how often photos are used an epoch: {parts}; --set scan.repeats=false uses each once")
    if found["repeats_unused"]:
        names = _names(found["repeats_unused"], SHOWN, "", "")
        told.append(
            f"folders are named as kohya's are ({names}); each photo is used once an epoch, --set scan.repeats=true takes their numbers"
        )
    return told


def tell(project: Project, found: dict[str, Any]) -> None:
    """Keep the account, and say it; its first line is said by whoever walks the stages."""
    files.write_json(project.folder / FILE, found)
    _say(found)


def say_again(project: Project) -> None:
    """Say what the last scan said, of which nothing has changed."""
    if found := read(project):
        _say(found)


def _say(found: dict[str, Any]) -> None:
    for line in found["lines"][1:]:
        say(f"scan      {line}")


def read(project: Project) -> dict[str, Any] | None:
    """The account of the last scan; None before the first, or where it was made by an older version."""
    with suppress(OSError, ValueError):
        found = json.loads((project.folder / FILE).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else None
    return None


def _kind(record: Record) -> str:
    """'.txt' for texts beside photos, the name of a list, 'XMP'."""
    name = record["sidecar"]["file"]
    return name if record["sidecar"].get("listed") or not Path(name).suffix else f"{Path(name).suffix.lower()} files"


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_absolute() and path.is_relative_to(root) else path.as_posix()


def _many(count: int, one: str) -> str:
    return f"{count} {one}{'' if count == 1 else 's'}"


def _names(names: list[str], most: int = SHOWN, before: str = ": ", after: str = "") -> str:
    """': a.txt, b.txt, ...'."""
    return f"{before}{', '.join(names[:most])}{', ...' if len(names) > most else ''}{after}" if names else ""
