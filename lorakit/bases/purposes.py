"""What a base is made for, as far as its names tell: those for editing, inpainting or control have the layers of the plain ones."""

from __future__ import annotations

import re

ANYWHERE = {
    "kontext": "for editing pictures", "pix2pix": "for editing pictures", "inpaint": "for inpainting", "layered": "for pictures in layers",
    "redux": "for variations of a picture", "unclip": "for variations of a picture", "imagevariation": "for variations of a picture",
    "controlnet": "for control", "upscale": "for enlarging pictures", "refiner": "a refiner of another's pictures",
}  # fmt: skip
AS_A_WORD = {"edit": "for editing pictures", "fill": "for inpainting", "control": "for control", "canny": "for control", "depth": "for control",
             "omni": "for several pictures at once"}  # fmt: skip
IN_FILE_NAMES = ("kontext", "pix2pix", "inpaint", "layered", "redux", "refiner", "edit")  # what people call a file after


def purpose(name: str) -> str | None:
    """'for editing pictures' of QwenImageEditPlusPipeline, FLUX.1-Kontext-dev or qwen-image-edit/lora; None for a plain one."""
    squeezed = re.sub(r"[^a-z0-9]", "", name.lower())
    words = {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)}
    found = [told for part, told in ANYWHERE.items() if part in squeezed] + [told for word, told in AS_A_WORD.items() if word in words]
    return found[0] if found else None


def purpose_of_file(stem: str) -> str | None:
    """The same of a file's name, of which only the plainest words tell."""
    words = re.findall(r"[a-z]+\d*[a-z]+|[a-z]+", stem.lower())
    told = next((part for part in IN_FILE_NAMES if any(word == part or (part != "edit" and part in word) for word in words)), None)
    return purpose(told) if told else None
