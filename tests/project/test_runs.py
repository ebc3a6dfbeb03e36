"""Run folders: a training is found again by what it depends on, whatever a kill or a stranger left in its files."""

import json
import math
import time

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


def lines_of(tmp_path, *lines):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8-sig"
    )
    return runs.read_metrics(path)


def test_only_line_breaks_end_a_line_of_the_metrics(tmp_path, capsys):
    """Names of photos may have others of what Unicode calls ends of lines, and JSON leaves them as they are."""
    name = "a\u2028b\u2029c\x85d\x1ce.jpg"
    found = lines_of(tmp_path, {"step": 1, "loss": 0.5, "photos": [name]}, {"step": 2, "loss": 0.4, "photos": []})
    assert [entry["step"] for entry in found] == [1, 2] and found[0]["photos"] == [name]
    assert capsys.readouterr().err == ""


def test_values_of_metrics_are_numbers_and_steps_whole(tmp_path, capsys):
    odd = ("0.1", True, 10**400, [0.1], {"a": 1})
    found = lines_of(tmp_path, *({"step": n + 1, "loss": 0.5, "validation": value, "leak": math.nan} for n, value in enumerate(odd)))
    assert found == [{"step": n + 1, "loss": 0.5} for n in range(len(odd))]
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "line 1, validation '0.1', and 4 more: no number; left out" in err
    found = lines_of(tmp_path, {"step": 10.0, "loss": 1}, {"step": True, "loss": 1}, {"step": 2.5, "loss": 1}, {"step": 3, "loss": True}, {"step": -1, "loss": 1},
                     {"step": 20, "loss": 1, "validation": None})  # fmt: skip
    assert [entry["step"] for entry in found] == [10, 20]
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "line 2, and 3 more: not whole, or without a step and a loss" in err


def test_lines_that_go_back_at_every_second_one_are_read_as_quickly(tmp_path):
    """As several processes write them into one file. Each time all lines before were looked through again."""
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {n + 2 * (n % 2 == 0)}, "loss": 0.1}}\n{{"step": {n}, "loss": 0.1}}\n' for n in range(1, 20_000)))
    start = time.process_time()
    steps = [entry["step"] for entry in runs.read_metrics(path)]
    assert steps == sorted(set(steps)) and len(steps) > 10_000 and time.process_time() - start < 1.5


def test_what_was_trained_again_stands_once_and_two_trainings_are_told(tmp_path, capsys):
    def steps(first, last, loss):
        return [{"step": n, "loss": loss} for n in range(first, last + 1)]

    resumed = lines_of(tmp_path, *steps(1, 90, 0.5), *steps(61, 80, 0.4))
    assert [entry["step"] for entry in resumed] == list(range(1, 81)) and [entry["loss"] for entry in resumed[58:62]] == [
        0.5,
        0.5,
        0.4,
        0.4,
    ]
    assert capsys.readouterr().err == ""
    glued = lines_of(tmp_path, *steps(1, 90, 0.5), *steps(1, 40, 0.3), *steps(31, 50, 0.2))
    assert [entry["loss"] for entry in glued] == [0.3] * 30 + [0.2] * 20
    assert "holds 2 trainings, one behind the other; read is the last, of 50 steps" in capsys.readouterr().err
    twice = lines_of(tmp_path, {"step": 1, "loss": 0.5, "validation": 0.4}, {"step": 1, "loss": 0.3}, *steps(2, 3, 0.5))
    assert twice[0] == {"step": 1, "loss": 0.3, "validation": 0.4} and len(twice) == 3
    assert [entry["step"] for entry in lines_of(tmp_path, *steps(1, 9, 0.5)[::-1])] == list(range(1, 10)), "in another order, none twice"


def test_settings_of_a_run_are_read_as_they_were_written(tmp_path):
    """YAML 1.1 takes 2e-05, as JSON writes it, for a word; then the judge's advice fails, and every new run names a rate that has not changed."""
    (tmp_path / "settings.yaml").write_text('train.learning_rate: 2e-05  # default\ntrigger.word: "2e-05"\ntrain.rank: 16\n')
    assert runs.read_settings(tmp_path) == {"train.learning_rate": 2e-5, "trigger.word": "2e-05", "train.rank": 16}


def test_lora_is_a_file_of_the_run(tmp_path):
    run = runs.start(tmp_path, "s")
    (tmp_path / "key").write_text("secret")
    (run.folder / "run.json").write_text(json.dumps({"stamp": "s", "done": {}, "result": {"lora": "../../key"}}))
    assert runs.Run(run.folder).lora is None
