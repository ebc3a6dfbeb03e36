"""What comes from others' files stays one plain line on the terminal."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lorakit import console
from lorakit.files import without_folders
from lorakit.report import hub


@pytest.mark.parametrize("mark", ["\x1b[2J", "\r", "\n", "\u202e", "\x9b", "\u2028", "\x07", "\udcff", "\u200f"])
def test_marks_stand_by_their_escapes(mark, capsys):
    console.say(f"a{mark}b"), console.warn(f"a{mark}b")
    told = capsys.readouterr().err
    assert mark[0] not in told.replace("\n", "", 2) and told.count("\n") == 2
    assert console.safe("Bär 熊 🐻 -> a\\b") == "Bär 熊 🐻 -> a\\b"


@pytest.mark.skipif(not shutil.which("bash"), reason="needs a shell")
def test_a_path_in_a_hint_is_what_a_shell_takes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["mug", "my mugs", "it's", "-o", "$HOME`id`", "a\nb's \\n", "Bär\udcff", "sub/p"]
    typed = [console.typed(tmp_path / name) for name in names]
    assert all(map(str.isprintable, typed)) and typed[:2] == ["mug", "'my mugs'"]
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {' '.join(typed)}"], capture_output=True, check=True)
    told = [os.path.normpath(os.fsdecode(path)) for path in done.stdout.split(b"\0")[:-1]]
    assert told == names and console.typed(Path("/usr")) == "/usr"


@pytest.mark.parametrize("words", [["status", "no\x1b[2J\u202e"], ["no\x1b[2J\u202e"], ["run", "--no\x1b[2J"]])
def test_errors_of_the_command_line_are_safe(words):
    done = subprocess.run([sys.executable, "-m", "lorakit", *words], capture_output=True, encoding="utf-8")
    assert done.returncode == 2 and "\x1b" not in done.stderr and "\u202e" not in done.stderr and "x1b" in done.stderr


def test_prompts_are_no_html_in_the_hubs_page():
    assert hub._plain("<img src=x> ](b) `c`\n# d") == "&lt;img src=x&gt; \\](b) \\`c\\` # d"


@pytest.mark.parametrize(
    ("value", "shown"),
    [("/home/me/x.safetensors", "x.safetensors"), ("C:\\me\\x", "x"), ("~/reg/", "reg"), ("hf://a/b", "hf://a/b"), (3, 3)],
)
def test_the_report_shows_names_not_folders(value, shown):
    assert without_folders(value) == shown


@pytest.mark.parametrize(
    ("done", "to_do", "seconds", "unit", "shown"),
    [
        (0, 10, 3.0, "step", "loss 1"), (10, 10, 20.0, "step", "(2 s/step, 20 s left) loss 1"), (10, 0, 1.0, "step", "(10 steps/s) loss 1"),
        (2, 100, 500.0, "step", "(250 s/step, 6 h 57 min left) loss 1"), (10, 10, 20.0, "", "(2 s each, 20 s left) loss 1"),
        (9000, 0, 1.0, "", "(9000 a second) loss 1"),
    ],
)  # fmt: skip
def test_progress_in_words(done, to_do, seconds, unit, shown):
    assert console.in_words(done, to_do, seconds, unit, "loss 1") == shown


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal")
def test_a_terminal_shows_the_words_of_a_pipe():
    """All of them on a line of 120, and none is lost on one of 60."""
    code = (
        "import time\nfrom lorakit import console\nwith console.progress('train', 3, unit='step') as shown:\n"
        " for n in range(3): time.sleep(0.02); shown.advance(note='loss 0.1234 (smoothed), [rate] 1.0e-04')"
    )
    for width in (120, 60):
        ours, theirs = os.openpty()
        environment = {**os.environ, "COLUMNS": str(width), "TERM": "xterm"}
        done = subprocess.run([sys.executable, "-c", code], stderr=theirs, env=environment)
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # how a terminal on Linux says that the other end is closed
                break
            if not part:
                break
            shown += part
        os.close(ours)
        words = " ".join(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).split())
        assert done.returncode == 0
        assert "3/3" in words and "steps/s)" in words
        assert all(word in words for word in ("loss", "0.1234", "(smoothed),", "[rate]", "1.0e-04"))
