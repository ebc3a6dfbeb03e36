"""Which base another trainer's file is for: by its weights, by what the trainer calls a family, or by what a LoRA file says."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from lorakit import lookup
from lorakit.bases.purposes import purpose
from lorakit.project import catalog
from lorakit.project.catalog import Card
from lorakit.report.settings_from.options import Options


def family_of(trainer: str, is_it: Callable[[Mapping[str, Any]], Any]) -> str | None:
    """The family of whose words for a trainer, in OTHER_TRAINERS, `is_it` is true; None where none is, or several are."""
    words = {name: lookup.constant(lookup.FAMILIES, name, "OTHER_TRAINERS", {}).get(trainer) for name in lookup.names(lookup.FAMILIES)}
    found = [name for name, own in words.items() if own and is_it(own)]
    return found[0] if len(found) == 1 else None


def of_sd_scripts(values: Mapping[str, Any], is_it: Callable[[Mapping[str, Any]], Any]) -> str | None:
    """The same for sd-scripts, one of whose scripts trains several families, told by `model_type`."""
    named = {kind: name for name, kind in _model_types() if kind}
    wanted = str(values.get("model_type") or "")
    return family_of("sd_scripts", lambda words: is_it(words) and _model_type(words) == (wanted if wanted in named else ""))


def _model_types() -> list[tuple[str, str]]:
    families = lookup.names(lookup.FAMILIES)
    return [(name, _model_type(lookup.constant(lookup.FAMILIES, name, "OTHER_TRAINERS", {}).get("sd_scripts", {}))) for name in families]


def _model_type(words: Mapping[str, Any]) -> str:
    return words.get("fixed", {}).get("model_type", "")


def of_version(version: str | None) -> Card | None:
    """The card of a LoRA file's `ss_base_model_version`."""
    return next((card for card in _cards() if version and version == card.metadata.get("ss_base_model_version")), None)


def take(options: Options, name: str, family: str | None, card: Card | None = None) -> tuple[Card | None, dict[str, Any]]:
    """The base, as far as it can be told, and `train.weights` where the option `name` has other weights than its card."""
    given = options.get(name)
    known = _named(str(given)) if given is not None else None
    like = known or (_sounding_like(str(given), family) if given is not None else None)
    if like and family and like.family != family:
        known = like = None
    default = card or next((one for one in _cards() if one.family == family), None)
    default = like or default
    path, text = options.path(name), str(given)
    if given is None or (known and known.hub and path is None):
        return default, {}
    if path and path.suffix.lower() in (".ckpt", ".bin", ".pt", ".pth"):
        options.lack(name, "pickled weights can run code; give a .safetensors with --weights")
    elif path and (path.is_file() or any(path.glob("*model_index.json"))):
        return default, {"train.weights": str(path)}
    elif text.count("/") == 1 and not text.startswith((".", "/", "~")) and Path(text).suffix != ".safetensors":
        return default, {"train.weights": f"hf://{text}"}
    else:
        options.lack(name, "not here; --weights names a base of your own")
    return default, {}


def _named(text: str) -> Card | None:
    """The card whose hub id, or file, this is the name of."""
    last = _last(text).lower()
    for card in _cards():
        names = (card.hub or "").rpartition("/")[2], card.metadata.get("ss_sd_model_name", ""), card.name
        if last and last in [name.lower() for name in names if name]:
            return card
    return None


def _sounding_like(text: str, family: str | None) -> Card | None:
    """The card that a file's or a place's name most speaks of, by its `known_as`: ponyDiffusionV6XL, flux2_dev_fp8mixed. None for a base of
    another purpose, and for a name that speaks of none."""
    name = re.sub(r"[^a-z0-9]", "", _last(text).lower())
    if purpose(_last(text)):
        return None
    fitting = [(_fit(card, name), card) for card in _cards() if family in (None, card.family)]
    best = max((fit for fit, _ in fitting), default=0)
    return next((card for fit, card in fitting if best and fit == best), None)


def _fit(card: Card, name: str) -> int:
    return max((len(words) for words in card.known_as if all(word in name for word in words.split())), default=0)


def _last(text: str) -> str:
    return text.replace("\\", "/").rstrip("/").rpartition("/")[2]


@cache
def _cards() -> list[Card]:
    """Smallest first, of several as large the one of the plainest name, which its offspring is not; without those made for trying out."""
    known = (card for card in catalog.cards() if not card.comes_along and card.is_built)
    return sorted(known, key=lambda card: (card.family, not card.hub, card.size_gb, len(card.name), card.name))
