"""What the operating system refuses is one line with what to do."""

import subprocess
import sys

import pytest

from lorakit.errors import MENDS, os_error_in_words


def lorakit(*words, **options):
    return subprocess.run([sys.executable, "-m", "lorakit", *map(str, words)], capture_output=True, text=True, **options)


@pytest.mark.parametrize("number", sorted(MENDS))
def test_every_error_says_where_what_and_the_mend(number):
    line = os_error_in_words(OSError(number, "strerror", "/some/file"))
    assert line.startswith("/some/file: ") and MENDS[number] in line and "\n" not in line


def test_a_project_where_none_can_be_written_is_one_line(photo_folder, tmp_path):
    (tmp_path / "file").write_text("x")
    for out in ("/proc/nowhere/p", tmp_path / "file" / "p"):
        done = lorakit("curate", photo_folder, "-o", out)
        assert done.returncode == 2 and done.stderr.count("error: ") == 1 and "Traceback" not in done.stderr, done.stderr


def test_a_closed_or_full_stdout_ends_without_a_traceback(tmp_path):
    line = f"{sys.executable} -m lorakit kinds"
    for redirection in (">&-", "> /dev/full", "2>&-", ">&- 2>&-", "<&-"):
        done = subprocess.run(f"{line} {redirection}", shell=True, capture_output=True, text=True)
        assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, (redirection, done.stderr)
        if redirection == "> /dev/full":
            assert done.returncode == 2 and "the disk is full" in done.stderr
        else:
            assert done.returncode == 0
    done = subprocess.run(f"{line} | true", shell=True, capture_output=True, text=True)
    assert not done.stderr
