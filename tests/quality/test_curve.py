"""The verdict on a curve, over made-up ones of every kind, as wide in their scatter as real ones."""

import json
import math
import re
import time

import numpy as np
import pytest
from click.testing import CliRunner

from lorakit.cli import group
from lorakit.errors import LorakitError
from lorakit.project.runs import read_metrics
from lorakit.quality.curve import best_step, judge_curve
from lorakit.quality.judge import best_by_pictures, judge, never_fit, start_strength, strength_by_pictures, strength_range
from lorakit.report.training_part import hard_photos

LENGTHS = (200, 300, 400, 600, 1000, 1500, 3000)


def course(kind: str, n: int, sigma: float, chance: np.random.Generator) -> np.ndarray:
    """Logarithms of a loss [n], without the scatter of its steps. Falls and rises are such as can be seen in that scatter."""
    t = np.arange(n) / n
    seen = 6 * sigma * math.sqrt(12 / n)  # from the start to the end, six standard errors
    if kind == "learning":
        shape = np.exp(-t / chance.uniform(0.4, 2))
        return (max(seen, 0.1) + chance.uniform(0, 0.8)) * (shape - shape[-1]) / (1 - shape[-1])
    if kind == "plateau":
        return (2 * max(seen, 0.1) + chance.uniform(0, 0.8)) * np.exp(-t / chance.uniform(0.05, 0.1))
    if kind == "overfitting":
        turn, rise = chance.uniform(0.3, 0.6), 2 * max(seen, 0.07) + chance.uniform(0, 0.2)
        fall = rise * chance.uniform(1.0, 2.0) + 0.05
        return np.where(t < turn, fall * (1 - np.minimum(1, t / turn)) ** 1.3, rise * (np.maximum(0, t - turn) / (1 - turn)))
    if kind == "diverging":
        if chance.random() < 0.4:
            return (2 * seen + chance.uniform(0.5, 3)) * t ** chance.uniform(0.5, 2.5)
        burst = chance.uniform(0.2, 0.8)
        return np.where(t < burst, -0.2 * t / burst, -0.2 + chance.uniform(1.5, 4) * (np.maximum(0, t - burst) / (1 - burst)) ** 0.7)
    if kind == "erratic":
        level = -chance.uniform(0, 0.2) * t
        if chance.random() < 0.5:
            return level + (chance.random(n) < chance.uniform(0.06, 0.12)) * (1.5 + 4 * sigma + chance.uniform(0, 2, n))
        wander, slow = np.zeros(n), chance.uniform(0.88, 0.96)
        for step in range(1, n):
            wander[step] = slow * wander[step - 1] + math.sqrt(1 - slow**2) * chance.normal()
        return level + chance.uniform(0.4, 0.8) * wander
    if kind == "spike":
        level, at, width = 0.5 * np.exp(-t / 0.4), int(chance.uniform(0.15, 0.85) * n), int(chance.integers(1, 6))
        level[at : at + width] += max(1.5, 9 * sigma) + chance.uniform(0, 2)
        return level
    return np.zeros(n)


