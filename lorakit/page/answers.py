"""What goes in and out of every route: JSON whose words are checked, and errors that a person can mend as one line."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lorakit.errors import Conflict, LorakitError, ProjectBusy, os_error_in_words

LARGE = 4096  # bytes from which an answer is packed
MOST_NUMBER = 2**53  # nothing here is larger
MOST_WORDS = 500  # letters of an error: what was sent may stand in it


class NotThere(LorakitError):
    """What was asked for does not exist (any more)."""


def as_json(value: Any) -> bytes:
    """ASCII, so that file names that are no text go out too; what is no number as null."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    except ValueError:
        return json.dumps(_finite(value), separators=(",", ":")).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def answer(value: Any, status: int = 200) -> Response:
    return packed(as_json(value), status)


def packed(body: bytes, status: int = 200) -> Response:
    headers = {"vary": "accept-encoding"}
    if len(body) > LARGE and not body.startswith(b"\x1f\x8b"):
        body = gzip.compress(body, 1)
    if body.startswith(b"\x1f\x8b"):
        headers["content-encoding"] = "gzip"
    return Response(body, status, headers, "application/json")


def get(path: str, function: Callable[[Request], Any]) -> Route:
    """A route that answers with what `function(request)` returns: a Response as it is, anything else as JSON."""

    def endpoint(request: Request) -> Response:
        return _answered(function, request)

    return Route(path, endpoint, methods=["GET"])


def post(path: str, function: Callable[[dict[str, Any]], Any]) -> Route:
    """A route for which `function` gets the JSON object that was sent."""

    async def endpoint(request: Request) -> Response:
        try:
            sent = json.loads(await request.body(), parse_constant=_no_number, parse_int=_whole_number, parse_float=_number)
        except (ValueError, RecursionError):
            sent = None
        if not isinstance(sent, dict):
            return answer({"error": "no JSON object was sent"}, 400)
        return await run_in_threadpool(_answered, function, sent)

    return Route(path, endpoint, methods=["POST"])


def _whole_number(text: str) -> int:
    _number(text)
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    return value if abs(value) <= MOST_NUMBER else _no_number(text)  # 1e999 is endless


def _no_number(text: str) -> float:
    raise ValueError(f"{text[:20]}: NaN, or too large")


def _line(error: LorakitError) -> str:
    return " ".join(str(error).split())[:MOST_WORDS]


def _answered(function: Callable[[Any], Any], given: Any) -> Response:
    try:
        found = function(given)
    except Conflict as error:
        return answer({"error": _line(error), "conflict": True}, 409)
    except ProjectBusy as error:
        return answer({"error": _line(error), "busy": True}, 423)
    except NotThere as error:
        return answer({"error": _line(error)}, 404)
    except LorakitError as error:
        return answer({"error": _line(error)}, 400)
    except OSError as error:
        return answer({"error": os_error_in_words(error)}, 500)
    return found if isinstance(found, Response) else answer(found)


def take(sent: dict[str, Any], key: str, *kinds: type) -> Any:
    """A word of what was sent, of one of these kinds. Raises `LorakitError`."""
    value = sent.get(key)
    if not isinstance(value, kinds) or isinstance(value, bool) and bool not in kinds:
        raise LorakitError(f"{key}: missing, or of another kind")
    return value


def take_list(sent: dict[str, Any], key: str, kind: type) -> list[Any]:
    found = take(sent, key, list)
    if not all(isinstance(item, kind) for item in found):
        raise LorakitError(f"{key}: of another kind")
    return found
