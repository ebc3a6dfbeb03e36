"""The grid: strength 0 is the base to the last bit, other strengths are not, and all is in one picture."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageOps
from safetensors.numpy import save_file

from lorakit.cli.grid import command
from lorakit.errors import LorakitError
from lorakit.project import open_project, runs, stamps
from lorakit.text.prompts import Prompt
from lorakit.train import grid as grids
from lorakit.train import stacked


def test_grid_shows_base_and_strengths(copy_of_trained):
    path = grids.grid(copy_of_trained, ["zwx mug", "mug"], (0, 0.5, 1))
    sheet = Image.open(path)
    cell = grids.CELL + grids.MARGIN
    assert sheet.size == (grids.LABEL + 3 * cell, 28 + 3 * cell)

    def picture(row, column):
        left, top = grids.LABEL + column * cell, 28 + cell + row * cell
        return np.asarray(sheet.crop((left, top, left + grids.CELL, top + grids.CELL)), dtype=float)

    shown = np.asarray(sheet.crop((grids.LABEL, 0, grids.LABEL + grids.CELL, grids.CELL)), dtype=float)
    photos = [Image.open(path) for path in sorted(copy_of_trained.dataset_folder.glob("*.png"))]
    assert any(
        np.array_equal(shown, np.asarray(ImageOps.pad(photo, (grids.CELL,) * 2, Image.Resampling.LANCZOS, color="white")))
        for photo in photos
    )
    assert np.abs(picture(0, 0) - picture(0, 2)).mean() > np.abs(picture(0, 0) - picture(0, 1)).mean() > 0
    run = path.parent
    base = Image.open(run / "final" / "0_base.png").resize((grids.CELL, grids.CELL), Image.Resampling.LANCZOS)
    lora = Image.open(run / "final" / "0_lora.png").resize((grids.CELL, grids.CELL), Image.Resampling.LANCZOS)
    assert np.array_equal(picture(0, 0), np.asarray(base, dtype=float))
    assert np.array_equal(picture(0, 2), np.asarray(lora, dtype=float))
    told = json.loads((run / "grid.json").read_text())
    assert (told["prompts"], told["columns"]) == (["zwx mug", "mug"], ["base", "0.5", "1"])
    assert np.array_equal(Image.open(run / "grid" / "0_2.png"), Image.open(run / "final" / "0_lora.png"))


def test_a_second_lora_stands_beside_it(copy_of_trained, tmp_path):
    """This file at half its strength beneath, and nothing of its own above, is this LoRA at half its strength."""
    project = copy_of_trained
    ours = runs.find(project.folder, stamps.train(project)).lora
    half = Image.open(grids.grid(project, ["zwx mug"], (0.5,)).with_suffix("") / "0_0.png")
    done = CliRunner().invoke(
        command, [str(project.folder), "--prompt", "zwx mug", "--strengths", "0,1", "--with", f"{ours}:0.5", "--device", "cpu"]
    )
    assert done.exit_code == 0, done.output
    sheet = ours.parent / "samples" / f"grid-with-{ours.stem}.png"
    assert str(sheet) in done.output
    report = ours.parent / "report.html"
    assert str(report) in done.output and "How strong" in report.read_text(encoding="utf-8")
    told = json.loads(sheet.with_suffix(".json").read_text())
    assert told["with"] == {ours.name: 0.5} and told["columns"] == ["without", "1"]
    alone, both = (np.asarray(Image.open(sheet.with_suffix("") / f"0_{x}.png"), dtype=float) for x in range(2))
    assert np.abs(alone - np.asarray(half, dtype=float)).mean() < 1  # the file's rounding
    assert np.abs(both - alone).mean() > 0.5
    assert stacked.parse("C:/b.safetensors") == (Path("C:/b.safetensors"), 0.7) and stacked.parse("b:0.4") == (Path("b"), 0.4)
    save_file({"lora_unet_x.lora_down.weight": np.zeros((1, 1), np.float32)}, tmp_path / "odd.safetensors")
    with pytest.raises(LorakitError, match="for no base that lorakit knows"):
        grids.grid(project, ["mug"], (1,), others=[(tmp_path / "odd.safetensors", 1.0)])


def test_default_rows_are_the_samples_with_and_without_the_trigger(trained):
    rows = grids.with_and_without(trained)
    assert [row.text for row in rows[:2]] == ["zwx mug", "mug"]
    assert len(rows) % 2 == 1 and "house" in rows[-1].text and "zwx" not in rows[-1].text


def test_a_grid_is_kept_where_its_pictures_cannot_be_scored(copy_of_trained, tmp_path, capsys):
    """The weights of open_clip are gone since the photos were seen: what was drawn, for minutes, is not lost to that."""
    project = open_project(copy_of_trained.folder, device="cpu")
    project.settings = replace(project.settings, embed=replace(project.settings.embed, clip=str(tmp_path / "gone")))
    columns = [[Image.new("RGB", (8, 8))] * 2] * 2
    run, path = runs.all_runs(project.folder)[-1], tmp_path / "grid.png"
    grids.note_scores(project, run, columns, [Prompt("zwx mug"), Prompt("mug")], {"strengths": [0, 1], "step": None}, path)
    said = capsys.readouterr().err
    assert "the pictures are drawn, and not scored" in said and "gone" in said and not path.with_suffix(".json").exists()
