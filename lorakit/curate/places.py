"""What lies in the places that the user named: photos, files that may hold captions, pictures with a role of their own (masks,
samples, regularisation), and all that is passed over, with why."""

from __future__ import annotations

import io
import os
import stat
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from PIL import Image

from lorakit import files
from lorakit.console import warn
from lorakit.curate import hf_datasets, sources, stores
from lorakit.curate.embedded import description_beside
from lorakit.curate.stores import Listed
from lorakit.curate.walk import folders_below
from lorakit.errors import LorakitError, UnreadablePhoto
from lorakit.photos import decode, remote
from lorakit.photos.raw import is_raw
from lorakit.photos.remote import Remote
from lorakit.project import Project
from lorakit.project.project import FILE as PROJECT_FILE
from lorakit.project.project import is_on_hub, is_project
from lorakit.text import conventions, sidecars
from lorakit.text.conventions import CONTROL, MASK, same

PASSED_OVER = frozenset(("@eadir", "__macosx", "$recycle.bin", "#recycle"))  # thumbnails and bins that systems leave
UNFINISHED = (".crdownload", ".part", ".partial", ".download")
NAMES_THAT_TELL = (decode.NAME_ENDINGS - {".tif", ".tiff"}) | set(sidecars.ENDINGS)  # some cameras call their raw photos .TIF
NOT_REGULAR, EMPTY_FILE = "pipes, devices and broken links", "empty files"
LOOK = 64  # side at which a picture is looked at to tell a mask from a photo


@dataclass
class Place:
    """One place: its photos in their order, and what else lies there. `whole` where all of the folder is meant, and so whatever
    finds no photo is worth a word."""

    root: Path
    photos: list[Path] = field(default_factory=list)
    texts: list[Path] = field(default_factory=list)
    masks: dict[Path, Path] = field(default_factory=dict)  # {photo: its mask}
    roles: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))  # {role: pictures that are no photos}
    described: dict[Path, tuple[str, str]] = field(default_factory=dict)  # {photo: (text, name) of the .xmp file beside it}
    passed_over: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))  # {reason: files}
    given_back: list[str] = field(default_factory=list)  # roles whose pictures are photos after all, for there are no others
    tables: list[Place] = field(default_factory=list)  # parquet and arrow files below it, unpacked
    listed: dict[Path, Listed] = field(default_factory=dict)  # of an address: what lies there under this name; its files are not here
    whole: bool = True

    def has(self, path: Path) -> bool:
        return path in self.listed or is_regular(path)

    def source(self, path: Path) -> Path | Remote:
        return Remote(self.listed[path].address) if path in self.listed else path


def may_hold_photos(place: Path | str) -> bool:
    """Whether names and first bytes tell of a photo; what has to be unpacked or fetched first may hold some. Stops at the first."""
    if isinstance(place, str) or not place.is_dir():
        return True
    for folder, subfolders, names in os.walk(place):
        subfolders[:] = [name for name in subfolders if is_looked_into(name)]
        paths = [Path(folder, name) for name in names]
        if any(_is_photo(path) or hf_datasets.is_table(path) for path in paths):
            return True
    return False


def look_into(place: Path | str, project: Project) -> list[Place]:
    """A place and the tables in it. Raises `LorakitError` where it is none."""
    found = _look_into(place, project)
    return [found, *found.tables]