def made_up(kind: str, seed: int, validated: bool) -> list[dict]:
    """The lines of a metrics.jsonl: single steps jump by a tenth to a half of the loss, some kinds further up than down."""
    chance = np.random.default_rng([seed, *kind.encode()])
    n = int(chance.integers(4, 29)) if kind == "too_short" else int(chance.choice(LENGTHS))
    sigma = chance.uniform(0.1, 0.5)
    noise = sigma * (chance.gamma(4, 0.5, n) - 2 if chance.random() < 0.3 else chance.normal(size=n))
    level, base = course(kind, n, 0.02 if validated else sigma, chance), 10 ** chance.uniform(-2, 0)
    lines = [{"step": k + 1, "loss": float(base * math.exp(level[k] + noise[k])), "photos": [f"{k % 7}.jpg"]} for k in range(n)]
    if validated:
        for k in range(0, n, n // 20):
            lines[k]["validation"] = float(base * math.exp(level[k] + 0.01 * chance.normal()))
    return lines


KINDS = ("learning", "plateau", "flat", "overfitting", "diverging", "erratic", "spike", "too_short")


def share_right(kind: str, seeds: range) -> float:
    said = [judge_curve(made_up(kind, seed, seed % 2 == 1 and kind not in ("erratic", "spike", "too_short")))[0].verdict for seed in seeds]
    return sum(verdict == kind for verdict in said) / len(said)


@pytest.mark.parametrize("kind", KINDS)
def test_most_curves_of_a_kind_are_named_by_it(kind):
    assert share_right(kind, range(6)) >= 5 / 6


@pytest.mark.slow
def test_ninety_five_of_a_hundred_are_right():
    shares = {kind: share_right(kind, range(100, 150)) for kind in KINDS}
    assert np.mean(list(shares.values())) >= 0.95, shares
    assert min(shares.values()) >= 0.86, shares


def test_a_curve_that_never_fell_is_not_overfitting():
    for seed in range(15):
        for kind in ("flat", "diverging"):
            assert "overfitting" not in [finding.verdict for finding in judge_curve(made_up(kind, seed, seed % 2 == 0))]


def test_a_loss_that_is_no_number_diverges():
    lines = [{"step": n + 1, "loss": 0.1 if n < 40 else math.nan} for n in range(60)]
    assert [(f.verdict, f.since_step) for f in judge_curve(lines)] == [("diverging", 41)]
    assert judge_curve([])[0].verdict == "too_short"


def test_a_loss_of_nothing_is_said_to_be_none():
    """It was "0 steps"; and one that ended in zeros was said to fall."""
    for n in (10, 300):
        zeros, below = ([{"step": k + 1, "loss": loss} for k in range(n)] for loss in (0.0, -0.3))
        assert judge_curve(zeros)[0].verdict == "no_loss" and f"0 at all {n} steps" in judge_curve(zeros)[0].words
        assert judge_curve(below)[0].verdict == "no_loss" and f"none of {n} losses is above 0" in judge_curve(below)[0].words
    lines = falling(600, 0.5, 0.2)
    ended = judge([line | {"loss": 0.0 if line["step"] > 300 else line["loss"]} for line in lines], {}, saved=(200, 400, 600))
    assert (ended.verdict, ended.since_step, ended.best_step) == ("no_loss", 301, 200) and "checkpoint of step 200" in ended.advice
    tenth = judge([line | {"loss": 0.0 if line["step"] % 10 == 0 else line["loss"]} for line in lines], {})
    assert tenth.verdict == "learning" and "; 60 losses of 0 or less left out" in tenth.findings[0].words


def test_a_step_whose_loss_is_no_number_is_a_break_only_where_it_stays():
    """Half precision has one now and then, and lines of a validation alone are written with none."""
    lines = falling(600, 0.5, 0.2)
    once = judge([line | {"loss": math.nan if line["step"] in (50, 400) else line["loss"]} for line in lines], {})
    assert [f.verdict for f in once.findings] == ["spike", "learning"] and once.findings[0].steps == (50, 400)
    assert "no number at 2 steps, first at 50, and is one again" in once.findings[0].words and "49.jpg, 399.jpg" in once.advice
    often = judge_curve([line | {"loss": math.inf if line["step"] % 9 == 0 else line["loss"]} for line in lines])
    assert (often[0].verdict, often[0].since_step) == ("erratic", 9) and "at 66 of 600 steps" in often[0].words
    nearly = [line | {"loss": math.nan if line["step"] > 300 and line["step"] != 500 else line["loss"]} for line in lines]
    assert [(f.verdict, f.since_step) for f in judge_curve(nearly)] == [("diverging", 301)]
    beside = [line | ({"loss": math.nan, "validation": 0.1 - line["step"] / 1e4} if line["step"] % 30 == 0 else {}) for line in lines]
    assert [f.verdict for f in judge_curve(beside)] == ["learning"] and "the validation" in judge_curve(beside)[0].words


def test_best_step_is_the_lowest_validation_among_the_checkpoints():
    lines = [{"step": n + 1, "loss": 1 - n / 400} for n in range(300)]
    for n in range(24, 300, 25):
        lines[n]["validation"] = 1 + (n / 300 - 0.6) ** 2
    assert 160 <= best_step(lines) <= 200
    assert best_step(lines, saved=(100, 200, 300)) == 200
    del lines[20:]
    assert best_step(lines) is None


def test_a_validation_that_rises_while_the_loss_falls_is_overfitting_and_says_no_strength():
    """As it was with 16 photos of a robot at a high rate, which draws the robot all the same."""
    lines = made_up("learning", 2, False)
    for n in range(0, len(lines), len(lines) // 20):
        lines[n]["validation"] = 0.055 * (1 + 0.7 * n / len(lines)) * (1 + 0.004 * (-1) ** n)
    strengths = {"0": 0.058, "0.2": 0.056, "0.4": 0.06, "0.6": 0.066, "0.8": 0.08, "1": 0.095}
    last = len(lines)
    found = judge(lines, {"train.steps": last}, saved=(last // 4, last // 2, last), result={"strengths": strengths})
    assert found.verdict == "overfitting" and "while the loss" in found.findings[0].words
    assert found.best_step == last // 4 and found.strength is None and start_strength(strengths) == 0.7
    assert f"train.steps {last} -> " in found.advice and f"-> {1}," not in found.advice


def test_of_a_training_that_bursts_no_later_checkpoint_is_the_best():
    lines = [{"step": n + 1, "loss": 0.05 * (1 + 3 * (n / 300) ** 2)} for n in range(300)]
    found = judge(lines, {}, saved=(250, 300))
    assert found.verdict == "diverging" and found.best_step is None


def test_a_checkpoint_whose_next_step_leapt_is_not_the_one_to_take():
    """The loss of step 201 is that of what step 200 has left."""
    lines = falling(300, 0.5, 0.1)
    for line in lines[200:]:
        line["loss"] *= 9
    found = judge(lines, {}, saved=(100, 150, 200, 250, 300))
    assert (found.verdict, found.since_step, found.best_step) == ("diverging", 201, 150)
    gone = judge([line | {"loss": math.nan if line["step"] > 200 else line["loss"]} for line in lines], {}, saved=(100, 200))
    assert (gone.since_step, gone.best_step) == (201, 100)


def test_advice_starts_from_the_setting_that_was_used():
    steady = made_up("flat", 1, False)
    assert "train.learning_rate 2e-05 -> 4e-05" in judge(steady, {"train.learning_rate": 2e-5}).advice
    assert "train.rank 8 -> 16" in judge(steady, {"train.learning_rate": 1.0, "train.optimizer": "prodigy", "train.rank": 8}).advice
    assert "train.learning_rate 0.001 -> 0.0003" in judge(made_up("diverging", 1, False), {"train.learning_rate": 1e-3}).advice
    over = judge(made_up("overfitting", 2, True), {}, saved=(50, 100, 150, 200))
    assert over.verdict == "overfitting" and f"checkpoint of step {over.best_step}" in over.advice
    lines = made_up("spike", 3, False)
    spike = judge(lines, {})
    step = next(finding for finding in spike.findings if finding.verdict == "spike").steps[0]
    assert lines[step - 1]["photos"][0] in spike.advice


def test_leak_and_memory_are_told_with_what_helps():
    lines = made_up("learning", 1, False)
    lines[-1]["leak"], lines[-1]["drift"] = 0.8, 0.9
    judged = judge(lines, {"train.preservation": 0.0, "train.rank": 64}, result={"memorised": True})
    assert "train.preservation 0.0 -> 1" in judged.advice and "now 64" in judged.advice and judged.leak == 0.8
    assert judged.drift == 0.9
    seen = {"400": {**scores([0, 0.3, 0.8, 0.9]), "leak": [0, 0, 0.05, 0.09]}}
    told = judge(lines, {"train.preservation": 0.0}, result={"pictures": seen})
    assert told.leak == 0.1 and "preservation" not in told.advice, "the pictures know better"


def test_a_strength_is_told_where_the_validation_tells_one():
    taught = {f"{s:g}": 1 - 0.2 * (1 - (1 - s) ** 2) for s in (0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2)}
    assert strength_range(taught) == (0.55, 1.0) and start_strength(taught) == 0.8
    too_far = {f"{s:g}": 1 - 0.2 * (1 - (0.6 - s) ** 2 / 0.36) for s in (0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2)}
    low, high = strength_range(too_far)
    assert 0.3 <= low <= 0.4 and high == 0.6
    assert strength_range({"0": 1.0, "0.6": 0.999, "1": 0.998}) is None and start_strength({}) == 0.7
    assert strength_range({"0": 1.0, "0.6": 1.1, "1": 1.4}) is None


def test_judge_on_the_command_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in made_up("overfitting", 2, True)) + '{"step": 7, "lo')
    said = json.loads(CliRunner().invoke(group, ["judge", str(path), "--json"]).stdout)
    assert said["verdict"] == "overfitting" and set(said) >= {"since_step", "best_step", "memorised", "leak", "advice"}
    words = CliRunner().invoke(group, ["judge", str(path)]).stdout
    assert words.startswith("overfitting") and "advice" in words


def falling(n, fall, sigma, seed=0):
    chance = np.random.default_rng(seed)
    return [
        {"step": k + 1, "loss": float(0.1 * math.exp(-fall * k / n + sigma * chance.normal())), "photos": [f"{k}.jpg"]} for k in range(n)
    ]


@pytest.mark.parametrize(("n", "width", "times"), [(60, 5, 1), (60, 10, 1), (80, 8, 1), (200, 6, 3), (300, 20, 1), (1000, 60, 1)])
def test_a_leap_of_several_steps_is_a_leap_and_not_erratic(n, width, times):
    """A running median climbs one of five steps, and what is left of it looks like a wander."""
    for seed in range(4):
        lines = falling(n, 0.4, 0.2, seed)
        at = [n // (4 * times) + n * k // times + seed for k in range(times)]
        for line in (line for first in at for line in lines[first : first + width]):
            line["loss"] *= 4
        found = judge(lines, {})
        assert found.verdict == "spike" and "erratic" not in [finding.verdict for finding in found.findings], (seed, found.findings)
        if times == 1:
            assert abs(found.since_step - at[0] - 1) <= 1 and f"to {found.findings[0].steps[-1]} and comes back" in found.findings[0].words
            assert f"with which it began ({found.since_step - 1}, {found.since_step})" in found.advice
            assert f"{at[0]}.jpg" in found.advice and f"{at[0] + width - 1}.jpg" not in found.advice


def test_a_leap_at_the_end_is_not_said_to_come_back():
    lines = falling(1000, 0.4, 0.2, 0)
    for line in lines[-10:]:
        line["loss"] *= 6
    words = [finding.words for finding in judge(lines, {}).findings if finding.verdict == "spike"]
    assert words and words[0].endswith("where the training ends")


def test_leaps_of_several_steps_all_through_are_erratic():
    for seed in range(4):
        lines = falling(300, 0.1, 0.2, seed)
        for first in range(8, 290, 14):
            for line in lines[first : first + 4]:
                line["loss"] *= 5
        assert judge_curve(lines)[0].verdict == "erratic"


def test_a_loss_that_falls_over_a_level_validation_is_learned_by_heart_and_no_rate_is_too_low():
    """Where the validation would have shown such a fall. Where it jumps too much for that, the loss is all there is to go by."""
    for seed in range(4):
        chance = np.random.default_rng(seed)
        for fall, jump, verdict in ((0.8, 0.01, "by_heart"), (0.25, 0.15, "learning"), (0.0, 0.01, "flat")):
            lines = falling(600, fall, 0.2, seed)
            for line in lines[::30]:
                line["validation"] = 0.1 * math.exp(jump * chance.normal())
            found = judge(lines, {"train.learning_rate": 1e-4}, saved=(200, 400, 600))
            assert found.verdict == verdict, (seed, found.findings)
            assert ("train.learning_rate" in found.advice) == (verdict == "flat")
            if verdict == "by_heart":
                assert "while the validation is flat" in found.findings[0].words and found.best_step is None
                assert "those held out gain nothing" in found.advice and "more varied" in found.advice and "-> " not in found.advice
                assert "the same photos at other noise" in judge(lines, {"train.hold_out": False}).advice


def test_a_level_course_says_what_fall_it_would_have_shown():
    """It is no 1 % where single steps jump by a third."""
    flat = judge_curve(falling(400, 0, 0.3))[0]
    assert flat.verdict == "flat" and 12 <= int(re.search(r"a fall by (\d+) % would be seen", flat.words)[1]) <= 20
    assert judge_curve(falling(40, 0, 0.5))[0].verdict == "too_short"


def test_running_means_are_no_more_certain_than_the_steps_they_are_of():
    """As other trainers write them: neighbours are alike, and every wave of them was a fall or a rise."""
    said = {0: [], 0.5: []}
    for seed, fall in [(seed, fall) for seed in range(8) for fall in said]:
        chance, mean, lines = np.random.default_rng(seed), 1.0, []
        for k in range(1000):
            mean = 0.97 * mean + 0.03 * math.exp(-fall * k / 1000 + 0.3 * chance.normal())
            lines.append({"step": k + 1, "loss": mean})
        said[fall].append(judge_curve(lines)[-1].verdict)
    assert said[0].count("flat") + said[0].count("too_short") >= 6, said
    assert said[0.5].count("learning") + said[0.5].count("plateau") >= 7, said


@pytest.mark.parametrize(("n", "sigma", "seed"), [(300, 0.25, 47), (300, 0.25, 62), (1000, 0.6, 50), (1000, 0.6, 1)])
def test_a_fall_that_is_certain_is_one_whatever_bends_the_course_might_have(n, sigma, seed):
    """With two bends its ends are uncertain, and "too short to tell" of a thousand steps was what it came to."""
    assert judge_curve(falling(n, 7.5 * sigma * math.sqrt(12 / n), sigma, seed))[0].verdict == "learning"


def test_sixty_thousand_steps_are_judged_in_a_second():
    """It took fifteen: each value of a running median over thousands was sought anew."""
    lines, start = falling(60_000, 0.5, 0.3), time.process_time()
    assert judge(lines, {}).verdict == "learning"
    assert time.process_time() - start < 4


def test_metrics_of_one_step_in_ten_are_counted_in_steps():
    lines = falling(120, 0.8, 0.05)
    for line in lines:
        line["step"] *= 10
    assert "train.steps 1200 -> 1800" in judge(lines, {"train.steps": 1200, "train.learning_rate": "high"}).advice


def test_photos_that_were_not_learned_are_the_same_in_the_advice_and_in_the_report():
    result = {"fit": {"a.jpg": 1.0, "b.jpg": 1.79, "c.jpg": 1.8, "d.jpg": 3.4, "e.jpg": "much"}}
    assert [name for name, _ in never_fit(result)] == ["d.jpg", "c.jpg"]
    assert "d.jpg, c.jpg never fit (3.4 times" in judge(falling(60, 0.5, 0.1), {}, result=result).advice
    assert [name for name, _, _ in hard_photos([], result)] == ["d.jpg", "c.jpg"]


def test_what_is_no_metrics_file_is_one_line(tmp_path):
    """What file, what stands in it, and what lorakit writes."""
    for content, said in (
        (b"", "it is empty"),
        (b"\n \n", "it is empty"),
        (b'{"epoch": 1, "train_loss": 0.2}\n{"epoch": 2, "train_loss": 0.1}\n', "its first line has epoch, train_loss"),
        (b"step,loss\n1,0.2\n", "it begins with 'step,loss'"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(99), "it is no text"),
        (b"[" * 100_000, "it begins with '[["),
    ):
        path = tmp_path / "metrics.jsonl"
        path.write_bytes(content)
        done = CliRunner().invoke(group, ["judge", str(path)])
        assert isinstance(done.exception, LorakitError) and done.stdout == "", (content[:20], done)
        told = str(done.exception)
        assert (
            done.stderr == ""
            and told.startswith(f"{path}: no line has a step and a loss ({said}")
            and told.count("\n") == 0
            and '{"step": 1' in told
        )


def scores(subject, burnt=None):
    return {"by": "open_clip", "strengths": [0, 0.4, 0.7, 1], "subject": subject, "leak": None, "burnt": burnt or [0, 0, 0, 0]}


def test_pictures_tell_the_strength_before_the_validation_does():
    seen = scores([0, 0.2, 0.8, 1.0])
    assert strength_by_pictures(seen) == (0.7, 1) and strength_by_pictures(scores([0, 0.2, 0.8, 0.9])) == (0.65, 1)
    assert strength_by_pictures(scores([0, 1.04, 1.2, 1.15])) == (0.3, 1), "like the photos is as good as can be"
    assert strength_by_pictures(scores([0, 0.2, 0.8, 1.0], [0, 0, 0.01, 0.3])) == (0.6, 0.7), "at 1 they are burnt"
    assert strength_by_pictures(scores([0, 0.05, 0.1, 0.15])) is None, "nobody has seen it"
    assert strength_by_pictures(scores(None)) is None and strength_by_pictures({}) is None
    lines = made_up("learning", 2, True)
    taught = {"0": 1.0, "0.2": 0.9, "0.4": 0.8, "0.6": 0.7, "0.8": 0.65, "1": 0.64}
    found = judge(lines, {}, result={"strengths": taught, "pictures": {"400": seen}})
    assert (found.strength, found.strength_by) == ((0.7, 1), "pictures") and start_strength(taught, {"400": seen}) == 0.8
    assert judge(lines, {}, result={"strengths": taught}).strength_by == "validation"


def test_pictures_of_two_checkpoints_tell_the_better_one_against_the_curve():
    """As with the robot of the demo: photos held out fit worse from step 100 on, and the robot comes by step 400."""
    lines = made_up("learning", 2, False)[:400]
    for n in range(0, len(lines), 20):
        lines[n]["validation"] = 0.055 * (1 + 0.7 * n / len(lines))
    pictures = {"100": scores([0, 0, 0.1, 0.15]), "400": scores([0, 0.3, 0.8, 0.9])}
    found = judge(lines, {"train.steps": 400}, saved=(100, 200, 400), result={"pictures": pictures})
    assert (found.verdict, found.best_step, found.best_by) == ("overfitting", 400, "pictures")
    assert "step 400: its pictures show more of the subject (90 % against 15 % at step 100)" in found.advice
    assert "-> " not in found.advice.split(";")[0]
    assert best_by_pictures({"100": scores([0, 0.3, 0.8, 0.88]), "400": pictures["400"]}, (100, 400)) == 100, "as good, and earlier"
    assert best_by_pictures({"400": pictures["400"]}, (100, 400)) is None, "nothing to hold it against"
    assert best_by_pictures(pictures, (100, 200)) is None, "that checkpoint is gone"
    assert judge(lines, {}, saved=(100, 400)).best_by == "validation"


def test_a_training_that_ended_in_a_number_that_is_none_diverged_however_short_it_was():
    """A hundred times the right rate: five steps are written, and the sixth stopped it."""
    lines = [{"step": n + 1, "loss": 0.05 * 3**n, "rate": 0.1} for n in range(5)]
    found = judge(lines, {"train.learning_rate": 0.1, "train.steps": 400}, result={"not_a_number": 6})
    assert (found.verdict, found.since_step) == ("diverging", 6) and "train.learning_rate 0.1 -> 0.03" in found.advice
    assert judge(lines, {}, result={"not_a_number": 3}).verdict == "too_short", "it was mended, and went on"


def test_metrics_as_others_write_them_are_judged(tmp_path):
    """A loss that is no number as null or in a string; photos that are no list of names; steps out of order; leaks that are no number."""
    lines = made_up("learning", 3, True)
    for odd in (None, "NaN", "-Infinity", 10**400):
        broken = [{**line, "loss": odd if line["step"] > len(lines) // 2 else line["loss"], "photos": None, "leak": "x"} for line in lines]
        broken[-1]["leak"] = math.nan
        path = tmp_path / "metrics.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in broken))
        found = judge(read_metrics(path), {})
        assert found.verdict == "diverging" and found.since_step == len(lines) // 2 + 1 and found.leak is None
    assert judge(lines[::-1], {}).verdict == judge(lines, {}).verdict


def test_advice_does_not_contradict_itself():
    lines = made_up("learning", 4, True)
    stopped = judge(lines, {"train.steps": 4 * len(lines)}, saved=range(0, len(lines) + 1, 50)).advice
    assert "train.steps" not in stopped.replace("of train.steps", "")
    for kind in ("learning", "plateau", "overfitting"):
        for seed in range(6):
            lines = made_up(kind, seed, True)
            found = judge(lines, {"train.steps": len(lines)}, saved=range(len(lines) // 6, len(lines) + 1, len(lines) // 6))
            told = re.search(r"train.steps \d+ -> (\d+)", found.advice)
            assert not told or int(told[1]) >= 0.95 * found.best_step, found
            assert "the last checkpoint" not in found.advice or found.best_step >= 0.9 * len(lines), found


def test_no_advice_is_to_change_a_number_to_itself_and_none_to_train_longer_is_for_fewer_steps():
    """Rounded to two digits the best step of a plateau is often the last one."""
    for n, kind, seed in ((200, "plateau", 0), (240, "plateau", 1), (600, "overfitting", 2), (400, "learning", 3), (7900, "learning", 4)):
        for validated in (False, True):
            lines = [
                line | {"step": k} for k, line in zip(np.linspace(1, n, 200).astype(int), made_up(kind, seed, validated), strict=False)
            ]
            for meant in (None, lines[-1]["step"], 3 * n):
                found = judge(lines, {"train.steps": meant}, saved=range(n // 10, n + 1, n // 10))
                assert not re.search(r"\b([\d.]+) -> \1\b", found.advice), found
    seldom = [{"step": 1000 * n, "loss": 0.1 - n / 1000} for n in range(1, 21)]
    assert "written more often than every 1000 steps" in judge(seldom, {"train.steps": 20_000}).advice
    noise = [line | {"step": 9 * line["step"]} for line in falling(1000, 0, 3)]
    assert judge(noise, {"train.steps": 9000}).advice == "judge by the samples"
    assert "go on to the 12000" in judge(noise, {"train.steps": 12_000}).advice
    assert judge([], {}).verdict == "too_short"
