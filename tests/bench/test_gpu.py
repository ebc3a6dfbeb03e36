"""The measurements for a card, at a size for the CPU: every kind of row gives its figures, and none ends the command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import gpu_rows

ROOT = Path(__file__).parents[2]
ROWS = ["step base=flux1-dev held=nf4", "sampling base=flux1-dev", "t5 held=int8", "trial", "captioner"]


@pytest.mark.slow
def test_every_kind_of_row_is_measured_and_no_row_ends_the_command(tmp_path):
    words = [sys.executable, "-m", "bench.gpu", "--tiny", "--out", str(tmp_path), "--only", ",".join(ROWS)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert not [row for row in rows if "error" in row and row["measure"] != "trial"], rows
    assert not [key for row in rows for key in row if key.startswith("failed")]
    found = {row["measure"]: row for row in rows}
    assert found["machine"]["torch"] and found["t5"]["s/text"] > 0 and found["captioner"]["ratio, batch 1"] > 0
    assert found["step"]["s/step"] > 0 and found["step"]["GB predicted"] > 0 and found["step"]["TFLOP backward"] > 0
    assert sum(found["step"][f"share {part}"] for part in ("data", "forward", "backward", "optimizer")) == pytest.approx(1, abs=0.1)
    assert found["sampling"]["latents are numbers"] and found["sampling"]["tiles of 256, s"] > 0
    said = {row["ends"]: row["error"] for row in rows if row["measure"] == "trial"}
    assert said == {
        "with an error": "ValueError: this row fails",
        "the process": "the worker died (exit code 7)",
        "never": "took more than 2 s",
    }
    table = (tmp_path / "gpu.md").read_text()
    assert "| flux1-dev | nf4 |" in table and "this row fails" in table


def test_rows_have_names_of_their_own_and_the_targets_come_first():
    rows = gpu_rows.rows(tiny=False)
    assert len({row.name for row in rows}) == len(rows)
    assert [row.facts.get("base") for row in rows[:4]] == [None, "sd15", "sdxl", "flux1-dev"]
    assert all(row.measure in vars(gpu_rows) for row in rows)
    assert gpu_rows.on_paper("NVIDIA H100 80GB HBM3") == 989 and gpu_rows.on_paper("NVIDIA L40S") == 362