def _look_into(place: Path | str, project: Project) -> Place:
    """What lies in a place: a folder, an archive, a dataset, a list or a photo. Raises `LorakitError` where it is none of them."""
    if isinstance(place, str) and not is_on_hub(place):
        return _in_store(place, project)
    if isinstance(place, str):  # on the hub: whatever is here is a path
        return _in_folder(hf_datasets.fetch(place, project.cache_folder), project)
    if not place.exists():
        raise LorakitError(f"{place}: no such folder of photos")
    if place.is_dir():
        return _in_folder(place, project)
    if not is_regular(place):
        raise LorakitError(f"{place}: a pipe or a device; give a folder, an archive, a dataset or a list of photos")
    if hf_datasets.is_table(place):
        return _in_folder(hf_datasets.unpack_table(place, project.cache_folder), project)
    if sources.is_archive(place):
        folder = sources.unpack(place, project.cache_folder)
        found = _in_folder(folder, project)
        for reason, names in sources.left_out(folder).items():
            found.passed_over[reason] += [Path(name) for name in names]
        return found
    return _named(place.parent, [place] if _is_photo(place) or conventions.kind_of(place.name) else sources.listed(place))


def _named(below: Path, photos: list[Path]) -> Place:
    """Photos that were named one by one, with the captions and masks beside them."""
    root = below if all(path.is_relative_to(below) for path in photos) else Path(below.anchor)
    kinds = {path: _kind_of(path) for path in photos}
    unreadable = [path for path in photos if kinds[path] in conventions.UNREADABLE]
    photos = [path for path in photos if path not in set(unreadable)]
    folders = dict.fromkeys(path.parent for path in photos)
    texts = dict.fromkeys(text for folder in folders for text in sidecars.files_up_to(folder, root if root == below else folder))
    found = Place(root, photos, list(texts), whole=False)
    for path in unreadable:
        found.passed_over[kinds[path] or ""].append(path)
    for folder in folders:
        names = sorted(name for name in os.listdir(folder) if conventions.masked_name(name))
        _take_masks_beside(found, [path for path in photos if path.parent == folder], [folder / name for name in names])
        _take_xmp(found, [folder / name for name in sorted(os.listdir(folder)) if name.lower().endswith(".xmp")])
    return found


def _in_folder(root: Path, project: Project) -> Place:
    """Everything below a folder, sorted by name: photos are regular files whose content is an image, files that are named like one,
    and the pictures in parquet and arrow files. The project's own folder and hidden folders are left out."""
    settings = project.settings.scan
    found, set_aside = Place(root), defaultdict(list)  # {(role, its folder): pictures}
    inside = settings.recursive
    for folder, subfolders, names in folders_below(root, inside):
        here = Path(folder)
        hidden = [here / s for s in subfolders if s.startswith(".") and inside]
        found.passed_over["hidden folders"] += [
            path for path in hidden if path.name not in (".git", ".cache", ".thumbnails", ".ipynb_checkpoints")
        ]
        subfolders[:] = sorted(s for s in subfolders if inside and is_looked_into(s) and here / s != project.folder)
        if settings.roles:
            for name in [s for s in subfolders if _is_lorakit_project(here / s)]:
                subfolders.remove(name)
                found.roles[conventions.PROJECT].append(here / name)
        role = _role_above(here, root) if settings.roles else None
        pictures = _read_folder(found, here, sorted(names), project)
        (set_aside[role] if role else found.photos).extend(pictures)
    _settle(found, set_aside, settings.roles)
    return found


