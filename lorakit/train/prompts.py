"""The prompts that samples are drawn from: the user's, or such as show what was learned and what leaks."""

from __future__ import annotations

from lorakit.project import Project
from lorakit.text.placing import place_trigger, without_word


def sample_prompts(project: Project) -> list[str]:
    """The user's prompts; or a plain one with the trigger, two captions of the set, and the plain one without the
    trigger, which shows how much the LoRA leaks into other prompts."""
    settings, trigger = project.settings.sample, project.settings.trigger
    if settings.prompts:
        return list(settings.prompts)
    style = project.settings.caption.style
    thing = trigger.class_word or ("a house by a lake" if trigger.teaches == "style" else "subject")
    plain = thing if style == "tags" else f"a photo of a {thing}"
    with_trigger = place_trigger(plain, trigger.word, trigger.class_word, style, trigger.teaches)
    texts = [r["text"] for r in project.manifest.selected if r.get("dataset")]
    spread = [texts[0], texts[len(texts) // 2]] if len(texts) > 1 else texts
    without = without_word(with_trigger, trigger.word) if trigger.word else None
    prompts = [p for p in (with_trigger, *spread, without) if p]
    return list(dict.fromkeys(prompts))[: settings.count]
