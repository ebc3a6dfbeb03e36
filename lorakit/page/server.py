"""The server of the page: its routes, where it listens, and what it says about itself. `lorakit open` calls `serve`."""

from __future__ import annotations

import contextlib
import getpass
import json
import mimetypes
import os
import secrets
import socket
import sys
import tempfile
import webbrowser
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from lorakit import __version__, files
from lorakit.console import say, warn
from lorakit.errors import LorakitError
from lorakit.page import photos, results, training, words
from lorakit.page.children import Children
from lorakit.page.guard import LOCAL, Guard, Rules
from lorakit.page.index import Index
from lorakit.page.pictures import Pictures
from lorakit.project import work
from lorakit.project.project import check_names, read_config

HAND_OVER = 0.0005  # seconds after which a thread that reckons lets one that answers have its turn; 5 ms a turn were felt
NOTE = ".page.json"  # who serves this project, with the token: for its owner's eyes
PORT, TRIED = 8713, 50
EVERYWHERE = ("0.0.0.0", "::", "")  # addresses by which a server listens at all of a machine
VIEWS = ("photos", "copies", "words", "training", "results")  # each a file of static/
ROUTES = (photos, words, training, results)


@dataclass
class House:
    """What all views share."""

    folder: Path
    index: Index
    pictures: Pictures
    children: Children
    read_only: bool


def build(folder: Path, rules: Rules, cache: Path | None = None) -> ASGIApp:
    """The page of a project as an ASGI application. `cache` is where its pictures and rows are kept: in the project, if nothing is said."""
    folder = folder.resolve()
    cache = cache or folder / "cache" / "page"
    house = House(folder, Index(folder, cache), Pictures(cache), Children(folder, cache), rules.read_only)
    house.index.start()
    routes: list[BaseRoute] = [route for part in ROUTES for route in part.routes(house)]
    return Guard(Starlette(routes=[*_static(house), *routes]), rules)


def _static(house: House) -> list[BaseRoute]:
    """The page itself and the files it is made of, by a table of what is there."""
    root = resources.files("lorakit.page") / "static"
    table = {f"/static/{path}": found.read_bytes() for path, found in _walk(root)}
    page = (root / "index.html").read_text(encoding="utf-8")
    version = files.short_hash(*(f"{path} {files.short_hash(body.decode('latin-1'))}" for path, body in sorted(table.items())))

    def index(request: Request) -> Response:
        facts = {"views": VIEWS, "readOnly": house.read_only, "version": __version__}
        told = json.dumps(facts).replace("<", "\\u003c")
        return Response(page.replace("NONCE", request.scope["nonce"]).replace("FACTS", told), media_type="text/html")

    def static(request: Request) -> Response:
        body = table.get(request.url.path)
        if body is None:
            return Response("", 404)
        headers = {"cache-control": "private, no-cache", "etag": f'"{version}"'}
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        kind = "text/javascript" if request.url.path.endswith((".js", ".mjs")) else mimetypes.guess_type(request.url.path)[0]
        return Response(body, headers=headers, media_type=kind or "text/plain")

    return [Route("/", index, methods=["GET"]), Route("/static/{path:path}", static, methods=["GET"])]


def _walk(root: Any, before: str = "") -> list[tuple[str, Any]]:
    found = []
    for one in root.iterdir():
        found += _walk(one, f"{before}{one.name}/") if one.is_dir() else [(f"{before}{one.name}", one)]
    return found


