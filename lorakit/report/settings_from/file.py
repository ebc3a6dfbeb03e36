"""A settings file of another trainer, whichever it is: read safely, and turned into lorakit's settings with what it lacks."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lorakit.errors import LorakitError
from lorakit.project.catalog import Card
from lorakit.project.project import FILE as PROJECT_FILE
from lorakit.project.project import is_project
from lorakit.report.settings_from import ai_toolkit, bases, diffusers, kohya_window, lora_header, onetrainer, sd_scripts, shell
from lorakit.report.settings_from.options import Options, checked, in_words, short
from lorakit.settings import known_keys

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FORMS = "sd-scripts' .toml, kohya_ss' and OneTrainer's .json, ai-toolkit's .yaml, a shell script of diffusers or sd-scripts, or a LoRA's .safetensors"
OF_ITS_BASE = {  # settings that mean nothing, or something else, for a base of another family
    f"train.{name}" for name in "weights from_lora timestep_sampling logit_mean logit_std flow_shift guidance prediction zero_terminal_snr "
    "loss_weighting min_snr_gamma noise_offset multires_noise input_perturbation t5 targets block_ranks base_precision".split()
}  # fmt: skip
LARGEST = 10_000_000  # bytes of a settings file


@dataclass(frozen=True)
class TakenOver:
    """What a file said: {dotted key: value}, the card of its base where it can be told, and what has no like in lorakit."""

    path: Path
    trainer: str
    settings: dict[str, Any]
    card: Card | None = None
    lacking: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)  # of folders, logs and the machine

    def fit_to_another(self, card: Card) -> None:
        """Leave out what is of use for the file's own base alone, and say so: the project's is of another family."""
        self.lacking.append(f"its base, {self.card.title if self.card else 'another'} (the project's is {card.title})")
        for key in sorted(OF_ITS_BASE & set(self.settings)):
            value = self.settings.pop(key)
            if value != known_keys()[key][0].default:
                self.lacking.append(f"{key} = {_word(value)} (for the other base)")

    @property
    def origin(self) -> str:
        return f"from {self.path.name}"

    def lines(self) -> list[str]:
        """To be said: what was taken over, what has no counterpart, what is left to lorakit."""
        others = {key: value for key, value in self.settings.items() if value != known_keys()[key][0].default}
        words = [f"base {self.card.name}"] if self.card else []
        words += [f"{key}={_word(value)}" for key, value in others.items()]
        same = [key for key in self.settings if key not in others]
        as_usual = f"; as lorakit's defaults: {', '.join(same)}" if same else ""
        lines = [f"{self.path.name} ({self.trainer}), taken over: {', '.join(words) or 'nothing'}{as_usual}"]
        if self.lacking:
            lines.append(f"{self.path.name}, no counterpart: {'; '.join(self.lacking)}")
        if self.left:
            lines.append(f"{self.path.name}, left to lorakit (folders, names, logs, speed): {', '.join(self.left)}")
        return lines


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    return short(list(value) if isinstance(value, tuple) else value)


def take(path: Path) -> TakenOver:
    """Settings of a file of another trainer. Raises `LorakitError` for one that is not there, is damaged, or is none of `FORMS`."""
    path = path.expanduser()
    _check_not_ours(path)
    if path.is_dir():
        raise LorakitError(f"--settings-from {path}: a folder; give the file, {FORMS}")
    if not path.is_file():
        raise LorakitError(f"--settings-from {path}: no such file")
    if path.suffix.lower() == ".safetensors":
        return _of_lora(path)
    if path.suffix.lower() in (".ckpt", ".pt", ".pth", ".bin"):
        raise LorakitError(f"--settings-from {path}: pickled files can run code and are refused; give the .safetensors")
    text = _text(path)
    if path.suffix.lower() in (".sh", ".bash", ".bat"):
        return _of_script(path, text)
    values = _tables(path, text)
    if ai_toolkit.is_one(values):
        options = ai_toolkit.options_of(values, path.parent)
        card, found = ai_toolkit.take(options)
        return _done(path, ai_toolkit.TITLE, options, card, found, ai_toolkit.LEFT)
    if onetrainer.is_one(values):
        options = onetrainer.options_of(values, path.parent)
        card, found, left = onetrainer.take(options)
        return _done(path, onetrainer.TITLE, options, card, found, left)
    if kohya_window.is_one(values):
        options, family = kohya_window.options_of(values, path.parent)
        if "dataset_config" in options.values:
            options = _with_dataset(options)
        card, found = sd_scripts.take(options, family)
        return _done(path, kohya_window.TITLE, options, card, found, sd_scripts.LEFT | kohya_window.LEFT)
    if (
        isinstance(values.get("datasets"), list)
        and values["datasets"]
        and all(isinstance(one, dict) and "subsets" in one for one in values["datasets"])
    ):
        options = sd_scripts.add_dataset(Options({}, path.parent), values)
        card, found = sd_scripts.take(options, whole=False)
        options.get("repeats")
        return _done(path, "sd-scripts, dataset", options, None, found, sd_scripts.LEFT)
    return _of_sd_scripts(path, _flat(values), tables={name: inner for name, inner in values.items() if isinstance(inner, dict)})


def _check_not_ours(path: Path) -> None:
    """Raises `LorakitError` for a project of lorakit's, its project.yaml or the settings.yaml of a run: they are not read, and it says what is."""
    folder = path if path.is_dir() else path.parent
    if path.name == "settings.yaml" and folder.parent.name == "runs":
        folder = folder.parent.parent
    elif path.name != PROJECT_FILE and not path.is_dir():
        return
    if is_project(folder):
        raise LorakitError(
            f"--settings-from {path}: of a lorakit project, and no file of another trainer; give a LoRA file that it has trained "
            f"(runs/*/*.safetensors), or copy what stands under settings: in {folder / PROJECT_FILE} into the new project's"
        )


