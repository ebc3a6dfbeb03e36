"""Whether a diffusers folder can be trained as a family: told by its configurations and the headers of its files, before anything loads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from lorakit.bases import families
from lorakit.bases.families.base import Family
from lorakit.bases.purposes import purpose
from lorakit.errors import LorakitError
from lorakit.weights import INDEX


def check_folder(family: type[Family], folder: Path, card: str = "") -> None:
    """Raises `LorakitError` naming the first part that does not fit: a denoiser of another architecture, one for inpainting or control,
    one that is quantised or not there as .safetensors, other text encoders, a VAE that cannot encode, or another base of the family than
    that of `card`."""
    check_pipeline(family, folder)
    check_layout(family, folder, card)
    denoiser = read_config(folder / family.FOLDER)
    found = denoiser.get("_class_name", family.DENOISER.__name__)
    if found != family.DENOISER.__name__:
        raise LorakitError(
            f"{folder}: its {family.FOLDER} is a {found}, not {family.NAME}'s {family.DENOISER.__name__}; give a base of this family"
        )
    if "quantization_config" in denoiser:
        kind = denoiser["quantization_config"].get("quant_method", "quantised")
        raise LorakitError(f"{folder}: its {family.FOLDER} is quantised ({kind}); a LoRA is trained on the fp16 or bf16 version")
    reads, wanted = denoiser.get("in_channels"), _channels(family, read_config(folder / "vae"))
    if reads and wanted and reads != wanted:
        raise LorakitError(f"{folder}: reads {reads} channels in place of {wanted}, for inpainting, fill or control; give the plain base")
    for name, cls in family.ENCODERS.items():
        config, usual = read_config(folder / name), cls.config_class.model_type
        kind, words = (
            config.get("model_type"),
            (config.get("text_config") or {}).get("model_type"),
        )  # of one that sees too, what reads words
        if kind and usual.split("_")[0] not in (kind.split("_")[0], words):
            raise LorakitError(f"{folder}: its {name} is a {kind}, not a {usual}; it is no base of {family.NAME}")
    if other := next((title for key, title in family.OTHER_CONFIGS.items() if denoiser.get(key)), None):
        raise LorakitError(f"{folder}: is {other}, by its {family.FOLDER}'s configuration; give the plain base")
    dtypes = _dtypes(folder / family.FOLDER)
    if fp8 := next((key for key, dtype in dtypes.items() if dtype.startswith("F8")), None):
        raise LorakitError(f"{folder}: its {family.FOLDER} is in fp8 ({fp8}); a LoRA is trained on the fp16 or bf16 version")
    if (keys := _dtypes(folder / "vae")) and not any(key.startswith("encoder.") for key in keys):
        raise LorakitError(f"{folder}: its vae has a decoder only, and pictures cannot be encoded with it; give the whole VAE")


def check_pipeline(family: type[Family], folder: Path) -> None:
    """Raises `LorakitError` when a folder says that another pipeline than this family's draws with it: one that edits, fills or varies
    pictures, or that of another family with the same denoiser."""
    drawn_by = next((found for name in INDEX if (found := read_config(folder, name).get("_class_name"))), family.PIPELINE.__name__)
    if drawn_by == family.PIPELINE.__name__:
        return
    if what := purpose(drawn_by):
        raise LorakitError(f"{folder}: is {what}, by the {drawn_by} of its {INDEX[0]}; give the plain base")
    for other in (families.load(name) for name in families.names()):
        if other.PIPELINE.__name__ == drawn_by and other.LAYOUTS:
            layout = other.LAYOUTS[0]
            raise LorakitError(f"{folder}: is {layout.title}, by its {INDEX[0]}; choose --base {layout.usual}, or weights of this one")


def check_layout(family: type[Family], folder: Path, card: str) -> None:
    """Raises `LorakitError` when a denoiser reads texts of a width that is another base's than the card's, or has another's layers."""
    own = next((layout for layout in family.LAYOUTS if card in layout.cards), None)
    reads = read_config(folder / family.FOLDER).get("cross_attention_dim")
    other = next((layout for layout in family.LAYOUTS if layout.text_width and layout.text_width == reads), None)
    if own and other and own.text_width and other is not own:
        raise LorakitError(
            f"{folder}: is {other.title}, by the texts that it reads; choose --base {other.usual}, or weights of {own.title}"
        )
    widths = [layout.text_width for layout in family.LAYOUTS if layout.text_width]
    if reads and widths and reads not in widths and 2 * reads > min(widths):  # a tiny base may be of any width
        wanted = " or ".join(map(str, widths))
        raise LorakitError(
            f"{folder}: reads texts {reads} wide in place of {wanted}: a refiner, or another architecture; give the plain base"
        )
    if own and (found := _card_by_layers(family, read_config(folder / family.FOLDER), card)):
        raise LorakitError(f"{folder}: is {found}, by its layers; choose --base {found}, or weights of {card}")


def is_distilled(folder: Path) -> bool:
    """Whether a folder says of itself that it draws in few steps and without guidance, as some pipelines' configurations do."""
    return read_config(folder, "model_index.json").get("is_distilled") is True


def _card_by_layers(family: type[Family], config: Mapping[str, Any], card: str) -> str | None:
    """Another base of the family, whose layers these are in number and width, and not the card's own."""

    def has(numbers: Mapping[str, Any]) -> bool:
        return all(not isinstance(value, int) or config.get(key) == value for key, value in numbers.items())

    known = [name for layout in family.LAYOUTS for name in layout.cards]
    others = {name: family.MEMBERS[name] for name in known if name in family.MEMBERS and name != card}
    if card in family.MEMBERS:
        others[family.LAYOUTS[0].usual] = {key: family.CONFIG[key] for key in family.MEMBERS[card] if key in family.CONFIG}
        if has(family.MEMBERS[card]):
            return None
    return next((name for name, numbers in others.items() if has(numbers)), None)


def read_config(folder: Path, name: str = "config.json") -> Mapping[str, Any]:
    """What a part's configuration says; empty where there is none. Raises `LorakitError` naming a file that cannot be read."""
    try:
        found = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}  # loading says what is missing
    except (OSError, ValueError) as error:
        raise LorakitError(f"{folder / name}: cannot be read ({error})") from None
    return found if isinstance(found, dict) else {}


def _channels(family: type[Family], vae: Mapping[str, Any]) -> int | None:
    """How many channels a denoiser reads of latents of this VAE; some families pack several latents into one token."""
    name = "z_dim" if "z_dim" in vae else "latent_channels"
    channels = vae.get(name)
    if not family.LAYOUTS or not channels:
        return None
    return channels * family.LAYOUTS[0].inputs[1] // family.VAE_CONFIG.get(name, 4)


def _dtypes(folder: Path) -> dict[str, str]:
    """{key: 'F16'} of a part's weights."""
    weights = sorted(folder.glob("*.safetensors"))
    if not weights and (others := [path.name for path in folder.glob("*") if path.suffix in (".gguf", ".bin", ".pt", ".ckpt")]):
        raise LorakitError(f"{folder}: has {others[0]} and no .safetensors; give a version with .safetensors in fp16 or bf16")
    found = {}
    for path in weights:
        try:
            with safe_open(path, "pt") as file:
                found |= {key: file.get_slice(key).get_dtype() for key in file.keys()}
        except (OSError, SafetensorError) as error:
            raise LorakitError(f"{path}: cannot be read as .safetensors ({error})") from None
    return found
