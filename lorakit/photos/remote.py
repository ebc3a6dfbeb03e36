"""Photos that lie in an object store, on a web server or in a shard there: known by an address, read over the network each time
they are looked at, and never kept. Credentials are the store's own: of its tools' files and variables, never of an address."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

from lorakit.errors import LorakitError, NotGiven, UnreadablePhoto
from lorakit.record import Record

SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "http": "http", "https": "http"}
# What stands behind the address of a shard: bytes of a tar, or row group, row and column of a parquet file.
_INSIDE = re.compile(r"(?P<shard>.+)#(?:bytes=(?P<first>\d+)-(?P<end>\d+)|row=(?P<group>\d+)\.(?P<row>\d+)\.(?P<column>[^#]+))")
WEB = ("http", "https")
OF_THIS_MACHINE = ("file", "memory")
READ = "s3://, gs://, https://, http:// and file:// are read, and az://, abfs://, oci:// and oss:// with fsspec's packages for them"
NOT_READ = frozenset(  # what fsspec lays around another store, and stores whose paths do not tell their host: a photo's address would not
    "zip tar libarchive reference generic dir dirfs cached blockcache filecache simplecache async_wrapper asyncwrapper asynclocal data local "
    "ftp sftp ssh smb git github hf hdfs webhdfs webHDFS arrow_hdfs dbfs box dask dropbox dvc gdrive gist jlab jupyter lakefs pyscript root wandb webdav".split()
)
OF_ADDRESSES = "%/:@!$&'()*+,;=~-._[]?#"  # what stays as it is in a web address
TRIES, PAUSE = 3, 0.5  # of a read that fails for no reason of the object's; seconds before the second
IN_A_ROW = 20  # photos in a row that a store does not give, from where it is the store that fails
UNREADABLE = "unreadable-"  # begins what stands for the hash of a file that cannot be read; it is tried again each time
GONE = "there is no such object (any more)"
REFUSED = "access is refused"
CREDENTIALS = {  # where each store's own tools take them from
    **dict.fromkeys(("s3", "s3a"), "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    **dict.fromkeys(("gs", "gcs"), "gcloud auth application-default login"), **dict.fromkeys(WEB, "~/.netrc"),
}  # fmt: skip
PAGE_TYPES = ("text/html", "application/xhtml+xml")
PAGE_BYTES = 1 << 20  # a larger body is no page to sign in, whatever a server calls it
_PAGE = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>|<!--.*?-->|\s)*<(?:!doctype\s+html|html|head|body|title|meta|form|script)\b", re.I | re.S
)
_PASSWORD = re.compile(rb"""type\s*=\s*["']?password\b""", re.IGNORECASE)
_SIGNED = re.compile(r"[?&;][^=&;/]*(?:sig|token|key|credential|secret|password)[^=&;/]*=", re.IGNORECASE)
_MISSPELT = re.compile(r"(?:\w+::)*(https?|s3a?|gs|gcs|az|abfs|oci|oss|file):", re.IGNORECASE)
_one_group_at_a_time = threading.Lock()
Result = TypeVar("Result")


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


def scheme_of(address: str) -> str:
    return address.partition("://")[0].lower()


def normal(address: str) -> str:
    """An address as it is kept: its scheme in small letters, odd characters of a web address escaped, those of a file's not, as file
    managers write them (file:///my%20photos)."""
    scheme, rest = scheme_of(address), address.partition("://")[2]
    if scheme in WEB:
        host, slash, path = rest.partition("/")
        return f"{scheme}://{host.lower()}{slash}{quote(path, safe=OF_ADDRESSES)}"
    if scheme == "file":
        rest = rest.removeprefix("localhost") if rest.startswith("localhost/") else rest
        if "%" in rest and not os.path.exists(rest) and os.path.exists(unquote(rest)):
            rest = unquote(rest)
    return f"{scheme}://{rest}"


def check_spelling(place: str) -> None:
    """Raises `LorakitError` for what was meant to be an address, and is none (http:/host): taken for a path, all of it would be said."""
    if not is_address(place) and (begun := _MISSPELT.match(place)) and not os.path.exists(place):
        raise LorakitError(f"{begun[0]}...: no address that is read; it is written as {begun[1].lower()}://, and then what follows; {READ}")


def check_list(lines: Iterable[str], of: Path | str) -> None:
    """Raises `LorakitError` for a list with an address in it. It is not shown, for it may have a password in it."""
    for number, line in enumerate(lines, 1):
        if is_address(line.strip()):
            raise LorakitError(f"{of}, line {number}: an address; lists name files of this machine, name the address itself in the command")


