"""open_clip, which puts pictures and texts into one space: how well a text fits a photo, and what photos have in common.
Its weights are not part of lorakit: a setting names a folder or a hub id, and without one nothing of this is done."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lorakit import device, files
from lorakit.ahead import ahead
from lorakit.console import progress
from lorakit.errors import LorakitError, UnreadablePhoto
from lorakit.record import Record
from lorakit.weights import Source, check_whole, hub_errors_in_words

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
HUB = "hf-hub:"
BATCH = 32
KEEP_EVERY = 10.0  # seconds after which what was seen is written down


def find(given: str, setting: str) -> Source:
    """Where the weights named by a setting lie. Raises `LorakitError` for a folder without them."""
    if given.startswith(HUB):
        return Source(given.removeprefix(HUB), False, "open_clip", option=f"--set {setting}=", marker=CONFIG)
    folder = Path(given).expanduser().resolve()
    if not (folder / CONFIG).is_file():
        raise LorakitError(
            f"{setting}={given}: no {CONFIG} in it; give a folder as `hf download laion/CLIP-ViT-B-32-laion2B-s34B-b79K` makes it, "
            f"or {HUB}owner/name"
        )
    return Source(str(folder), True, "open_clip", marker=CONFIG)


class Clip:
    """An open_clip model. Vectors are float32 of length 1, so that a dot product is a cosine."""

    def __init__(self, given: str, setting: str, device: str):
        """`given`: a folder as `hf download` makes it, or `hf-hub:owner/name`; `setting` is named where it is neither.

        Raises `LorakitError`."""
        import open_clip

        source = find(given, setting)
        place = f"local-dir:{source.location}" if source.is_local else HUB + source.location
        with hub_errors_in_words(source):
            made: Any = open_clip.create_model_from_pretrained(place, device=device)  # annotated as a model alone
            self.model, self.prepare = made
            self.model.eval()  # open_clip leaves it as for training: batch norms would look at the other pictures of a batch
            self.tokenize: Any = open_clip.get_tokenizer(place)
        _check_shapes(source, self.model)
        self.device = device
        self.scale = float(self.model.logit_scale.detach().exp())  # what cosines are multiplied by, as it was trained

    def see(self, pictures: Iterable[Image.Image]) -> Iterator[np.ndarray]:
        """A vector [d] for each picture; only a batch of them is held at a time."""
        import torch

        waiting = iter(pictures)
        while batch := [self.prepare(picture) for picture in islice(waiting, BATCH)]:
            with torch.inference_mode():
                yield from self.model.encode_image(torch.stack(batch).to(self.device), normalize=True).float().cpu().numpy()

    def chances(self, points: np.ndarray, said: np.ndarray) -> np.ndarray:
        """Probabilities [n, k] that each of k texts is the one that belongs to each of n pictures."""
        logits = self.scale * (points @ said.T)
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        return raised / raised.sum(axis=1, keepdims=True)

    def say(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors [n, d] of texts."""
        import torch

        with torch.inference_mode():
            parts = [
                self.model.encode_text(self.tokenize(list(texts[i : i + BATCH])).to(self.device), normalize=True)
                for i in range(0, len(texts), BATCH)
            ]
        return torch.cat(parts).float().cpu().numpy()


def _check_shapes(source: Source, model: Any) -> None:
    """open_clip stretches position embeddings to the size in its config, and so loads weights that are not of this model."""
    from huggingface_hub import try_to_load_from_cache
    from safetensors import safe_open

    place = Path(source.location) / WEIGHTS if source.is_local else try_to_load_from_cache(source.location, WEIGHTS)
    if not isinstance(place, (str, Path)) or not Path(place).is_file():
        return  # older files, which open_clip opens itself
    wanted = model.state_dict()
    with safe_open(place, "np") as file:
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys() if key in wanted}
    other = [(key, shape) for key, shape in shapes.items() if math.prod(shape) != wanted[key].numel()]
    check_whole(source.location, {"mismatched_keys": other})


@dataclass
class Seer:
    """Sees the pictures of records, a batch at a time, with a model of its own, opened with the first: what is sent to an engine's workers."""

    given: str
    setting: str
    device: str | None
    load: Callable[[Record], Image.Image]
    _clip: Clip | None = None

    def __call__(self, records: list[Record]) -> list[np.ndarray | UnreadablePhoto]:
        self._clip = self._clip or Clip(self.given, self.setting, device.choose(self.device))
        loaded: list[Record] = []
        seen = list(self._clip.see(_loaded(records, self.load, loaded)))
        vectors = {id(record): vector for record, vector in zip(loaded, seen, strict=True)}
        return [vectors.get(id(record), UnreadablePhoto("unreadable", "changed or gone since it was checked")) for record in records]


def embed_cached(
    open_clip: Callable[[], Clip],
    path: Path,
    records: list[Record],
    key: Callable[[Record], str],
    load: Callable[[Record], Image.Image],
    label: str,
    shared: Callable[[list[Record]], Iterator[tuple[Record, Any]]] | None = None,
) -> dict[str, np.ndarray]:
    """{record id: vector} of the records whose picture can be loaded. Vectors are kept at `path` under `key`, and only what is not
    there is seen; a stop, Ctrl-C too, loses no more than the batch at hand. Without anything to see no model is opened. `shared` sees
    them elsewhere: an engine with a `Seer`."""
    known = read_vectors(path)
    todo = [r for r in records if key(r) not in known]
    is_new = False
    kept = time.monotonic()
    try:
        with progress(label, len(todo)) as shown:
            for record, vector in (shared or partial(_see_here, open_clip, load))(todo) if todo else ():
                shown.advance()
                if isinstance(vector, UnreadablePhoto):
                    continue
                known[key(record)], is_new = vector, True
                if time.monotonic() - kept > KEEP_EVERY:
                    write_vectors(path, known)
                    kept = time.monotonic()
    finally:
        if is_new:
            write_vectors(path, known)
    return {r["id"]: known[key(r)] for r in records if key(r) in known}


def _see_here(open_clip: Callable[[], Clip], load: Callable[[Record], Image.Image], todo: list[Record]) -> Iterator[tuple[Record, Any]]:
    loaded: list[Record] = []
    for number, vector in enumerate(open_clip().see(_loaded(todo, load, loaded))):
        yield loaded[number], vector


def _loaded(records: list[Record], load: Callable[[Record], Image.Image], loaded: list[Record]) -> Iterator[Image.Image]:
    """The pictures that can be loaded, the next batch in threads meanwhile; `loaded` gets their records."""
    for record, job in ahead(load, records, 2 * BATCH):
        try:
            picture = job.result()
        except UnreadablePhoto:  # changed or gone since it was checked
            continue
        loaded.append(record)
        yield picture


def read_vectors(path: Path) -> dict[str, np.ndarray]:
    """{key: vector} as `write_vectors` has written them; none where there is no such file."""
    if not path.is_file():
        return {}
    with np.load(path) as kept:
        return dict(zip(kept["hashes"].tolist(), kept["vectors"], strict=True))


def write_vectors(path: Path, known: dict[str, np.ndarray]) -> None:
    def save(part: Path) -> None:
        with open(part, "wb") as file:
            np.savez(file, hashes=np.array(list(known)), vectors=np.stack(list(known.values())))

    if known:
        files.write_whole(path, save)
