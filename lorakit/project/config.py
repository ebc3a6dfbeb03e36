"""project.yaml: read, and edited so that a person's comments, order and spelling stay."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lorakit import files
from lorakit.errors import LorakitError

HEAD = "# A lorakit project. Edit it freely; the next `lorakit run` redoes only what a change touches.\n"


def read(path: Path) -> dict[str, Any]:
    """The file's words. Raises `LorakitError` where it is not YAML, or no table."""
    try:
        words = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, or a date that does not exist
        raise LorakitError(f"{path}: not valid YAML ({' '.join(str(error).split())}); mend it") from None
    if words is None:
        return {}
    if not isinstance(words, dict):
        raise LorakitError(f"{path}: no table of words (photos, base, kind, settings); mend it")
    return words


def edit(path: Path, changes: Mapping[str, Any]) -> None:
    """Put `changes` in: words, and under `settings` dotted keys. Only what is another value is touched, and a file in which
    nothing changes is not written. A new file gets `changes` as they are."""
    if not path.is_file():
        files.write_text(path, HEAD + yaml.safe_dump(_plain(changes), sort_keys=False, allow_unicode=True))
        return
    text = path.read_text(encoding="utf-8")
    before = read(path)
    if not before:  # nothing but comments
        files.write_text(path, text + yaml.safe_dump(_plain(changes), sort_keys=False, allow_unicode=True))
        return
    from ruamel.yaml.error import YAMLError

    try:
        tree = _round_trip().load(text)
    except YAMLError as error:  # stricter than PyYAML, by which it was read
        raise LorakitError(f"{path}: cannot be edited ({' '.join(str(error).split())}); mend it") from None
    for key, value in changes.items():
        if key != "settings":
            _put(tree, before, key, value)
    for key, value in changes.get("settings", {}).items():
        _put_setting(tree, before, key, value)
    out = io.StringIO()
    _round_trip(text).dump(tree, out)
    if yaml.safe_load(out.getvalue()) != (yaml.safe_load(text) or {}):
        files.write_text(path, out.getvalue())


def where(path: Path, key: str) -> str:
    """'.../project.yaml, line 7': where a word or a setting stands, dotted or nested; the file alone where it cannot be told."""
    from ruamel.yaml.comments import CommentedMap
    from ruamel.yaml.error import YAMLError

    try:
        tree = _round_trip().load(path.read_text(encoding="utf-8"))
        for node, name in (*_places(tree.get("settings"), key), (tree, key)):
            if isinstance(node, CommentedMap) and name in node:
                return f"{path}, line {node.lc.key(name)[0] + 1}"
    except (OSError, ValueError, KeyError, AttributeError, TypeError, YAMLError):
        pass  # the place is a help, no more
    return str(path)


def _put_setting(tree: Any, before: dict[str, Any], key: str, value: Any) -> None:
    if not isinstance(tree.get("settings"), Mapping):
        tree["settings"] = _node({})
    there = list(_places(tree["settings"], key))
    plain = list(_places(before.get("settings") or {}, key))
    for (node, name), (was, _) in zip(there, plain):
        _put(node, was, name, value)
    if not there:
        _block(tree["settings"])[key] = _node(value)


def _places(settings: Any, key: str) -> list[tuple[Any, str]]:
    """Every table and name in it under which a dotted key stands: `train.rank`, or `rank` in the table `train`."""
    if not isinstance(settings, Mapping):
        return []
    places = [(settings, key)] if key in settings else []
    head, dot, rest = key.partition(".")
    return places + (_places(settings.get(head), rest) if dot else [])


def _put(node: Any, was: Any, name: str, value: Any) -> None:
    if name not in was or was[name] != _plain(value):
        node[name] = _node(value)


def _block(node: Any) -> Any:
    """An empty `{}` is written out in lines once something is in it."""
    if not node and hasattr(node, "fa"):
        node.fa.set_block_style()
    return node


def _node(value: Any) -> Any:
    """The value in the spelling that PyYAML gives it and reads again: 'on' quoted, 1.0e-05 with its point."""
    return _round_trip().load(yaml.safe_dump(_plain(value), allow_unicode=True))


def _round_trip(text: str = "") -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.util import load_yaml_guess_indent

    found = YAML(typ="rt")
    found.preserve_quotes, found.width, found.allow_duplicate_keys = True, 1 << 20, True
    if text:
        _, sequence, offset = load_yaml_guess_indent(text, yaml=YAML(typ="rt"))
        if sequence is not None and offset is not None:
            found.indent(mapping=2, sequence=max(sequence, offset + 2), offset=offset)
    return found


def _plain(value: Any) -> Any:
    """Tuples as lists, so that YAML stays free of tags."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
