"""Photos that lie in an object store, on a web server or in a shard there: known by an address, read over the network each time
they are looked at, and never kept. Credentials are the store's own: of its tools' files and variables, never of an address."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from lorakit.errors import LorakitError, UnreadablePhoto
from lorakit.record import Record

SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "http": "http", "https": "http"}
# What stands behind the address of a shard: bytes of a tar, or row group, row and column of a parquet file.
_INSIDE = re.compile(r"(?P<shard>.+)#(?:bytes=(?P<first>\d+)-(?P<end>\d+)|row=(?P<group>\d+)\.(?P<row>\d+)\.(?P<column>[^#]+))")
TRIES, PAUSE = 3, 0.5  # of a read that fails for no reason of the object's; seconds before the second
UNREADABLE = "unreadable-"  # begins what stands for the hash of a file that cannot be read; it is tried again each time
GONE = "there is no such object (any more)"
REFUSED = "access is refused; give credentials as the store's own tools take them (AWS_PROFILE, gcloud auth, ~/.netrc), lorakit keeps none"
_one_group_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Remote:
    """Where a photo lies, and the hash that its content had when it was scanned; '' where that is not known."""

    address: str
    hash: str = ""

    def __str__(self) -> str:
        return self.address


def is_address(place: Any) -> bool:
    """Whether a place is an address (s3://bucket/prefix), not a path."""
    return isinstance(place, str) and SCHEME.match(place) is not None


def placed(path: str, hash: str = "") -> Path | Remote:
    """The place of a photo as its record names it."""
    return Remote(path, "" if hash.startswith(UNREADABLE) else hash) if is_address(path) else Path(path)


def place_of(record: Record) -> Path | Remote:
    return placed(record["path"], record.get("hash", ""))


def check_address(address: str) -> None:
    """Raises `LorakitError` for an address that has a password or a signature in it: it would be written into the project."""
    parts = urlsplit(address)
    if "@" in parts.netloc or (parts.scheme in ("http", "https") and parts.query):
        raise LorakitError(
            f"{parts.scheme}://{parts.hostname or ''}...: an address with a password, key or signed query in it is refused, for the project "
            "writes its addresses down; give credentials as the store's own tools take them (AWS_PROFILE, gcloud auth, ~/.netrc)"
        )


def opened(address: str) -> tuple[Any, str]:
    """(the store's file system, the path within it). Raises `LorakitError` for a store that is not known or not installed."""
    import fsspec

    scheme = address.partition("://")[0].lower()
    try:
        options = {"client_kwargs": {"trust_env": True}} if scheme in ("http", "https") else {}  # which reads ~/.netrc
        return fsspec.core.url_to_fs(address, **options)
    except ImportError as error:
        extra = f'pip install "lorakit[{EXTRAS[scheme]}]"' if scheme in EXTRAS else one_line(error)
        raise LorakitError(f"{address}: what reads {scheme}:// is not installed; {extra}") from None
    except ValueError as error:
        raise LorakitError(f"{address}: cannot be opened ({one_line(error)})") from None


def read(photo: Remote) -> bytes:
    """All bytes of a photo, which are those that were scanned. Raises `UnreadablePhoto`."""
    data = _read(photo.address)
    if photo.hash and content_hash(data) != photo.hash:
        raise UnreadablePhoto("unreadable", "it has changed since it was scanned; the same command from scan on takes it as it is now")
    return data


def _read(address: str) -> bytes:
    inside = _INSIDE.fullmatch(address)
    if inside is None:
        return fetch(address)
    if inside["group"] is None:
        return fetch(inside["shard"], int(inside["first"]), int(inside["end"]))
    try:
        with _one_group_at_a_time:
            value = _column(inside["shard"], int(inside["group"]), unquote(inside["column"]))[int(inside["row"])]
    except UnreadablePhoto:
        raise
    except Exception as error:  # pyarrow, and each store, raise many kinds
        raise UnreadablePhoto("unreadable", why(error)) from None
    return value or b""


@lru_cache(maxsize=2)  # photos are asked for in their order, by several threads
def _column(shard: str, group: int, column: str) -> list[bytes | None]:
    """The pictures of one row group: the least that a parquet file gives."""
    from pyarrow import parquet

    fs, path = opened(shard)
    with fs.open(path, "rb") as file:
        values = parquet.ParquetFile(file).read_row_group(group, columns=[column]).column(column).to_pylist()
    return [picture_in(value) for value in values]


def picture_in(value: Any) -> bytes | None:
    """The picture of a row, as bytes or as `datasets` stores it. A row that only names a file is not followed."""
    data = value.get("bytes") if isinstance(value, dict) else value
    return data if isinstance(data, bytes) else None


def fetch(address: str, first: int | None = None, end: int | None = None) -> bytes:
    """The bytes of an object, or those from `first` up to `end`. Raises `UnreadablePhoto`."""
    for attempt in range(1, TRIES + 1):
        try:
            fs, path = opened(address)
            data = fs.cat_file(path, start=first, end=end)
            break
        except LorakitError:
            raise
        except Exception as error:  # each store raises its own
            if attempt == TRIES or is_gone(error) or is_refused(error):
                raise UnreadablePhoto("unreadable", why(error)) from None
            time.sleep(PAUSE * attempt)
    if first is not None and end is not None:
        data = data[first:end] if len(data) > end - first else data  # of a server that gives no parts
        if len(data) != end - first:
            raise UnreadablePhoto("unreadable", f"the shard ends within it: {len(data)} of {end - first} bytes")
    return data


def in_tar(shard: str, first: int, end: int) -> str:
    return f"{shard}#bytes={first}-{end}"


def in_parquet(shard: str, group: int, row: int, column: str) -> str:
    return f"{shard}#row={group}.{row}.{quote(column, safe='')}"


def content_hash(data: bytes) -> str:
    """As `files.file_hash` of a file with these bytes."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def is_gone(error: BaseException) -> bool:
    return status_of(error) in (404, 410) or (isinstance(error, FileNotFoundError) and status_of(error) is None)


def is_refused(error: BaseException) -> bool:
    return isinstance(error, PermissionError) or status_of(error) in (401, 403)


def why(error: BaseException) -> str:
    """In words, and without what an address may carry."""
    if is_refused(error):
        return REFUSED
    if is_gone(error):
        return GONE
    status = status_of(error)
    return f"the store says {status}" if status else f"{type(error).__name__}: {one_line(error)}"


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind what was raised, which stores wrap in errors of their own."""
    for _ in range(4):
        for name in ("status", "code", "status_code"):
            try:
                return int(getattr(error, name))
            except (AttributeError, TypeError, ValueError):
                continue
        cause = error.__cause__
        if cause is None:
            return None
        error = cause
    return None


def one_line(error: BaseException) -> str:
    return re.sub(r"\?[^\s'\")]+", "?...", " ".join(str(error).split()))[:200] or type(error).__name__
