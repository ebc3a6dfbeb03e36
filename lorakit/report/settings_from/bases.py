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
    given = options.text(name) or None
    known = _named(given) if given else None
    like = known or (_sounding_like(given, family) if given else None)
    if like and family and like.family != family:
        known = like = None
    default = card or next((one for one in _cards() if one.family == family), None)
    default = like or default
    path, text = options.path(name), given or ""
    if given is None or (known and known.hub and path is None):
        return default, {}
    if path is None and (what := purpose(_last(text))):
        options.lack(name, f"a base {what}; a plain one is trained, --base names another")
    elif path and path.suffix.lower() in (".ckpt", ".bin", ".pt", ".pth"):
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


def of_words(text: str, family: str | None) -> Card | None:
    """The card all words of whose name stand in another's: flux1-dev in FLUX_DEV_1."""
    there = _words(text)
    found = [card for card in _cards() if card.family == family and _words(card.name) <= there]
    return max(found, key=lambda card: len(_words(card.name)), default=None)


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+|\d+", text.lower()))


def _sounding_like(text: str, family: str | None) -> Card | None:
    """The card that the weights' name speaks of; None for a base of another purpose."""
    if purpose(_last(text)):
        return None
    return catalog.sounding_like(text, [card for card in _cards() if family in (None, card.family)])


def _last(text: str) -> str:
    return text.replace("\\", "/").rstrip("/").rpartition("/")[2]


@cache
def _cards() -> list[Card]:
    """Smallest first, of several as large the one of the plainest name, which its offspring is not; without those made for trying out."""
    known = (card for card in catalog.cards() if not card.comes_along and card.is_built)
    return sorted(known, key=lambda card: (card.family, not card.hub, card.size_gb, len(card.name), card.name))
