"""Sudden changes of a loss: where they begin and end, whether they stay, and what is none."""

import math
import re

import numpy as np
import pytest

from lorakit.quality.curve import judge_curve
from lorakit.quality.judge import judge
from lorakit.quality.leaps import find_leaps


def scattered(n, sigma, seed, fall=0.4):
    """Logarithms of a loss [n] that falls a little."""
    return -fall * np.arange(n) / n + sigma * np.random.default_rng([seed, n]).normal(size=n)


def waves(n, spread, seed, slow=0.93):
    chance, found = np.random.default_rng([seed, n, 7]), np.zeros(n)
    for k in range(1, n):
        found[k] = slow * found[k - 1] + math.sqrt(1 - slow**2) * chance.normal()
    return spread * found


def lines_of(logs, every=1):
    return [{"step": every * (k + 1), "loss": 0.1 * math.exp(log), "photos": [f"{k % 16}.jpg"]} for k, log in enumerate(logs)]


@pytest.mark.parametrize(("n", "every"), [(200, 1), (1000, 1), (3000, 1), (100, 10)])
def test_a_collapse_is_dated_by_the_step_it_came_at(n, every):
    """One in the last 40 of 1,000 steps was said to have begun at step 438."""
    for seed, at, sigma in ((0, 0.5, 0.15), (1, 0.7, 0.35), (2, 0.9, 0.35), (3, 0.96 if n > 300 else 0.85, 0.2)):
        logs, first = scattered(n, sigma, seed), int(at * n)
        logs[first:] += math.log(6)
        found = judge(lines_of(logs, every), {"train.learning_rate": 1e-4}, saved=range(every * n // 10, every * n + 1, every * n // 10))
        assert found.verdict == "diverging" and abs(found.since_step / every - first - 1) <= 2 + 0.002 * n, (seed, found.findings)
        times = re.search(r"leaps up at step \d+ and stays there, ([\d.]+) times as high", found.findings[0].words)
        assert 4.2 < float(times[1]) < 7.8 and len(found.findings) == 1, found.findings
        assert every * 0.3 * n <= found.best_step <= found.since_step and "rate is too high" in found.advice


def test_a_collapse_that_goes_on_wildly_is_one_and_so_is_one_behind_the_last_validation():
    for n, sigma, at in ((400, 0.15, 0.6), (1000, 0.3, 0.6), (2000, 0.15, 0.85)):
        logs, first = scattered(n, sigma, 1), int(at * n)
        logs[first:] += 1.8 + waves(n - first, 0.4, 1)
        found = judge_curve(lines_of(logs))
        assert [f.verdict for f in found] == ["diverging"] and abs(found[0].since_step - first) < 0.05 * n, (n, found)
    lines = lines_of(scattered(1000, 0.3, 2))
    for line in lines[:940:47]:
        line["validation"] = 0.1 - line["step"] / 1e5
    for line in lines[950:]:
        line["loss"] *= 8
    found = judge_curve(lines)[0]
    assert found.verdict == "diverging" and abs(found.since_step - 951) <= 2 and "while the validation falls" in found.words


def test_a_rise_that_comes_slowly_is_dated_by_where_it_begins():
    for seed, n, at in ((0, 300, 0.5), (1, 1000, 0.75), (2, 1000, 0.5), (3, 3000, 0.9)):
        logs, t = scattered(n, 0.2, seed, fall=0.2), np.arange(n) / n
        found = judge_curve(lines_of(logs + 2 * np.maximum(0, t - at) / (1 - at)))[0]
        assert found.verdict == "diverging" and at - 0.05 < found.since_step / n < at + 0.08, (seed, found)
        assert f"rises from step {found.since_step}" in found.words


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3, 0.5])
def test_a_level_that_comes_and_goes_is_no_wander(share):
    """Four times the loss over 300 of 1,000 steps was called erratic, and the rate too high."""
    for seed, n, sigma in ((0, 200, 0.15), (1, 1000, 0.35), (2, 3000, 0.35), (3, 400, 0.25)):
        logs, first = scattered(n, sigma, seed), int((0.15 + 0.05 * seed) * n)
        last = first + int(share * n)
        logs[first:last] += math.log(4)
        found = judge(lines_of(logs), {})
        told = re.search(r"leaps to ([\d.]+) times its usual size from step (\d+) to (\d+) and comes back", found.findings[0].words)
        assert found.verdict == "spike" and told and "erratic" not in [f.verdict for f in found.findings], (seed, found.findings)
        assert 3.2 < float(told[1]) < 5.2 and abs(int(told[2]) - first - 1) <= 3 and abs(int(told[3]) - last) <= 3, told
        assert "rate is too high" not in found.advice and "what else changed there" in found.advice


