"""A captioner that asks a server, added by one file in a folder of the user's own: its settings, its card and its failures are
seen by every verb, and no other file is touched."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

import lorakit as lorakit_
from lorakit import lookup, settings
from lorakit.caption.captioners.base import check_captioner
from lorakit.errors import LorakitError

FILE = '''
"""A captioner over HTTP: a JPEG goes to a server, a sentence comes back."""

from __future__ import annotations

import io
import json
import urllib.error
import urllib.request
from dataclasses import dataclass

from lorakit.caption.captioners.base import CaptionerCard, NoCaption, Reader, secret_of
from lorakit.errors import LorakitError
from lorakit.settings import Caption, setting
from lorakit.text.composing import RawCaption
from lorakit.weights import Source

CARD = CaptionerCard(
    title="A server of mine", writes="sentence", licence="its owner's", weights=False, where="asks the server at caption.http.url",
    secret="MY_CAPTION_KEY",
)


@dataclass(frozen=True)
class Settings:
    url: str | None = setting(None, "address of the server")
    timeout: float = setting(5.0, "seconds to wait for an answer", least=0.1)


def check(settings: Caption) -> None:
    if not settings.http.url:
        raise LorakitError("captioner http: --set caption.http.url=ADDRESS says which server to ask")


def load(source: Source, device: str, settings: Caption) -> Reader:
    own, key = settings.http, secret_of(CARD)

    def prepare(picture):
        file = io.BytesIO()
        picture.save(file, "JPEG")
        return file.getvalue()

    def ask(jpeg: bytes) -> RawCaption | NoCaption:
        request = urllib.request.Request(own.url, jpeg, {"Authorization": f"Bearer {key}"})
        try:
            with urllib.request.urlopen(request, timeout=own.timeout) as answer:
                return RawCaption(sentence=json.load(answer)["text"])
        except (OSError, ValueError, KeyError) as error:
            return NoCaption(f"the server gave no answer ({error})")

    return Reader(prepare, lambda batch: [ask(jpeg) for jpeg in batch])
'''


@pytest.fixture
def server():
    """A server that says the length of what it got, and fails on the second request."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.headers["Authorization"])
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(500 if len(asked) == 2 else 200)
            self.end_headers()
            self.wfile.write(json.dumps({"text": f"a mug on a table, seen in {len(body)} bytes"}).encode())

        def log_message(self, *words):
            pass

    there = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=there.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{there.server_port}/", asked
    there.shutdown()
    there.server_close()
    thread.join()


@pytest.fixture
def lorakit(tmp_path):
    """lorakit('caption', 'P') runs the command with the captioner's file in a folder that the environment names."""
    mine = tmp_path / "mine" / "caption" / "captioners"
    mine.mkdir(parents=True)
    (mine / "http.py").write_text(FILE, encoding="utf-8")

    def run(*words, **environment):
        root = str(Path(__file__).parents[2])
        named = {"LORAKIT_PLUGINS": str(tmp_path / "mine"), "PYTHONPATH": root, **environment}
        return subprocess.run([sys.executable, "-m", "lorakit", *map(str, words)], capture_output=True, text=True, cwd=tmp_path,
                              env={**os.environ, **named})  # fmt: skip

    return run


def test_the_verbs_know_it(lorakit):
    listed = lorakit("captioners").stdout
    assert "http" in listed and "asks the server at caption.http.url" in listed and "$MY_CAPTION_KEY" in listed and "blip2" in listed
    shown = lorakit("show", "--set", "caption.http.timeout=9").stdout.split("\n")
    assert any(line.split()[:2] == ["caption.http.timeout", "9.0"] for line in shown)
    refused = lorakit("show", "--set", "caption.http.timeout=0")
    assert refused.returncode and "caption.http.timeout = 0.0 is too small" in refused.stderr


@pytest.fixture
def http(lorakit, tmp_path, monkeypatch):
    """The same file, known to this process too."""

    def forget():
        lookup.forget()
        for cached in (settings.known_keys, settings._with_captioners):
            cached.cache_clear()
        sys.modules.pop("lorakit.caption.captioners.http", None)

    monkeypatch.setenv("LORAKIT_PLUGINS", str(tmp_path / "mine"))
    forget()
    yield
    monkeypatch.delenv("LORAKIT_PLUGINS")
    forget()


def test_one_photo_may_fail_with_a_reason_and_the_key_stays_out_of_the_project(http, server, make_project, monkeypatch, capsys):
    url, asked = server
    project = make_project(**{"caption.captioner": "http", "caption.batch_size": 1})
    lorakit_.walk(project, last="crop")
    with pytest.raises(LorakitError, match="export MY_CAPTION_KEY"):
        check_captioner("http", lorakit_.open_project(project.folder, settings={"caption.http.url": url}).settings.caption)
    monkeypatch.setenv("MY_CAPTION_KEY", "s3cret")
    with pytest.raises(LorakitError, match="caption.http.url=ADDRESS"):
        lorakit_.caption(project)
    project = lorakit_.open_project(project.folder, settings={"caption.http.url": url}, device="cpu")
    project.keep_words()
    lorakit_.caption(project)
    count = len(project.manifest.selected)
    assert len(asked) == count and set(asked) == {"Bearer s3cret"}
    assert "no caption, left out (http: the server gave no answer (HTTP Error 500" in capsys.readouterr().err
    assert sum("caption" in r for r in project.manifest.selected) == count - 1
    assert not any(b"s3cret" in path.read_bytes() for path in project.folder.rglob("*") if path.is_file())
    assert yaml.safe_load((project.folder / "project.yaml").read_text())["settings"]["caption.http.url"] == url
    lorakit_.caption(project)
    assert len(asked) == count + 1, "only the photo that had failed is asked about again"
    lorakit_.caption(lorakit_.open_project(project.folder, settings={"caption.http.timeout": 6}, device="cpu"))
    assert len(asked) == 2 * count + 1, "another setting of the captioner's own is another caption"


def test_a_setting_that_would_hold_a_secret_is_refused(lorakit, tmp_path):
    file = tmp_path / "mine" / "caption" / "captioners" / "http.py"
    file.write_text(FILE.replace("timeout: float = setting(5.0", "api_key: float = setting(5.0"), encoding="utf-8")
    refused = lorakit("show")
    assert refused.returncode == 2 and "caption.http.api_key would be written into project.yaml" in refused.stderr
