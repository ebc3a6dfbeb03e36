"""One photo's record: what stands in a line of `manifest.jsonl`, key by key. In the file and in memory it is a plain
mapping that a person can read and mend; the types are for editors and pyright.

A key stands there once its stage has been; the keys of `scan` always do. None under a stage's key: it found nothing."""

from __future__ import annotations

import json
import re
import types
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, TypedDict, Union, get_args, get_origin, get_type_hints, is_typeddict

import msgspec

_HEX = re.compile("(?:[0-9a-f]{2})*")
LARGEST_SIDE = 1 << 16  # pixels of a crop or a bucket; what is said to be larger was not written by lorakit


class Sidecar(TypedDict, total=False):
    """A caption that lay beside the photo; `text` and `file` always stand there."""

    text: str
    file: str
    listed: bool  # in a list of several photos
    others: list[str]  # further captions, of this file and of other texts beside the photo
    differing: list[str]  # other files that say something else, not used


class Embedded(TypedDict):
    """A description in the photo itself."""

    text: str
    kind: str  # XMP, IPTC, EXIF, PNG


class Inherited(TypedDict, total=False):
    """What lay beside copies that were left out in favour of this photo, and of which copy it is, by id."""

    sidecar: Sidecar
    sidecar_of: str
    mask: Mask
    mask_of: str


class Mask(TypedDict):
    """A picture beside the photo that says what of it is to be learned."""

    path: str
    hash: str


class Look(TypedDict):
    """By what photos are told apart, as hex: see lorakit/curate/descriptors.py."""

    phash: str  # 256 bits
    colours: str  # mean colours of 4 x 4 fields
    columns: str  # how much each column draws the eye
    rows: str


class Takes(TypedDict):
    """A copy of which something was decided by hand, that holds for the photo which is kept."""

    id: str
    what: list[str]  # text, crop


class Dedupe(TypedDict, total=False):
    of: str | None  # the id of the photo that is kept in place of this one
    reason: str  # duplicate, near_duplicate, mirrored, burst
    distance: int  # bits of 256
    takes: list[Takes]


class Embed(TypedDict, total=False):
    of: str | None  # the id of the better photo that shows most nearly the same
    cosine: float | None  # of the two
    apart: float | None  # robust standard deviations from its nearest others
    aesthetic: float


class Select(TypedDict):
    selected: bool
    reason: str  # varied, by_hand, everything; enough, rejected


class Crop(TypedDict):
    box: list[int]  # left, top, right, bottom in pixels of the upright photo
    bucket: list[int]  # width, height that it is trained at


class Beside(TypedDict):
    """A caption beside the photo that is joined with what was read."""

    text: str
    first: bool


class Pixels(TypedDict):
    """Measured in the crop, against which its words are held."""

    luma: list[int]  # of a dark, a middle and a bright pixel, 0-255
    colours: dict[str, float]  # share of the crop


class Reading(TypedDict, total=False):
    """What one of several captioners has read."""

    by: str
    sentence: str
    tags: list[str]


class Caption(TypedDict, total=False):
    sentence: str
    tags: list[str]
    by: str  # the captioner or captioners, or the file beside the photo
    readings: list[Reading]  # where there are several captioners: what each has read
    cut_at: int  # tokens of the base for which it was read, where the limit of tokens has stopped a captioner
    own: bool  # the words are those beside the photo, and stay as they are
    others: list[str]  # further captions beside the photo, where `caption.several` takes them as readings
    box: list[int]  # what was read: stamps.read_box
    beside: Beside
    pixels: Pixels | None


class Trigger(TypedDict, total=False):
    """What the text was made with."""

    words: list[str]  # trigger words, the former ones too
    human: str | None
    rules: list[str]
    tokens: int
    cut: list[str]  # phrases that did not fit
    agreement: float  # cosine of text and crop, by open_clip; of several sentences that of ...
    worst: str  # ... the one that fits worst


class Former(TypedDict):
    """A text that was replaced."""

    change: int  # those of one change of the set have one number
    text: str
    human: str | None
    rules: list[str]


class Dataset(TypedDict, total=False):
    """What was written into dataset/."""

    file: str
    text: str
    mask: str


class Human(TypedDict, total=False):
    """A person's word, which wins over everything. It does not stand in the book but in `decisions.jsonl`, and is laid over
    the record when that is read. `taken_from` {text or crop: id}: it was decided of that copy."""

    verdict: str  # keep, reject
    text: str
    crop: Crop
    apart: list[str]  # ids of photos that are no copies of this one
    taken_from: dict[str, str]


