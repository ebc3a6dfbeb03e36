"""open_clip, which puts pictures and texts into one space: how well a text fits a photo, and what photos have in common.
Its weights are not part of lorakit: a setting names a folder or a hub id, and without one nothing of this is done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from lorakit import files
from lorakit.errors import LorakitError
from lorakit.weights import Source, hub_errors_in_words

CONFIG = "open_clip_config.json"
HUB = "hf-hub:"
BATCH = 32


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
            self.model, self.prepare = open_clip.create_model_from_pretrained(place, device=device)
            self.tokenize = open_clip.get_tokenizer(place)
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
            parts = [self.model.encode_text(self.tokenize(list(texts[i : i + BATCH])).to(self.device), normalize=True) for i in range(0, len(texts), BATCH)]
        return torch.cat(parts).float().cpu().numpy()


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
