"""What lies below an address: photos, texts and masks in an object store or on a web server, and the photos within tar (WebDataset) and
parquet files there. Texts are fetched into the cache, which they fit; photos are read once for their hash, and stay where they are."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from lorakit import files
from lorakit.ahead import ahead
from lorakit.console import say, track, warn
from lorakit.curate.embedded import description_in
from lorakit.curate.hf_datasets import BATCH, CAPTIONS_ONLY, TEXT_KEYS, picture_column
from lorakit.errors import LorakitError, UnreadablePhoto
from lorakit.photos import remote
from lorakit.photos.decode import MAX_BYTES, NAME_ENDINGS, sniff_bytes
from lorakit.photos.remote import Remote
from lorakit.text.caption_lists import MOST_BYTES as MOST_OF_TEXT
from lorakit.text.caption_lists import json_or_none
from lorakit.text.cleaning import captions_in, texts_of
from lorakit.text.lines import split_lines
from lorakit.text.sidecars import ENDINGS

SHARDS = (".tar", ".parquet")
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


def listed(address: str) -> list[Listed]:
    """All objects below an address, or the one that it is of, sorted by name. Raises `LorakitError`."""
    remote.check_address(address)
    fs, root = remote.opened(address)
    fs.invalidate_cache()  # what a store held a while ago is of no use
    try:
        found = _find(fs, root, address)
    except FileNotFoundError as error:
        reason = (
            remote.REFUSED if remote.is_refused(error) else "nothing lies there; is the name right, and the endpoint (AWS_ENDPOINT_URL)?"
        )
        raise LorakitError(f"{address}: {reason}") from None
    except LorakitError:
        raise
    except Exception as error:  # each store raises its own
        raise LorakitError(f"{address}: cannot be listed ({remote.why(error)}); nothing was changed") from None
    return sorted(found, key=lambda one: one.name)


def _find(fs: Any, root: str, address: str) -> list[Listed]:
    is_web = address.lower().startswith(("http://", "https://"))
    last = PurePosixPath(root.split("?")[0].rstrip("/")).name
    looks_like_one = last.lower().endswith((*NAME_ENDINGS, *SHARDS))
    if looks_like_one and (is_web or fs.isfile(root)):
        info = fs.info(root)
        return [Listed(address, unquote(last) if is_web else last, info.get("size") or 0, _state_of(info))]
    infos = dict.fromkeys(_links(fs, f"{root.rstrip('/')}/"), {}) if is_web else fs.find(root, detail=True)
    if not infos and not is_web and not fs.exists(root):
        raise FileNotFoundError(root)
    base, scheme = root.rstrip("/"), address.partition("://")[0]
    found = []
    for path, info in infos.items():
        name = path.removeprefix(base).lstrip("/")
        if not name or name.endswith("/") or (is_web and "?" in name):  # links that sort a listing, and folders
            continue
        found.append((f"{path if is_web else f'{scheme}://' + path.lstrip('/')}", unquote(name) if is_web else name, info))
    if scheme == "file":
        found = [(f"file:///{where.removeprefix('file://').lstrip('/')}", name, info) for where, name, info in found]
    if not is_web:
        return [Listed(where, name, info.get("size") or 0, _state_of(info)) for where, name, info in found]
    return [
        _asked(fs, where, name) if job is None else job.result()
        for (where, name, _), job in ahead(lambda f: _asked(fs, f[0], f[1]), found, AT_ONCE)
    ]


def _links(fs: Any, folder: str) -> Iterator[str]:
    """Of a web server that lists its folders: all files below one. A folder within that is not given is named; whatever else goes wrong is
    raised, since photos that are not listed would be taken to have gone."""
    for link in sorted(fs.ls(folder, detail=False)):
        if not link.endswith("/"):
            yield link
        elif PurePosixPath(link).name not in (".", ".."):
            try:
                yield from _links(fs, link)
            except Exception as error:  # each library raises its own
                if not (remote.is_refused(error) or remote.is_gone(error)):
                    raise
                warn(f"{link}: its photos are left out ({remote.why(error)})")


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
            if error.detail not in (remote.GONE, remote.REFUSED):  # a photo without its words would be worded anew
                raise LorakitError(f"{one.address}: cannot be fetched ({error.detail}); nothing was changed") from None
            warn(f"{one.address}: cannot be fetched ({error.detail}); passed over")
            continue
        if one.modified:
            files.write_text(_note(path), str(one.modified))
        there.append(path)
    return sorted(there)


def _is_fetched(one: Listed, path: Path) -> bool:
    try:
        return bool(one.modified) and path.stat().st_size == one.bytes and _note(path).read_text() == str(one.modified)
    except OSError:
        return False


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


def in_shard(shard: Listed, cache: Path) -> list[Listed]:
    """The photos of a tar or parquet file, read through once for each state of it: what is known of them is kept, they are not. What is torn
    is named and passed over. Raises `LorakitError` where the store does not give it."""
    index = cache / "shards" / f"{files.short_hash(shard.address, shard.bytes, shard.modified)}.jsonl"
    if shard.modified and index.is_file():
        lines = [json.loads(line) for line in split_lines(index.read_text(encoding="utf-8")) if line]
        return [Listed(**{**line, "embedded": tuple(line["embedded"]) if line["embedded"] else None}) for line in lines]
    say(f"scan      {shard.address}: is read through")
    torn: list[str] = []
    try:
        found = list((_in_tar if shard.name.lower().endswith(".tar") else _in_parquet)(shard, torn))
    except LorakitError:
        raise
    except Exception as error:  # each store raises its own
        if not isinstance(error, NO_SHARD):
            raise LorakitError(f"{shard.address}: cannot be read ({remote.why(error)}); nothing was changed") from None
        warn(f"{shard.address}: cannot be read as a shard ({remote.why(error)}); passed over")
        return []
    for line in torn:
        warn(f"{shard.address}: {line}")
    if shard.modified and not torn:  # else it is read, and said, again
        files.write_text(index, "".join(json.dumps(asdict(one)) + "\n" for one in found))
    return found


def _in_tar(shard: Listed, torn: list[str]) -> Iterator[Listed]:
    """The pictures of a WebDataset shard; what is wrong with it goes into `torn`. Members of one name but for the ending belong together."""
    texts: dict[str, list[tuple[str, bytes]]] = defaultdict(list)
    pictures: list[tuple[str, int, int, str, tuple[str, str] | None]] = []
    fs, path = remote.opened(shard.address)
    members = 0
    with fs.open(path, "rb") as file:
        tar = tarfile.open(fileobj=file, mode="r|")  # noqa: SIM115 (it reads nothing more when it is closed, and a torn one would raise there)
        try:
            for member in tar:
                members += 1
                name = PurePosixPath(member.name)
                if (
                    not member.isreg()
                    or member.sparse
                    or name.is_absolute()
                    or ".." in name.parts
                    or not name.name
                    or name.name.startswith(".")
                ):
                    continue
                is_text = name.suffix.lower() in ENDINGS
                if member.size > (MOST_OF_TEXT if is_text else MAX_BYTES):
                    warn(f"{shard.address}: {member.name}: {member.size >> 20} MB is too large; passed over")
                    continue
                if is_text or name.suffix.lower() in NAME_ENDINGS:
                    content = tar.extractfile(member)
                    data = content.read() if content else b""
                    if len(data) != member.size:
                        raise tarfile.ReadError("unexpected end of data")
                    if is_text:
                        texts[str(name.with_suffix(""))].append((name.name, data))
                    else:
                        end = member.offset_data + member.size
                        pictures.append((str(name), member.offset_data, end, remote.content_hash(data), description_in(data)))
            rest = remote.fetch(shard.address, tar.offset, min(shard.bytes, tar.offset + (1 << 16))) if shard.bytes > tar.offset else b""
            if any(rest):
                raise tarfile.ReadError("a header is damaged")
        except (tarfile.TarError, EOFError, ValueError) as error:
            torn.append(f"torn behind its first {members} members ({remote.one_line(error)}); what comes after them is left out")
    for name, first, end, hash, embedded in pictures:
        said, of = _said(sorted(texts.get(str(PurePosixPath(name).with_suffix("")), ()), key=_rank_of_text))
        where = remote.in_tar(shard.address, first, end)
        yield Listed(where, f"{shard.name}/{name}", end - first, shard.modified, hash, said, of, embedded)


def _rank_of_text(text: tuple[str, bytes]) -> int:
    return ENDINGS.index(PurePosixPath(text[0]).suffix.lower())


def _said(texts: list[tuple[str, bytes]]) -> tuple[list[str], str]:
    """(captions, the member that they stood in) of the first text that has words."""
    for name, data in texts:
        text = data.decode("utf-8-sig", "replace")
        if said := texts_of(json_or_none(text, name)) if name.lower().endswith(".json") else captions_in(text):
            return said, name
    return [], ""


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
