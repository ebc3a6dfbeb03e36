"""A user's project folder, opened: its words (project.yaml), the base's card, the kind, the resolved settings and the
manifest of photos."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorakit import settings as settings_module
from lorakit.ahead import Threads
from lorakit.console import typed
from lorakit.errors import Conflict, LorakitError, UnknownName
from lorakit.photos.remote import check_address, check_spelling, is_address, normal
from lorakit.project import catalog, config, work
from lorakit.project.catalog import Card, Kind
from lorakit.project.decisions import Change, Decision
from lorakit.project.manifest import Manifest
from lorakit.settings import Settings
from lorakit.weights import Source, files_on_hub, local_base, local_folder

if TYPE_CHECKING:
    from lorakit.cluster import Cluster

FILE = "project.yaml"
HUB = "hf://"
OVER_NETWORK = 8  # threads, which mostly wait
WORDS = ("photos", "base", "kind", "settings")


@dataclass
class Project:
    """An opened project. The stages take it and keep what they find in its manifest and its run folders."""

    folder: Path
    photos: tuple[Path | str, ...]  # folders, archives, lists; a string is an address: of a store, or of a dataset of the hub
    card: Card
    kind: Kind
    settings: Settings
    manifest: Manifest
    device: str | None = None  # cuda, mps or cpu; None = chosen when it is needed
    unsaved: dict[str, Any] = field(default_factory=dict)  # words given when it was opened, for project.yaml
    new_run: bool = False  # train from step 1, also where a former training could go on
    engine: Threads | Cluster = field(default_factory=Threads)  # what does the work on many photos
    vram: float | None = None  # GB of a card that a training is chosen for; None = what is free on the one that is there

    @property
    def trigger(self) -> str | None:
        return self.settings.trigger.word

    @property
    def dataset_folder(self) -> Path:
        return self.folder / "dataset"

    @property
    def masks_folder(self) -> Path:
        """Masks of the dataset's pictures, under the same names: as sd-scripts and ai-toolkit take them."""
        return self.folder / "masks"

    @property
    def cache_folder(self) -> Path:
        return self.folder / "cache"

    @property
    def base_source(self) -> Source:
        """Where the base's weights come from: --weights, the card's folder, built here, or the hub."""
        given, card = self.settings.train.weights, self.card
        configs = self.cache_folder / "configs" / card.family
        if given and is_on_hub(given):
            name = given.removeprefix(HUB).rstrip("/")
            if here := files_on_hub(name):
                return local_base(here, configs, card.title, card.size_gb, self._rest, self._parts[0])
            return Source(name, False, card.title, card.size_gb)
        if given or card.folder:
            place = given or card.path.parent / (card.folder or "")
            return local_base(place, configs, card.title, card.size_gb, self._rest, self._parts[0])
        if card.builder:
            return Source(str(self.cache_folder / "weights" / card.name), True, card.title, card.size_gb, built=card.name)
        return Source(card.hub or "", False, card.title, card.size_gb)

    @property
    def _parts(self) -> tuple[list[str], str | None]:
        """(files, folder or hub id) that `train.parts` names."""
        given = [part.strip() for part in (self.settings.train.parts or "").split(",") if part.strip()]
        files = [part for part in given if part.endswith(".safetensors") and not is_on_hub(part)]
        others = [part for part in given if part not in files]
        if absent := [file for file in files if not Path(file).expanduser().is_file()]:
            raise LorakitError(f"train.parts: {absent[0]}: no such file")
        if len(others) > 1:
            raise LorakitError(f"train.parts: {', '.join(others)}: one folder or place on the hub, beside any number of .safetensors")
        return files, others[0] if others else None

    @property
    def _rest(self) -> Source | None:
        """Where the parts are that a base in single files lacks: what `train.parts` names beside files, or the card's hub id."""
        given, card = self._parts[1], self.card
        facts = (card.title, card.size_gb, "--set train.parts=")
        if given and not is_on_hub(given):
            tokenizers = sorted(Path(given).expanduser().glob("tokenizer*/tokenizer_config.json"))  # which are in no file
            marker = "/".join(tokenizers[0].parts[-2:]) if tokenizers else "model_index.json"
            return Source(str(local_folder(given, marker, "train.parts")), True, *facts)
        hub = given.removeprefix(HUB) if given else card.hub
        return Source(hub, False, *facts) if hub else None

    @contextmanager
    def locked(self, verb: str | None = None) -> Iterator[work.Work]:
        """Only one lorakit at a time works in a project; others wait two seconds and are refused with `ProjectBusy`. A
        decision needs no such lock."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with work.locked(self.folder, verb or work.this_verb()) as held:
            self.keep_words()
            yield held

    def keep_words(self) -> None:
        """Keep in project.yaml the words that were given when the project was opened. Done when work begins, under the lock: a
        command that only reads, or is refused, changes nothing."""
        if self.unsaved or not is_project(self.folder):
            config.edit(self.folder / FILE, self.unsaved)
            self.unsaved = {}

    def decide(
        self, changes: Iterable[Change] = (), by: str = "command", *, rules: Iterable[str] | None = None, undoes: int | None = None
    ) -> Decision | None:
        """Write a person's decision: changes of photos, and the set's rules of words where they are to be others. Returns
        None when nothing would change and nothing is undone. Raises `Conflict` where photos or rules have changed since the project was opened."""
        changes = [change for change in changes if change["was"] != change["now"]]
        was, now = list(self.settings.caption.rules), None if rules is None else list(rules)
        if undoes is None and not changes and now in (None, was):
            return None
        decisions = self.manifest.decisions
        with decisions.locked():
            if now is not None and _rules_of(self.folder, was) not in (was, now):
                raise Conflict(f"{self.folder / FILE}: caption.rules are others by now; nothing was changed, look again and decide anew")
            line = self.manifest.decide(changes, by, undoes, None if now is None else {"was": was, "now": now})
            if now is not None:
                _write_rules(self.folder, now)
                self._take_rules(now)
        return line

    def take_decisions(self) -> list[Decision]:
        """Take in what has been decided since the project was opened, in the middle of a run too. Returns the new decisions."""
        new = self.manifest.take_decisions()
        for line in new:
            if "rules" in line:
                self._take_rules(line["rules"]["now"])
        return new

    def _take_rules(self, rules: list[str]) -> None:
        caption = replace(self.settings.caption, rules=tuple(rules))
        self.settings = replace(self.settings, caption=caption, origin={**self.settings.origin, "caption.rules": FILE})


def new_project(
    folder: str | Path,
    photos: str | Path | Iterable[str | Path],
    *,
    base: str = catalog.DEFAULT_BASE,
    kind: str = "object",
    trigger: str | None = None,
    class_word: str | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str | None = None,
) -> Project:
    """Begin a project in an empty or new folder.

    >>> project = new_project("mug", "photos/mug", base="sd15", kind="object", trigger="zwx")  # doctest: +SKIP

    Raises `LorakitError` when the folder holds something else, a photo folder is missing, or a name or setting is unknown.
    """
    folder = Path(folder)
    if (folder / FILE).exists():
        raise LorakitError(f"{folder}: there is a project already; open it with open_project, or choose another folder")
    words = {"trigger.word": trigger, "trigger.class_word": class_word}
    changes = {**{key: value for key, value in words.items() if value is not None}, **(settings or {})}
    project = open_project(folder, photos=photos, base=base, kind=kind, settings=changes, device=device, create=True)
    project.keep_words()
    return project


def open_project(
    folder: str | Path,
    *,
    photos: str | Path | Iterable[str | Path] | None = None,
    base: str | None = None,
    kind: str | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str | None = None,
    create: bool = False,
    taken_over: tuple[str, Mapping[str, Any]] | None = None,
) -> Project:
    """Open a project; whatever is given replaces the word in its project.yaml, and is kept there when work begins
    (`Project.locked`, as in every walk; or `Project.keep_words`). Opening alone writes nothing. `taken_over` are settings of a file
    and the name of their origin; they go before those of project.yaml, and `settings` before them.

    >>> project = open_project("mug", settings={"train.rank": 16})  # doctest: +SKIP
    """
    folder = Path(folder).expanduser().resolve()
    words = read_config(folder, create)
    changed = settings_module.flatten(settings or {})
    origin, taken = taken_over or ("", {})
    taken = {key: value for key, value in settings_module.flatten(taken).items() if key not in changed}
    unsaved: dict[str, Any] = {
        key: value for key, value in (("photos", _photo_words(photos)), ("base", base), ("kind", kind)) if value is not None
    }
    words |= unsaved
    stored = {key: value for key, value in settings_module.flatten(words["settings"]).items() if key not in changed and key not in taken}
    if "base" not in unsaved and "kind" not in unsaved:
        check_names(folder, words)
    card, kind_ = catalog.card(words["base"], folder), catalog.kind(words["kind"], folder)
    layers = [(f"base {card.name}", card.settings), (f"kind {kind_.name}", kind_.settings)]
    check_stored(folder, stored)
    resolved = settings_module.resolve([*layers, (FILE, stored), (origin, taken), ("command line", changed)])
    if photos is not None:
        _check_photo_folders(folder, words["photos"])
    changed = {**taken, **changed}
    if changed:
        unsaved["settings"] = changed
    places = tuple(normal(p) if is_address(p) else Path(p) for p in words["photos"])
    if create and not is_project(folder):
        unsaved = {key: words[key] for key in WORDS[:-1]} | {"settings": changed}
    engine = Threads(OVER_NETWORK) if any(map(is_address, places)) else Threads()
    book = Manifest(folder)
    book.set_aside_halves()
    book.follow_a_move()
    return Project(folder, places, card, kind_, resolved, book, device, unsaved, engine=engine)


def is_on_hub(place: str | Path) -> bool:
    """Whether photos, or weights, are to come from the Hugging Face hub, named as `hf://owner/name`."""
    return isinstance(place, str) and place.startswith(HUB)


def is_project(folder: str | Path) -> bool:
    return (Path(folder) / FILE).is_file()


def read_config(folder: Path, create: bool = False) -> dict[str, Any]:
    """The content of project.yaml with its defaults filled in."""
    words: dict[str, Any] = {"photos": [], "base": catalog.DEFAULT_BASE, "kind": "object", "settings": {}}
    path = folder / FILE
    if not path.is_file():
        if not create:
            raise LorakitError(f"{folder}: no lorakit project ({FILE} is missing); begin one with `lorakit run PHOTOS -o {typed(folder)}`")
        if folder.is_file():
            raise LorakitError(f"{folder}: a file, not a folder; choose another -o")
        if folder.is_dir() and any(folder.iterdir()):
            raise LorakitError(f"{folder}: not empty and no lorakit project; choose a new or an empty folder for -o")
        return words
    found = config.read(path)
    for key in found:
        if key not in WORDS:
            raise UnknownName("word", str(key), list(WORDS), config.where(path, key))
    if missing := [key for key in WORDS[:-1] if found.get(key) is None and (folder / "manifest.jsonl").exists()]:
        raise LorakitError(  # it is always written with them: the file is damaged, and defaults would make another project of this one
            f"{path}: lacks {' and '.join(missing)}, which every project with photos has; write {'it' if len(missing) == 1 else 'them'} in again "
            "(runs/*/settings.yaml tells the settings of its trainings)"
        )
    words |= {key: value for key, value in found.items() if value is not None}
    for key in ("base", "kind"):
        if not isinstance(words[key], str):
            raise LorakitError(f"{config.where(path, key)}: {key} = {words[key]!r} is no name")
    if not isinstance(words["settings"], Mapping):
        raise LorakitError(f"{config.where(path, 'settings')}: settings is no table; write it as settings: {{train.rank: 16}}")
    if isinstance(words["photos"], str):
        words["photos"] = [words["photos"]]
    if not (isinstance(words["photos"], list) and all(isinstance(place, str) for place in words["photos"])):
        raise LorakitError(f"{config.where(path, 'photos')}: photos is no list of folders")
    return words


def check_names(folder: Path, words: Mapping[str, Any]) -> None:
    """Raises `UnknownName` for a base or kind of project.yaml that does not exist, with the line where it stands."""
    for word, find in (("base", catalog.card), ("kind", catalog.kind)):
        try:
            find(words[word], folder)
        except UnknownName as error:
            raise LorakitError(f"{config.where(folder / FILE, word)}: {error}") from None


def check_stored(folder: Path, stored: Mapping[str, Any]) -> None:
    """Raises `LorakitError` for a setting of project.yaml that does not exist or a value that it cannot take, with the line
    where it stands."""
    for key, value in stored.items():
        try:
            settings_module.convert(key, value, FILE)
        except LorakitError:
            settings_module.convert(key, value, config.where(folder / FILE, key))


def _photo_words(photos: str | Path | Iterable[str | Path] | None) -> list[str] | None:
    if photos is None:
        return None
    several = [photos] if isinstance(photos, (str, Path)) else list(photos)
    for place in several:
        check_spelling(str(place))
    return [normal(str(p)) if is_address(p) else str(Path(p).expanduser().resolve()) for p in several]


def _check_photo_folders(folder: Path, photos: list[str]) -> None:
    for address in photos:
        if is_address(address) and not is_on_hub(address):
            check_address(address)
    for place in (Path(p) for p in photos if not is_address(p)):
        if not place.exists():
            raise LorakitError(
                f"{place}: no such folder of photos (a dataset of the hub is named as hf://owner/name, a store as s3://bucket/prefix)"
            )
        if place == folder:
            raise LorakitError(f"{place}: the project cannot be the photo folder itself; choose another -o")


def _rules_of(folder: Path, default: list[str]) -> list[str]:
    """The rules of words as project.yaml has them now."""
    stored = settings_module.flatten(read_config(folder)["settings"])
    return list(settings_module.convert("caption.rules", stored.get("caption.rules", default), FILE))


def _write_rules(folder: Path, rules: list[str]) -> None:
    config.edit(folder / FILE, {"settings": {"caption.rules": rules}})