def _in_store(address: str, project: Project) -> Place:
    """The same for an address: photos stand under the paths that they would have in the cache, where only the texts beside them are."""
    settings = project.settings.scan
    root = project.cache_folder / "beside" / files.short_hash(address) / (PurePosixPath(address.rstrip("/")).name or "photos")
    found, set_aside, texts = Place(root), defaultdict(list), []
    own = f"file:///{project.folder.as_posix().lstrip('/')}/"
    objects = [one for one in stores.listed(address) if not one.address.startswith(own)]
    projects = _projects_among([one.name for one in objects]) if settings.roles else set()
    found.roles[conventions.PROJECT] += [root / folder for folder in sorted(projects)]
    for one in objects:
        inside, name = PurePosixPath(one.name), PurePosixPath(one.name).name
        if projects and not projects.isdisjoint(map(str, inside.parents)):
            continue
        if not one.regular:
            found.passed_over[NOT_REGULAR].append(root / inside)
            continue
        if inside.is_absolute() or ".." in inside.parts or not all(map(files.is_plain_name, inside.parts)):
            found.passed_over["with a name that is refused (out of its place, or too long)"].append(root / name)
            continue
        path = root / inside
        if not all(map(is_looked_into, inside.parts[:-1])) or (len(inside.parts) > 1 and not settings.recursive):
            continue
        if stores.is_shard(name):
            _take_shard(found, one, project)
            continue
        kind = conventions.kind_of(name)
        if kind is None and path.suffix.lower() in decode.NAME_ENDINGS and one.bytes <= decode.MAX_BYTES:
            found.listed[path] = one
            role = _role_above(path.parent, root) if settings.roles else None
            (set_aside[role] if role else found.photos).append(path)
        elif (kind is None and sidecars.is_caption_file(name)) or path.suffix.lower() == ".xmp":
            texts.append((one, path))
        elif kind != "":
            found.passed_over[kind or ("too large for a photo" if one.bytes > decode.MAX_BYTES else "of no known kind")].append(path)
    if packed := [path for path in found.passed_over["archives"] if path.name.lower().endswith(stores.PACKED)]:
        names = ", ".join(path.relative_to(root).as_posix() for path in packed[:3])
        warn(f"{address}: passed over: {names}{', ...' if len(packed) > 3 else ''}; {stores.PLAIN}")
    for path in stores.fetch_texts(texts):
        (found.passed_over[conventions.NOTES] if path.suffix.lower() == ".xmp" else found.texts).append(path)
    _settle(found, set_aside, settings.roles)
    return found


def _take_shard(found: Place, shard: Listed, project: Project) -> None:
    photos, refused = stores.in_shard(shard, project.cache_folder)
    if refused:
        found.passed_over[sources.REFUSED] += [found.root / shard.name / name for name in map(_without_root, refused)]
    for one in photos:
        path, number = found.root / one.name, 2
        while path in found.listed:  # a tar may have several members of one name
            path, number = (found.root / one.name).with_stem(f"{PurePosixPath(one.name).stem}_{number}"), number + 1
        found.listed[path] = one
        found.photos.append(path)


def _without_root(name: str) -> str:
    """For what is only shown."""
    return name.lstrip("/")


def _settle(found: Place, set_aside: dict[tuple[str, Path], list[Path]], with_roles: bool) -> None:
    """What the pictures are to each other, once all are known."""
    if with_roles:
        _take_masks_beside_all(found)
        _settle_roles(found, set_aside)
    notes = found.passed_over[conventions.NOTES]
    used = _take_xmp(found, [path for path in notes if path.suffix.lower() == ".xmp"])
    found.passed_over[conventions.NOTES] = [path for path in notes if path not in used]
    for reason in [reason for reason, paths in found.passed_over.items() if not paths]:
        del found.passed_over[reason]


def _is_lorakit_project(folder: Path) -> bool:
    try:
        return is_project(folder) and any((folder / name).exists() for name in ("manifest.jsonl", "dataset", "runs"))
    except OSError:  # one that lorakit may not look into: the walk says so
        return False


def _projects_among(names: list[str]) -> set[str]:
    """The same of a store: folders in it, but for the place itself, that are lorakit's."""
    folders = {name.rpartition("/")[0] for name in names if name.endswith(f"/{PROJECT_FILE}")}
    begins = {folder: tuple(f"{folder}/{inside}" for inside in ("manifest.jsonl", "dataset/", "runs/")) for folder in folders}
    return {folder for folder in folders if any(name.startswith(begins[folder]) for name in names)}


def _role_above(folder: Path, root: Path) -> tuple[str, Path] | None:
    """(role, the folder that has it) of the folder itself or the first above it, below the place that the user named."""
    for place in [folder, *folder.parents]:
        if place == root or not place.is_relative_to(root):
            return None
        if role := conventions.role_of_folder(place.name):
            return role, place
    return None


