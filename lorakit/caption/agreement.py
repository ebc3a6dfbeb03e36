"""How well each text fits its photo: the cosine of open_clip's image and text vectors. Optional, since its weights are
not part of lorakit: `--set caption.clip=FOLDER` names a folder with open_clip_config.json and the weights, else those of `embed.clip` are used."""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image

from lorakit import device
from lorakit.clip import Clip
from lorakit.console import track
from lorakit.errors import UnreadablePhoto
from lorakit.images import load_crop_to_read
from lorakit.manifest import Record
from lorakit.project import Project
from lorakit.wording import without_word


def measure(project: Project, records: list[Record]) -> list[Record]:
    """The records with `trigger.agreement`, -1..1, where `caption.clip` names weights; the same records where not."""
    given = project.settings.caption.clip or project.settings.embed.clip
    if not given:
        return records
    clip = Clip(given, "caption.clip", device.choose(project.device))
    seen: list[int] = []
    pictures = list(clip.see(_pictures(track(records, "agreement", len(records)), seen)))
    if not pictures:
        return records
    # open_clip knows no zwx
    texts = [without_word(records[i]["text"], project.trigger) if project.trigger else records[i]["text"] for i in seen]
    measured = list(records)
    for i, picture, said in zip(seen, pictures, clip.say(texts), strict=True):
        trigger = {**records[i]["trigger"], "agreement": round(float(picture @ said), 3)}
        measured[i] = {**records[i], "trigger": trigger}
    return measured


def _pictures(records, seen: list[int]) -> Iterator[Image.Image]:
    """The crops that can be read; `seen` gets their positions."""
    for i, record in enumerate(records):
        try:
            picture = load_crop_to_read(record)
        except UnreadablePhoto:
            continue
        seen.append(i)
        yield picture