def serve(
    folder: Path, host: str = LOCAL[0], port: int | None = None, allow: tuple[str, ...] = (), read_only: bool = False, browse: bool = True
) -> None:
    """Serve the page until Ctrl-C. Where this project's page is served already, only say where. Raises `LorakitError`."""
    folder = folder.expanduser().resolve()
    words = read_config(folder)  # whose faults are told here, in one line, before a page is there
    check_names(folder, words)
    before = _read_note(folder)
    if before and before.get("alive") and bool(before.get("read_only")) == read_only:
        say(f"page      served already, by process {before['pid']}")
        _tell(before["host"], before["port"], before["token"], browse)
        return
    if not read_only:
        _check_writable(folder)
    listener = _listen(host, port, before)
    at = int(listener.getsockname()[1])
    token = before["token"] if before and not read_only else secrets.token_urlsafe(24)  # who may look is not let in to decide
    rules = Rules(token, f"lorakit_{at}", _hosts(host, allow), read_only)
    with contextlib.ExitStack() as stack:
        cache = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lorakit-page-"))) if read_only else None
        if not read_only:
            _write_note(folder, host, at, token)
        app = build(folder, rules, cache)
        say(f"page      {folder.name}{', to look at only' if read_only else ''}; Ctrl-C ends it, and loses nothing")
        _warn_of_others(host, allow, read_only)
        _tell(host, at, token, browse)
        config = uvicorn.Config(
            app, log_level="error", access_log=False, lifespan="off", server_header=False, ws="none", timeout_graceful_shutdown=2
        )
        sys.setswitchinterval(HAND_OVER)
        uvicorn.Server(config).run(sockets=[listener])


def _warn_of_others(host: str, allow: tuple[str, ...], read_only: bool) -> None:
    if host in ("localhost", "::1") or host.startswith("127."):
        return
    warn(
        f"--host {host}: other machines reach this page, and the connection is not encrypted; whoever has the address may "
        + ("look at all photos" if read_only else "decide and start work")
    )
    if host in EVERYWHERE and not allow:
        warn(f"--host {host}: they are let in by a name of this machine only; --allow-host NAME says which, as 192.168.1.20")


def _hosts(host: str, allow: tuple[str, ...]) -> tuple[str, ...]:
    """The names by which this server may be asked for: ours, the address it was told to listen at, and those allowed."""
    own = () if host in EVERYWHERE else (f"[{host}]" if ":" in host else host,)
    return tuple(dict.fromkeys(name.lower() for name in (*LOCAL, *own, *allow)))


def _listen(host: str, port: int | None, before: dict[str, Any] | None) -> socket.socket:
    """At the port that was asked for, else at that of the last time, so that open tabs go on, else at the next that is free."""
    wanted = [port] if port else [*([before["port"]] if before else []), *range(PORT, PORT + TRIED)]
    for number in wanted:
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, number))
            listener.listen(128)
            return listener
        except OSError as error:
            listener.close()
            fault = error.strerror or str(error)
    place = f"--host {host} --port {port}" if port else f"--host {host}"
    raise LorakitError(f"{place}: cannot listen there ({fault}); choose another {'--port' if port else '--host'}")


def _tell(host: str, port: int, token: str, browse: bool) -> None:
    name = LOCAL[0] if host in ("0.0.0.0", "") else "[::1]" if host == "::" else f"[{host}]" if ":" in host else host
    address = f"http://{name}:{port}/?token={token}"
    print(address, flush=True)
    if os.environ.get("SSH_CONNECTION"):
        here = os.environ["SSH_CONNECTION"].split()
        server = here[2] if len(here) > 2 else "HOST"
        say(f"          from your own machine first:  ssh -N -L {port}:127.0.0.1:{port} {getpass.getuser()}@{server}")
    elif browse and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or os.name == "nt" or _is_mac()):
        webbrowser.open(address)


def _is_mac() -> bool:
    import sys

    return sys.platform == "darwin"


def _check_writable(folder: Path) -> None:
    if not os.access(folder, os.W_OK):
        raise LorakitError(f"{folder}: cannot be written to, so nothing could be decided there; `--read-only` shows it all the same")


def _read_note(folder: Path) -> dict[str, Any] | None:
    """What .page.json says, with `alive`: whether that process still serves. One that came with a project from elsewhere says nothing:
    others know its token."""
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        is_token = isinstance(note["token"], str) and len(note["token"]) >= 20 and note["token"].isascii() and note["token"].isprintable()
        whole = is_token and note["port"] in range(1, 65536) and isinstance(note["host"], str) and note["machine"] == socket.gethostname()
        alive = work.is_alive(note["pid"], note["started"], note["machine"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return note | {"alive": alive} if whole else None


def _write_note(folder: Path, host: str, port: int, token: str) -> None:
    facts = {"pid": os.getpid(), "started": work.started(os.getpid()), "machine": socket.gethostname(), "host": host, "port": port}
    path = folder / NOTE
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, "w", encoding="utf-8") as file:
        json.dump(facts | {"token": token, "read_only": False}, file)
