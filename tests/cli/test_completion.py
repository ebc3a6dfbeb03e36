"""Scripts for shells, and what they are answered."""

import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from lorakit.cli import group


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_printed(shell):
    done = CliRunner().invoke(group, ["completion", shell])
    assert done.exit_code == 0 and f"_LORAKIT_COMPLETE={shell}_complete" in done.output and "lorakit" in done.output


@pytest.mark.parametrize(
    ("typed", "answer"),
    [("com", "plain,completion"), ("run --tri", "plain,--trigger"), ("run --base sdx", "plain,sdxl"), ("run pho", "file,pho")],
)
def test_what_was_typed_is_completed(typed, answer):
    words = ["lorakit", *typed.split()]
    environment = {**os.environ, "_LORAKIT_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    code = "import sys; sys.argv = ['lorakit']; from lorakit.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines() == [answer], done.stderr
