"""The routes of the page on a curated project: what is listed, decided, refused, undone, and what else is written."""

import gzip
import hashlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from io import BytesIO
from itertools import product
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

from lorakit.page import pictures, server
from lorakit.page.guard import Rules
from lorakit.project import open_project
from tests.page.conftest import add_run

TOKEN, HOME = "t" * 24, "http://127.0.0.1:1"


class Page(TestClient):
    """A browser's side of it: `tell` is a POST as the page makes them."""

    def __init__(self, folder, read_only=False):
        super().__init__(server.build(folder, Rules(TOKEN, "lorakit_1", read_only=read_only)), base_url=HOME)
        self.folder = folder
        self.headers["cookie"] = f"lorakit_1={TOKEN}"
        self.rows = {row["name"]: row for row in self.get("/index").json()["rows"]}

    def tell(self, path, **words):
        return self.post(path, content=json.dumps(words), headers={"x-lorakit": "1", "origin": HOME})

    def decide(self, name, what, now, was=None):
        return self.tell("/decide", changes=[{"ids": [self.rows[name]["id"]], "what": what, "was": was, "now": now}])

    def row(self, name):
        return next(row for row in self.get("/index").json()["rows"] if row["name"] == name)


@pytest.fixture
def page(curated):
    return Page(curated)


A, B = "photo_0.jpg", "photo_1.jpg"  # of six; blurred.jpg is one too many, copy.jpg is photo_0 saved again


def test_a_decision_is_in_the_book_before_the_answer_and_is_taken_back_once(page):
    answer = page.decide(A, "verdict", "reject")
    assert answer.status_code == 200 and answer.json()["rows"][0]["verdict"] == "reject"
    assert open_project(page.folder).manifest[page.rows[A]["id"]]["human"] == {"verdict": "reject"}
    assert page.decide(A, "verdict", "reject").status_code == 200  # its answer was lost, and it comes again
    assert len(open_project(page.folder).manifest.decisions.lines) == 1
    for _ in range(2):
        assert page.tell("/undo", n=answer.json()["n"]).status_code == 200
    assert "human" not in page.row(A) and page.get("/index").json()["redo"]["words"] == f"reject: {A}"
    assert len(open_project(page.folder).manifest.decisions.lines) == 2


def test_what_was_decided_elsewhere_is_a_conflict_and_shown(page):
    from lorakit.caption.review import review

    review(open_project(page.folder), [A], text="written by a command")
    answer = page.decide(A, "text", "written on the page")
    assert answer.status_code == 409 and answer.json()["rows"][0]["text"] == "written by a command"
    assert page.decide(A, "text", "written on the page", was="written by a command").status_code == 200
    assert open_project(page.folder).manifest[page.rows[A]["id"]]["human"]["text"] == "written on the page"


def test_an_edit_while_a_run_saves_is_kept_by_both(page):
    """A run holds the manifest in its memory, and writes it over what is there."""
    run = open_project(page.folder)
    page.decide(A, "text", "while it runs")
    with run.locked():
        run.manifest.keep({**run.manifest[page.rows[B]["id"]], "text": "by the run"})
        run.manifest.save()
    time.sleep(0.6)
    assert (page.row(A)["text"], page.row(B)["text"]) == ("while it runs", "by the run")


@pytest.mark.parametrize(
    "sent",
    [
        {}, {"changes": "x"}, {"changes": [1]}, {"changes": [{"ids": ["../../etc/passwd"], "what": "verdict", "now": "keep"}]},
        {"changes": [{"ids": [A], "what": "pick", "now": {"step": 1, "strength": 1}}]}, {"changes": [{"ids": [A], "what": "verdict", "now": "perhaps"}]},
        {"changes": [{"ids": [A], "what": "crop", "now": {"box": [0, 0, 9999, 9999], "bucket": [64, 64]}}]},
        {"changes": [{"ids": [A], "what": "crop", "now": {"box": [0, 0, 100, 300], "bucket": [64, 64]}}]},
        {"changes": [{"ids": [A], "what": "apart", "now": ["nobody"]}]}, {"changes": [{"ids": [A], "what": "text", "now": "x" * 30_000}]},
        {"changes": [{"ids": [A], "what": "path", "now": "/etc/passwd"}]},
    ],
)  # fmt: skip
def test_what_cannot_be_decided_changes_nothing(page, sent):
    for change in sent.get("changes", ()):
        if isinstance(change, dict):
            change["ids"] = [page.rows.get(id, {"id": id})["id"] for id in change["ids"]]
    assert page.tell("/decide", **sent).status_code in (400, 404)
    assert not open_project(page.folder).manifest.decisions.lines


