"""The captioner that asks a server, against one on this machine that does all that servers do."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

import lorakit
from lorakit.caption.captioners import server
from lorakit.caption.captioners.base import card_of, source_of
from lorakit.errors import LorakitError
from lorakit.settings import Caption
from lorakit.text.answers import NoCaption
from lorakit.text.composing import RawCaption

DOG = "A brown dog sits on green grass."
PHOTOS = [Image.new("RGB", (64 + 8 * n, 64), (20 * n, 90, 60)) for n in range(8)]


class Behaviour:
    """What the server does: `answers` one after the other (the last stays), each (status, body, headers), None for a dropped line."""

    def __init__(self):
        self.answers, self.asked, self.headers = [say(DOG)], [], []
        self.models: list[str] | None = ["toy"]
        self.listed = None  # an answer of its own to who asks for the models
        self.lock = threading.Lock()


def say(content, finish="stop", **message):
    return 200, {"choices": [{"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}]}, {}


@pytest.fixture
def there(monkeypatch):
    monkeypatch.setattr(server, "FIRST_WAIT", 0.01)
    behaviour = Behaviour()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with behaviour.lock:
                behaviour.asked.append(body)
                behaviour.headers.append(dict(self.headers))
                answer = behaviour.answers.pop(0) if len(behaviour.answers) > 1 else behaviour.answers[0]
            if answer is None:
                self.close_connection = True
                self.connection.close()
                return
            self.reply(*(answer(body) if callable(answer) else answer))

        def do_GET(self):
            listed = {"data": [{"id": name} for name in behaviour.models or ()]}
            self.reply(200 if behaviour.models is not None else 404, behaviour.listed or listed, {})

        def reply(self, status, body, headers):
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *words):
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    behaviour.url = f"http://127.0.0.1:{listening.server_port}/v1"
    yield behaviour
    listening.shutdown()
    listening.server_close()
    thread.join()


def load(there, **settings):
    return server.load(source_of(server.CARD, None), "cpu", Caption(server=there.url, **{"model": "toy", **settings}))


def test_what_is_sent_and_what_comes_back(there, monkeypatch):
    monkeypatch.setenv(server.KEY, "s3cret")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # gets nothing that stays on this machine
    there.answers = [say(f"{DOG}\nTags: dog, grass")]
    assert load(there, prompt="What is it?")([PHOTOS[0]]) == [RawCaption(DOG, ("dog", "grass"))]
    [body], [headers] = there.asked, there.headers
    image, text = body["messages"][0]["content"]
    assert text == {"type": "text", "text": "What is it?"} and image["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert (body["model"], body["temperature"], body["max_tokens"], body["reasoning_effort"]) == ("toy", 0, 160, "none")
    assert isinstance(body["seed"], int) and headers["Authorization"] == "Bearer s3cret"


@pytest.mark.parametrize("at_once", [1, 4, 8])
def test_photos_are_asked_about_together_and_come_back_in_order(there, at_once):
    together = threading.Barrier(at_once, timeout=60)  # nobody gets an answer before so many have asked

    def answer(body):
        together.wait()
        return say(f"Picture {len(body['messages'][0]['content'][0]['image_url']['url'])} is there.")

    there.answers = [answer]
    read = load(there)
    prepared = [read.prepare(photo) for photo in PHOTOS]
    found = [one for n in range(0, 8, at_once) for one in read.read(prepared[n : n + at_once])]
    together = threading.Barrier(1)
    alone = [read.read([jpeg])[0] for jpeg in prepared[:2]]
    assert found[:2] == alone and len({one.sentence for one in found}) > 1


@pytest.mark.parametrize("trouble", [
    (503, b"loading model", {}), (429, {"error": {"message": "slow down"}}, {"Retry-After": "0"}), (408, b"", {}), (500, b"<html>oops</html>", {}), None,
    (429, {}, {"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}),
])  # fmt: skip
def test_what_may_pass_is_asked_again(there, trouble):
    there.answers = [trouble, trouble, say(DOG)]
    assert load(there)([PHOTOS[0]]) == [RawCaption(DOG)]
    assert len(there.asked) == 3


def test_what_does_not_pass_fails_its_photo_alone(there):
    there.answers = [(503, {"error": "overloaded"}, {})]
    assert load(there)([PHOTOS[0]]) == [NoCaption("no answer in 5 tries: HTTP 503 overloaded")]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (say("", reasoning="Let me think"), "only thought"),
        (say("", "length"), "only thought"),
        (say(None, reasoning_content="Hm"), "only thought"),
        (say("<think>The user wants"), "only thought"),
        (say(""), "empty answer"),
        (say(None, refusal="No."), "refused"),
        (say("I'm sorry, I can't help with that."), "refused"),
        (say("Half of", "content_filter"), "filter"),
        ((200, b"not JSON", {}), "no chat completion"),
        ((200, {"choices": []}, {}), "no chat completion"),
        ((200, {"error": "x"}, {}), "no chat completion"),
        ((400, {"error": {"message": "blocked by content_filter"}}, {}), "refused it"),
    ],
)
def test_an_answer_without_a_caption_has_its_reason(there, answer, reason):
    there.answers = [answer]
    [found] = load(there)([PHOTOS[0]])
    assert isinstance(found, NoCaption) and reason in found.reason


def test_an_answer_that_was_stopped_ends_with_its_last_sentence(there):
    there.answers = [say(f"{DOG} It has a red col", "length")]
    assert load(there)([PHOTOS[0]]) == [RawCaption(DOG, (), True)]
    there.answers = [say([{"type": "text", "text": DOG}])]
    assert load(there)([PHOTOS[0]]) == [RawCaption(DOG)]


PIECES = [{"delta": {"role": "assistant"}}, {"delta": {"reasoning_content": "hm"}}, {"delta": {"content": "A brown dog sits "}},
          {"delta": {"content": "on green grass."}, "finish_reason": "stop"}]  # fmt: skip


@pytest.mark.parametrize(
    "answer",
    [
        say([{"type": "reasoning", "text": "hm"}, {"type": "text", "text": DOG}]),
        say([DOG]),
        say([{"type": "text", "text": {"value": DOG}}, {"type": "image"}, None]),
        (200, {"choices": [{"message": DOG}]}, {}),
        (200, {"choices": [{"text": DOG}]}, {}),
        (
            200,
            b": hello\n\n"
            + b"".join(b"data: " + json.dumps({"choices": [piece]}).encode() + b"\n\n" for piece in PIECES)
            + b"data: [DONE]\n",
            {},
        ),
    ],
)
def test_answers_of_odd_shapes_are_read(there, answer):
    there.answers = [answer]
    assert load(there)([PHOTOS[0]]) == [RawCaption(DOG)]


def test_letters_are_those_of_utf_8_whatever_the_header_says(there):
    there.answers = [(200, '{"choices": [{"message": {"content": "Un café à côté."}}]}'.encode(), {"Content-Type": "text/plain"})]
    assert load(there)([PHOTOS[0]]) == [RawCaption("Un café à côté.")]
    there.answers = [(200, '{"choices": [{"message": {"content": "Ein Hund im Grün."}}]}'.encode("latin-1"), {})]
    assert isinstance(load(there)([PHOTOS[0]])[0], NoCaption)


@pytest.mark.parametrize("key", ["s3cret\nmore", "s3cr€t", "s3 cret"])
def test_a_key_that_is_none_is_not_shown(there, key, monkeypatch):
    monkeypatch.setenv(server.KEY, key)
    with pytest.raises(LorakitError, match=server.KEY) as error:
        load(there)
    assert "s3" not in str(error.value)
    monkeypatch.setenv(server.KEY, "Bearer s3cret")
    assert load(there)([PHOTOS[0]]) and there.headers[-1]["Authorization"] == "Bearer s3cret"


def test_models_are_listed_in_other_forms_too(there):
    session = server._session(there.url)
    for answer in ({"models": [{"name": "a"}]}, {"data": ["a"]}, ["a"], [{"id": "a"}]):
        there.listed = answer
        assert server.models_of(session, there.url) == ["a"]
    for answer in ("x", {"data": None}, {"data": [1]}, [{}]):
        there.listed = answer
        assert server.models_of(session, there.url) == []


def test_who_knows_no_thinking_is_asked_without(there):
    there.answers = [lambda body: (400, {"error": "unknown field reasoning_effort"}, {}) if "reasoning_effort" in body else say(DOG)]
    read = load(there)
    assert read([PHOTOS[0]]) == read([PHOTOS[0]]) == [RawCaption(DOG)]
    assert len(there.asked) == 3, "asked once with, and from then on without"


def test_words_that_a_host_calls_otherwise_are_left_out_one_by_one(there):
    def host(body):
        wrong = next((key for key in ("reasoning_effort", "max_tokens", "temperature", "seed") if key in body), None)
        return (400, {"error": {"message": f"Unsupported parameter: '{wrong}'"}}, {}) if wrong else say(DOG)

    there.answers = [host]
    read = load(there)
    assert read([PHOTOS[0]]) == read([PHOTOS[1]]) == [RawCaption(DOG)]
    assert len(there.asked) == 6 and there.asked[-1]["max_completion_tokens"] == 160 and len(there.asked[-1]["messages"]) == 1


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ((404, {"error": {"message": "model 'toy' not found"}}, {}), "not found; it has toy"),
        ((400, {"error": {"message": "this model does not support image input"}}, {}), "sees? .*no pictures|see no pictures"),
        ((401, {"error": {"message": "bad key s3cret"}}, {}), "export LORAKIT_CAPTION_KEY"),
        ((413, b"<html><h1>Too large</h1></html>", {}), "HTTP 413 for model toy: Too large"),
        ((302, b"", {"Location": "http://127.0.0.1:9/login?k=s3cret"}), "HTTP 302 .*sends on to http://127.0.0.1:9/login, "),
        ((500, {"error": {"message": "image input is not supported - hint: provide the mmproj"}}, {}), "see no pictures"),
        ((429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}, {}), "HTTP 429 .*quota$"),
    ],
)
def test_what_no_photo_can_mend_ends_the_run_in_one_line(there, answer, line, monkeypatch):
    monkeypatch.setenv(server.KEY, "s3cret")
    there.answers = [answer]
    with pytest.raises(LorakitError, match=line) as error:
        load(there)([PHOTOS[0]])
    assert "\n" not in str(error.value) and "s3cret" not in str(error.value)
    assert len(there.asked) <= 2, "and at once"


def test_nobody_there_is_one_line(monkeypatch):
    monkeypatch.setattr(server, "FIRST_WAIT", 0.001)
    read = server.load(source_of(server.CARD, None), "cpu", Caption(server="http://127.0.0.1:9/v1", model="toy"))
    with pytest.raises(LorakitError, match=r"http://127.0.0.1:9/v1: nobody answers there"):
        read([PHOTOS[0]])


def test_the_only_model_is_taken_and_of_several_one_is_asked_for(there, capsys):
    assert load(there, model=None)([PHOTOS[0]]) and there.asked[0]["model"] == "toy"
    there.models = ["a", "b"]
    with pytest.raises(LorakitError, match=r"it has a, b: --set caption.model=NAME"):
        load(there, model=None)
    there.models = None
    with pytest.raises(LorakitError, match="caption.model=NAME"):
        load(there, model=None)


@pytest.mark.parametrize(
    ("address", "line"),
    [
        (None, "caption.server=http://127.0.0.1:11434/v1"),
        ("ollama", "no address"),
        ("ftp://a/v1", "no address"),
        ("https://me:pass@host/v1", f"export {server.KEY}"),
        ("https://host/v1?key=abc", f"export {server.KEY}"),
        ("https://host/v1#key=abc", f"export {server.KEY}"),
        ("http://[::1/v1", "no address"),
        ("http://127.0.0.1:99999/v1", "no address"),
        ("http://127.0.0.1:x/v1", "no address"),
        ("http://gpu box/v1", "no address"),
    ],
)
def test_an_address_is_checked_before_any_photo_is_opened(address, line):
    with pytest.raises(LorakitError, match=re.escape(line)) as error:
        server.check(Caption(server=address))
    assert "pass" not in str(error.value).replace("passed", "") and "abc" not in str(error.value)


def test_another_machine_is_named(capsys):
    server.load(source_of(server.CARD, None), "cpu", Caption(server="http://gpu-box:8000/v1", model="toy"))
    assert "the photos go to gpu-box, which is not this machine, unencrypted" in capsys.readouterr().err
    assert all(map(server.is_this_machine, ("http://localhost:1/v1", "http://127.0.0.1/v1", "http://[::1]:8/v1")))
    assert not any(map(server.is_this_machine, ("http://192.168.0.2/v1", "https://localhost.example.com/v1", "http://127.evil.com/v1")))


def test_a_run_through_the_stage_is_resumed_and_keeps_no_key(there, cropped, monkeypatch, capsys):
    monkeypatch.setenv(server.KEY, "s3cret")
    there.answers = [say("I cannot describe people."), say(DOG)]
    project = cropped(**{"caption.captioner": "server", "caption.server": there.url, "caption.model": "toy", "caption.batch_size": 1})
    lorakit.caption(project)
    chosen = len(project.manifest.selected)
    assert len(there.asked) == chosen and "server: it refused" in capsys.readouterr().err
    lorakit.caption(project)
    assert len(there.asked) == chosen + 1, "only the photo that had failed is asked about again"
    assert not any(b"s3cret" in path.read_bytes() for path in project.folder.rglob("*") if path.is_file())
    moved = lorakit.open_project(project.folder, settings={"caption.server": "http://127.0.0.1:9/v1"}, device="cpu")
    lorakit.caption(moved)  # the same model elsewhere says the same
    other = lorakit.open_project(project.folder, settings={"caption.model": "other"}, device="cpu")
    lorakit.caption(other)
    assert len(there.asked) == 2 * chosen + 1, "another model is another captioner"
    lorakit.caption(project)
    assert len(there.asked) == 2 * chosen + 1, "and what the first has said is still known"
    assert card_of("server").secret == "", "a server on this machine wants no key"