def check_address(address: str) -> None:
    """Raises `LorakitError` for an address that has a password or a signature in it: it would be written into the project; and for one of
    which it can be told that nothing is read there."""
    from fsspec import available_protocols

    scheme = scheme_of(address)
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
        is_read = scheme not in WEB or (bool(host) and (parts.port is None or parts.port >= 0))  # asked for, it raises
    except ValueError:
        is_read = False
    if not is_read:  # it is not shown: of a password with a stroke in it, the half is no port
        raise LorakitError(f"{scheme}://...: no host and port can be read in it; write https://HOST:PORT/FOLDER, without a password")
    if "@" in parts.netloc or (scheme in WEB and parts.query) or _is_signed(scheme, parts.netloc, address):
        raise LorakitError(
            f"{scheme}://{host if scheme in WEB else ''}...: an address with a password, key or query in it is refused, for the project writes its "
            f"addresses down; {how_to_sign_in(address)}"
        )
    if scheme not in available_protocols() or scheme in NOT_READ:
        raise LorakitError(f"{address}: nothing is read from {scheme}://; {READ}")
    if "::" in address:
        raise LorakitError(f"{address}: '::' makes a chain of stores for fsspec, which is not read; name the store itself: {READ}")
    if scheme in WEB and "#" in address:
        shown = address.partition("#")[0]
        raise LorakitError(f"{shown}#...: what stands behind a # is not sent to a server; where it is part of the name, write it as %23")
    if scheme == "file" and not parts.path.startswith("/"):
        raise LorakitError(f"{address}: names no path; it is written whole behind file://, with three strokes: file:///data/photos")
    if scheme == "file" and parts.netloc:
        raise LorakitError(f"{address}: a path is written whole behind file://, with three strokes: file:///data/photos")


def _is_signed(scheme: str, host: str, address: str) -> bool:
    """Whether an address of a store carries what others may not know: a password with a stroke in it, or a signed query."""
    if scheme in WEB or scheme in OF_THIS_MACHINE:
        return False
    return (":" in host and "@" in address) or _SIGNED.search(address) is not None


def how_to_sign_in(address: str) -> str:
    where = CREDENTIALS.get(scheme_of(address))
    return f"give credentials as the store's own tools take them{f' ({where})' if where else ''}, lorakit keeps none"


def nothing_there(address: str) -> str:
    scheme = scheme_of(address)
    of_it = {
        **dict.fromkeys(("s3", "s3a"), "is the name right, and the endpoint (AWS_ENDPOINT_URL)?"),
        **dict.fromkeys(WEB, "is the address right, and does the server list what lies there?"), "file": "is the path right?",
    }  # fmt: skip
    return f"nothing lies there; {of_it.get(scheme, 'is the name right?')}"


def opened(address: str) -> tuple[Any, str]:
    """(the store's file system, the path within it). Raises `LorakitError` for a store that is not known, not installed, or not to be reached."""
    import fsspec

    scheme = scheme_of(address)
    try:
        options = {"client_kwargs": {"trust_env": True, "trace_configs": [_page_watch()]}} if scheme in WEB else {}  # which reads ~/.netrc
        return fsspec.core.url_to_fs(f"{scheme}://{address.partition('://')[2]}", **options)
    except ImportError as error:
        extra = f'pip install "lorakit[{EXTRAS[scheme]}]"' if scheme in EXTRAS else one_line(error)
        raise LorakitError(f"{address}: what reads {scheme}:// is not installed; {extra}") from None
    except ValueError as error:
        raise LorakitError(f"{address}: cannot be opened ({one_line(error)}); {READ}") from None
    except Exception as error:  # each store raises its own; some connect at once
        raise LorakitError(f"{address}: cannot be opened ({why(error, address)}); nothing was changed") from None


@cache
def _page_watch() -> Any:
    """Looks at every answer of a web server: a page in place of a file is an error of its own, `LorakitError`, wherever the file was to
    be read. Pages to sign in come with status 200, and would be taken for a torn shard, a caption or a damaged photo."""
    import aiohttp

    async def look(session: Any, context: Any, params: Any) -> None:
        answer = params.response
        may_be_one = answer.content_type in PAGE_TYPES and (answer.content_length or 0) <= PAGE_BYTES
        if params.method != "GET" or answer.status >= 400 or not may_be_one:
            return
        asked, came = (answer.history[0] if answer.history else answer).url, answer.url
        if error := web_page(str(asked.with_query(None)), asked.path, came.path, await answer.read()):
            answer.close()
            raise error

    watch = aiohttp.TraceConfig()
    watch.on_request_end.append(look)
    return watch


def web_page(address: str, asked: str, came: str, body: bytes) -> LorakitError | None:
    """What is wrong with a page that came from the path `came` where `asked` was asked for: None for the listing of a folder."""
    is_folder = asked.endswith("/") or came == f"{asked}/" or not PurePosixPath(asked).suffix
    if is_folder and came.rstrip("/") == asked.rstrip("/") and not _PASSWORD.search(body):
        return None
    if not is_folder and not _PAGE.match(body):
        return None  # some servers call html whatever they do not know
    wanted = "a list of files" if is_folder else f"the file ({PurePosixPath(asked).suffix})"
    return LorakitError(
        f"{address}: answered with a web page, not {wanted}: sign in ({CREDENTIALS['http']}), or check the address; nothing was changed"
    )


