"""What stands in a manifest is written down in lorakit/record.py, key by key."""

import json
import types
import typing
import zipfile
from pathlib import Path

import pytest

from lorakit.record import Record, fault_of, is_sound, parse, parse_all

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


ODD = ['"\\udce9"', "1e999", "-1e999", "NaN", "1.0", "1", "-0", "0.1e1", "123456789012345678901234567890", '"\\ud83d\\ude00"', "1e-400", "{}", "[]", "null",
       "true", '"x"', '{"a": 1, "a": 2}', "[[1.0]]", "1.7976931348623157e308", "0.1", "5e-324", '{"id": 3}', '["x"]', '[1, 2, 3, 4]']  # fmt: skip


@pytest.mark.parametrize("value", ODD)
def test_lines_are_read_as_json_reads_them(value):
    line = f'{{"id": "a", "measures": {{"m": {{"v": {value}}}}}}}'.encode()
    assert (
        repr(parse(line)) == repr(json.loads(line))
        and (parse_all(line + b"\n" + line) or [parse(line)] * 2) == [parse(line)] * 2
        or "NaN" in value
    )


@pytest.mark.parametrize("line", [b"", b"{", b'{"a": 1,}', b'"\x01"', b"\xef\xbb\xbf{}", b"{}{}", b"01", b"[" * 100_000])
def test_what_is_no_json_is_none_for_both(line):
    with pytest.raises((ValueError, RecursionError)):
        parse(line)
    assert parse_all(line) in (None, [{}, {}], [])


def test_a_line_is_called_sound_only_where_nothing_is_wrong_with_it():
    """Whatever value stands under whatever key: the quick look never says yes where the long one finds a fault, and seldom no where not."""
    with zipfile.ZipFile(FROZEN) as archive:
        whole = [json.loads(line) for line in archive.read("project/manifest.jsonl").decode().splitlines()]
    assert all(is_sound(json.dumps(record).encode(), record) for record in whole)
    agreed, tried = 0, 0
    for key in (*Record.__annotations__, "unknown"):
        for value in (*ODD, *(json.dumps(record[key]) for record in whole[:3] if key in record)):
            line = json.dumps({k: v for k, v in whole[0].items() if k != key})[:-1].encode() + f', "{key}": {value}}}'.encode()
            record, tried = parse(line), tried + 1
            assert not is_sound(line, record) or fault_of(record) is None, line
            agreed += is_sound(line, record) == (fault_of(record) is None)
    assert agreed > 0.9 * tried > 500