class Record(TypedDict, total=False):
    # scan
    id: str  # hash of the content; an exact copy of another photo carries `~2`, `~3`, ... behind it
    file: str  # the name that is shown
    path: str  # where the photo lies, or its address
    bytes: int
    modified: int  # nanoseconds; of an object in a store, a number made of its ETag
    changed: int  # of a file: nanoseconds of its last change of any kind (ctime); where a former version has read it, not there
    hash: str  # of the content; begins with `unreadable-` where the file cannot be read
    repeats: int  # from a folder named as sd-scripts do: 10_name
    sidecar: Sidecar
    mask: Mask
    embedded: Embedded | None
    gone: bool  # the photo is no longer there; its record stays
    # what each stage found out, under the stage's name, and what it makes of the photo
    measures: dict[str, dict[str, Any]]  # of check: {check: numbers}; verdicts are derived from them when read, never stored
    look: Look | None  # of check; None for a flat picture
    phash: str | None  # of check: 64 bits in hex, as imagehash makes them, for other tools
    dedupe: Dedupe
    inherited: Inherited | None  # of dedupe: caption and mask of its copies, where it has none
    compared: dict[str, list[Any]]  # of dedupe: {id: likeness} of the photos that it was laid over
    embed: Embed | None
    select: Select
    crop: Crop
    caption: Caption
    facets: dict[str, list[Any]] | None  # of trigger: {attribute: [tag, probability]}, as open_clip sees the crop
    text: str  # of trigger: what is trained on
    readings: list[str]  # of trigger: further texts, one of which is drawn in a visit as likely as `text`
    trigger: Trigger
    former: list[Former]  # of trigger and words
    dataset: Dataset | None
    # the book-keeping of all
    done: dict[str, str]  # {stage: stamp}
    failed: dict[str, str]  # {stage: why}
    human: Human


_lines = msgspec.json.Decoder()
_decode = _lines.decode
_encoder = msgspec.json.Encoder()
as_json_lines = _encoder.encode_lines
as_json = _encoder.encode  # of what `parse_all` has read, by which two values are told apart


def parse(line: bytes) -> Any:
    """What a line of JSON holds, as `json.loads` reads it, in half the time and with every key in memory once. Raises `ValueError` or
    `RecursionError` where it is none."""
    try:
        return _decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):  # json reads a little more: NaN, half of a surrogate pair
        return json.loads(line.decode("utf-8", "surrogateescape"))


def parse_all(lines: bytes) -> list[Any] | None:
    """The same of several lines at once; None where one of them wants more than the quick reader can, or is none."""
    try:
        found = _lines.decode_lines(lines)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return found if len(found) == lines.count(b"\n") + (not lines.endswith(b"\n")) else None


def is_sound(line: bytes, record: Any) -> bool:
    """Whether a line that was parsed to `record` is one that `fault_of` finds nothing wrong with. It may say no where there is nothing
    wrong; it never says yes where there is."""
    try:
        _typed().decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return next(_faults_of_values(record), None) is None


@cache
def _typed() -> msgspec.json.Decoder:
    return msgspec.json.Decoder(Record)


def fault_of(record: Any) -> str | None:
    """What in a line of the book cannot be, by the types above; None where all fits. Keys that are not known are let be."""
    if not _fits(Record)(record):
        wrong = (
            (key for key, kind in _hints(Record).items() if key in record and not _fits(kind)(record[key]))
            if isinstance(record, dict)
            else ()
        )
        return f"{next(iter(wrong), 'the line')} is of another kind"
    return next(_faults_of_values(record), None)


@cache
def _fits(kind: Any) -> Callable[[Any], bool]:
    """Whether a value of a JSON file is of a type. Made once a type: a book has 10,000 lines, each with some sixty values."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return lambda value: True
    if is_typeddict(kind):
        known, required = {key: _fits(hint) for key, hint in _hints(kind).items() if hint is not Any}, kind.__required_keys__

        def has_all(value: Any) -> bool:
            if not isinstance(value, dict) or not required <= value.keys():
                return False
            for key, item in value.items():
                fits = known.get(key)
                if fits is not None and not fits(item):
                    return False
            return True

        return has_all
    if origin in (Union, types.UnionType):
        some = [_fits(one) for one in inner]
        return lambda value: any(fits(value) for fits in some)
    if origin in (list, dict):
        if inner[-1] is Any:
            return lambda value: isinstance(value, origin)
        items = _fits(inner[-1])
        if origin is dict:
            return lambda value: isinstance(value, dict) and all(map(items, value.values()))
        return lambda value: isinstance(value, list) and all(map(items, value))
    if kind is float:
        return lambda value: isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return lambda value: isinstance(value, int) and not isinstance(value, bool)
    return lambda value: isinstance(value, kind)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _faults_of_values(record: Record) -> Iterator[str]:
    """Boxes that are none, buckets that nothing could hold, descriptors that are no hex, and copies without a reason."""
    crop, look, dedupe = record.get("crop"), record.get("look"), record.get("dedupe") or {}
    if dedupe.get("of") and not {"reason", "distance"} <= dedupe.keys():
        yield "dedupe lacks its reason"
    if crop:
        box, bucket = crop["box"], crop["bucket"]
        if len(box) != 4 or not (0 <= box[0] < box[2] < LARGEST_SIDE and 0 <= box[1] < box[3] < LARGEST_SIDE):
            yield "crop.box is no box"
        if len(bucket) != 2 or not all(0 < side < LARGEST_SIDE for side in bucket):
            yield "crop.bucket is no size"
    for name, digits in (look or {}).items():
        if not isinstance(digits, str) or not _HEX.fullmatch(digits):
            yield f"look.{name} is no hex"


def sidecar_of(record: Record) -> Sidecar | None:
    """The caption beside the photo, or beside a copy of it."""
    return record.get("sidecar") or (record.get("inherited") or {}).get("sidecar")


def mask_of(record: Record) -> Mask | None:
    """The mask beside the photo, or beside a copy of it."""
    return record.get("mask") or (record.get("inherited") or {}).get("mask")
