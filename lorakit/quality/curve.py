"""What the course of a loss says: learning, at a plateau, flat, overfitting, by heart, diverging, erratic, with a spike, too short to tell, or
that there is none.

The loss of one step says little: it jumps with the timestep that was drawn, by half its size and more. So everything here is held
against the scatter of the curve itself, in logarithms, where the jumps are as wide at the end as at the start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np

from lorakit.quality.leaps import LASTING, LEVEL, Leaps, find_leaps, find_spikes, groups, many
from lorakit.quality.values import is_number

VERDICTS = ("no_loss", "diverging", "spike", "erratic", "overfitting", "by_heart", "plateau", "flat", "learning", "too_short")

LEAST_STEPS = 30  # steps of training, or ...
LEAST_VALIDATIONS = 5  # ... values of validation, of which a course can be told
BLOCKS = 40  # means that a course is fitted to
CERTAIN = 3.2  # standard errors from which a change is one; the best of many bends is looked for, so more than the usual two
SMALL = 0.02  # a fall below this, in logarithms, is none to speak of
RISE = 0.06  # and a rise below this
VISIBLE = 0.5  # a fall by 40 % that would go unseen in the scatter: too short to tell
WANDER = 0.08  # standard deviation of block means about the course, in logarithms, from which it is a wander
ALARM = 1.3  # times as certain must be what says that a level loss has broken down
EXPLODED = 0.3  # above its start, in logarithms: no overfitting any more
ALIKE = 4.0  # times the expected squares of differences of means, from which neighbours know of each other
UNEVEN = 1.6  # times the square of its scatter in a fifth of the training, from which that is another
ALREADY = 0.25  # share of a rise that was there before it leapt, from which it is no leap
BEGUN = 0.05  # share of a rise that is over where it is said to begin
DECAYS = (0.02, 0.04, 0.08, 0.15, 0.3)  # shares of the training, of falls that level off
SETTLED = 0.9  # share of the fall that is over by the middle of a training that is at a plateau


@dataclass(frozen=True)
class Finding:
    """One thing seen in a curve. `steps` are those that show it, where it is single ones."""

    verdict: str  # of VERDICTS
    since_step: int | None
    words: str
    steps: tuple[int, ...] = ()


@dataclass(frozen=True)
class Course:
    """A loss by step, freed of its scatter: a simple shape through the logarithms of its block means."""

    steps: np.ndarray  # [n] float
    level: np.ndarray  # [n] logarithms, as fitted
    sigma: float  # scatter of one value about it, in logarithms
    wander: float  # scatter of the block means beyond what sigma explains, in logarithms
    covariance: np.ndarray = field(repr=False)  # of the coefficients
    basis: np.ndarray = field(repr=False)  # [n, coefficients]
    dated: np.ndarray = field(repr=False)  # [n] as level, with its bends where they fit best
    cost: float  # of that, by Schwarz's criterion
    sudden: tuple[tuple[int, float], ...] = ()  # (step, height in logarithms) of levels that came to stay

    def change(self, first: int, last: int) -> tuple[float, float]:
        """From value `first` to `last` of the course: the change in logarithms, and its standard error."""
        difference = self.basis[last] - self.basis[first]
        return float(self.level[last] - self.level[first]), float(np.sqrt(max(0.0, difference @ self.covariance @ difference)))

    def least_seen(self) -> float:
        """The smallest fall over all of it that its scatter would let through, in logarithms: what a straight line's would have to be,
        where the shape that was chosen is a level, which cannot change."""
        line = self.sigma * math.sqrt(12 / len(self.level))
        return CERTAIN * max(self.change(0, len(self.level) - 1)[1], line)

    def falls(self, first: int, last: int) -> bool:
        change, error = self.change(first, last)
        return -change > max(SMALL, CERTAIN * error)

    def rises(self, first: int, last: int, certain: float = CERTAIN) -> bool:
        change, error = self.change(first, last)
        return change > max(RISE, certain * error)

    def moves(self) -> bool:
        lowest = int(np.argmin(self.level))
        return self.falls(0, lowest) or self.rises(lowest, len(self.level) - 1)


def judge_curve(metrics: Sequence[dict[str, Any]]) -> list[Finding]:
    """What there is to say of a training, the weightiest first; never empty. `metrics` are the lines of metrics.jsonl: `step` and
    `loss`, and `validation` on the steps where it was measured, which is believed before the loss."""
    metrics = sorted(metrics, key=lambda entry: entry["step"])
    every = [entry for entry in metrics if isinstance(entry.get("loss"), int | float)]
    # others write a line for a validation alone, which has no loss
    written = [entry for entry in every if math.isfinite(entry["loss"]) or not is_number(entry.get("validation"))]
    if broken := _broken(every, written):
        return [broken]
    lost = [entry["step"] for entry in written if not math.isfinite(entry["loss"])]
    written = [entry for entry in written if math.isfinite(entry["loss"])]
    if nothing := _nothing(written):
        return [nothing]
    entries = [entry for entry in written if entry["loss"] > 0]
    below = len(written) - len(entries)
    left_out = f"; {below} {'loss' if below == 1 else 'losses'} of 0 or less left out" if below else ""
    validated = _validated(metrics)
    if len(entries) < LEAST_STEPS:
        of = "steps" if not entries or entries[-1]["step"] < 2 * len(entries) else "values of the loss"
        return [Finding("too_short", None, f"{len(entries)} {of}, of which no course can be told{left_out}")]
    steps, logs = _series(entries, "loss")
    leaps = find_leaps(logs)
    trained = _without(steps, logs, leaps)
    burst = _burst(steps, logs, leaps) if trained.sudden else None
    much = WANDER
    if trained.wander > WANDER and burst is None:
        single = Leaps(find_spikes(logs))
        wandering = _without(steps, logs, single)
        if trained.wander > wandering.wander / 4:  # levels that come and go are a part of it
            leaps, trained = single, wandering
        else:
            much = trained.wander
    found = [*_lost(lost, len(lost) + len(written)), *_sudden(steps, logs, leaps.odd, trained)]
    said = burst or _of_course(trained, "the loss")
    if len(validated) >= LEAST_VALIDATIONS:
        said = _of_both(fit_course(*_series(validated, "validation")), trained, said)
    if said.verdict != "diverging" and (jumped := _leapt_at_start(steps, logs, leaps.odd, trained)) is not None:
        said = jumped
    if said.verdict != "diverging" and not any(f.verdict == "erratic" for f in found) and trained.wander > much:
        wide = f"by {100 * (math.exp(trained.wander) - 1):.0f} %" if trained.wander < math.log(3) else f"to {_times(trained.wander)} times"
        found.append(Finding("erratic", None, f"the loss wanders {wide} up and down, more than the chance of its steps explains"))
    if said.verdict == "diverging" and said.since_step is not None:  # leaps of what has burst say no more
        found = [finding for finding in found if not finding.steps or finding.steps[0] < said.since_step]
    said = replace(said, words=said.words + left_out)
    return sorted([*found, said], key=lambda finding: VERDICTS.index(finding.verdict))


def _broken(every: Sequence[dict[str, Any]], written: Sequence[dict[str, Any]]) -> Finding | None:
    """Where the loss is no number any more: by lines that are `written` of a step, among `every` line."""
    if not written or math.isfinite(written[-1]["loss"]):
        return None
    step = every[_for_good(np.array([not math.isfinite(entry["loss"]) for entry in every]))]["step"]
    return Finding("diverging", step, f"the loss is no longer a number from step {step}")


def _nothing(written: Sequence[dict[str, Any]]) -> Finding | None:
    """Where there is no loss, or none any more."""
    losses = np.array([entry["loss"] for entry in written], dtype=float)
    if not len(losses) or losses[-1] > 0:
        return None
    if not losses.any():
        return Finding(
            "no_loss", None, f"the loss is 0 at all {len(losses)} steps: nothing was learned from, or it is not what stands there"
        )
    if losses.max() <= 0:
        return Finding("no_loss", None, f"none of {len(losses)} losses is above 0, as those of a diffusion training all are")
    since = _for_good(losses <= 0)
    if len(losses) - since < LASTING:
        return None
    step = written[since]["step"]
    return Finding("no_loss", step, f"the loss is 0 or less from step {step} on: nothing is learned from there")


def _for_good(bad: np.ndarray) -> int:
    """The place from which on values are bad, of which the last one is, with less than half of good ones between."""
    share = np.cumsum(bad[::-1])[::-1] / np.arange(len(bad), 0, -1)  # of those from each place on
    return int(np.nonzero(bad & (share > 0.5))[0][0])


def _lost(lost: Sequence[int], count: int) -> list[Finding]:
    """Steps whose loss is no number between others whose is, as half precision has them."""
    if not lost:
        return []
    if len(lost) > many(count):
        return [
            Finding("erratic", lost[0], f"the loss is no number at {len(lost)} of {count} steps, all through the training", tuple(lost))
        ]
    where = f"at step {lost[0]}" if len(lost) == 1 else f"at {len(lost)} steps, first at {lost[0]}"
    return [Finding("spike", lost[0], f"the loss is no number {where}, and is one again", tuple(lost))]


def _burst(steps: np.ndarray, logs: np.ndarray, leaps: Leaps) -> Finding | None:
    """That it leapt up for good, of a loss that did not wander or rise before, however much it did afterwards."""
    before = np.setdiff1d(np.arange(leaps.burst or 0), leaps.odd)
    if leaps.burst is None or len(before) < LEAST_STEPS:
        return None
    calm, later = fit_course(steps[before], logs[before]), float(np.median(logs[leaps.burst :]))
    if calm.wander > WANDER or calm.level[-1] - calm.level.min() > ALREADY * (later - calm.level.min()):
        return None
    return _leapt_up(int(steps[leaps.burst]), later - float(calm.level[-1]))


def _leapt_up(step: int, height: float) -> Finding:
    return Finding("diverging", step, f"the loss leaps up at step {step} and stays there, {_times(height)} times as high")


def _times(height: float) -> str:
    """A change in logarithms as people say it: "4.1", "2e+09"."""
    times = math.exp(min(height, 700))  # beyond which floats end
    return f"{times:.1f}" if times < 1000 else f"{times:.0e}"


def _without(steps: np.ndarray, logs: np.ndarray, leaps: Leaps) -> Course:
    plain = np.setdiff1d(np.arange(len(logs)), leaps.odd)
    places = {int(np.searchsorted(plain, jump)) for jump in leaps.jumps} - {0, len(plain)}
    return fit_course(steps[plain], logs[plain], tuple(sorted(places)))


def _validated(metrics: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for entry in metrics if is_number(entry.get("validation")) and entry["validation"] > 0]


def best_step(metrics: Sequence[dict[str, Any]], saved: Sequence[int] = ()) -> int | None:
    """The step at which the validation, or where there is none the course of the loss, is lowest: of `saved`, where given, the nearest
    by value. None where no course can be told."""
    validated = _validated(metrics)
    by = "validation" if len(validated) >= 2 else "loss"
    entries = validated if by == "validation" else [e for e in metrics if is_number(e.get("loss")) and e["loss"] > 0]
    if by == "loss" and len(entries) < LEAST_STEPS:
        return None
    steps, logs = _series(entries, by)
    there = [step for step in saved if step <= steps[-1]]
    if len(saved) and not there:
        return None
    alike = 0.0
    if by == "validation":
        level = np.convolve(np.pad(logs, 1, mode="edge"), (0.25, 0.5, 0.25), mode="valid")
        alike = _scatter_about_lines(logs) if len(logs) >= LEAST_VALIDATIONS else 0.0
    else:
        level = fit_course(steps, logs).level
    candidates = np.array(sorted(there), dtype=float) if there else steps
    values = np.interp(candidates, steps, level)
    return int(candidates[values <= values.min() + alike][-1])  # of those that cannot be told apart the last, which has seen most


def fit_course(steps: np.ndarray, logs: np.ndarray, jumps: tuple[int, ...] = ()) -> Course:
    """The simplest shape through `logs` [n] that explains them (by Schwarz's criterion), with another level from each place of `jumps` on.
    Bends make its ends uncertain; where it is not certain with them to fall or rise, and is without them, it is the shape without them."""
    course = _fitted(steps, logs, jumps, jumps, is_bent=True)
    if jumps and (smooth := _fitted(steps, logs, jumps, (), is_bent=True)).cost < course.cost:
        course, jumps = smooth, ()
    if not course.moves() and (plain := _fitted(steps, logs, jumps, jumps, is_bent=False)).moves():
        return plain
    return course


def _fitted(steps: np.ndarray, logs: np.ndarray, parted: tuple[int, ...], jumps: tuple[int, ...], is_bent: bool) -> Course:
    """By means of parts none of which reaches over a place of `parted`."""
    count = min(BLOCKS, len(logs) // 5) if len(logs) >= 2 * LEAST_STEPS else len(logs) // 3 if len(logs) >= LEAST_STEPS else len(logs)
    cuts = np.cumsum([len(part) for part in np.array_split(logs, max(count, min(len(logs), 5)))])[:-1]
    parts = np.split(np.arange(len(logs)), np.union1d(cuts, np.array(parted, dtype=int)))
    at = np.array([steps[part].mean() for part in parts])
    means = np.array([logs[part].mean() for part in parts])
    sizes = np.array([len(part) for part in parts], dtype=float)
    sigma = _scatter(logs, parted) if len(logs) >= LEAST_STEPS else _scatter_about_lines(logs)
    span = max(1.0, steps[-1] - steps[0])
    x = (at - steps[0]) / span
    alike = _longer_than_a_step(logs, sigma)
    weight = np.sqrt(sizes / alike) / sigma
    leaps = tuple(float((steps[jump] - steps[0]) / span) for jump in jumps)

    def fit(shape: Shape) -> tuple[float, Shape, np.ndarray, np.ndarray, float]:
        basis = shape(x)
        solution = np.linalg.lstsq(basis * weight[:, None], means * weight, rcond=None)[0]
        misfit = float((((means - basis @ solution) * weight) ** 2).sum())
        return misfit + (basis.shape[1] + shape.chosen) * math.log(len(x)), shape, basis, solution, misfit

    best = fit(Shape(is_level=True, leaps=leaps))
    for shape in _shapes(x, leaps, is_bent):
        if (found := fit(shape))[0] < best[0] - 1e-9:
            best = found
    moved = best  # to date a rise by, while what there is rests on the few bends that were looked for
    for place in range(len(best[1].bends)):
        moved = min([moved, *map(fit, _moved(moved[1], place, x))], key=lambda found: found[0])
    _, shape, basis, solution, misfit = best
    free = max(1, len(x) - basis.shape[1] - shape.chosen)
    covariance = np.linalg.pinv((basis * weight[:, None]).T @ (basis * weight[:, None])) * max(1.0, misfit / free, _uneven(logs, sigma))
    beyond = float(((means - basis @ solution) ** 2).sum()) / free - sigma**2 * float((1 / sizes).mean())
    wander = math.sqrt(max(0.0, beyond)) if alike * misfit / free > 3 else 0.0
    x = (steps - steps[0]) / span
    everywhere = shape(x)
    heights = solution[len(solution) - len(jumps) :]
    sudden = tuple((int(steps[jump]), float(height)) for jump, height in zip(jumps, heights, strict=True))
    return Course(
        steps, everywhere @ solution, sigma * math.sqrt(alike), wander, covariance, everywhere, moved[1](x) @ moved[3], moved[0], sudden
    )


def _series(entries: Sequence[dict[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    return np.array([e["step"] for e in entries], dtype=float), np.log(np.array([e[key] for e in entries], dtype=float))


@dataclass(frozen=True)
class Shape:
    """What a course is put together of, over x from 0 to 1: a level, a straight line or a fall that levels off, bends, and leaps."""

    decay: float | None = None  # share of the training in which a fall is down to a third
    bends: tuple[float, ...] = ()
    is_level: bool = False
    leaps: tuple[float, ...] = ()

    @property
    def chosen(self) -> int:
        """Numbers that were picked from several beside the coefficients."""
        return len(self.bends) + (self.decay is not None) + len(self.leaps)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """[n, coefficients]"""
        columns = [np.ones_like(x)]
        if not self.is_level:
            columns.append(x if self.decay is None else np.exp(-x / self.decay))
        columns += [np.maximum(0.0, x - bend) for bend in self.bends]
        return np.stack([*columns, *((x >= leap).astype(float) for leap in self.leaps)], axis=1)


def _shapes(x: np.ndarray, leaps: tuple[float, ...], is_bent: bool) -> list[Shape]:
    inner = x[1:-1] if is_bent else x[:0]
    bends = np.unique(inner[np.unique(np.round(np.linspace(0, len(inner) - 1, 10)).astype(int))]) if len(inner) else inner
    shapes = [Shape()]
    if len(x) >= 4:
        decays = [decay for decay in DECAYS if decay > x[1] - x[0]]
        shapes += [Shape(decay) for decay in decays] + [Shape(bends=(bend,)) for bend in bends]
    if len(x) >= 6 and is_bent:
        shapes += [Shape(decay, (bend,)) for decay in decays for bend in bends if bend > decay]
        shapes += [Shape(bends=pair) for pair in combinations(bends, 2)]
    return [replace(shape, leaps=leaps) for shape in shapes]


def _moved(shape: Shape, place: int, x: np.ndarray) -> list[Shape]:
    """With the bend at `place` anywhere between those beside it."""
    low, high = (0.0, *shape.bends[:place])[-1], (*shape.bends[place + 1 :], x[-1])[0]
    between = [bend for bend in x[1:-1] if max(low, shape.decay or 0.0) < bend < high]
    return [replace(shape, bends=(*shape.bends[:place], bend, *shape.bends[place + 1 :])) for bend in between]


def _scatter(logs: np.ndarray, jumps: tuple[int, ...] = ()) -> float:
    """Of one value about the course, from how neighbours differ, which no slow course changes."""
    differences = np.delete(np.diff(logs), [jump - 1 for jump in jumps])
    return max(1e-4, float(np.sqrt(np.mean(differences**2) / 2)))


def _longer_than_a_step(logs: np.ndarray, sigma: float) -> float:
    """By how much squared errors of means are larger than of steps that know nothing of each other: 1, or more where neighbours are alike
    as in a log of running means, of which `sigma`, by neighbours, sees nothing. By means of equal parts, freed of slow courses."""
    most = 1.0
    for count in (BLOCKS, BLOCKS // 2, BLOCKS // 4):
        size = len(logs) // count
        if size < 5 or (count < BLOCKS // 2 and most < ALIKE):  # of so few parts chance may say so
            continue
        means = logs[: count * size].reshape(count, size).mean(1)
        bent = (means[:-2] - 2 * means[1:-1] + means[2:]) ** 2
        squares = size * float(np.median(bent)) / 6 / 0.4549 / sigma**2
        if count == BLOCKS and squares < ALIKE / 2:
            break
        most = max(most, squares)
    return most if most > ALIKE else 1.0


def _uneven(logs: np.ndarray, sigma: float) -> float:
    """By how much the square of a scatter that grows or shrinks is larger where it is largest than `sigma` says of all: 1 where it is even."""
    if len(logs) < 5 * LEAST_STEPS:
        return 1.0
    most = max(_scatter(part) for part in np.array_split(logs, 5)) ** 2 / sigma**2
    return most if most > UNEVEN else 1.0


def _scatter_about_lines(logs: np.ndarray) -> float:
    """Of a few measured values: how far each stands from the line between its neighbours. A held-out set that is small has an error of
    its own, so never less than half a percent."""
    return max(0.005, float(np.sqrt(np.median((logs[:-2] - 2 * logs[1:-1] + logs[2:]) ** 2) / 6 / 0.4549)))


def _sudden(steps: np.ndarray, logs: np.ndarray, odd: np.ndarray, trained: Course) -> list[Finding]:
    """Spikes: a few in one place are bad data, many everywhere an erratic training."""
    if not len(odd):
        return []
    leaps = groups(odd)
    wheres = tuple(int(step) for step in steps[odd])
    if len(leaps) > many(len(logs)):
        words = f"the loss leaps up {len(leaps)} times, all through the training"
        return [Finding("erratic", wheres[0], words, wheres)]
    heights = [logs[leap] - np.interp(steps[leap], trained.steps, trained.level) for leap in leaps]
    height = max((float(np.median(height) if len(height) > 2 else height.max()) for height in heights), key=abs)
    once = f"at step {wheres[0]}" if len(odd) == 1 else f"from step {wheres[0]} to {wheres[-1]}"
    count = once if len(leaps) == 1 else f"{len(leaps)} times, first at step {wheres[0]}"
    what = f"the loss {'leaps' if height > 0 else 'drops'} to {_times(height)} times its usual size {count}"
    return [
        Finding("spike", wheres[0], f"{what}, where the training ends" if odd[-1] == len(logs) - 1 else f"{what} and comes back", wheres)
    ]


def _leapt_at_start(steps: np.ndarray, logs: np.ndarray, odd: np.ndarray, trained: Course) -> Finding | None:
    """A rate far too high is seen in the first steps: the loss leaps within a few of them and stays up."""
    steps, logs = np.delete(steps, odd), np.delete(logs, odd)
    first, later = logs[: max(3, len(logs) // 60)], logs[len(logs) // 10 :]
    rise = float(np.median(later) - np.median(first))
    scatter = max(trained.sigma, 1.4826 * float(np.median(np.abs(later - np.median(later)))))
    error = math.hypot(scatter * math.sqrt(1.6 / len(first)), trained.wander)  # all of the first steps may lie on one side of a wave
    if rise < max(math.log(1.5), 3 * error):
        return None
    since = int(steps[int(np.argmax(logs > np.median(later) - 0.1))])
    return Finding("diverging", since, f"the loss is {_times(rise)} times that of the first steps from step {since} on")


def _of_course(course: Course, name: str) -> Finding:
    lowest, last = int(np.argmin(course.level)), len(course.level) - 1
    fell, rose = course.falls(0, lowest), course.rises(lowest, last)
    down, rise = 100 * (1 - math.exp(course.change(0, lowest)[0])), course.change(lowest, last)[0]
    much = f"by {100 * (math.exp(rise) - 1):.0f} %" if rise < math.log(3) else f"to {_times(rise)} times"
    at = int(course.steps[lowest])
    if rose and (leapt := [step for step, height in course.sudden if height > LEVEL and step > at]):
        is_up = course.steps >= leapt[0]
        before = float(course.level[~is_up][-1])
        if before - course.level[lowest] < ALREADY * (course.level[last] - course.level[lowest]):  # else it had begun to rise before
            return _leapt_up(leapt[0], float(course.level[is_up].mean()) - before)
    if rose and not fell and not course.rises(lowest, last, ALARM * CERTAIN):
        rose = False
    if rose and (not fell or course.change(0, last)[0] > EXPLODED):
        begun = _begun(course.dated)
        since = int(course.steps[begun])
        start = "from the start" if begun <= last // 10 else f"from step {since}"
        return Finding("diverging", since, f"{name} rises {start}, {much}")
    if rose:
        at = int(course.steps[int(np.argmin(course.dated))])
        return Finding("overfitting", at, f"{name} fell by {down:.0f} % until about step {at} and rose again {much}")
    if fell:
        fall, middle = course.level[lowest] - course.level[0], last // 2
        if course.level[middle] <= course.level[0] + SETTLED * fall:
            since = int(course.steps[int(np.argmax(course.level <= course.level[0] + SETTLED * fall))])
            return Finding("plateau", since, f"{name} fell by {down:.0f} % and is level since about step {since}")
        return Finding("learning", None, f"{name} falls, by {down:.0f} % over the training")
    if course.least_seen() > VISIBLE:
        return Finding("too_short", None, f"{name} jumps too much for its {len(course.level)} values: no course can be told")
    unseen = 100 * (1 - math.exp(-course.least_seen()))
    return Finding("flat", None, f"{name} is flat within its scatter, in which a fall by {max(1, unseen):.0f} % would be seen")


def _begun(level: np.ndarray) -> int:
    """The place where what is highest at its end begins to rise."""
    lowest = int(np.argmin(level))
    high = level[lowest] + max(SMALL, BEGUN * (level[-1] - level[lowest]))
    return max(lowest, lowest + int(np.argmax(level[lowest:] > high)) - 1)


def _of_both(validation: Course, loss: Course, alone: Finding) -> Finding:
    """Of a validation beside the loss, of which `alone` is said."""
    said = _of_course(validation, "the validation")
    if said.verdict == "too_short":  # it jumps more than the training does
        return alone
    if alone.verdict == "diverging" and (said.verdict == "diverging" or loss.sudden):  # it has more values to tell when
        return replace(alone, words=f"{alone.words}, {'and' if said.verdict == 'diverging' else 'while'} {said.words}")
    if said.verdict == "diverging" and alone.verdict in ("learning", "plateau"):
        return Finding("overfitting", said.since_step, f"{said.words}, while {alone.words}")
    if said.verdict == "flat" and alone.verdict not in ("flat", "too_short"):
        return _beside_level(said, alone, validation, loss)
    return said


def _beside_level(said: Finding, alone: Finding, validation: Course, loss: Course) -> Finding:
    """What to say of a validation that is level (`said`) under a loss that is not (`alone`): where the validation would have shown such a
    fall, the photos that are trained on are learned by heart; where it would not, the loss is all there is to go by."""
    fall, error = loss.change(0, int(np.argmin(loss.level)))
    at_most = max(0.0, -validation.change(0, len(validation.level) - 1)[0]) + validation.least_seen()
    verdict = "by_heart" if alone.verdict in ("learning", "plateau") and -fall - CERTAIN * error > at_most else alone.verdict
    return Finding(verdict, alone.since_step, f"{alone.words}, while {said.words}")
