"""The first screen of the report, in plain words: did it learn, which file, which checkpoint, which strength, how to prompt it, what to
do next time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorakit.project import Project, stamps
from lorakit.project.runs import Run
from lorakit.quality.judge import LEAK, Judgement, start_strength
from lorakit.text import trigger_word

OFFLINE = "imagenet"  # the captioner whose weights come with lorakit
HEADLINES = {
    "learning": ("It learned.", "good"),
    "plateau": ("It learned.", "good"),
    "overfitting": ("It learned, and then by heart.", "look"),
    "by_heart": ("The loss fell, and the validation did not.", "look"),
    "erratic": ("It trained, but unsteadily.", "look"),
    "spike": ("It trained, with a sudden jump.", "look"),
    "flat": ("It shows no sign of learning.", "bad"),
    "diverging": ("The training broke down.", "bad"),
    "no_loss": ("There is no loss to judge it by.", "bad"),
    "too_short": ("Too short to tell.", "look"),
}


@dataclass(frozen=True)
class Answer:
    """`code` is to be copied as it stands, `more` says what it rests on, `points` are several things to do."""

    question: str
    words: str
    more: str = ""
    code: str = ""
    points: tuple[str, ...] = ()


@dataclass(frozen=True)
class FirstScreen:
    headline: str
    tone: str  # good, look, bad
    because: str
    answers: list[Answer]


def first_screen(project: Project, run: Run | None, photos: dict[str, Any], training: dict[str, Any]) -> FirstScreen:
    """What a reader wants to know before anything else."""
    judgement = training["judgement"]
    if run is None:
        return _before_training(project, photos)
    if judgement is None:  # nothing has been trained of it yet, or its metrics are lost
        answers = [_file(run, training), _prompt(project, run, training["result"])] if training["result"]["lora"] else []
        return FirstScreen("No course to judge.", "look", "There are no metrics of this training.", answers)
    headline, tone = HEADLINES[judgement.verdict]
    if judgement.verdict == "overfitting" and judgement.best_by == "pictures" and judgement.best_step == max(run.saved_steps, default=None):
        headline = "It learned; the pictures are best at the end."
    if tone == "good" and (judgement.memorised or (judgement.leak or 0) > LEAK):
        tone = "look"
    return FirstScreen(headline, tone, _because(judgement, training), [
        _file(run, training), _checkpoint(project, run, judgement), _strength(project, judgement, training), _prompt(project, run, training["result"]),
        _next_time(judgement), *_captions(project),
    ])  # fmt: skip


def _before_training(project: Project, photos: dict[str, Any]) -> FirstScreen:
    total, chosen = photos["total"], photos["chosen_count"]
    return FirstScreen(
        f"{chosen} of {total} photos are chosen." if chosen else f"{total} photos, none chosen yet.",
        "good" if chosen else "look",
        "Nothing is trained yet with these settings.",
        [
            Answer("What next?", "Look through the chosen and the rejected photos below; a word of yours wins over every check.",
                   code=f"lorakit review {project.folder.name} FILE --keep"),
            Answer("And then?", "Train it.", code=f"lorakit train {project.folder.name}"),
            *_captions(project),
        ],
    )  # fmt: skip


def _captions(project: Project) -> list[Answer]:
    """A word on captions that were written by the one that comes along, for want of a better."""
    read = [r["caption"] for r in project.manifest.selected if r.get("caption") and r.get("human", {}).get("text") is None]
    coarse = sum(caption.get("by") == OFFLINE for caption in read)
    if not coarse:
        return []
    of = f"All {coarse}" if coarse == len(read) else f"{coarse} of {len(read)}"
    return [
        Answer(
            "Are the captions good enough?",
            f"{of} texts are by the captioner that comes with lorakit: it names 1000 things, no people and no actions, and is silent on most "
            "photos. Real captions want a real captioner.",
            "On a card with 12 GB; lorakit captioners lists the others: blip and florence2 run on a CPU, server asks Ollama or a hosted model.",
            f"lorakit caption {project.folder.name} --captioner qwen3_vl",
        )
    ]


def _because(judgement: Judgement, training: dict[str, Any]) -> str:
    found = ". ".join(_sentence(finding.words).rstrip(".") for finding in judgement.findings) + "."
    if training["held_out"]:
        found += f" Judged by {len(training['held_out'])} photos that it was never trained on."
    elif training["is_validated"]:
        found += " Judged by its own photos at noise that it was not trained on, since none were held out."
    elif judgement.verdict != "no_loss":
        found += " Judged by the loss on its own photos, since none were held out: the pictures say more."
    if judgement.memorised:
        found += " Its samples come close to single training photos."
    if judgement.leak is not None and judgement.leak > LEAK:
        found += f" The class word alone brings {100 * judgement.leak:.0f} % of what the trigger brings."
    return found


def _file(run: Run, training: dict[str, Any]) -> Answer:
    result = training["result"]
    if not result["lora"] or run.lora is None:
        return Answer("Which file?", "None is written yet.", code="")
    whole = [tool for tool, loaded, total in training["checks"] if loaded == total]
    more = f"{training['lora_size']}, {result['modules']} layers, read back and equal to what was trained"
    if whole:
        more += f"; loaded whole by {_listed(whole)}"
    return Answer("Which file?", "", more + ".", str(result["lora"]))


def _checkpoint(project: Project, run: Run, judgement: Judgement) -> Answer:
    steps, picked = run.saved_steps, stamps.pick(project)
    chosen = stamps.exported_step(project)
    last = steps[-1] if steps else None
    step = chosen or last
    if step is None:
        return Answer("Which checkpoint?", "The last; the others are gone.")
    words = f"Step {step}, " + ("picked by hand" if picked else "the last" if step == last else "as export.checkpoint says") + "."
    best = judgement.best_step
    by = "the pictures of the grids" if judgement.best_by == "pictures" else "the curve"
    if best and best != step:
        more = f"By {by}, step {best} is better: look at both in the timeline."
        if judgement.best_by == "pictures":
            more = (
                f"By {by}, step {best} shows the subject as well or better; of checkpoints as good, the earlier has learned less by heart."
            )
        return Answer("Which checkpoint?", words, more, f"lorakit pick {project.folder.name} --step {best}")
    return Answer(
        "Which checkpoint?",
        words,
        f"{by[0].upper()}{by[1:]} say{'' if by.endswith('s') else 's'} so too; {len(steps)} are kept."
        if best
        else f"{len(steps)} are kept.",
    )


def strength_of(project: Project, result: dict[str, Any]) -> float:
    """The strength to begin with: the one that a person picked, that the pictures or the validation speak for, or the usual one."""
    picked = (stamps.pick(project) or {}).get("strength")
    if picked is not None:
        return float(picked)
    return start_strength(result.get("strengths"), result.get("pictures"), stamps.exported_step(project))


def _strength(project: Project, judgement: Judgement, training: dict[str, Any]) -> Answer:
    strength = strength_of(project, training["result"])
    if (stamps.pick(project) or {}).get("strength") is not None:
        return Answer("Which strength?", f"{strength:g}, picked by hand.")
    if judgement.strength:
        least, most = judgement.strength
        words = f"{least:g} to {most:g}; begin at {strength:g}."
        more = {
            "pictures": "By the pictures of the grid, as open_clip sees them: from where most of the subject is there, and as far as they are not burnt.",
            "validation": "By the validation: from where it gives most of what it gives, up to its best.",
        }[judgement.strength_by or "validation"]
    else:
        words = f"Begin at {strength:g}."
        more = "The usual start, not measured for this file: towards 0.4 where it takes over, towards 1 where it is too faint."
    if training["grids"]:
        return Answer("Which strength?", words, more + " The grid below shows how it grows.")
    return Answer("Which strength?", words, more, f"lorakit grid {project.folder.name}")


def prompt_text(prompt: str, name: str, strength: float) -> str:
    """'zwx mug <lora:zwx_object_sd15:0.7>': as A1111, Forge and those after them read it."""
    return f"{prompt} <lora:{name}:{strength:g}>"


def _prompt(project: Project, run: Run, result: dict[str, Any]) -> Answer:
    trigger = project.settings.trigger
    phrase = trigger_word.phrase(trigger.word, trigger.class_word, trigger.teaches)
    name = Path(str(result["lora"])).stem if result["lora"] else ""
    words = f"Write “{phrase}” into it." if phrase else "As any: there is no trigger word, it acts on every prompt."
    if not name:
        return Answer("How to prompt it?", words)
    text = prompt_text(phrase or (result.get("prompts") or ["a photo"])[0], name, strength_of(project, result))
    beside = run.folder / f"{name}.comfyui.json"
    more = f"For A1111 and Forge; ComfyUI opens {beside.name}, which lies beside the file." if beside.is_file() else "For A1111 and Forge."
    return Answer("How to prompt it?", words, more, text)


def _next_time(judgement: Judgement) -> Answer:
    points = tuple(_sentence(point.replace(" -> ", " → ")) for point in judgement.advice.split("; ") if point)
    return Answer("What next time?", points[0]) if len(points) == 1 else Answer("What next time?", "", points=points)


def _sentence(words: str) -> str:
    """With a capital, but for names of settings."""
    first = words[:1] if "." in words.partition(" ")[0] else words[:1].upper()
    return f"{first}{words[1:].rstrip('.')}." if words else ""


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