def _of_sd_scripts(path: Path, values: Mapping[str, Any], family: str | None = None, tables: Mapping[str, Any] | None = None) -> TakenOver:
    """`tables` are sections of the file, which may have the name of an option by mistake."""
    if len(sd_scripts.KNOWN & set(values)) < 2:
        raise LorakitError(f"--settings-from {path}: no settings of a trainer that lorakit knows; it reads {FORMS}")
    options = _with_dataset(Options(values, path.parent))
    card, found = sd_scripts.take(options, family)
    wrong = [name for name in tables or {} if name in options.dealt and name not in options.values]
    options.lacking += [f"{in_words(name, (tables or {})[name])} (a table, no value)" for name in wrong]
    return _done(path, "sd-scripts", options, card, found, sd_scripts.LEFT)


def _with_dataset(options: Options) -> Options:
    return sd_scripts.with_dataset(options, lambda path: _tables(path, _text(path)))


def _of_script(path: Path, text: str) -> TakenOver:
    script, values = shell.read(path, text)
    name = script.rpartition("/")[2]
    if family := diffusers.family_of(script):
        options = Options(values, path.parent)
        card, found = diffusers.take(options, family)
        return _done(path, diffusers.TITLE, options, card, found, diffusers.LEFT)
    family = bases.of_sd_scripts(values, lambda words: words["script"] == name)
    if family is None:
        raise LorakitError(f"--settings-from {path}: starts {name}, which lorakit does not know; it reads {FORMS}")
    if given := values.pop("config_file", None):
        file = next((one for one in (path.parent / str(given), Path(str(given))) if one.is_file()), None)
        if file is None:
            raise LorakitError(f"--settings-from {path}: its --config_file {given} is not beside it")
        values = {**_flat(_tables(file, _text(file))), **values}
    return _of_sd_scripts(path, values, None if name == "train_network.py" else family)


def _of_lora(path: Path) -> TakenOver:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            header, keys = file.metadata() or {}, list(file.keys())
    except (SafetensorError, OSError) as error:
        raise LorakitError(f"--settings-from {path}: cannot be read ({error}); it is damaged, or no .safetensors") from None
    options = lora_header.options_of(path, header, keys)
    card, found = lora_header.take(options, header)
    title = "lorakit" if "lorakit_version" in header else "sd-scripts"
    return _done(path, f"{title}, LoRA file", options, card, found, sd_scripts.LEFT)


def _done(path: Path, trainer: str, options: Options, card: Card | None, found: Mapping[str, Any], left: frozenset[str]) -> TakenOver:
    settings = checked(found, options)
    rest = options.rest()
    left |= {key for key, value in rest.items() if sd_scripts.AS_HERE.get(key) == str(value)}
    lacking = [*options.lacking, *(in_words(key, value) for key, value in rest.items() if key not in left)]
    return TakenOver(path, trainer, settings, card, list(dict.fromkeys(lacking)), sorted(key for key in rest if key in left))


def _text(path: Path) -> str:
    if path.stat().st_size > LARGEST:
        raise LorakitError(f"--settings-from {path}: too large for settings; it reads {FORMS}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise LorakitError(f"--settings-from {path}: no text; it reads {FORMS}") from None


def _tables(path: Path, text: str) -> dict[str, Any]:
    readers = {".toml": tomllib.loads, ".json": json.loads, ".yaml": yaml.safe_load, ".yml": yaml.safe_load}
    read = readers.get(path.suffix.lower())
    if read is None:
        raise LorakitError(f"--settings-from {path}: {path.suffix or 'a file without ending'} is no settings file; it reads {FORMS}")
    try:
        values = read(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise LorakitError(
            f"--settings-from {path}: not valid {path.suffix[1:].upper()} ({' '.join(str(error).split())}); mend it"
        ) from None
    if not isinstance(values, dict):
        raise LorakitError(f"--settings-from {path}: no table of settings; it reads {FORMS}")
    return values


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """sd-scripts looks into the sections of a configuration and passes over their names."""
    return {key: value for name, inner in values.items() for key, value in (inner.items() if isinstance(inner, dict) else [(name, inner)])}
