"""What stands in a manifest is written down in lorakit/record.py, key by key."""

import json
import types
import typing
import zipfile
from pathlib import Path

from lorakit.record import Record

FROZEN = Path(__file__).parent / "frozen" / "0.1.0.zip"


def unknown(found, wanted, path):
    """Keys of a record that its type does not know, at any depth."""
    if typing.get_origin(wanted) in (types.UnionType, typing.Union):
        wanted = next(kind for kind in typing.get_args(wanted) if kind is not type(None))
    if typing.is_typeddict(wanted) and found is not None:
        hints = typing.get_type_hints(wanted)
        for key, value in found.items():
            yield from unknown(value, hints[key], f"{path}.{key}") if key in hints else [f"{path}.{key}"]
    elif typing.get_origin(wanted) is list:
        for value in found or ():
            yield from unknown(value, typing.get_args(wanted)[0], path)


def test_every_key_of_a_finished_project_is_written_down():
    with zipfile.ZipFile(FROZEN) as archive:
        records = [json.loads(line) for line in archive.read("project/manifest.jsonl").decode().splitlines()]
    assert len(records) == 7
    assert [key for record in records for key in unknown(record, Record, "record")] == []


def test_an_unknown_key_is_found_at_any_depth():
    record = {"id": "a", "crop": {"box": [0], "angle": 3}, "former": [{"change": 1, "who": "me"}], "embed": None}
    assert list(unknown(record, Record, "record")) == ["record.crop.angle", "record.former.who"]
