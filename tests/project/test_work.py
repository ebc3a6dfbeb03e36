"""Who is at work in a project, found out anew each time."""

import json
import os
import subprocess
import sys

import pytest

from lorakit.errors import ProjectBusy
from lorakit.project import work


def test_note_stands_while_the_lock_is_held_and_says_who(tmp_path):
    with work.locked(tmp_path, "train") as held:
        held.note_stage("cache")
        found = json.loads((tmp_path / ".work.json").read_text())
        assert set(found) == {"pid", "started", "host", "verb", "stage"}
        assert (found["pid"], found["verb"], found["stage"]) == (os.getpid(), "train", "cache") and work.find(tmp_path) == found
        with (
            pytest.raises(ProjectBusy, match=rf"another lorakit is at work in this project \(train, stage cache, process {os.getpid()}"),
            work.locked(tmp_path, "run"),
        ):
            pass
        assert work.find(tmp_path) == found, "who was refused leaves the note alone"
    assert work.find(tmp_path) is None and not (tmp_path / ".work.json").exists()


def test_note_of_a_killed_process_is_not_believed(tmp_path):
    code = "import os, sys; from pathlib import Path; from lorakit.project import work\nwith work.locked(Path(sys.argv[1]), 'run'): os._exit(9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)])
    note = tmp_path / ".work.json"
    assert note.is_file() and work.find(tmp_path) is None
    facts = json.loads(note.read_text())
    note.write_text(json.dumps({**facts, "pid": os.getpid()}))  # the number is used again, by another process
    assert work.find(tmp_path) is None
    note.write_text('{"pid": ')
    assert work.find(tmp_path) is None
    with work.locked(tmp_path, "run"):
        assert work.find(tmp_path)["pid"] == os.getpid()
