"""Stage cache: encodes every picture and text of the dataset once, and the prompts of the samples; what is kept is found by the
hash of what it was made from, so a changed caption or crop re-encodes only itself and nothing stale is ever read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from threading import Lock
from uuid import uuid4

import numpy as np
import torch
from cachetools import LRUCache, cached
from PIL import Image

from lorakit import weights
from lorakit.bases import families
from lorakit.bases.families.base import Family, Text
from lorakit.bases.load import load_family, write_configs
from lorakit.console import progress, warn
from lorakit.errors import LorakitError
from lorakit.files import short_hash
from lorakit.photos.images import load_crop
from lorakit.project import Project, manifest, stamps
from lorakit.record import Record
from lorakit.text.placing import without_word
from lorakit.text.words import count_word, whole_word
from lorakit.train import crew, tensor_file
from lorakit.train.batches import TrainingPicture
from lorakit.train.caption_variants import variants
from lorakit.train.preflight import preflight
from lorakit.train.prompts import prompt_of_other, sample_prompts
from lorakit.train.prompts import texts_of as prompts_of
from lorakit.train.regularisation import regularisation_photos
from lorakit.train.resolutions import at_every_resolution
from lorakit.train.tensor_file import Damaged

# What a photo's text is told of besides, for `preservation`: not what `watched_texts` asks for, which shall be a fair question.
OTHER_THINGS = ("person", "dog", "car", "tree", "bird", "chair", "cup", "flower", "boat", "bottle", "table", "mountain")
OTHERS = 3  # of these for each photo
IN_MEMORY = 2 << 30  # bytes of latents and embeddings that are kept in memory; beyond that they are read again


def cache(project: Project) -> list[Record]:
    """Encode what is missing into `cache/latents` and `cache/texts`; returns the dataset's photos. First all texts, one encoder
    after another, then all pictures: neither two encoders nor one and the VAE are in memory together.

    One picture and one text at a time: in batches the last bits of a latent would depend on which photos it was encoded
    with, and a resumed run would differ."""
    photos = preflight(project)
    records = [*at_every_resolution(project, photos), *regularisation_photos(project)]
    watched = watched_texts(project).values()
    texts = ["", *(text for r in records for text in texts_of(project, r)), *prompts_of(sample_prompts(project)), *watched]
    chosen, name = replace(project, manifest=project.manifest.chosen()), uuid4().hex
    with crew.called(encode, chosen, texts, records, name):
        encode(chosen, texts, records, name)
    changed = []
    for record in photos:
        stamp = stamps.cache(project, record)
        if record["done"].get("cache") != stamp:
            changed.append(manifest.finish(record, "cache", stamp))
    project.manifest.keep(*changed)
    project.manifest.save()
    return photos


def encode(project: Project, texts: list[str], records: list[TrainingPicture], name: str) -> None:
    """Encode what the cache folder lacks of these. Of several processes those that see the same folder, by a mark of this `name`, share
    it out by what is written, so that no two write one file."""
    bases = crew.gather(lambda: weights.identity(project.base_source))
    crew.together(lambda: _check_base(project, bases))
    fellows = crew.who_sees(project.cache_folder, name) if crew.size() > 1 else [0]
    is_first, place = crew.rank() == fellows[0], fellows.index(crew.rank())
    lacking = crew.gather(lambda: _lacking(project, texts, records) if is_first else None)[fellows[0]]
    crew.together(lambda: _encode(project, lacking[0][place :: len(fellows)], lacking[1][place :: len(fellows)]))


def _check_base(project: Project, bases: list[str]) -> None:
    """Raises `LorakitError` where the processes of a crew would not all train the same base."""
    if other := next((number for number, base in enumerate(bases) if base != bases[0]), None):
        raise LorakitError(f"{project.base_source.location}: is another base on the machine of process {other}; copy the leader's there")


def _lacking(project: Project, texts: list[str], records: list[TrainingPicture]) -> tuple[list[str], list[list[TrainingPicture]]]:
    """(texts, pictures) that are to be encoded; a picture is all the records that have the same latents."""
    by_latents: dict[Path, list[TrainingPicture]] = {}
    for record in records:
        if not all(map(_is_whole, picture_paths(project, record))):
            by_latents.setdefault(latents_path(project, record), []).append(record)
    found = missing_texts(project, texts), list(by_latents.values())
    if any(found) and crew.size() > 1:
        write_configs(project)  # by one process
    return found


def _encode(project: Project, texts: list[str], pictures: list[list[TrainingPicture]]) -> None:
    if not texts and not pictures:
        return
    family = load_family(project)
    with progress("cache", len(texts) + len(pictures)) as shown:
        for text, encoded in zip(texts, family.encode_texts(texts), strict=True):
            tensor_file.write(text_path(project, text), encoded)
            shown.advance()
        for same in pictures:
            for record in same:
                _keep(latents_path(project, record), lambda r=record: _encode_picture(project, r, family))
                if has_mask(project, record):
                    _keep(mask_path(project, record), lambda r=record: _shrink_mask(project, r))
            shown.advance()
    family.release_encoders()


def keep_texts(project: Project, texts: Iterable[str]) -> None:
    """Embed those texts that are not in the cache yet; the encoders are gone when this returns."""
    if missing := missing_texts(project, texts):
        for text, encoded in zip(missing, load_family(project).encode_texts(missing), strict=True):
            tensor_file.write(text_path(project, text), encoded)


def missing_texts(project: Project, texts: Iterable[str]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if not _is_whole(text_path(project, text))]


def picture_paths(project: Project, record: Record) -> list[Path]:
    return [latents_path(project, record), *([mask_path(project, record)] if has_mask(project, record) else [])]


def texts_of(project: Project, record: Record) -> tuple[str, ...]:
    """Every text whose embeddings the training of a photo needs."""
    taught_by_base = preserved_texts(project, record) if project.settings.train.preservation and not record.get("regularisation") else ()
    return text_variants(project, record) + taught_by_base


def watched_texts(project: Project) -> dict[str, str]:
    """{"leak": the class word alone, "drift": something else altogether}: texts whose pictures a training shall not move. None where it is
    not watched, or has no trigger to tell them apart by."""
    trigger = project.settings.trigger
    if not trigger.word or project.settings.train.validate_every == 0:
        return {}
    own_class = {"leak": f"a photo of a {trigger.class_word}"} if trigger.class_word else {}
    return {**own_class, "drift": prompt_of_other(project)}


def preserved_texts(project: Project, record: Record) -> tuple[str, ...]:
    """A photo's text without the trigger; and where that names the class, the same of three other things: held to its class alone, a LoRA
    learns that whatever is not called so is the subject."""
    class_word = project.settings.trigger.class_word
    own = without_word(record["text"], project.trigger) if project.trigger else record["text"]
    if not class_word or not count_word(own, class_word):
        return (own,)
    things = [thing for thing in OTHER_THINGS if not count_word(class_word, thing)]
    first = int(short_hash(record["hash"])[:8], 16)
    return own, *(whole_word(class_word).sub(things[(first + n) % len(things)], own) for n in range(OTHERS))


def text_variants(project: Project, record: Record) -> tuple[str, ...]:
    """The texts that a photo may be trained with: of each of its readings, the variants."""
    texts, lead = (record["text"], *record.get("readings", ())), project.settings.caption.lead_tags
    return tuple(variant for text in texts for variant in variants(text, project.trigger, project.settings.train, lead))


def latents_path(project: Project, record: Record) -> Path:
    key = short_hash(stamps.picture(record), weights.identity(project.base_source))
    return project.cache_folder / "latents" / f"{key}.safetensors"


def has_mask(project: Project, record: Record) -> bool:
    """Regularisation photos are learned whole."""
    return project.settings.train.masked_loss and not record.get("regularisation")


def mask_path(project: Project, record: Record) -> Path:
    key = short_hash(latents_path(project, record).stem, stamps.mask(project, record))
    return project.cache_folder / "masks" / f"{key}.safetensors"


def text_path(project: Project, text: str) -> Path:
    train = project.settings.train  # encoders that learn run in every step
    facts = ("prepared", *(["t5"] if train.t5 else [])) if train.text_encoder else ()
    facts += ("int8",) if train.encoder_precision == "int8" and families.load(project.card.family).large_encoders() else ()
    return project.cache_folder / "texts" / f"{short_hash(text, weights.identity(project.base_source), *facts)}.safetensors"


def load_latents(project: Project, record: Record) -> dict[str, torch.Tensor]:
    """{"mean", "std"}, each [C, h, w]."""
    return _load(latents_path(project, record))


def load_mask(project: Project, record: Record) -> torch.Tensor:
    """[1, h, w] in 0..1 at the latents' size: how much of each latent pixel is to be learned; 1 where a photo has no mask."""
    return _load(mask_path(project, record))["mask"]


