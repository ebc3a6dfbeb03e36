"""The grid: strength 0 is the base to the last bit, other strengths are not, and all is in one picture."""

import numpy as np
from PIL import Image

from lorakit.train import grid as grids


def test_grid_shows_base_and_strengths(copy_of_trained):
    path = grids.grid(copy_of_trained, ["zwx mug", "mug"], (0, 0.5, 1))
    sheet = Image.open(path)
    cell = grids.CELL + grids.MARGIN
    assert sheet.size == (grids.LABEL + 3 * cell, 28 + 2 * cell)

    def picture(row, column):
        left, top = grids.LABEL + column * cell, 28 + row * cell
        return np.asarray(sheet.crop((left, top, left + grids.CELL, top + grids.CELL)), dtype=float)

    assert np.abs(picture(0, 0) - picture(0, 2)).mean() > np.abs(picture(0, 0) - picture(0, 1)).mean() > 0
    run = path.parent
    base = Image.open(run / "final" / "0_base.png").resize((grids.CELL, grids.CELL), Image.Resampling.LANCZOS)
    lora = Image.open(run / "final" / "0_lora.png").resize((grids.CELL, grids.CELL), Image.Resampling.LANCZOS)
    assert np.array_equal(picture(0, 0), np.asarray(base, dtype=float))
    assert np.array_equal(picture(0, 2), np.asarray(lora, dtype=float))


def test_default_rows_are_the_samples_with_and_without_the_trigger(trained):
    rows = grids.with_and_without(trained)
    assert [row.text for row in rows[:2]] == ["zwx mug", "mug"]
    assert len(rows) % 2 == 0
