"""The prompts that samples are drawn from: the user's, or such as show what was learned and what leaks; and how large."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from lorakit.bases import families
from lorakit.console import say
from lorakit.project import Project
from lorakit.text import prompts
from lorakit.text.placing import place_trigger, without_word
from lorakit.text.prompts import Prompt
from lorakit.text.quality_tags import with_quality


def sample_prompts(project: Project) -> list[Prompt]:
    """The user's prompts; or a plain one with the trigger, two captions of the set, and the plain one without the
    trigger, which shows how much the LoRA leaks into other prompts."""
    settings, trigger = project.settings.sample, project.settings.trigger
    if settings.prompts:
        return prompts.read(settings.prompts, project.folder, trigger.word, families.load(project.card.family).PIXEL_STEP)
    wanted, style = project.settings.caption, project.settings.caption.style
    thing = trigger.class_word or ("a house by a lake" if trigger.teaches == "style" else "subject")
    plain = thing if style == "tags" else f"a photo of a {thing}"
    with_trigger = place_trigger(plain, trigger.word, trigger.class_word, style, trigger.teaches)
    texts = [r["text"] for r in project.manifest.selected if r.get("dataset")]
    spread = [texts[0], texts[len(texts) // 2]] if len(texts) > 1 else texts
    without = without_word(with_trigger, trigger.word) if trigger.word else None
    first, last = (with_quality(text, wanted.lead_tags, wanted.quality_tags, style) if text else None for text in (with_trigger, without))
    made = dict.fromkeys(text for text in (first, *spread, last) if text)
    return [Prompt(text) for text in made][: settings.count]


def prompt_of_other(project: Project) -> str:
    """A prompt for something that no set of photos is about, and that has no trigger."""
    wanted = project.settings.caption
    other = "house, lake, trees" if wanted.style == "tags" else "a photo of a house by a lake"
    return with_quality(other, wanted.lead_tags, wanted.quality_tags, wanted.style)


def texts_of(wanted: Iterable[Prompt]) -> list[str]:
    """Every text whose embeddings it takes to draw these prompts."""
    return ["", *(text for prompt in wanted for text in (prompt.text, prompt.negative) if text)]


def usual_size(project: Project) -> tuple[int, int]:
    """(width, height) that most photos of the set are trained at; of two that are as common, the one nearer to a square."""
    sizes = Counter(tuple(r["crop"]["bucket"]) for r in project.manifest.selected if r.get("dataset") and r.get("crop"))
    if not sizes:
        return (project.settings.train.resolution,) * 2
    return max(sizes, key=lambda size: (sizes[size], -max(size) / min(size), size))


def check_prompts(project: Project) -> None:
    """Before anything starts: can the prompts be read? Raises `LorakitError` with the line of the first that cannot."""
    cls = families.load(project.card.family)
    given = prompts.read(project.settings.sample.prompts, project.folder, project.trigger, cls.PIXEL_STEP)
    if any(prompt.negative for prompt in given) and not cls.TAKES_NEGATIVE:
        say(f"sample    {project.card.title} is drawn without negative prompts; what stands after --n is left aside")
