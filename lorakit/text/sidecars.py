"""Captions that people already have: beside a photo (.txt, .caption, .json, ...), in a folder of texts, or in one list for the folder;
which of them belongs to which photo, and what belongs to none."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TypeVar

from lorakit.text import caption_lists
from lorakit.text.caption_lists import CaptionList, is_too_large, json_or_none, pass_over, read_list, read_text
from lorakit.text.cleaning import TEXT_KEYS, captions_in, texts_of
from lorakit.text.conventions import MASKS, masked_name, same

__all__ = [
    "MASKS",
    "MOST_BYTES",
    "TEXT_KEYS",
    "Captions",
    "Found",
    "find_caption",
    "is_caption_file",
    "masked_name",
    "pass_over",
    "read_text",
]

ENDINGS = (".txt", ".caption", ".captions", ".text", ".tags", ".prompt", ".json")  # of a text beside a photo; the first with words wins
FOLDERS = frozenset("captions caption texts text txt labels label tags prompts annotations".split())  # of texts, beside that of the photos
MOST_BYTES = 1 << 20  # of a text beside a photo
# Google's a.jpg.supplemental-metadata.json, cut where the name grew too long
AnyPath = TypeVar("AnyPath", bound=PurePath)
_TAKEOUT = re.compile(r"\.s(?:u|up|upp|uppl[a-z-]*)?$", re.IGNORECASE)


@dataclass(frozen=True)
class Found:
    """The caption of a photo and where it stood; `others` are further captions of that file and of other texts beside the photo,
    `differing` lists and JSON files that say else, which are not used: these are made by programs, for other ends too."""

    text: str
    file: str
    others: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()
    listed: bool = False  # in a list, not in a file of its own


@dataclass
class ListReport:
    """How many photos a list names, how many of those were found, and names that found none."""

    path: Path
    names: int
    found: int
    lost: list[str]
    columns: list[str] = field(default_factory=list)


def is_caption_file(name: str) -> bool:
    """Whether a file of this name may hold captions."""
    ending = Path(name).suffix.lower()
    return ending in ENDINGS or (ending in caption_lists.TABLES and ending != ".parquet") or name.lower() == "metadata.parquet"


class Captions:
    """The captions in `files` for `photos`, and what is left over. Lists speak of the photos below them, up to `root`."""

    def __init__(self, photos: Sequence[Path], files: Iterable[Path], root: Path):
        self.photos, self.root = list(photos), root
        self.empty: set[Path] = set()  # texts that belong to a photo and have no words
        self.lists: list[ListReport] = []
        pictures = set(self.photos)
        self._files = [path for path in files if path not in pictures]
        self._scopes: dict[Path, tuple[Path, dict[str, list[Path]]]] = {}
        self._beside = self._match_texts()
        taken = {path for paths in self._beside.values() for path in paths}
        self._listed = self._match_lists([path for path in self._files if path not in taken])

    def of(self, photo: Path) -> Found | None:
        """The caption of one of the photos: of a text beside it, else of the nearest list."""
        beside = [(path, _read_beside(path)) for path in self._beside.get(photo, ())]
        self.empty |= {path for path, texts in beside if not texts}
        return joined([(path.name, texts) for path, texts in beside], self._listed.get(photo, []))

    @property
    def without_photo(self) -> list[Path]:
        """Files of texts that belong to no photo and are no list."""
        taken = {path for paths in self._beside.values() for path in paths} | {report.path for report in self.lists}
        return [path for path in self._files if path not in taken]

    def _match_texts(self) -> dict[Path, list[Path]]:
        matched = texts_beside(self.photos, self._files)
        taken = {path for paths in matched.values() for path in paths}
        for photo, path in self._match_folders_of_texts(taken):
            matched.setdefault(photo, []).append(path)
        return matched

    def _match_folders_of_texts(self, taken: set[Path]) -> Iterable[tuple[Path, Path]]:
        """(photo, text) by their names, where a folder of texts lies beside that of the photos and a name stands once in each."""
        of_folder: dict[Path, list[Path]] = defaultdict(list)
        for path in self._files:
            if path not in taken and path.suffix.lower() in ENDINGS:
                above = [f for f in path.parents if f != self.root and f.is_relative_to(self.root) and same(f.name) in FOLDERS]
                if above:
                    of_folder[above[-1]].append(path)
        for folder, texts in of_folder.items():
            photos: dict[str, list[Path]] = defaultdict(list)
            for photo in self.photos:
                if photo.is_relative_to(folder.parent):
                    photos[same(photo.stem)].append(photo)
                    photos[same(photo.name)].append(photo)
            for path in sorted(texts, key=_rank):
                hits = next((found for base in _bases(path) if (found := photos.get(same(base)))), [])
                if len(set(hits)) == 1:
                    yield hits[0], path

    def _match_lists(self, files: list[Path]) -> dict[Path, list[tuple[str, list[str]]]]:
        """{photo: [(list, captions)]}, the nearest list first."""
        found: dict[Path, list[tuple[int, int, str, list[str]]]] = defaultdict(list)
        for path in files:
            if (path.suffix.lower() not in caption_lists.TABLES) or (listed := read_list(path)) is None:
                continue
            place, by_name = self._scope(path.parent)
            matched, lost = caption_lists.match_list(listed, by_name)
            if not matched and not _is_meant(listed):
                continue
            self.lists.append(ListReport(path, len(listed.entries), len(matched), lost, listed.columns))
            rank = caption_lists.NAMES.index(path.name.lower()) if path.name.lower() in caption_lists.NAMES else len(caption_lists.NAMES)
            for photo, texts in matched.items():
                found[photo].append((-len(place.parts), rank, path.name, texts))
        return {photo: [(name, texts) for *_, name, texts in sorted(hits, key=lambda hit: hit[:3])] for photo, hits in found.items()}

    def _scope(self, folder: Path) -> tuple[Path, dict[str, list[Path]]]:
        """The nearest folder, from the list's own upwards, that has photos below it, and those photos by their names."""
        if folder not in self._scopes:
            place, photos = folder, [photo for photo in self.photos if photo.is_relative_to(folder)]
            if photos or folder == self.root or not folder.is_relative_to(self.root):
                self._scopes[folder] = place, caption_lists.by_names(photos)
            else:
                self._scopes[folder] = self._scope(folder.parent)
        return self._scopes[folder]