def load_text(project: Project, text: str) -> Text:
    return _load(text_path(project, text))


# The names are content hashes, so nothing here grows stale. Bounded in bytes: a text takes 0.2 MB for SD1.5, up to 31 MB for FLUX.
@cached(LRUCache(IN_MEMORY, getsizeof=lambda tensors: sum(tensor.nbytes for tensor in tensors.values())), lock=Lock())
def _load(path: Path) -> dict[str, torch.Tensor]:
    try:
        return tensor_file.read(path)
    except Damaged as damage:
        raise LorakitError(f"{path.parent}: {damage}; the same command encodes it again") from None


def _is_whole(path: Path) -> bool:
    """Whether an entry is there as it was written; a damaged one is named, and removed to be made again."""
    try:
        facts = path.stat()
        _check(path, facts.st_size, facts.st_mtime_ns)
    except FileNotFoundError:
        return False
    except Damaged as damage:
        warn(f"cache/{path.parent.name}: {damage}; it is encoded again")
        path.unlink(missing_ok=True)
        return False
    return True


@lru_cache(maxsize=1 << 16)  # a file is read through once by a process, unless it is written anew
def _check(path: Path, size: int, written: int) -> None:
    tensor_file.read(path)


def _keep(path: Path, encode: Callable[[], dict[str, torch.Tensor]]) -> None:
    if not path.is_file():
        tensor_file.write(path, encode())


