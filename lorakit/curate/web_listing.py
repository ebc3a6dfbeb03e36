"""What a web server's page of a folder lists: links as browsers read them, to what lies below that folder."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import quote, unquote, urljoin, urlsplit

from lorakit.errors import LorakitError
from lorakit.photos.remote import OF_ADDRESSES, WEB

_BEGIN, _END = re.compile(rb"<html\b", re.IGNORECASE), re.compile(rb"</html\s*>", re.IGNORECASE)


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a" and (link := dict(attrs).get("href")):
            self.found.append(link)


def links_in(page: bytes, folder: str) -> tuple[list[str], int]:
    """(addresses of files and folders below `folder`, sorted, a folder's with / at its end; how many links with a query lead to others, whose
    addresses would not be kept). Links to elsewhere, upwards and to the folder itself are none. Raises `LorakitError` for a page that ends
    within itself: what is not listed would be taken to have gone."""
    if _BEGIN.search(page) and not _END.search(page):
        raise LorakitError(f"{folder}: its list of files ends within itself; nothing was changed, try again")
    try:
        text = page.decode("utf-8")
    except UnicodeDecodeError:
        text = page.decode("latin-1")
    links = _Links()
    links.feed(text)
    found, with_query = set[str](), set[str]()
    for link in links.found:
        try:
            there = urlsplit(urljoin(folder, link.strip()))
        except ValueError:  # no address
            continue
        if below := _below(there.scheme, there.netloc, there.path, folder):
            (with_query if there.query else found).add(below)
    return sorted(found), len(with_query - found)


def _below(scheme: str, host: str, path: str, folder: str) -> str | None:
    """The address in `folder` of what a link leads to; None for what lies elsewhere. That the server writes its own address otherwise (%C3%A4 or
    %c3%a4, https) is no difference."""
    here = urlsplit(folder)
    depth = here.path.count("/")
    above, inside = path.split("/")[:depth], path.split("/")[depth:]
    is_here = (
        scheme in WEB
        and host.lower() == here.netloc.lower()
        and list(map(unquote, above)) == list(map(unquote, here.path.split("/")[:depth]))
    )
    if not is_here or not any(inside):
        return None
    return folder + quote("/".join(inside), safe=OF_ADDRESSES.replace("?", "").replace("#", ""))
