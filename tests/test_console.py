"""What comes from others' files stays one plain line on the terminal."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lorakit import console
from lorakit.report import hub, training_part


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
    assert training_part.without_folders(value) == shown
