"""Raw photos, told by their content: what a sensor has counted, with a small picture in front. Read as a TIFF, a DNG is its thumbnail."""

from __future__ import annotations

import struct
from typing import BinaryIO

_MAGIC = (b"FUJIFILMCCD-RAW", b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"FOVb", b"\0MRM")  # RAF, RW2, ORF, X3F, MRW
_MAKE, _REDUCED, _COLOURS, _PAGES_BELOW, _DNG = 0x010F, 0x00FE, 0x0106, 0x014A, 0xC612
_OF_SENSORS = (32803, 34892)  # a colour filter array, and what was made linear of it
MOST_TAGS = 4096


def is_raw(file: BinaryIO) -> bool:
    """Whether an open file, at its start, is a raw photo: DNG, CR2, CR3, CRW, NEF, NRW, ARW, PEF, SRW, 3FR, IIQ, RAF, RW2, ORF, X3F, MRW."""
    head = file.read(16)
    if head.startswith(_MAGIC) or head[4:11] == b"ftypcrx" or head[6:14] == b"HEAPCCDR":
        return True
    if head[:4] not in (b"II*\0", b"MM\0*"):
        return False
    tags = _first_page(file, "<" if head[:2] == b"II" else ">", head)
    if head[8:10] == b"CR" or _DNG in tags or tags.get(_COLOURS) in _OF_SENSORS:
        return True
    return _MAKE in tags and _PAGES_BELOW in tags and tags.get(_REDUCED) == 1


def _first_page(file: BinaryIO, order: str, head: bytes) -> dict[int, int]:
    """{tag: its number, or what stands in its place} of a TIFF's first page; empty where it is torn."""
    try:
        file.seek(struct.unpack(order + "I", head[4:8])[0])
        count = min(struct.unpack(order + "H", file.read(2))[0], MOST_TAGS)
        return dict(_number(file.read(12), order) for _ in range(count))
    except (struct.error, OSError, ValueError):
        return {}


def _number(entry: bytes, order: str) -> tuple[int, int]:
    tag, kind = struct.unpack(order + "HH", entry[:4])
    short = kind == 3
    return tag, struct.unpack(order + ("H" if short else "I"), entry[8 : 10 if short else 12])[0]