ODD = ("NaN", "Infinity", "-1e999", "1" * 400, "1e308", '"x"', "true", "[NaN]", "[[]]", '"\\ud800"', '{"a": 1}', "-1.5", "-1", "null")


def test_whatever_is_sent_is_refused_in_one_line_and_writes_nothing(page):
    """Numbers that are none or endless, halves of letters, and values of another kind, in every word of every route."""
    add_run(page.folder, done=True)
    change = '{"changes": [{"ids": ["ID"], "what": "%s", "now": %s}]}'.replace("ID", page.rows[A]["id"])
    values = [("verdict", "V"), ("apart", "[V]"), ("crop", "V"), ("crop", '{"box": [0, 0, V, V], "bucket": [64, 64]}'),
              ("crop", '{"box": [0, 0, 64, 64], "bucket": [V, V]}'), ("crop", '{"box": [0, 0, 64, 64], "bucket": [64, V]}')]  # fmt: skip
    bodies = {
        "decide": ['{"changes": V}', '{"changes": [V]}', '{"changes": [{"ids": V}]}', *(change % value for value in values)],
        "undo": ["V", '{"n": V}'], "text/look": ['{"id": V, "text": "x"}'], "words/look": ['{"rules": [V]}', '{"rules": V, "ids": V}'],
        "words/save": ['{"rules": V, "mark": V}'], "limits/look": ['{"reason": "blurry", "values": [V]}', '{"reason": V, "values": V}'],
        "limits/save": ['{"check": V, "values": V}', '{"check": "size", "values": {"check.size.min_side": V, "check.size.no": 1}}'],
        "pick": ['{"n": V, "step": "x"}', '{"n": -1, "step": 20, "strength": V}', '{"n": 0, "step": 20, "strength": [V]}'],
        "draw": ['{"strengths": V}', '{"strengths": [V, "x"]}'], "train": ['{"new": [V]}'],
    }  # fmt: skip
    for odd, (route, body) in product(ODD, ((route, body) for route, some in bodies.items() for body in some)):
        if (route, odd) != ("decide", "null"):  # which is as nobody had decided
            answer = page.post(f"/{route}", content=body.replace("V", odd), headers={"x-lorakit": "1", "origin": HOME})
            assert 400 <= answer.status_code < 500, (route, body, odd, answer.text)
            assert len(answer.json()["error"]) <= 500 and "\n" not in answer.json()["error"]
    assert not open_project(page.folder).manifest.decisions.lines and "min_side" not in (page.folder / "project.yaml").read_text("utf-8")


def test_half_a_letter_is_mended_where_it_is_decided(page):
    """A text cut within an emoji could be written to no file, and stopped the next run."""
    assert page.tell("/text/look", id=page.rows[A]["id"], text="a mug \ud83d").status_code == 200
    assert page.tell("/words/look", rules=["add: \ud83d"]).status_code == 200
    assert page.decide(A, "text", "a mug \ud83d").status_code == 200
    assert page.row(A)["text"] == "a mug \ufffd"
    assert page.decide(A, "text", "a mug \ud83d").status_code == 200  # asked twice


def test_one_thing_is_not_decided_twice_at_once(page):
    """Such a decision could never be taken back."""
    id = page.rows[A]["id"]
    both = [{"ids": [id, id], "what": "verdict", "was": None, "now": now} for now in ("keep", "reject")]
    assert page.tell("/decide", changes=both).status_code == 400
    answer = page.tell("/decide", changes=both[:1])
    assert answer.status_code == 200 and len(open_project(page.folder).manifest.decisions.lines[0]["changes"]) == 1
    assert page.tell("/undo", n=answer.json()["n"]).status_code == 200


def test_a_crop_has_a_bucket_of_the_base(page):
    for bucket in ([100_000, 100_000], [1, 1]):
        assert page.decide(A, "crop", {"box": [0, 0, 60, 60], "bucket": bucket}).status_code == 400
    assert page.decide(A, "crop", {"box": [0, 0, 60, 60], "bucket": [64, 64]}).status_code == 200


