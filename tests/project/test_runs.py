"""Runs are read as they are found: a torn file costs itself only, and no name leads out of a run's folder."""

import json

from lorakit.project import runs


def test_torn_run_is_passed_over(tmp_path, capsys):
    good = runs.start(tmp_path, "s")
    for name, content in (("2020", '{"stamp": '), ("2021", "[]"), ("2022", "{}"), ("2023", "[" * 100_000)):
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "run.json").write_text(content)
    assert runs.find(tmp_path, "s").folder == good.folder
    assert capsys.readouterr().err.count("this run is passed over") >= 4


def test_torn_line_of_metrics_costs_itself_only(tmp_path, capsys):
    run = runs.start(tmp_path, "s")
    run.metrics.write_text('{"step": 1}\n{"st\n{"step": 3}\n{"ste')
    assert [entry["step"] for entry in run.read_metrics()] == [1, 3]
    assert "line 2" in capsys.readouterr().err


def test_lora_is_a_file_of_the_run(tmp_path):
    run = runs.start(tmp_path, "s")
    (tmp_path / "key").write_text("secret")
    (run.folder / "run.json").write_text(json.dumps({"stamp": "s", "done": {}, "result": {"lora": "../../key"}}))
    assert runs.Run(run.folder).lora is None