def page_behind(error: BaseException) -> LorakitError | None:
    """The error of a web page that a store's library has wrapped in its own."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, LorakitError):
        found = found.__cause__
    return found


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
    with _one_group_at_a_time:
        column = _tried(address, lambda: _column(inside["shard"], int(inside["group"]), unquote(inside["column"])))
    try:
        return column[int(inside["row"])] or b""
    except IndexError:
        raise UnreadablePhoto("unreadable", "its shard has fewer rows than when it was scanned") from None


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
    """The bytes of an object, or those from `first` up to `end`. Raises `UnreadablePhoto`, and `LorakitError` for what is no fault of
    this one object."""

    def get() -> bytes:
        fs, path = opened(address)
        return fs.cat_file(path, start=first, end=end)

    data = _tried(address, get)
    if first is not None and end is not None:
        data = data[first:end] if len(data) > end - first else data  # of a server that gives no parts
        if len(data) != end - first:
            raise UnreadablePhoto("unreadable", f"the shard ends within it: {len(data)} of {end - first} bytes")
    return data


def _tried(address: str, work: Callable[[], Result]) -> Result:
    """What `work` returns, which asks a store: again where it fails for no reason of the object's."""
    for attempt in range(1, TRIES + 1):
        try:
            return work()
        except LorakitError:
            raise
        except Exception as error:  # pyarrow, and each store, raise many kinds
            if page := page_behind(error):
                raise page from None
            is_of_content = isinstance(error, ValueError) or (type(error) is OSError and error.errno is None)  # Arrow's
            if is_gone(error) or is_of_content:
                raise UnreadablePhoto("unreadable", why(error, address)) from None
            if attempt == TRIES or is_refused(error):
                raise NotGiven("unreadable", why(error, address)) from None
        time.sleep(PAUSE * attempt)
    raise AssertionError("the last try returns or raises")


class Patience:
    """Counts the photos in a row that a store has not given."""

    def __init__(self) -> None:
        self.failed = 0

    def take(self, place: object, why_not: str | None) -> None:
        """`why_not` is None for a photo that was given. Raises `LorakitError` where it is the store that fails, and not a photo: a set
        would be thinned out by a network that is down."""
        self.failed = self.failed + 1 if why_not else 0
        if self.failed >= IN_A_ROW:
            raise LorakitError(
                f"{place}: cannot be read ({why_not}), nor could the {self.failed - 1} photos before it; the same command goes on from "
                "there once that is mended"
            )


def in_tar(shard: str, first: int, end: int) -> str:
    return f"{shard}#bytes={first}-{end}"


def in_parquet(shard: str, group: int, row: int, column: str) -> str:
    return f"{shard}#row={group}.{row}.{quote(column, safe='')}"


def content_hash(data: bytes) -> str:
    """As `files.file_hash` of a file with these bytes."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def is_gone(error: BaseException) -> bool:
    """Whether there is no such object. A library that asks for its size calls it missing, too, where it had no answer at all."""
    if status_of(error) in (404, 410):
        return True
    return isinstance(error, FileNotFoundError) and status_of(error) is None and not _had_no_answer(error.__cause__)


def _had_no_answer(error: BaseException | None) -> bool:
    while error is not None:
        names = {kind.__name__ for kind in type(error).__mro__}
        if names & {"ClientConnectionError", "ClientPayloadError", "ConnectionError", "TimeoutError", "LorakitError"}:
            return True
        error = error.__cause__
    return False


def is_refused(error: BaseException) -> bool:
    return isinstance(error, PermissionError) or status_of(error) in (401, 403)


def why(error: BaseException, address: str) -> str:
    """In words, and without what an address may carry."""
    if is_refused(error):
        of_file = scheme_of(address) == "file"
        return f"{REFUSED}; {'change the rights of the file (chmod)' if of_file else how_to_sign_in(address)}"
    if is_gone(error):
        return GONE
    status = status_of(error)
    if status:
        return f"the store says {status}"
    if isinstance(error, FileNotFoundError) and error.__cause__:
        error = error.__cause__  # what kept its library from finding it
    if is_cut_short(error):
        return "the connection ended before all of it had come"
    return f"{type(error).__name__}: {one_line(error)}"


def is_cut_short(error: BaseException) -> bool:
    return type(error).__name__ == "ClientPayloadError"


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind what was raised, which stores wrap in errors of their own."""
    for _ in range(4):
        if is_cut_short(error):  # aiohttp gives it a number, which no server has sent
            return None
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
    """Without what an address in it may carry: a redirection's, or a proxy's."""
    words = re.sub(r"\?[^\s'\")]+", "?...", " ".join(str(error).split()))
    return re.sub(r"//[^/\s]*@", "//...@", words)[:200] or type(error).__name__
