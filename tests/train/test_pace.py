"""How long a training takes is told once it was measured here."""

from lorakit import open_project
from lorakit.project import runs
from lorakit.train import pace
from lorakit.train.metrics import StepMetrics
from lorakit.train.plan import in_words, plan, time_in_words, time_of
from lorakit.train.rungs import Fit, Need


def test_a_plan_tells_the_time_of_what_was_measured_with_these_settings(make_dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    project = make_dataset()
    run = runs.start(project.folder, "stamp")

    def measured(steps):
        lines = [StepMetrics(n, 0.1, 0.5, 1e-4, 1.0, 9.0 if n == 1 else 2.0, ["a.jpg"]).as_json() for n in range(1, steps + 1)]
        run.metrics.write_text("\n".join(lines) + "\n", encoding="utf-8")
        pace.keep(project, run)
        return pace.known(project, "cpu")

    assert measured(pace.LEAST - 1) is None  # the first steps are slower than the others
    assert measured(pace.LEAST)["seconds"] == 2.0
    found = plan(project)
    assert found["time"]["seconds_a_step"] == 2.0 and found["time"]["seconds"] == 12.0
    assert any(line.startswith("time      about 12 s") for line in in_words(found))
    assert list(time_in_words(None)) == ["time      not measured yet"]
    other = open_project(project.folder, settings={"train.rank": 16}, device="cpu")
    assert pace.known(other, "cpu") is None
    project.vram = 12.0  # another card's pace is not known
    assert time_of(project, "cpu", Fit(project.settings.train, {}, Need(0, 0, 0, 0), None), project.manifest.selected) is None