def test_what_comes_in_a_few_steps_goes_slowly_or_falls_is_told_for_what_it_is():
    for n in (400, 1000):
        ramps, slowly, dip, drop, high = (scattered(n, 0.2, seed) for seed in range(5))
        ramps[int(0.3 * n) : int(0.6 * n)] += 1.5 * np.minimum(1, np.linspace(0, 10, int(0.6 * n) - int(0.3 * n)))
        slowly[n // 2 :] += 1.2 * np.exp(-np.arange(n - n // 2) / (0.06 * n))
        dip[int(0.4 * n) : int(0.6 * n)] -= 1.4
        for logs in (ramps, slowly, dip):
            found = judge_curve(lines_of(logs))
            assert [f.verdict for f in found] == ["spike", "learning"] and "comes back" in found[0].words, found
        drop[n // 2 :] -= 1.3
        high[: n // 5] += 1.4
        for logs in (drop, high):
            found = judge_curve(lines_of(logs))
            assert len(found) == 1 and found[0].verdict in ("learning", "plateau"), found


def test_waves_and_steep_falls_have_no_levels():
    for seed in range(4):
        assert not find_leaps(scattered(600, 0.3, seed, fall=0)).jumps and not len(find_leaps(scattered(600, 0.3, seed)).odd)
        steep = scattered(600, 0.25, seed) + 1.5 * np.exp(-np.arange(600) / 40)
        assert judge_curve(lines_of(steep))[0].verdict in ("learning", "plateau")
        found = judge_curve(lines_of(waves(1500, 0.6, seed) + 0.2 * np.random.default_rng(seed).normal(size=1500)))
        assert "erratic" in [f.verdict for f in found] and "diverging" not in [f.verdict for f in found], found
    assert find_leaps(np.zeros(30)).odd.size == 0 and find_leaps(np.arange(31.0)).jumps == ()


def test_leaps_of_two_steps_are_seen():
    logs = scattered(200, 0.35, 0)
    for first in (40, 100, 160):
        logs[first : first + 2] += 3.15
    found = judge_curve(lines_of(logs))[0]
    assert found.verdict == "spike" and found.steps == (41, 42, 101, 102, 161, 162) and "3 times, first at step 41" in found.words


def test_leaps_and_levels_of_a_few_photos_are_laid_to_those_and_not_to_the_rate():
    """One picture of noise leaps each time it comes: "the rate is too high" was what it got."""
    for n, sigma in ((400, 0.15), (1000, 0.3)):
        one, level, burst = (lines_of(scattered(n, sigma, seed)) for seed in range(3))
        order = np.concatenate([np.random.default_rng(k).permutation(16) for k in range(n // 16 + 1)])
        for line, photo in zip(one, order, strict=False):
            line["photos"] = [f"{photo}.jpg"]
            line["loss"] *= 12 if photo == 5 else 1
        for lines, first, last in ((level, int(0.4 * n), int(0.65 * n)), (burst, int(0.6 * n), n)):
            for line in lines[first:last]:
                line["photos"] = [f"bad{line['step'] % 6}.jpg"]
                line["loss"] *= 4
        for lines, verdict, named in ((one, "erratic", "look at 5.jpg: nearly"), (level, "spike", "bad"), (burst, "diverging", "bad")):
            found = judge(lines, {"train.learning_rate": 1e-4}, saved=range(n // 10, n + 1, n // 10))
            assert found.verdict == verdict and "nearly all of these steps are theirs" in found.advice, found
            assert named in found.advice and "too high" not in found.advice and "too low" not in found.advice, found.advice
        assert "and 2 more" in judge(level, {}).advice
        unnoted = judge([{"step": line["step"], "loss": line["loss"]} for line in level], {}).advice
        assert (
            unnoted.startswith("look at what was trained on in the steps with which it began (") and "or for what else changed" in unnoted
        )
        mixed = lines_of(scattered(n, sigma, 3))
        for k in np.random.default_rng(1).permutation(n - 8)[: n // 10]:
            mixed[k]["loss"] *= 14
        assert "rate is too high" in judge(mixed, {}).advice


def test_leaps_beyond_what_floats_can_divide_are_told():
    lines = lines_of(scattered(200, 0.2, 0))
    for line in lines:
        line["loss"] *= 1e-299
    for line in lines[50:53]:
        line["loss"] = 1e99
    assert judge(lines, {}).verdict == "spike" and "e+" in judge(lines, {}).findings[0].words
    for line in lines[50:]:
        line["loss"] = 1e99
    assert judge(lines, {}).verdict == "diverging"


def test_scatter_of_two_kinds_or_that_grows_and_a_high_beginning_are_no_levels():
    """Photos of two sizes, timesteps of two sizes of loss, a batch that grows: medians leap where means do not."""
    for seed in range(3):
        for n in (300, 1000):
            chance, t = np.random.default_rng([seed, n]), np.arange(n) / n
            sizes = 1.1 * (chance.random(n) < 0.5) + 0.2 * chance.normal(size=n)
            grows, shrinks = (0.1 + 0.5 * t) * chance.normal(size=n), (0.6 - 0.5 * t) * chance.normal(size=n)
            timesteps = np.log(0.02 + 0.6 * np.exp(-8 * chance.random(n))) + 0.2 * chance.normal(size=n)
            for logs in (sizes, grows, shrinks, timesteps):
                found = judge_curve(lines_of(logs))
                assert len(found) == 1 and found[0].verdict in ("flat", "too_short", "plateau"), (seed, n, found)
            high = 0.2 * chance.normal(size=n) - 0.6 * t
            high[:5] += 1.6
            assert [f.verdict for f in judge_curve(lines_of(high))] in (["learning"], ["plateau"])
