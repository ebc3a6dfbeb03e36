"""What the operating system refuses is one line with what to do."""

import os
import shutil
import subprocess
import sys

import pytest

from lorakit import new_project
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


RIGHTS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]  # of root, who may else read and write all


@pytest.mark.skipif(os.name == "nt" or (os.geteuid() == 0 and not shutil.which("setpriv")), reason="rights count for nothing here")
def test_what_lorakit_may_not_read_is_named_and_where_it_may_not_write_is_one_line(tmp_path, photo_folder, make_photo):
    def without_rights(*words):
        words = [sys.executable, "-m", "lorakit", *map(str, words)]
        return subprocess.run([*(RIGHTS if os.geteuid() == 0 else ()), *words], capture_output=True, text=True)

    project = new_project(tmp_path / "p", photo_folder, base="tiny-random")
    make_photo("closed/a.jpg", seed=8), make_photo("listed/b.jpg", seed=9)
    (photo_folder / "photo_1.txt").write_text("a mug")
    closed = {"closed": 0o000, "listed": 0o444, "photo_0.jpg": 0o000, "photo_1.txt": 0o000}
    try:
        for name, rights in closed.items():
            (photo_folder / name).chmod(rights)
        done = without_rights("curate", "-o", project.folder, "--until", "check")
        assert done.returncode == 0 and "closed: its photos are left out" in done.stderr, done.stderr
        assert "photo_1.txt" in done.stderr and "7 photos: 5 keep, 2 reject (2 unreadable)" in done.stderr
        written = {path: path.read_bytes() for path in project.folder.rglob("*") if path.is_file()}
        for path in (project.folder, *project.folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        assert without_rights("status", project.folder).returncode == 0
        for words in (["review", project.folder, "photo_2.jpg", "--reject"], ["curate", "-o", project.folder]):
            done = without_rights(*words)
            assert done.returncode == 2 and done.stderr.count("error: ") == 1 and "change its rights" in done.stderr, done.stderr
        assert {path: path.read_bytes() for path in project.folder.rglob("*") if path.is_file()} == written
    finally:
        for path in (photo_folder, project.folder):
            subprocess.run(["chmod", "-R", "u+rwX", path], check=True)


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


def test_a_full_disk_under_safetensors_is_one_line():
    """It raises an error of its own, whatever wrote: cache, checkpoint or LoRA file."""
    code = (
        "from safetensors import SafetensorError; from lorakit.cli import run_command\n"
        "def full(): raise SafetensorError('Error while serializing: I/O error: No space left on device (os error 28)')\n"
        "run_command(full)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "the disk is full" in done.stderr and done.stderr.count("\n") == 1