def test_a_picture_that_fails_stops_no_other(page, monkeypatch):
    """Whatever goes wrong in it: its thread goes on."""
    monkeypatch.setattr(pictures, "load_image", lambda path: 1 / 0)
    quiet = TestClient(page.app, base_url=HOME, headers=dict(page.headers), raise_server_exceptions=False)
    assert [quiet.get(f"/full/{page.rows[name]['id']}.jpg").status_code for name in (A, B, A)] == [500] * 3
    assert page.get(f"/thumb/{page.rows[A]['id']}.jpg").status_code == 200


def test_who_may_look_does_not_get_the_token_of_who_may_decide(curated, monkeypatch, capfd):
    """Nor does a token count that came with the project from another machine; and a page that others reach is warned of."""
    built = []
    monkeypatch.setattr(server, "build", lambda folder, rules, cache=None: built.append(rules))
    monkeypatch.setattr(server.uvicorn.Server, "run", lambda self, sockets: sockets[0].close())
    for more in ({}, {"read_only": True, "host": "0.0.0.0"}, {}):
        server.serve(curated, browse=False, **more)
        (curated / ".page.json").write_text(json.dumps(json.loads((curated / ".page.json").read_text()) | {"pid": 1, "started": 0}))
    kept, looking, again = (rules.token for rules in built)
    assert kept == again != looking
    said = capfd.readouterr().err
    assert "not encrypted" in said and "--allow-host" in said and said.count("warning") == 2
    (curated / ".page.json").write_text((curated / ".page.json").read_text().replace(socket.gethostname(), "another"))
    server.serve(curated, browse=False)
    assert built[-1].token != kept


def test_pictures_go_out_encoded_anew_by_id_only(page):
    for kind, side in (("thumb", 320), ("view", 640), ("full", 640)):
        answer = page.get(f"/{kind}/{page.rows[A]['id']}.jpg")
        assert answer.headers["content-type"] == "image/jpeg" and max(Image.open(BytesIO(answer.content)).size) == side
    for path in ("/thumb/nobody.jpg", "/raw/x.jpg", "/thumb/..%2f..%2fproject.yaml.jpg", "/thumb/%2fetc%2fpasswd.jpg", "/static/../guard.py",
                 "/static/..%2fguard.py", "/static/vendor", "/../project.yaml", "/project.yaml", "/static/%00"):  # fmt: skip
        assert page.get(path).status_code == 404, path


def test_a_damaged_photo_is_said_and_no_error_of_the_server(page):
    path = Path(open_project(page.folder).manifest[page.rows[A]["id"]]["path"])
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:64])
        assert page.get(f"/full/{page.rows[A]['id']}.jpg").status_code == 404
    finally:
        path.write_bytes(whole)


def test_a_text_is_looked_at_while_it_is_written(page):
    word = "unspeakable "
    found = page.tell("/text/look", id=page.rows[A]["id"], text=f"a zwx mug at night, {word * 60}").json()
    assert (
        found["past"] is not None
        and found["past"] < len(f"a zwx mug at night, {word * 60}")
        and sum(found["tokens"].values()) > found["budget"]
    )
    reasons = {reason: places for reason, _, places in found["faults"]}
    assert "too_many_tokens" in reasons and found["trained"].count("zwx") == 1
    assert "trigger_missing" not in reasons  # it is put in


def test_words_are_offered_from_the_set_and_a_list_of_ones_own(page):
    (page.folder / "words.csv").write_text("long_hair,12\nsmile\n", encoding="utf-8")
    offered = [phrase for phrase, _ in page.get("/phrases").json()["phrases"]]
    assert {"long hair", "smile"} <= set(offered) and len(offered) > 2


def test_another_limit_is_tried_before_it_is_kept(page):
    key = "check.sharpness.min_sharpness"
    found = page.tell("/limits/look", reason="blurry", values={}).json()
    assert key in {limit["key"] for limit in found["limits"]} and (found["more"], found["fewer"]) == (0, 0)
    tried = page.tell("/limits/look", reason="blurry", values={key: 0.0}).json()
    assert tried["more"] == 1 and tried["shown"] == [page.rows["blurred.jpg"]["id"]]
    assert page.tell("/limits/save", check="sharpness", values={"train.rank": 3}).status_code == 400
    assert page.tell("/limits/save", check="sharpness", values={key: 0.0}).status_code == 200
    assert open_project(page.folder).settings.check.sharpness.min_sharpness == 0.0
    deadline = time.monotonic() + 10
    while page.row("blurred.jpg")["verdict"] == "reject" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert page.row("blurred.jpg")["verdict"] != "reject"


