"""What comes from others' files stays one plain line on the terminal."""

import subprocess
import sys

import pytest

from lorakit import console
from lorakit.report import hub, report


@pytest.mark.parametrize("mark", ["\x1b[2J", "\r", "\n", "\u202e", "\x9b", "\u2028", "\x07", "\udcff", "\u200f"])
def test_marks_stand_by_their_escapes(mark, capsys):
    console.say(f"a{mark}b"), console.warn(f"a{mark}b")
    told = capsys.readouterr().err
    assert mark[0] not in told.replace("\n", "", 2) and told.count("\n") == 2
    assert console.safe("Bär 熊 🐻 -> a\\b") == "Bär 熊 🐻 -> a\\b"


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
    assert report._without_folders(value) == shown