def _read_folder(found: Place, folder: Path, names: list[str], project: Project) -> list[Path]:
    """The pictures of one folder; texts and what is passed over go into `found`."""
    pictures = []
    for name in names:
        path = folder / name
        if hf_datasets.is_table(path) and is_regular(path):
            found.tables += _in_table(path, project)
            continue
        kind = _kind_of(path)
        if kind is None and _is_photo(path):
            pictures.append(path)
        elif kind is None and sidecars.is_caption_file(name) and is_regular(path):
            found.texts.append(path)
        elif kind != "":
            found.passed_over[kind or _why_not(path)].append(path)
    return pictures


def _kind_of(path: Path) -> str | None:
    """What a file is by its name, and a raw photo whatever its name: some cameras call theirs `.TIF`. Of photos with other names the
    stage `check` says it."""
    kind = conventions.kind_of(path.name)
    if kind is None and path.suffix.lower() not in NAMES_THAT_TELL and is_regular(path):
        with suppress(OSError), open(path, "rb") as file:
            return conventions.RAW if is_raw(file) else None
    return kind


def _why_not(path: Path) -> str:
    """Why a file whose name tells nothing is passed over."""
    if path.suffix.lower() in UNFINISHED:
        return "downloads that are not finished"
    if not is_regular(path):
        return NOT_REGULAR
    return EMPTY_FILE if not path.stat().st_size else "of no known kind"


def _take_masks_beside_all(found: Place) -> None:
    in_folder: dict[Path, list[Path]] = defaultdict(list)
    for path in found.photos:
        in_folder[path.parent].append(path)
    for pictures in in_folder.values():
        candidates = [path for path in pictures if conventions.masked_name(path.name)]
        _take_masks_beside(found, pictures, candidates)
        stems = {same(path.stem) for path in pictures}
        for path in pictures:
            if (owner := conventions.controlled_name(path.name)) and same(owner) in stems:
                found.roles[CONTROL].append(path)
            elif (owner := conventions.masked_name(path.name)) and same(owner) in stems and not found.has(path):
                found.passed_over[NOT_REGULAR].append(path)
    others = {*found.masks.values(), *found.roles[MASK], *found.roles[CONTROL], *found.passed_over[NOT_REGULAR]}
    found.photos = [path for path in found.photos if path not in others]


def _take_masks_beside(found: Place, photos: list[Path], candidates: list[Path]) -> None:
    """Give each photo the mask that is called like it; a picture is one by its ending, or by its ending and for having no colours."""
    for path in sorted(candidates, key=lambda path: (_rank_of_mask(path.name), path.name)):
        owner = same(conventions.masked_name(path.name) or "")
        sure = path.name.lower().endswith(conventions.MASKS)
        mine = [photo for photo in photos if same(photo.stem) == owner and photo != path]
        if mine and found.has(path) and (sure or is_colourless(found.source(path))):
            for photo_ in mine:
                if photo_ not in found.masks:
                    found.masks[photo_] = path
                elif path not in found.masks.values():
                    found.roles[MASK].append(path)


def _take_xmp(found: Place, files: list[Path]) -> set[Path]:
    """Note what .xmp files say of the photos that they are called like (a.xmp and a.jpg.xmp for a.jpg); those that say something."""
    photos: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in found.photos if files else ():
        for name in (path.stem, path.name):
            photos[path.parent, same(name)].append(path)
    used = set()
    for path in files:
        owners = photos[path.parent, same(path.stem)]
        if owners and is_regular(path) and (said := description_beside(path)):
            used.add(path)
            for owner in owners:
                found.described.setdefault(owner, said)
    return used


def _rank_of_mask(name: str) -> int:
    return next((rank for rank, ending in enumerate(conventions.MASKS) if name.lower().endswith(ending)), len(conventions.MASKS))


