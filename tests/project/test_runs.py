"""Run folders: a training is found again by what it depends on, whatever a kill or a stranger left in its files."""

import json

from lorakit.project import runs


def test_a_run_is_found_by_its_stamp_the_newest_first(tmp_path):
    first, second = runs.start(tmp_path, "a"), runs.start(tmp_path, "a")
    other = runs.start(tmp_path, "b")
    assert len({run.folder for run in (first, second, other)}) == 3  # also within one second
    assert runs.find(tmp_path, "a").folder == second.folder and runs.find(tmp_path, "b").folder == other.folder
    assert runs.find(tmp_path, "c") is None
    assert [run.folder for run in runs.all_runs(tmp_path)] == sorted(run.folder for run in (first, second, other))


def test_what_a_stage_made_is_kept_with_its_stamp(tmp_path):
    run = runs.start(tmp_path, "a")
    assert not run.is_done("export", "x") and run.lora is None
    run.finish("export", "x", lora="mug.safetensors")
    run.finish("sample", "y", prompts=["zwx"])
    again = runs.find(tmp_path, "a")
    assert again.is_done("export", "x") and not again.is_done("export", "y")
    assert again.facts["result"] == {"lora": "mug.safetensors", "prompts": ["zwx"]}
    assert again.lora is None  # it is written down, and has gone
    (run.folder / "mug.safetensors").touch()
    assert again.lora == run.folder / "mug.safetensors"


def test_a_torn_last_line_of_the_metrics_is_left_out(tmp_path):
    run = runs.start(tmp_path, "a")
    assert run.read_metrics() == []
    line = '{"step": %d, "loss": 0.5, "photos": []}\n'
    run.metrics.write_text(line % 1 + line % 2 + '{"st', encoding="utf-8")
    assert [entry["step"] for entry in run.read_metrics()] == [1, 2]


def test_a_folder_that_is_no_run_is_passed_over(tmp_path):
    (tmp_path / "runs" / "notes").mkdir(parents=True)
    assert runs.all_runs(tmp_path) == []


def test_torn_run_is_passed_over(tmp_path, capsys):
    good = runs.start(tmp_path, "s")
    for name, content in (("2020", '{"stamp": '), ("2021", "[]"), ("2022", "{}"), ("2023", "[" * 100_000)):
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "run.json").write_text(content)
    assert runs.find(tmp_path, "s").folder == good.folder
    assert capsys.readouterr().err.count("this run is passed over") >= 4


def test_torn_line_of_metrics_costs_itself_only(tmp_path, capsys):
    run = runs.start(tmp_path, "s")
    line = '{"step": %d, "loss": 0.5, "photos": []}\n'
    run.metrics.write_text(line % 1 + '{"st\n' + line % 3 + '{"ste')
    assert [entry["step"] for entry in run.read_metrics()] == [1, 3]
    assert "line 2" in capsys.readouterr().err


def test_lora_is_a_file_of_the_run(tmp_path):
    run = runs.start(tmp_path, "s")
    (tmp_path / "key").write_text("secret")
    (run.folder / "run.json").write_text(json.dumps({"stamp": "s", "done": {}, "result": {"lora": "../../key"}}))
    assert runs.Run(run.folder).lora is None