def test_words_of_the_set_are_shown_changed_and_taken_back(page):
    """What is shown, what is kept and what `lorakit words` makes of it are the same."""
    from lorakit.caption import words

    assert dict(page.get("/words").json()["phrases"])["red scarf"] == 2
    told = page.tell("/words/look", rules=["remove: red scarf"]).json()
    shown = {name: after for _, name, _, after in told["shown"]}
    assert (
        shown == {file: after for file, _, after in words.preview(open_project(page.folder), ["remove: red scarf"])} and told["count"] == 2
    )
    assert page.tell("/words/save", rules=["remove: red scarf"], mark="another").status_code == 409
    assert page.tell("/words/look", rules=["remov: x"]).status_code == 400
    assert page.tell("/words/save", rules=["remove: red scarf"], mark=told["mark"]).json() == {"count": 2, "follows": "now"}
    deadline = time.monotonic() + 60
    while any(page.row(name)["text"] != after for name, after in shown.items()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert {name: page.row(name)["text"] for name in shown} == shown
    assert open_project(page.folder).settings.caption.rules == ("remove: red scarf",)


def test_words_of_some_photos_are_changed_by_hand_in_one_decision(page):
    ids = [page.rows[name]["id"] for name in (A, "photo_4.jpg")]
    told = page.tell("/words/look", rules=["replace: grass => snow"], ids=ids).json()
    assert page.tell("/words/save", rules=["replace: grass => snow"], ids=ids, mark=told["mark"]).json()["count"] == 2
    book = open_project(page.folder).manifest
    assert [book[id]["human"]["text"].count("snow") for id in ids] == [1, 1] and len(book.decisions.lines) == 1
    assert "snow" in page.row(A)["text"] and page.row(A)["edited"]


def test_the_next_start_lists_the_same_at_once_until_something_is_written(page):
    kept = page.folder / "cache/page/index.json.gz"
    deadline = time.monotonic() + 5
    while not kept.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    name, _, body = kept.read_bytes().partition(b"\n")
    assert json.loads(gzip.decompress(body))["rows"] == page.get("/index").json()["rows"]
    again = Page(page.folder)
    found = again.get("/changes", params={"epoch": name.decode(), "since": 0}).json()
    assert found["rows"] == [] and "again" not in found
    page.decide(A, "verdict", "reject")
    assert Page(page.folder).rows[A]["verdict"] == "reject"


def test_a_project_that_cannot_be_read_is_said_and_listed_once_it_is_mended(curated):
    words = (curated / "project.yaml").read_text(encoding="utf-8")
    (curated / "project.yaml").write_text("settings: [", encoding="utf-8")
    page = Page(curated)
    assert page.rows == {} and "project.yaml" in page.get("/index").json()["fault"]
    (curated / "project.yaml").write_text(words, encoding="utf-8")
    deadline = time.monotonic() + 10
    while not page.get("/changes").json().get("again") and not page.get("/index").json()["rows"] and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(page.get("/index").json()["rows"]) == 8


def test_read_only_writes_nothing(curated, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in curated.rglob("*")}
    app = server.build(curated, Rules(TOKEN, "lorakit_1", read_only=True), tmp_path / "elsewhere")
    page = TestClient(app, base_url=HOME, headers={"cookie": f"lorakit_1={TOKEN}"})
    rows = page.get("/index").json()["rows"]
    assert page.get(f"/thumb/{rows[0]['id']}.jpg").status_code == 200
    sent = {"changes": [{"ids": [rows[0]["id"]], "what": "verdict", "was": None, "now": "keep"}]}
    assert page.post("/decide", json=sent, headers={"x-lorakit": "1", "origin": HOME}).status_code == 403
    assert {p: p.stat().st_mtime_ns for p in curated.rglob("*")} == before


def test_what_is_taken_from_others_is_unchanged_with_its_licence():
    """Preact, its hooks, htm and uPlot as their authors publish them."""
    sums = {
        "htm-3.1.1.mjs": "ab33dd3f38059b9be4d5f5350128eefb2356639c4e0bbe9d9e8b3ba75847e9e4",
        "preact-11.2.0.mjs": "bdcbd9abdf2c77c5c45326eab42191e949222d479d0d5f69467387a77040cb55",
        "preact-hooks-11.2.0.mjs": "e862ab2973aa6455eaa0f77c5d832d2157d6be59a17c8ba546550a575b58c6b4",
        "uPlot-1.6.32.esm.js": "5dd9b3281aa64b461b42d9945f6adb2649d346502b12281a9ae0d46599a80eba",
        "uPlot-1.6.32.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    }
    vendor = Path(server.__file__).parent / "static/vendor"
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in vendor.iterdir() if "LICENSE" not in path.name}
    assert found == sums
    assert {path.name for path in vendor.glob("*LICENSE*")} == {"htm-LICENSE", "preact-LICENSE", "uPlot-LICENSE"}


def test_hostile_names_and_texts_go_out_as_json(page):
    book = open_project(page.folder).manifest
    record = book[page.rows[A]["id"]]
    hostile = "<img src=x onerror=alert(1)>\x1b[31m‮gpj.exe\udce4"
    book.keep({**record, "file": hostile, "text": hostile})
    time.sleep(0.6)
    answer = page.get("/index")
    row = next(row for row in answer.json()["rows"] if row["id"] == record["id"])
    assert answer.headers["content-type"] == "application/json"
    assert "\x1b" not in row["name"] and "‮" not in row["name"] and row["text"] == hostile


def test_the_command_serves_and_a_second_one_says_where(curated):
    """With a torn note of an earlier one, on a free port; Ctrl-C ends it, and the token stays for the next."""
    shutil.rmtree(curated / "cache/page", ignore_errors=True)
    (curated / ".page.json").write_text("{", encoding="utf-8")
    command = [sys.executable, "-m", "lorakit", "open", str(curated), "--no-browser"]
    environment = {**os.environ, "SSH_CONNECTION": "1.2.3.4 5 6.7.8.9 22"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as first:
        try:
            address = first.stdout.readline().strip()
            note = json.loads((curated / ".page.json").read_text(encoding="utf-8"))
            assert address.endswith(f":{note['port']}/?token={note['token']}") and address.startswith("http://127.0.0.1:")
            assert os.name == "nt" or (curated / ".page.json").stat().st_mode & 0o777 == 0o600
            second = subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment)
            assert second.returncode == 0 and second.stdout.strip() == address and f"-L {note['port']}:127.0.0.1" in second.stderr
        finally:
            first.send_signal(2)
            _, said = first.communicate(timeout=20)
    assert first.returncode in (0, 130, -2) and "Traceback" not in said
    assert json.loads((curated / ".page.json").read_text(encoding="utf-8"))["token"] == note["token"]


@pytest.mark.slow
def test_a_server_killed_while_it_saves_has_kept_all_that_it_answered(curated):
    command = [sys.executable, "-m", "lorakit", "open", str(curated), "--no-browser"]
    ids = [r["id"] for r in open_project(curated).manifest]
    answered = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        address, _, token = process.stdout.readline().strip().partition("/?token=")
        headers = {"x-lorakit": "1", "origin": address, "cookie": f"lorakit_{address.rpartition(':')[2]}={token}"}
        killer = threading.Timer(4.0, process.kill)
        for number in range(100_000):
            id, was = ids[number % len(ids)], f"text {number - len(ids)}" if number >= len(ids) else None
            change = {"ids": [id], "what": "text", "was": was, "now": f"text {number}"}
            request = urllib.request.Request(f"{address}/decide", json.dumps({"changes": [change]}).encode(), headers)
            try:
                with urllib.request.urlopen(request, timeout=20) as answer:
                    assert answer.status == 200
            except (OSError, http.client.HTTPException):
                break
            if not answered:
                killer.start()
            answered.append(change)
    book = open_project(curated).manifest
    kept = [line["changes"][0]["now"] for line in book.decisions.lines]
    assert len(answered) > 20 and kept[: len(answered)] == [change["now"] for change in answered] and len(kept) - len(answered) <= 1