def texts_beside(photos: Iterable[AnyPath], texts: Iterable[AnyPath]) -> dict[AnyPath, list[AnyPath]]:
    """{photo: texts that are called like it}, the best first: in the order of ENDINGS, written just like it before otherwise."""
    photos = list(photos)
    exact = {(photo.parent, name) for photo in photos for name in (photo.stem, photo.name)}
    by_name: dict[tuple[PurePath, str], list[tuple[AnyPath, str]]] = defaultdict(list)
    for path in texts:
        if path.suffix.lower() in ENDINGS:
            for base in _bases(path):
                by_name[path.parent, same(base)].append((path, base))
    matched: dict[AnyPath, list[AnyPath]] = {}
    for photo in photos:
        found = [hit for name in (photo.stem, photo.name) for hit in by_name.get((photo.parent, same(name)), ())]
        mine = [(path, base) for path, base in found if base in (photo.stem, photo.name) or (photo.parent, base) not in exact]
        order = sorted(mine, key=lambda hit: (_rank(hit[0]), hit[1] not in (photo.stem, photo.name), hit[0].name))
        if order:
            matched[photo] = list(dict.fromkeys(path for path, _ in order))
    return matched


def joined(beside: list[tuple[str, list[str]]], listed: Sequence[tuple[str, list[str]]] = ()) -> Found | None:
    """The caption that (name, captions) of the texts beside a photo, and of lists that name it, come to: the first with words."""
    with_words = [(name, texts) for name, texts in (*beside, *listed) if texts]
    if not with_words:
        return None
    (name, texts), *rest = with_words
    differing = {other: said for other, said in rest if other != name and not _alike(texts, said)}
    written = {other for other, _ in beside if not other.lower().endswith(".json")}
    more = [text for other, said in differing.items() if other in written for text in said] if name in written else []
    unused = tuple(other for other in differing if not (other in written and name in written))
    return Found(texts[0], name, _others(texts, more), unused, all(other != name for other, _ in beside))


def _is_meant(found: CaptionList) -> bool:
    """Whether a file that names no photo here is a list nevertheless: a table, or names of pictures."""
    if found.path.suffix.lower() in (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"):
        return True
    return any(caption_lists.PICTURE.search(name) or "/" in name for name, _ in found.entries)  # an album's notes are none


def _rank(path: PurePath) -> int:
    return ENDINGS.index(path.suffix.lower())


def _bases(path: PurePath) -> list[str]:
    """What a text is called without its ending; Google's notes also without theirs."""
    base = path.name[: -len(path.suffix)]
    if path.suffix.lower() == ".json" and (match := _TAKEOUT.search(base)):
        return [base, base[: match.start()]]
    return [base]


def _read_beside(path: Path) -> list[str]:
    try:
        if is_too_large(path, MOST_BYTES):
            return []
        text = read_text(path)
    except OSError as error:
        pass_over(str(path), f"cannot be read ({error.strerror})")
        return []
    return texts_of(json_or_none(text, str(path))) if path.suffix.lower() == ".json" else captions_in(text)


def _others(texts: list[str], more: list[str]) -> tuple[str, ...]:
    """Captions after the first, those that say what one before says left out."""
    found: list[str] = texts[:1]
    for text in (*texts[1:], *more):
        if not any(_alike([text], [known]) for known in found):
            found.append(text)
    return tuple(found[1:])


def _alike(one: list[str], other: list[str]) -> bool:
    """Whether two files say the same, whatever their gaps and case."""
    plain = [" ".join(re.findall(r"\w+", ", ".join(texts).casefold())) for texts in (one, other)]
    return plain[0] == plain[1]


def find_caption(photo: Path, root: Path | None = None) -> tuple[str, str] | None:
    """(text, name of the file that holds it) of the caption that belongs to one photo, or None. Lists are looked for beside it and,
    up to the folder `root`, above it."""
    found = Captions([photo], files_up_to(photo.parent, root or photo.parent), root or photo.parent).of(photo)
    return (found.text, found.file) if found else None


def files_up_to(folder: Path, root: Path) -> list[Path]:
    """Files that may hold captions, in a folder and those above it up to `root`."""
    places = [folder, *(above for above in folder.parents if above.is_relative_to(root))]
    found = []
    for place in places:
        try:
            found += [path for path in sorted(place.iterdir()) if is_caption_file(path.name) and path.is_file()]
        except OSError:
            continue
    return found
