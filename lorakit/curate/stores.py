"""What lies below an address: photos, texts and masks in an object store or on a web server, and the photos within tar (WebDataset) and
parquet files there. Texts are fetched into the cache, which they fit; photos are read once for their hash, and stay where they are."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from lorakit import files
from lorakit.ahead import ahead
from lorakit.console import say, track, warn
from lorakit.curate.embedded import description_in
from lorakit.curate.hf_datasets import BATCH, CAPTIONS_ONLY, TEXT_KEYS, picture_column
from lorakit.curate.sources import name_inside
from lorakit.curate.walk import folders_below
from lorakit.curate.web_listing import links_in
from lorakit.errors import LorakitError, UnreadablePhoto
from lorakit.photos import remote
from lorakit.photos.decode import MAX_BYTES, NAME_ENDINGS, sniff_bytes
from lorakit.photos.remote import Remote
from lorakit.text.caption_lists import MOST_BYTES as MOST_OF_TEXT
from lorakit.text.caption_lists import json_or_none
from lorakit.text.cleaning import captions_in, texts_of
from lorakit.text.lines import split_lines
from lorakit.text.sidecars import ENDINGS, joined, texts_beside

SHARDS = (".tar", ".parquet")
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip", ".7z", ".rar")
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip"}
PLAIN = (
    "photos in it cannot be read where it lies: store it as a plain .tar (gunzip), or download it and give its own path, which is unpacked"
)
INDEX = 2  # raised when more is noted of a shard
AT_ONCE = 32  # texts that are fetched at once
NO_SHARD = (tarfile.TarError, EOFError, ValueError)  # of what is no tar, or no parquet file; what a network raises is none of these


@dataclass(frozen=True)
class Listed:
    """An object, or a photo within a shard, whose content is known already. `modified` is a number that is another when it is changed:
    nanoseconds, or of the store's ETag; 0 where the store tells neither, so that it is read anew each time."""

    address: str
    name: str  # below the place, with /
    bytes: int
    modified: int
    hash: str = ""
    texts: list[str] = field(default_factory=list)
    text_of: str = ""  # which member or column the texts are from
    embedded: tuple[str, str] | None = None
    differing: list[str] = field(default_factory=list)  # other texts that say something else, not used
    changed: int = 0  # of a file of this machine: when it, or what is said of it, was last changed, in nanoseconds
    regular: bool = True  # no pipe, device or broken link of this machine


def listed(address: str) -> list[Listed]:
    """All objects below an address, or the one that it is of, sorted by name. Raises `LorakitError`."""
    remote.check_address(address)
    fs, root = remote.opened(address)
    fs.invalidate_cache()  # what a store held a while ago is of no use
    try:
        found = _find(fs, root, address)
    except LorakitError:
        raise
    except Exception as error:  # each store raises its own
        if page := remote.page_behind(error):
            raise page from None
        if remote.is_gone(error):
            raise LorakitError(f"{address}: {remote.nothing_there(address)}") from None
        raise LorakitError(f"{address}: cannot be listed ({remote.why(error, address)}); nothing was changed") from None
    return sorted(found, key=lambda one: one.name)


def _find(fs: Any, root: str, address: str) -> list[Listed]:
    scheme = remote.scheme_of(address)
    is_web = scheme in remote.WEB
    last = PurePosixPath(root.rstrip("/")).name
    if (is_web and last.lower().endswith((*NAME_ENDINGS, *SHARDS, *PACKED))) or (not is_web and fs.isfile(root)):
        info = _facts(Path(root)) if scheme == "file" else fs.info(root)
        return [Listed(address, unquote(last) if is_web else last, info.get("size") or 0, _state_of(info), changed=_changed(scheme, info))]
    if scheme == "file":
        infos = dict(_files(root))
    else:
        infos = dict.fromkeys(_links(fs, f"{root.rstrip('/')}/"), {}) if is_web else fs.find(root, detail=True)
    if not infos and (is_web or not fs.exists(root)):
        raise FileNotFoundError(root)
    if (host := urlsplit(address).netloc) and not is_web and not root.lstrip("/").startswith(host):
        raise LorakitError(f"{address}: the paths of {scheme}:// do not tell their host, and so cannot be kept; {remote.READ}")
    base = root.rstrip("/")
    found = []
    for path, info in infos.items():
        name = path.removeprefix(base).lstrip("/")
        if not name or name.endswith("/"):  # folders
            continue
        found.append((f"{path if is_web else f'{scheme}://' + path.lstrip('/')}", unquote(name) if is_web else name, info))
    if scheme == "file":
        found = [(f"file:///{where.removeprefix('file://').lstrip('/')}", name, info) for where, name, info in found]
    if not is_web:
        return [
            Listed(
                where, name, info.get("size") or 0, _state_of(info), changed=_changed(scheme, info), regular=bool(info) or scheme != "file"
            )
            for where, name, info in found
        ]
    return [
        _asked(fs, where, name) if job is None else job.result()
        for (where, name, _), job in ahead(lambda f: _asked(fs, f[0], f[1]), found, AT_ONCE)
    ]


