"""Who may ask this server for what. Around all routes: it lets through what comes from the page that it gave out itself, by its
token, host and origin, and nothing else; and it says in every answer what a browser may do with it."""

from __future__ import annotations

import hmac
import json
import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 1 << 20  # of what may be sent
MOST_LETTERS = 2000  # of an address: all of ours are short
OWN_HEADER = "x-lorakit"  # no form and no foreign page sends it
LOCAL = ("127.0.0.1", "localhost", "[::1]")
LOOK = "/look"  # how the addresses end by which is asked, in a body, and nothing is changed


@dataclass(frozen=True)
class Rules:
    """`hosts` are names without a port: ports differ where one is forwarded."""

    token: str
    cookie: str  # its name, with the port in it: cookies of localhost are shared by all ports
    hosts: tuple[str, ...] = LOCAL
    read_only: bool = False


class Guard:
    """An ASGI application around another. `scope["nonce"]` is for scripts in the page itself."""

    def __init__(self, app: ASGIApp, rules: Rules):
        self.app, self.rules = app, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        nonce = secrets.token_urlsafe(16)
        scope["nonce"] = nonce
        headers = _headers(scope)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name for name, _ in message["headers"]}
                message["headers"] += [(name, value) for name, value in _answers(nonce) if name not in there]
            await send(message)

        if token := self._token_in(scope):
            if hmac.compare_digest(token, self.rules.token) and self._refuse_host(headers) is None:
                cookie = f"{self.rules.cookie}={token}; Path=/; HttpOnly; SameSite=Strict"
                return await _say(guarded, 303, "", {"location": "./", "set-cookie": cookie, "cache-control": "no-store"})
            return await _say(guarded, 403, "this address is not (or no longer) the right one: run `lorakit open PROJECT` again")
        if refusal := self._refuse(scope, headers):
            return await _say(guarded, *refusal)
        if scope["method"] == "POST":
            body = await _read(receive)
            if body is None:
                return await _say(guarded, 413, f"more than {MOST_BYTES >> 20} MB")
            receive = _replay(body, receive)
        return await self.app(scope, receive, guarded)

    def _token_in(self, scope: Scope) -> str | None:
        if scope["method"] != "GET" or scope["path"] != "/":
            return None
        found = parse_qs(scope["query_string"].decode("latin-1")).get("token")
        return found[0].encode("ascii", "replace").decode() if found else None

    def _refuse(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """(status, why), None where all is well."""
        method = scope["method"]
        if wrong := self._refuse_host(headers):
            return wrong
        if method not in ("GET", "HEAD", "POST"):
            return 405, "only GET and POST"
        if len(scope["path"]) + len(scope["query_string"]) > MOST_LETTERS:
            return 414, f"an address of more than {MOST_LETTERS} letters"
        given = _cookie(headers.get("cookie", ""), self.rules.cookie)
        if given is None or not hmac.compare_digest(given, self.rules.token):
            return 401, "this page opens by the address that `lorakit open PROJECT` prints, with its token"
        site, mode = headers.get("sec-fetch-site", "same-origin"), headers.get("sec-fetch-mode")
        if method != "POST":
            followed = mode == "navigate" and scope["path"] == "/"  # a link in a mail, to the page itself
            return None if site in ("same-origin", "none") or followed else (403, "from another site")
        if site != "same-origin" or headers.get(OWN_HEADER) != "1":
            return 403, "not sent by this page"
        if _host_of(headers.get("origin", "")) != headers["host"].lower():
            return 403, "from another origin"
        if headers.get("content-length", "").isdecimal() and float(headers["content-length"]) > MOST_BYTES:
            return 413, f"more than {MOST_BYTES >> 20} MB"
        if self.rules.read_only and not scope["path"].endswith(LOOK):
            return 403, "this page was opened with --read-only"
        return None

    def _refuse_host(self, headers: dict[str, str]) -> tuple[int, str] | None:
        """Another name than ours that leads here is how a foreign page reaches into a local server."""
        host = headers.get("host", "").lower()
        name, colon, port = host.rpartition(":")
        bare = name if colon and port.isdecimal() else host
        if bare in self.rules.hosts:
            return None
        return 421, f"this server is not called {ascii(bare)[1:-1][:80]}; lorakit open --allow-host NAME lets it be"


def _headers(scope: Scope) -> dict[str, str]:
    """By their names; of two of one name, both, so that no rule is passed by a second one."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        found[key] = f"{found[key]}; {text}" if key in found else text
    return found


def _host_of(origin: str) -> str | None:
    """None of what is no address."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _cookie(header: str, name: str) -> str | None:
    for part in header.split(";"):
        key, sign, value = part.strip().partition("=")
        if sign and key == name:
            return value.encode("ascii", "replace").decode()
    return None


def _answers(nonce: str) -> list[tuple[bytes, bytes]]:
    policy = (
        f"default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return [
        (b"content-security-policy", policy.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"x-frame-options", b"DENY"),
        (b"cache-control", b"no-store"),
    ]


async def _read(receive: Receive) -> bytes | None:
    """The whole body; None where it is too long."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message["type"] == "http.request" and message.get("more_body", False)
        if len(body) > MOST_BYTES:
            return None
    return body


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _say(send: Any, status: int, words: str, headers: dict[str, str] | None = None) -> None:
    body = json.dumps({"error": words}).encode() if words else b""
    told = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    await send({"type": "http.response.start", "status": status, "headers": [(k.encode(), v.encode()) for k, v in told.items()]})
    await send({"type": "http.response.body", "body": body})
