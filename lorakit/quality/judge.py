"""The verdict on a training: what its curve says, which step was best, what else was seen, and what to change next time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from lorakit.quality.curve import Finding, best_step, judge_curve
from lorakit.quality.values import is_number

LEAK = 0.5  # share of the trigger's own effect that the class word alone has, from which it is a leak
OWN_RATE = ("prodigy", "dadapt", "schedulefree.Prodigy")  # optimizers that find the rate themselves
LITTLE_GAIN = 8000  # steps past which little is gained
FASTER, SLOWER = 2.0, 1 / 3  # what a rate that is too low, or too high, is changed by
NUMBERS = {"train.learning_rate", "train.steps", "train.rank", "train.warmup_steps", "train.preservation"}  # of the settings
HARDLY = 0.03  # of its steps, up to which another number of them is no advice
SELDOM = 10  # steps for each whose loss was written, from which a file of few lines is not of a short training
LOOKS = 100  # at each photo, as trainings usually take
NONE_HELD_OUT = 8  # photos, of fewer than which none is held out
SHORT_LEAP = 3  # steps, up to which photos of all of them may have made it
AGAIN = 3  # times that a photo is seen, from which leaps at its steps are laid to it
FAR_MORE = 4  # times as often as elsewhere
LONG_LEAP = 0.05  # of the training, from which more than a batch of photos may have made it
NAMED = 4  # photos of a spike, or that never fit
# Times the median photo's loss at the training's end, from which a photo is named. Of the recorded runs' pictures of noise end at 3.2 to 3.5, good photos
# at 1.77 at most, and at 2.5 where a training that was far too long has learned the others by heart.
NEVER_FIT = 1.8
MOST_OF_IT = 0.8  # share of what the LoRA gains at its best strength from which a strength is enough
TELLING = 0.01  # share of the base's loss that the LoRA must gain for its strengths to tell anything
START = 0.7  # where nothing can be told
LEAST_STRENGTH = 0.5  # below which no LoRA is meant to be used
SEEN = 0.2  # share of the subject, as pictures are scored, from which it is in them
AS_GOOD = 0.05  # of which checkpoints may fall short of the best and count as good; the earliest of them has learned the least by heart
BURNT = 0.05  # share of the pixels without detail, beyond the base's, from which pictures are burnt


@dataclass(frozen=True)
class Judgement:
    """`verdict` is the weightiest finding's. `best_by` and `strength_by` say what told them: "pictures" (of a grid, seen by open_clip),
    "validation", "loss". `leak`, `drift`: see `train.validation`; `memorised`: samples are nearer to a training photo than the base's are;
    `strength`: see `strength_range`. None where it was not measured."""

    verdict: str
    since_step: int | None
    best_step: int | None
    memorised: bool | None
    leak: float | None
    strength: tuple[float, float] | None
    advice: str
    findings: list[Finding]
    drift: float | None = None
    best_by: str | None = None
    strength_by: str | None = None

    def as_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)


def judge(
    metrics: Sequence[dict[str, Any]], settings: Mapping[str, Any], saved: Sequence[int] = (), result: Any = None, chosen: int | None = None
) -> Judgement:
    """The verdict on the lines of metrics.jsonl under flat `settings` ('train.learning_rate': 1e-4, ...); `saved` are the steps whose
    checkpoints are kept, of which the best is named; `result` is what run.json has of the training's end ("memorised", "strengths", "fit", or "not_a_number", the step that stopped it) and of
    its grids ("pictures": {step: see train/picture_scores.py}). The strength is that of the file, of step `chosen`, or the last."""
    metrics = sorted(metrics, key=lambda entry: entry["step"])
    settings = {key: value for key, value in settings.items() if key not in NUMBERS or is_number(value)}  # of whatever lay beside them
    memorised, strengths, pictures, broke = ((result or {}).get(key) for key in ("memorised", "strengths", "pictures", "not_a_number"))
    findings = judge_curve(metrics)
    if broke is not None and broke > max((entry["step"] for entry in metrics), default=0):
        findings = [Finding("diverging", broke, f"the loss or its gradient is no longer a number from step {broke} on")]
    first = findings[0]
    lines = _before(metrics, findings)
    best = by_curve = None if first.verdict in ("flat", "by_heart", "too_short") else best_step(lines, saved)
    best_by = None if best is None else "validation" if any(is_number(entry.get("validation")) for entry in lines) else "loss"
    if seen := best_by_pictures(pictures or {}, saved):
        best, best_by = seen, "pictures"
    leak, drift = (_last(metrics, key) for key in ("leak", "drift"))
    if (seen_leak := leak_by_pictures(_scores_of(pictures, chosen))) is not None:
        leak = seen_leak
    is_too_fast = any(f.verdict in ("diverging", "erratic") and not _only_there(metrics, _shown(f, metrics)) for f in findings)
    advised = [f for f in findings if not (is_too_fast and f.verdict in ("flat", "too_short"))]  # which would ask for the contrary
    words = [_advise(finding, metrics, settings, best) for finding in advised]
    if best and best_by == "pictures" and by_curve and best != by_curve and first.verdict == "overfitting":
        words[0] = _pictures_against_curve(pictures or {}, best, by_curve)
    if memorised:
        words.append(
            "the samples come close to single training photos: take an earlier checkpoint, more or more varied photos, or a lower train.rank"
            f" (now {settings.get('train.rank', 'not known')})"
        )
    if leak is not None and leak > LEAK:
        words.append(
            f"the class word alone brings {100 * leak:.0f} % of what the trigger brings: try train.preservation "
            f"{settings.get('train.preservation', 0)} -> {1 if not settings.get('train.preservation') else 2 * settings['train.preservation']}"
        )
    if odd := never_fit(result or {}):
        named = ", ".join(name for name, _ in odd[:NAMED])
        words.append(f"{named} never fit ({odd[0][1]:.1f} times the loss of the others): look whether they belong there")
    advice = "; ".join(dict.fromkeys(word for word in words if word))
    strength, strength_by = told_strength(strengths, pictures, chosen)
    return Judgement(first.verdict, first.since_step, best, memorised, leak, strength, advice, findings, drift, best_by, strength_by)


def never_fit(result: Mapping[str, Any]) -> list[tuple[str, float]]:
    """[(photo, its loss over the median photo's)], the worst first, of photos that were not learned by the training's end."""
    ratios = [(name, ratio) for name, ratio in (result.get("fit") or {}).items() if is_number(ratio) and ratio >= NEVER_FIT]
    return sorted(ratios, key=lambda found: (-found[1], found[0]))


def strength_range(strengths: Mapping[str, float]) -> tuple[float, float] | None:
    """(least, most) strength to use, of the validation at each {"0": .., "0.2": .., "1": ..}: from where the LoRA gives most of what it
    gives at its best, up to that best. None where the LoRA changes too little of the loss to tell, or is best where it hardly shows: then
    it has learned its photos by heart, and the loss says nothing about pictures."""
    points = sorted((float(strength), loss) for strength, loss in strengths.items())
    if len(points) < 3 or points[0][0] != 0:
        return None
    base, (best_at, best) = points[0][1], min(points, key=lambda point: point[1])
    if base - best < TELLING * base or best_at < LEAST_STRENGTH:
        return None
    wanted = base - MOST_OF_IT * (base - best)
    for (low, before), (high, after) in pairwise(points):
        if after <= wanted:
            least = high - (high - low) * (wanted - after) / (before - after) if before > after else high
            return round(20 * least) / 20, round(20 * best_at) / 20
    return None


def told_strength(
    strengths: Mapping[str, float] | None, pictures: Mapping[str, Any] | None, step: int | None = None
) -> tuple[tuple[float, float] | None, str | None]:
    """((least, most), what told it): by the pictures of checkpoint `step` (None: the last that was drawn), else by the validation."""
    if found := strength_by_pictures(_scores_of(pictures, step)):
        return found, "pictures"
    found = strength_range(strengths or {})
    return found, "validation" if found else None


def leak_by_pictures(scores: Mapping[str, Any]) -> float | None:
    """What of the subject the class word alone brings, as a share of what the trigger brings, at the highest strength that was drawn; None
    where nobody has looked, or the subject is not there."""
    if not scores.get("subject") or not scores.get("leak"):
        return None
    _, subject, leak = max(zip(scores["strengths"], scores["subject"], scores["leak"], strict=True))
    return max(0.0, round(leak / subject, 3)) if subject >= SEEN else None


def _scores_of(pictures: Mapping[str, Any] | None, step: int | None) -> Mapping[str, Any]:
    """Those of checkpoint `step`; with None of the last that was drawn."""
    drawn = pictures or {}
    return drawn.get(str(max(map(int, drawn), default=0)) if step is None else str(step)) or {}


def strength_by_pictures(scores: Mapping[str, Any]) -> tuple[float, float] | None:
    """(least, most) strength to use, of the pictures of a grid: from where most of the subject is there, up to the highest at which there
    is about as much as ever and the pictures are not burnt. None where nobody has seen the subject in them."""
    good = _good_cells(scores)
    best = max((subject for _, subject in good), default=0.0)
    if best < SEEN:
        return None
    wanted, (low, before) = MOST_OF_IT * best, good[0]
    most = max(strength for strength, subject in good if subject >= best - AS_GOOD)
    for high, after in good:
        if after >= wanted:
            least = high - (high - low) * (after - wanted) / (after - before) if after > before else high
            return round(20 * least) / 20, most
        low, before = high, after
    return None


def best_by_pictures(pictures: Mapping[str, Any], saved: Sequence[int]) -> int | None:
    """Of checkpoints that are kept and whose pictures were scored, at least two, the earliest that shows the subject about as well as any."""
    shown = {int(step): max((subject for _, subject in _good_cells(scores)), default=0.0) for step, scores in pictures.items()}
    shown = {step: subject for step, subject in shown.items() if not saved or step in saved}
    best = max(shown.values(), default=0.0)
    if len(shown) < 2 or best < SEEN:
        return None
    return min(step for step, subject in shown.items() if subject >= best - AS_GOOD)


def _good_cells(scores: Mapping[str, Any]) -> list[tuple[float, float]]:
    """[(strength, subject)], rising, of those that are not burnt; [] where the subject was not looked for."""
    if not scores.get("subject"):
        return []
    cells = sorted(zip(scores["strengths"], scores["subject"], scores["burnt"], strict=True))
    return [(float(strength), min(1.0, float(subject))) for strength, subject, burnt in cells if burnt <= BURNT]  # 1 is as like as a photo


def _pictures_against_curve(pictures: Mapping[str, Any], best: int, by_curve: int) -> str:
    """What to do where the held-out photos fit worse and the pictures are better."""
    ours, theirs = ([subject for _, subject in _good_cells(pictures.get(str(step)) or {})] for step in (best, by_curve))
    there = f"{100 * max(ours):.0f} %" + (f" against {100 * max(theirs):.0f} % at step {by_curve}" if theirs else "")
    return (
        f"take the checkpoint of step {best}: its pictures show more of the subject ({there}), which counts more than how held-out photos fit; "
        "if they grow stiff or alike, take an earlier one, or more photos"
    )


def start_strength(strengths: Mapping[str, float] | None, pictures: Mapping[str, Any] | None = None, step: int | None = None) -> float:
    """The strength to begin with: the middle of the range, START where there is none."""
    found, _ = told_strength(strengths, pictures, step)
    return round(10 * sum(found) / 2) / 10 if found else START


def _last(metrics: Sequence[dict[str, Any]], key: str) -> float | None:
    """The newest of the values under `key`, which most lines lack."""
    return next((float(entry[key]) for entry in reversed(metrics) if is_number(entry.get(key))), None)


def _before(metrics: Sequence[dict[str, Any]], findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """The lines before the training burst, without the steps that a spike distorts. The loss of a step is that of the weights which the
    step before has left, so where it leaps the checkpoint before has leapt already."""
    odd = {step for finding in findings for step in finding.steps}
    burst = next((f.since_step for f in findings if f.verdict in ("diverging", "no_loss") and f.since_step is not None), None)
    if burst is not None:
        return [entry for entry in metrics if entry["step"] not in odd and entry["step"] < burst - 1]
    return [entry for entry in metrics if entry["step"] not in odd] or list(metrics)


def _advise(finding: Finding, metrics: Sequence[dict[str, Any]], settings: Mapping[str, Any], best: int | None) -> str:
    steps = _last_step(metrics)
    if finding.verdict == "no_loss":
        earlier = f"take the checkpoint of step {best}; " if best else ""
        return f"{earlier}look at what the loss is made of: masks, weights of photos, half precision; or at what is written in its place"
    if finding.verdict == "flat":
        return f"the rate is too low, or there is nothing to learn: {_rate(metrics, settings, FASTER)}"
    if finding.verdict in ("diverging", "erratic"):
        earlier = f"take the checkpoint of step {best}; " if best and finding.verdict == "diverging" and best > 1 else ""
        if only := _only_there(metrics, _shown(finding, metrics)):
            return f"{earlier}look at {_names(only)}: nearly all of these steps are theirs, so it is not the rate"
        return f"{earlier}the rate is too high: {_rate(metrics, settings, SLOWER)}"
    if finding.verdict == "overfitting":
        least = min(steps, max(round(1.1 * max(finding.since_step or 0, best or 0)) or steps, steps // 4))
        earlier = f"the checkpoint of step {best}, the best by that," if best else "an earlier checkpoint"
        named = f"take {earlier} if its samples hold against the last one's"
        fewer = _fewer(settings, steps, least)
        return f"{named}; {fewer}, a lower rate, or more photos" if fewer else f"{named}; a lower rate, or more photos"
    if finding.verdict == "plateau":
        # a loss that is level early says little about pictures
        enough = min(steps, max(round(1.3 * (finding.since_step or steps)), steps // 3, best or 0))
        fewer = _fewer(settings, steps, enough)
        then = f"{fewer} may do" if fewer else "more steps would gain little"
        return f"by the loss little is gained behind step {finding.since_step}: look at the samples from there on; {then}"
    if finding.verdict == "by_heart":
        if settings.get("train.hold_out") is False or 0 < len(_seen(metrics)) < NONE_HELD_OUT:  # the validation is of its own photos
            who, look = "the same photos at other noise gain", "hold the samples against the base's"
        else:
            who, look = "those held out gain", "hold the samples against the base's, see that the photos held out show the same subject"
        return (
            f"it learns the photos it sees, and {who} nothing: another rate will not mend that; {look}, and add photos, or more varied ones"
        )
    if finding.verdict == "spike":
        began = _beginnings(finding.steps)
        if only := _only_there(metrics, finding.steps):
            return f"look at {_names(only)}: nearly all of these steps are theirs"
        which = "these steps" if began == list(finding.steps) else f"the steps with which it began ({', '.join(map(str, began[:NAMED]))})"
        noted = _photos(metrics, began)
        what = f"at the photos of {which}: {noted}" if noted else f"at what was trained on in {which}"
        changed = ", or for what else changed there (a rate, a size, a training that went on)"
        return f"look {what}{changed if len(finding.steps) > LONG_LEAP * len(metrics) else ''}"
    if finding.verdict == "learning":
        return _go_on(metrics, settings, best)
    if steps >= SELDOM * len(metrics) > 0:  # of a training that may have been long
        return f"judge by the samples, or have the loss written more often than every {_rounded(steps / len(metrics))} steps"
    longer = _longer(settings, steps, min(LITTLE_GAIN, max(200, 4 * steps)))
    return f"judge by the samples, or train longer: {longer}" if longer else "judge by the samples"


def _last_step(metrics: Sequence[dict[str, Any]]) -> int:
    """How many steps it has had, whether each was written or one in ten."""
    return metrics[-1]["step"] if metrics else 0


def _beginnings(steps: Sequence[int]) -> list[int]:
    """The steps of short leaps; of one that lasts those it began with, and the one before, whose change of the weights showed in the next:
    what came later only fell into it."""
    leaps: list[list[int]] = []
    for step in steps:
        if leaps and step - leaps[-1][-1] <= 3:
            leaps[-1].append(step)
        else:
            leaps.append([step])
    return [step for leap in leaps for step in (leap if len(leap) <= SHORT_LEAP else (leap[0] - 1, leap[0]))]


def _seen(metrics: Sequence[dict[str, Any]]) -> Counter[str]:
    """How often each photo was trained on."""
    return Counter(name for entry in metrics for name in entry.get("photos") or ())


def _go_on(metrics: Sequence[dict[str, Any]], settings: Mapping[str, Any], best: int | None) -> str:
    """Longer, where the last third still falls; else nothing needs to be changed."""
    last = judge_curve(metrics[2 * len(metrics) // 3 :])[0]
    seen = _seen(metrics)
    looks = sum(seen.values()) / max(1, len(seen))
    if 0 < len(seen) < NONE_HELD_OUT and looks >= LOOKS:
        return (
            f"it still falls, but these are its own {len(seen)} photos, of which it has seen each {looks:.0f} times ({LOOKS} are usual): "
            "hold the last samples against earlier ones, and add photos"
        )
    steps = _last_step(metrics)
    if last.verdict != "learning" or steps >= LITTLE_GAIN:
        is_last = best is None or best >= 0.95 * steps
        return "the last checkpoint is the one to take" if is_last else f"the checkpoint of step {best} is the one to take"
    longer = _longer(settings, steps, min(LITTLE_GAIN, round(1.5 * steps)))
    return f"it still falls at the end: {longer} may gain more" if longer else "the last checkpoint is the one to take"


def _rate(metrics: Sequence[dict[str, Any]], settings: Mapping[str, Any], factor: float) -> str:
    """'train.learning_rate 0.0001 -> 0.0002', from what it was."""
    optimizer = str(settings.get("train.optimizer", ""))
    if any(optimizer.startswith(name) for name in OWN_RATE):
        warmup = settings.get("train.warmup_steps", 0)
        if factor > 1:
            rank = int(settings.get("train.rank", 16))
            return f"{optimizer} finds its own rate; try train.rank {rank} -> {2 * rank}"
        return f"{optimizer} finds its own rate; try train.warmup_steps {warmup} -> {max(100, 2 * warmup)}, or adamw at 1e-4"
    now = settings.get("train.learning_rate") or max((entry.get("rate", 0.0) for entry in metrics), default=0.0)
    return f"train.learning_rate {now:g} -> {float(f'{now * factor:.1g}'):g}" if now else "another train.learning_rate"


def _fewer(settings: Mapping[str, Any], now: int, enough: int) -> str:
    """'train.steps 400 -> 260', from what was meant; '' where that is hardly a change."""
    meant, told = settings.get("train.steps") or now, _rounded(enough)
    return f"train.steps {meant} -> {told}" if told < (1 - HARDLY) * meant else ""


def _longer(settings: Mapping[str, Any], now: int, wanted: int) -> str:
    """'train.steps 400 -> 600', or to go on with what was stopped, or is still at work; '' where that is hardly a change."""
    meant, told = settings.get("train.steps") or now, _rounded(wanted)
    if meant > (1 + HARDLY) * now and told <= meant:
        return f"go on to the {meant} of train.steps"
    return f"train.steps {meant} -> {told}" if told > (1 + HARDLY) * max(meant, now) else ""


def _rounded(steps: float) -> int:
    """To two digits."""
    whole = round(steps)
    digits = 10 ** max(0, len(str(whole)) - 2)
    return max(1, round(whole / digits) * digits)


def _photos(metrics: Sequence[dict[str, Any]], steps: Sequence[int]) -> str:
    there = Counter(name for entry in metrics if entry["step"] in set(steps) for name in entry.get("photos") or ())
    return _names([name for name, _ in there.most_common()])


def _names(photos: Sequence[str]) -> str:
    return ", ".join(photos[:NAMED]) + (f" and {len(photos) - NAMED} more" if len(photos) > NAMED else "")


def _shown(finding: Finding, metrics: Sequence[dict[str, Any]]) -> tuple[int, ...]:
    """The steps that a finding is of: those it names, or of a burst all that came."""
    if finding.verdict == "diverging" and finding.since_step is not None:
        return tuple(entry["step"] for entry in metrics if entry["step"] >= finding.since_step)
    return finding.steps


def _only_there(metrics: Sequence[dict[str, Any]], steps: Sequence[int]) -> list[str]:
    """Photos that are trained on at `steps` far more often than elsewhere, the most frequent first, where nearly all of these steps have
    one, and the others have photos that come again too; [] where the steps are as good as any."""
    odd, there, elsewhere, its = set(steps), Counter[str](), Counter[str](), list[list[str]]()
    for entry in metrics:
        names = entry.get("photos") or []
        (there if entry["step"] in odd else elsewhere).update(names)
        if entry["step"] in odd:
            its.append(names)
    others = len(metrics) - len(its)
    only = [name for name, times in there.most_common() if times >= AGAIN and times * others >= FAR_MORE * elsewhere[name] * len(its)]
    explained = sum(1 for names in its if set(only) & set(names))
    again = sum(elsewhere.values()) >= AGAIN * len(elsewhere) > 0
    return only if only and again and explained >= 0.9 * len(its) else []