def _links(fs: Any, folder: str) -> Iterator[str]:
    """Of a web server that lists its folders: all files below one, each once. A folder within that is not given is named; whatever else goes
    wrong is raised, since photos that are not listed would be taken to have gone."""
    found, with_query = links_in(fs.cat_file(folder), folder)
    if with_query:
        warn(
            f"{folder}: {with_query} links with a ? in them are passed over, for what follows it may be a key, and addresses are written down"
        )
    for link in found:
        if not link.endswith("/"):
            yield link
            continue
        try:
            yield from _links(fs, link)
        except Exception as error:  # each library raises its own
            if isinstance(error, LorakitError) or not (remote.is_refused(error) or remote.is_gone(error)):
                raise
            warn(f"{link}: its photos are left out ({remote.why(error, link)})")


def _files(root: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(path, facts) of the files of this machine below a folder. Of a link they are those of what it leads to, where fsspec's are the link's; pipes
    and devices, of which reading would never end, have none."""
    for folder, _, names in folders_below(Path(root)):
        for name in names:
            path = Path(folder, name)
            yield path.as_posix(), _facts(path)


def _facts(path: Path) -> dict[str, Any]:
    try:
        facts = path.stat()
    except OSError:  # a link that leads nowhere
        return {}
    if not stat.S_ISREG(facts.st_mode):
        return {}
    return {"size": facts.st_size, "mtime": facts.st_mtime, "created": facts.st_ctime}


def _asked(fs: Any, address: str, name: str) -> Listed:
    """Of a web server, whose listing tells names alone. What it does not give is told where it is read."""
    try:
        info = fs.info(address)
    except Exception:  # each library raises its own
        info = {}
    return Listed(address, name, info.get("size") or 0, _state_of(info))


def _state_of(info: dict[str, Any]) -> int:
    tag = info.get("ETag") or info.get("etag") or info.get("md5Hash") or info.get("content_md5")
    if tag:
        return int.from_bytes(hashlib.blake2b(str(tag).encode(), digest_size=7).digest(), "big")
    for key in ("LastModified", "last_modified", "mtime", "updated", "created"):
        when = info.get(key)
        if isinstance(when, str):
            try:
                when = datetime.fromisoformat(when.replace("Z", "+00:00"))
            except ValueError:
                continue
        if isinstance(when, datetime):
            when = (when if when.tzinfo else when.replace(tzinfo=timezone.utc)).timestamp()
        if isinstance(when, (int, float)) and when > 0:
            return int(when * 1_000_000) * 1000
    return 0


def _changed(scheme: str, info: dict[str, Any]) -> int:
    """Of a file of this machine, whose time of change tells what its size and time of writing do not."""
    return int(info["created"] * 1_000_000) * 1000 if scheme == "file" and isinstance(info.get("created"), float) else 0


def fetch_texts(found: list[tuple[Listed, Path]]) -> list[Path]:
    """Write the texts beside the photos to their paths, those that are new or have changed; returns those that are there."""
    there, todo = [], []
    for one, path in found:
        if one.bytes > MOST_OF_TEXT:
            warn(f"{one.address}: {one.bytes >> 20} MB is more than a text has; passed over")
        elif _is_fetched(one, path):
            there.append(path)
        else:
            todo.append((one, path))
    for (one, path), job in track(ahead(lambda pair: remote.fetch(pair[0].address), todo, AT_ONCE), "texts", len(todo)):
        try:
            data = job.result()
            files.write_whole(path, lambda part, data=data: part.write_bytes(data))
        except UnreadablePhoto as error:
            if not error.detail.startswith((remote.GONE, remote.REFUSED)):  # a photo without its words would be worded anew
                raise LorakitError(f"{one.address}: cannot be fetched ({error.detail}); nothing was changed") from None
            warn(f"{one.address}: cannot be fetched ({error.detail}); passed over")
            continue
        if one.modified:
            files.write_text(_note(path), _state_in_words(one))
        there.append(path)
    return sorted(there)


def _is_fetched(one: Listed, path: Path) -> bool:
    try:
        return bool(one.modified) and path.stat().st_size == one.bytes and _note(path).read_text() == _state_in_words(one)
    except OSError:
        return False


def _state_in_words(one: Listed) -> str:
    return f"{one.modified} {one.changed}" if one.changed else str(one.modified)


def _note(path: Path) -> Path:
    return path.with_name(f".{path.name}.state")


def look(places: list[Remote]) -> list[tuple[str, tuple[str, str] | None] | UnreadablePhoto]:
    """(hash, description within) of each photo, read once and not kept."""
    return [_look(place) for place in places]


def _look(place: Remote) -> tuple[str, tuple[str, str] | None] | UnreadablePhoto:
    try:
        data = remote.read(place)
    except UnreadablePhoto as error:
        return error
    return remote.content_hash(data), description_in(data)


def in_shard(shard: Listed, cache: Path) -> tuple[list[Listed], list[str]]:
    """(the photos of a tar or parquet file, members whose names are refused), read through once for each state of it: what is known of
    them is kept, they are not. What is torn is named and passed over. Raises `LorakitError` where the store does not give it."""
    index = cache / "shards" / f"{files.short_hash(shard.address, shard.bytes, shard.modified, shard.changed, INDEX)}.jsonl"
    if shard.modified and index.is_file():
        lines = [json.loads(line) for line in split_lines(index.read_text(encoding="utf-8")) if line]
        known = [
            Listed(**{**line, "embedded": tuple(line["embedded"]) if line["embedded"] else None}) for line in lines if "refused" not in line
        ]
        return _none_said(shard, known), [line["refused"] for line in lines if "refused" in line]
    say(f"scan      {shard.address}: is read through")
    torn, refused = [], []
    try:
        found = list(_in_tar(shard, torn, refused) if shard.name.lower().endswith(".tar") else _in_parquet(shard, torn))
    except LorakitError:
        raise
    except Exception as error:  # each store raises its own
        if page := remote.page_behind(error):
            raise page from None
        if "range requests" in str(error) or isinstance(error, io.UnsupportedOperation):  # fsspec's words
            raise LorakitError(
                f"{shard.address}: cannot be read, for its server gives no parts of a file; nothing was changed (serve it by one that does, "
                "or download it and give its own path)"
            ) from None
        if not isinstance(error, NO_SHARD):
            raise LorakitError(f"{shard.address}: cannot be read ({remote.why(error, shard.address)}); nothing was changed") from None
        kind = _packed_by(shard) if isinstance(error, tarfile.TarError) else None
        why = f"is compressed ({kind}); {PLAIN}" if kind else f"cannot be read as a shard ({remote.why(error, shard.address)})"
        warn(f"{shard.address}: {why}; passed over")
        return [], []
    for line in torn:
        warn(f"{shard.address}: {line}")
    if shard.modified and not torn:  # else it is read, and said, again
        noted = [*map(asdict, found), *({"refused": name} for name in refused)]
        files.write_text(index, "".join(json.dumps(one) + "\n" for one in noted))
    return found if torn else _none_said(shard, found), refused


def _none_said(shard: Listed, found: list[Listed]) -> list[Listed]:
    if not found:
        warn(f"{shard.address}: no pictures are in it; passed over")
    return found


def _packed_by(shard: Listed) -> str | None:
    """By what a file that is named like a tar is compressed."""
    fs, path = remote.opened(shard.address)
    with fs.open(path, "rb") as file:
        head = file.read(8)
    return next((kind for begins, kind in COMPRESSED.items() if head.startswith(begins)), None)


def _in_tar(shard: Listed, torn: list[str], refused: list[str]) -> Iterator[Listed]:
    """The pictures of a WebDataset shard; what is wrong with it goes into `torn`, names that are refused into `refused`."""
    texts: dict[PurePosixPath, list[str]] = {}
    pictures: list[tuple[PurePosixPath, int, int, str, tuple[str, str] | None]] = []
    fs, path = remote.opened(shard.address)
    members = 0
    with fs.open(path, "rb") as file:
        tar = tarfile.open(fileobj=file, mode="r|")  # noqa: SIM115 (it reads nothing more when it is closed, and a torn one would raise there)
        try:
            for member in tar:
                members += 1
                if not member.isreg() or member.sparse:
                    continue
                name = name_inside(member.name)
                if name is None:
                    refused.append(member.name)
                    continue
                is_text, is_picture = name.suffix.lower() in ENDINGS, name.suffix.lower() in NAME_ENDINGS
                if name.name.startswith(".") or not (is_text or is_picture):
                    continue
                if member.size > (MOST_OF_TEXT if is_text else MAX_BYTES):
                    warn(f"{shard.address}: {member.name}: {member.size >> 20} MB is too large; passed over")
                    continue
                content = tar.extractfile(member)
                data = content.read() if content else b""
                if len(data) != member.size:
                    raise tarfile.ReadError("unexpected end of data")
                if is_text:
                    texts[name] = _words_of(name.name, data)
                else:
                    end = member.offset_data + member.size
                    pictures.append((name, member.offset_data, end, remote.content_hash(data), description_in(data)))
            rest = remote.fetch(shard.address, tar.offset, min(shard.bytes, tar.offset + (1 << 16))) if shard.bytes > tar.offset else b""
            if any(rest):
                raise tarfile.ReadError("a header is damaged")
        except (tarfile.TarError, EOFError, ValueError) as error:
            torn.append(f"torn behind its first {members} members ({remote.one_line(error)}); what comes after them is left out")
    beside = texts_beside(dict.fromkeys(name for name, *_ in pictures), texts)
    for name, first, end, hash, embedded in pictures:
        said = joined([(text.name, texts[text]) for text in beside.get(name, ())])
        words, of, differing = ([said.text, *said.others], said.file, list(said.differing)) if said else ([], "", [])
        where = remote.in_tar(shard.address, first, end)
        yield Listed(where, f"{shard.name}/{name}", end - first, shard.modified, hash, words, of, embedded, differing)


def _words_of(name: str, data: bytes) -> list[str]:
    text = data.decode("utf-8-sig", "replace")
    return texts_of(json_or_none(text, name)) if name.lower().endswith(".json") else captions_in(text)


def _in_parquet(shard: Listed, torn: list[str]) -> Iterator[Listed]:
    from pyarrow import ArrowException, parquet

    fs, path = remote.opened(shard.address)
    with fs.open(path, "rb") as opened:
        file = parquet.ParquetFile(opened)
        column: str | None = None
        for group in range(file.num_row_groups):
            row = 0
            try:
                wanted = None if column is None else [column, *(name for name in file.schema_arrow.names if _may_be_text(name))]
                for batch in file.iter_batches(BATCH, row_groups=[group], columns=wanted):
                    for values in batch.to_pylist():
                        column = column or picture_column(values, shard.address)
                        data = remote.picture_in(values[column]) if column else None
                        if column and data and len(data) <= MAX_BYTES and sniff_bytes(data[:64]):
                            yield _of_row(shard, group, row, column, values, data)
                        row += 1
            except (ArrowException, OSError, ValueError) as error:
                if isinstance(error, OSError) and type(error) is not OSError:  # Arrow's own are plain ones: the store gives it no longer
                    raise
                torn.append(f"what is left of row group {group} cannot be read ({remote.one_line(error)}); passed over")


def _may_be_text(name: str) -> bool:
    return any(word in name.lower() for word in TEXT_KEYS)


def _of_row(shard: Listed, group: int, row: int, column: str, values: dict[str, Any], data: bytes) -> Listed:
    words = {key: value for key, value in values.items() if key != column}
    format = sniff_bytes(data[:64]) or "jpeg"
    name = f"{shard.name}/{group}.{row:06}.{'jpg' if format == 'jpeg' else format}"
    where = remote.in_parquet(shard.address, group, row, column)
    return Listed(where, name, len(data), shard.modified, remote.content_hash(data), texts_of(words), "its row", description_in(data))


def is_shard(name: str) -> bool:
    return name.lower().endswith(SHARDS) and PurePosixPath(name).name != CAPTIONS_ONLY