def _encode_picture(project: Project, record: Record, family: Family) -> dict[str, torch.Tensor]:
    if record.get("regularisation"):
        picture = load_crop(record)
    else:
        with Image.open(project.dataset_folder / record["dataset"]["file"]) as image:
            picture = _as_seen(image.convert("RGB"), record, Image.Resampling.LANCZOS)
    pixels = np.asarray(picture, dtype=np.float32) / 127.5 - 1
    return family.encode_picture(torch.from_numpy(pixels).permute(2, 0, 1)[None])


def _as_seen(image: Image.Image, record: Record, how: Image.Resampling) -> Image.Image:
    """The dataset's picture, or what is trained of it at a smaller resolution."""
    return image.resize(tuple(record["crop"]["bucket"]), how, box=tuple(record["view"])) if record.get("view") else image


def _shrink_mask(project: Project, record: Record) -> dict[str, torch.Tensor]:
    height, width = load_latents(project, record)["mean"].shape[-2:]
    if not record["dataset"].get("mask"):
        return {"mask": torch.ones(1, height, width)}
    with Image.open(project.masks_folder / record["dataset"]["mask"]) as image:
        mask = torch.from_numpy(np.asarray(_as_seen(image.convert("L"), record, Image.Resampling.BOX), dtype=np.float32) / 255)
    return {"mask": torch.nn.functional.interpolate(mask[None, None], size=(height, width), mode="area")[0]}
