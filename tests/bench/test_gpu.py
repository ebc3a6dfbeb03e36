"""The measurements for a card, at a size for the CPU: every kind of row gives its figures, and none ends the command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import gpu_rows

ROOT = Path(__file__).parents[2]
CPU = gpu_rows.Place("cpu", tiny=True)


def test_a_row_that_fails_dies_or_hangs_is_a_row_with_its_error(tmp_path):
    words = [sys.executable, "-m", "bench.gpu", "--tiny", "--out", str(tmp_path), "--only", "trial"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    said = {row["ends"]: row["error"] for row in rows}
    assert said == {
        "with an error": "ValueError: this row fails",
        "the process": "the worker died (exit code 7)",
        "never": "took more than 2 s",
    }
    assert "this row fails" in (tmp_path / "gpu.md").read_text() and "3 of 3 rows" in done.stdout


@pytest.mark.slow
def test_every_kind_of_row_gives_its_figures(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    wanted = ("machine", "step base=flux1-dev held=nf4", "sampling base=flux1-dev", "encoder base=flux1-dev held=int8")
    found = {row.measure: gpu_rows.run(row, CPU) for row in gpu_rows.rows(tiny=True) if row.name.startswith(wanted)}
    assert len(found) == len(wanted) and not [key for row in found.values() for key in row if key.startswith("failed")]
    assert found["machine"]["torch"] and found["encoder"]["s/text"] > 0
    assert found["step"]["s/step"] > 0 and found["step"]["GB predicted"] > 0 and found["step"]["TFLOP backward"] > 0
    assert sum(found["step"][f"share {part}"] for part in ("data", "forward", "backward", "optimizer")) == pytest.approx(1, abs=0.1)
    assert found["sampling"]["latents are numbers"] and found["sampling"]["tiles of 256, s"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["step base=qwen-image", "sampling base=krea2", "sampling base=anima", "encoder base=krea2"])
def test_the_newer_families_give_theirs(tmp_path, monkeypatch, name):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (row,) = (row for row in gpu_rows.rows(tiny=True) if row.name.startswith(name))
    found = gpu_rows.run(row, CPU)
    assert not [key for key in found if key.startswith("failed")], found
    assert any(found.get(key, 0) > 0 for key in ("s/step", "s/step of the sampler", "s/text"))


def test_rows_have_names_of_their_own_and_the_targets_come_first():
    rows = gpu_rows.rows(tiny=False)
    assert len({row.name for row in rows}) == len(rows)
    assert [row.facts.get("base") for row in rows[:4]] == [None, "sd15", "sdxl", "flux1-dev"]
    assert all(row.measure in vars(gpu_rows) for row in rows)
