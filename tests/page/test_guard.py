"""Who is let in, as a matrix: host, origin, token, method, size, place; around an application that says yes to all."""

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from lorakit.page.guard import MOST_BYTES, Guard, Rules

TOKEN, PORT = "t" * 24, 8713
HOME = f"http://127.0.0.1:{PORT}"


async def yes(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"yes {len(await request.body())}")


def client(read_only: bool = False, hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]"), signed: bool = True) -> TestClient:
    app = Starlette(routes=[Route("/{path:path}", yes, methods=["GET", "POST", "PUT", "DELETE", "OPTIONS"])])
    found = TestClient(Guard(app, Rules(TOKEN, f"lorakit_{PORT}", hosts, read_only)), base_url=HOME, follow_redirects=False)
    if signed:
        found.headers["cookie"] = f"other=1; lorakit_{PORT}={TOKEN}"
    return found


POSTED = {"x-lorakit": "1", "origin": HOME}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8713", 200), ("localhost:8713", 200), ("LOCALHOST:9999", 200), ("[::1]:8713", 200), ("127.0.0.1", 200),
        ("evil.example", 421), ("evil.example:8713", 421), ("127.0.0.1.evil.example", 421), ("localhost.evil.example:80", 421), ("", 421),
        ("127.0.0.1:8713@evil.example", 421), ("0.0.0.0:8713", 421), ("127.1:8713", 421),
    ],
)  # fmt: skip
@pytest.mark.parametrize("signed", [True, False])
def test_host(host, status, signed):
    """By a name of its own that leads to this machine, a foreign page would be of one origin with us."""
    assert client(signed=signed).get("/index", headers={"host": host}).status_code == (status if signed or status != 200 else 401)
    assert client(signed=False).get(f"/?token={TOKEN}", headers={"host": host}).status_code == (303 if status == 200 else 403)


def test_a_further_host_is_let_be_by_name():
    assert client(hosts=("127.0.0.1", "box.lan")).get("/index", headers={"host": "box.lan:8713"}).status_code == 200


@pytest.mark.parametrize(
    "cookie",
    ["", f"lorakit_{PORT}=", f"lorakit_{PORT}=wrong", f"lorakit_9999={TOKEN}", f"lorakit_{PORT}={TOKEN[:-1]}", f"x=lorakit_{PORT}={TOKEN}",
     f"lorakit_{PORT}=é"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/index", "/thumb/a.jpg", "/static/app.js"])
def test_nothing_is_shown_without_the_token(cookie, path):
    refused = client(signed=False).get(path, headers={"cookie": cookie.encode()} if cookie else {})
    assert refused.status_code == 401 and "lorakit open" in refused.json()["error"]


def test_the_token_becomes_a_cookie_and_leaves_the_address():
    answer = client(signed=False).get(f"/?token={TOKEN}")
    assert (answer.status_code, answer.headers["location"]) == (303, "./")
    assert answer.headers["set-cookie"] == f"lorakit_{PORT}={TOKEN}; Path=/; HttpOnly; SameSite=Strict"
    assert client(signed=False).get("/?token=wrong").status_code == 403
    assert client(signed=False).get(f"/index?token={TOKEN}").status_code == 401  # at the door only


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200), ({"sec-fetch-site": "same-origin"}, 200), ({"origin": "http://localhost:8713"}, 403), ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403), ({"origin": ""}, 403), ({"origin": "http://127.0.0.1:9999"}, 403), ({"x-lorakit": "2"}, 403),
        ({"x-lorakit": ""}, 403), ({"sec-fetch-site": "same-site"}, 403), ({"sec-fetch-site": "cross-site"}, 403), ({"sec-fetch-site": "none"}, 403),
        ({"origin": "http://["}, 403), ({"origin": "http://[::1"}, 403), ({"origin": "http://127.0.0.1:8713@x"}, 403),
    ],
)  # fmt: skip
def test_origin(headers, status):
    assert client().post("/decide", json={}, headers={**POSTED, **headers}).status_code == status


def test_behind_a_forwarded_port_origin_is_held_against_the_host_that_was_asked_for():
    for origin in ("http://localhost:5000", "https://localhost:5000"):
        assert client().post("/decide", json={}, headers={**POSTED, "host": "localhost:5000", "origin": origin}).status_code == 200


@pytest.mark.parametrize(
    ("site", "mode", "path", "status"),
    [("cross-site", "no-cors", "/thumb/a.jpg", 403), ("same-site", "no-cors", "/thumb/a.jpg", 403), ("cross-site", "navigate", "/", 200),
     ("cross-site", "navigate", "/index", 403), ("none", "navigate", "/index", 200)],
)  # fmt: skip
def test_pictures_are_not_for_pages_of_other_ports(site, mode, path, status):
    assert client().get(path, headers={"sec-fetch-site": site, "sec-fetch-mode": mode}).status_code == status


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods(method):
    assert client().request(method, "/index", headers=POSTED).status_code == 405


@pytest.mark.parametrize("told", [True, False])
def test_size(told):
    """Whether the length is said before or not."""
    body = b"x" * (MOST_BYTES + 1)
    assert client().post("/decide", content=body if told else iter([body[:9], body[9:]]), headers=POSTED).status_code == 413
    assert client().post("/decide", content=body[1:], headers=POSTED).text == f"yes {MOST_BYTES}"


def test_an_address_of_any_length():
    """No number in it is longer than Python reads."""
    assert client().get(f"/runs/{'9' * 5000}/results").status_code == 414
    assert client().get(f"/changes?since={'9' * 5000}").status_code == 414


def test_read_only_lets_looks_through_and_no_decision():
    assert client(read_only=True).post("/decide", json={}, headers=POSTED).status_code == 403
    assert client(read_only=True).post("/text/look", json={}, headers=POSTED).status_code == 200


@pytest.mark.parametrize(
    "answer", [client().get("/index"), client(signed=False).get("/index"), client().get("/index", headers={"host": "x"})]
)
def test_every_answer_says_what_a_browser_may_do_with_it(answer):
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert (answer.headers["x-content-type-options"], answer.headers["referrer-policy"]) == ("nosniff", "no-referrer")
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_the_nonce_is_another_each_time():
    policies = {client().get("/").headers["content-security-policy"] for _ in range(3)}
    assert len(policies) == 3


def test_no_websocket_is_opened():
    with pytest.raises(WebSocketDisconnect), client().websocket_connect("/index"):
        pass