def _settle_roles(found: Place, set_aside: dict[tuple[str, Path], list[Path]]) -> None:
    """Masks and control pictures are such where they are called like photos; else, and where there are no other photos at all, the
    name of their folder has misled and they are photos."""
    for (role, folder), pictures in list(set_aside.items()):
        if role in (MASK, CONTROL):
            matched = _called_like_photos(found, folder, pictures, strip_mask=role == MASK)
            if not matched:
                found.photos += pictures
            elif role == MASK:
                for path, photo_ in matched.items():
                    found.masks.setdefault(photo_, path)
                found.roles["masks of no photo"] += [path for path in pictures if path not in matched]
            else:
                found.roles[role] += pictures
            del set_aside[role, folder]
    if not found.photos and set_aside:
        for (role, _), pictures in set_aside.items():
            found.photos += pictures
            found.given_back.append(role)
    else:
        for (role, _), pictures in set_aside.items():
            found.roles[role] += pictures
    found.photos.sort(key=lambda path: _as_walked(path, found.root))
    for role in [role for role, paths in found.roles.items() if not paths]:
        del found.roles[role]


def _as_walked(path: Path, root: Path) -> list[tuple[bool, str]]:
    """Sorts photos by name, those of a folder before those of its sub-folders."""
    *folders, name = path.relative_to(root).parts
    return [*((True, folder) for folder in folders), (False, name)]


def _called_like_photos(found: Place, folder: Path, pictures: list[Path], strip_mask: bool) -> dict[Path, Path]:
    """{picture: the photo that it is called like}, among the photos beside and below the folder that holds `folder`. Of several
    photos of one name it is the one that lies as the picture does."""
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path in found.photos:
        if path.is_relative_to(folder.parent):
            by_name[same(path.stem)].append(path)
            by_name[same(path.name)].append(path)
    matched = {}
    for path in pictures:
        bare = conventions.masked_name(path.name) if strip_mask else conventions.controlled_name(path.name)
        hits = by_name.get(same(path.stem)) or by_name.get(same(bare or "")) or []
        inner = path.relative_to(folder).parent.parts
        near = [hit for hit in hits if hit.parent.parts[len(hit.parent.parts) - len(inner) :] == inner] if len(hits) > 1 and inner else hits
        if len(near) == 1:
            matched[path] = near[0]
    return matched


def is_colourless(path: Path | Remote) -> bool:
    """Whether a picture has no colours, as masks have none."""
    try:
        with Image.open(io.BytesIO(remote.read(path)) if isinstance(path, Remote) else path) as image:
            if image.mode in ("1", "L", "I", "I;16", "LA"):
                return True
            image.draft("RGB", (LOOK, LOOK))
            small = image.convert("RGB").resize((LOOK, LOOK))
    except (OSError, ValueError, Image.DecompressionBombError, UnreadablePhoto):
        return False
    red, green, blue = (band.tobytes() for band in small.split())
    return max(max(abs(r - g), abs(g - b)) for r, g, b in zip(red, green, blue, strict=True)) <= 8


def _in_table(path: Path, project: Project) -> list[Place]:
    """The pictures of a dataset's file, shown below its name; one that has none or is broken is said and passed over."""
    try:
        unpacked = hf_datasets.unpack_table(path, project.cache_folder)
    except LorakitError as error:
        warn(str(error))
        return []
    found = _in_folder(unpacked, project)
    found.root = unpacked.parent
    return [found]


def is_looked_into(folder: str) -> bool:
    return not folder.startswith(".") and folder.lower() not in PASSED_OVER


def _is_photo(path: Path) -> bool:
    """Named like a photo, or one by its content. What is named like one and cannot be read is told, not passed over."""
    if path.suffix.lower() in decode.NAME_ENDINGS:
        return True
    try:
        return path.suffix.lower() not in UNFINISHED and is_regular(path) and decode.sniff(path) is not None
    except OSError:
        return False


def is_regular(path: Path) -> bool:
    """A pipe or a device would never end; a link that leads nowhere holds nothing."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False
